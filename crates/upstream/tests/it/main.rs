//! Calls to servers that these tests start: well-behaved ones, and others.

mod calls;
mod egress;
mod faults;
mod mtls;
mod pki;
mod proxy;
mod server;
mod support;
mod swaps;
