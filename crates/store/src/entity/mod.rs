//! One file per table: columns, and the tenant-scoped finder where a query begins there; no logic.

#![expect(unreachable_pub, reason = "the derive macro makes public items")]

pub(crate) mod audit_event;
pub(crate) mod configuration;
pub mod connection;
pub mod connector;
pub(crate) mod credential;
pub(crate) mod data_key;
pub(crate) mod idempotency;
pub(crate) mod key;
pub mod label;
pub(crate) mod rewrap;
pub mod secret;
pub(crate) mod tenant;
pub(crate) mod user_connector;
