//! Calls to servers that these tests start: well-behaved ones, and others.

mod calls;
mod egress;
mod faults;
mod hostile;
mod layering;
mod mtls;
mod pki;
mod proxy;
mod server;
mod support;
mod swaps;
