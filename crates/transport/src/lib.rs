//! The transport: from the listening socket to a handler that is called with a known caller, and back.
//!
//! It knows nothing of the services behind it but what [`backend::Backend`] says. Its parts stand on each other in this
//! order, and none uses one above it: `config`, `call`, `tls`, `observe`, `standard`, `layers`, `net`, `server`.

pub mod backend;
pub mod call;
pub mod config;
mod drain;
mod layers;
mod net;
mod observe;
mod server;
mod standard;
pub mod tls;

pub use observe::{log_writer, metrics, telemetry};
pub use server::{BindError, Server};
pub use standard::health;
