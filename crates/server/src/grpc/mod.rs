//! The gRPC services: thin handlers that parse a request, call a use case and render its answer. No business rule is decided
//! here.

mod admin;
mod api;
mod configuration;
mod connection;
mod connector;
mod credentials;
mod fields;
mod key;
pub mod page_memory;
pub mod page_stream;
mod parse;
pub mod reason;
mod render;
mod update;
mod user_connector;

pub use api::Api;
/// The wire form of a connection, for the benchmark, whose baseline sends the same.
pub use connection::to_message as connection_message;
