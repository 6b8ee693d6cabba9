//! The services that every gRPC server has: health and reflection.

pub mod health;
pub(crate) mod reflection;
