//! Tests of the transport in front of a test service, and of the binary on SQLite: nothing here needs PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
mod deadlines;
mod deploy;
mod drain;
mod endings;
mod health;
mod http2;
mod identity;
mod key_exchange;
mod key_usage;
mod limits;
mod log;
mod otlp;
mod pem;
mod pki;
mod process;
mod raw;
mod reload;
mod support;
mod telemetry;
mod unix;
