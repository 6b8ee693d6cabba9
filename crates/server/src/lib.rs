//! The Jackfield server: transport, handlers, configuration, commands. No business rule lives here.

pub mod cli;
pub mod config;
pub mod grpc;
pub mod startup;
pub mod transport;

pub use startup::OpenError;
pub use startup::open::{open, open_with_clock};
