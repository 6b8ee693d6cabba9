//! Calls to servers that these tests start: well-behaved ones, and others.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod breaker;
mod calls;
mod dns;
mod egress;
mod faults;
mod guide;
mod haproxy;
mod hostile;
mod layering;
mod license;
mod mtls;
mod nginx;
mod oauth;
mod oauth_server;
mod observe;
mod oidc;
mod patience;
mod pki;
mod probe;
mod proxy;
mod resolve;
mod server;
mod source;
mod support;
mod swaps;
mod terminator;
