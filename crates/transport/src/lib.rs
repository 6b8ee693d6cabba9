//! The transport: from the listening socket to a handler that is called with a known caller, and back.
//!
//! It knows the services behind it only through [`backend::Backend`]. Its parts build on each other in this order, and none
//! uses a later one: `config`, `call`, `tls`, `standard`, `observe`, `layers`, `net`, `drain`, `backend`, `server`.

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

pub use observe::{log_writer, telemetry};
pub use server::{BindError, Server};
pub use standard::health;
