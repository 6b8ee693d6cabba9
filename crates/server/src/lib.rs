//! The Jackfield server: transport, configuration, telemetry. No business rule lives here.

pub mod backend;
pub mod cli;
pub mod config;
pub mod descriptors;
mod drain;
mod gauges;
pub mod grpc;
pub mod hardening;
pub mod health;
pub mod identity;
pub mod layers;
mod log_format;
pub mod methods;
pub mod metrics;
pub mod open;
pub mod permissions;
pub mod pki;
pub mod place;
mod reflection;
mod server;
mod shares;
pub mod telemetry;
pub mod tls;
pub mod transport;

pub use open::{OpenError, open, open_with_clock};
pub use server::{Server, StartError};
