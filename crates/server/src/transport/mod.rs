//! The transport: from the listening socket to a handler that is called with a known caller, and back.
//!
//! It knows nothing of the services behind it but what [`backend::Backend`] says. Its parts stand on each other in this order, and
//! none uses one above it: `call`, `tls`, `observe`, `standard`, `layers`, `net`, `server`.

pub mod backend;
pub mod call;
mod drain;
pub mod layers;
pub mod net;
pub mod observe;
mod server;
pub mod standard;
pub mod tls;

pub use server::{Server, StartError};
