//! Common parts of requests: references, update masks, filters, orders and pages.

pub mod filter;
pub mod map_patch;
pub mod mask;
pub mod order;
pub mod page;
pub mod reference;
pub mod schema;
