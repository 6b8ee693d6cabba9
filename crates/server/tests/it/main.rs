//! Tests of the transport in front of a test service: nothing here needs a database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
mod deadlines;
mod deploy;
mod drain;
mod endings;
mod frame;
mod health;
mod http2;
mod identity;
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
