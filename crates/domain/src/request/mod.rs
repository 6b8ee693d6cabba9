//! What the requests for all resources have in common: how they name a resource, which fields they change, what they list.

pub mod filter;
pub mod map_patch;
pub mod mask;
pub mod order;
pub mod page;
pub mod reference;
pub mod schema;
