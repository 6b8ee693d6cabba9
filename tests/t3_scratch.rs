//! Scratch.
#[path = "it/filter.rs"]
mod filter;
#[path = "it/isolation.rs"]
mod isolation;
#[path = "it/pagination.rs"]
mod pagination;
#[path = "it/plans.rs"]
mod plans;
