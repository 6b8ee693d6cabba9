//! The egress policy: which URLs and addresses may be called.
//!
//! A URL is checked when it is configured, for early and clear errors. That check alone is worth little: names resolve to
//! other addresses later. So the connector checks the addresses that it dials, every time.

mod address;
mod policy;
mod target;

pub use self::address::Rule;
pub use self::policy::{Allowance, Policy, PolicyError, Refusal};
pub use self::target::{Target, UrlFault};
