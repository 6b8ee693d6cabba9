//! The Jackfield server: handlers, the licence API, the callback listener, configuration, start-up, commands. No business rule lives here.

pub mod callback;
pub mod cli;
pub mod config;
pub mod grpc;
pub mod license_api;
pub mod startup;

pub use jackfield_service::PublicRoots;
#[cfg(feature = "planted-bugs")]
pub use jackfield_service::planted;
pub use startup::StartupError;
pub use startup::open::{Surroundings, open, open_in};
