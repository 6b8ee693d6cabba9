//! Calls to servers that these tests start: well-behaved ones, and others.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod egress;
mod faults;
mod guide;
mod hostile;
mod layering;
mod mtls;
mod pki;
mod proxy;
mod server;
mod support;
mod swaps;
