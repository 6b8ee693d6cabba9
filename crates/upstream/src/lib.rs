//! Calls to other systems. No other crate opens a connection to the outside.
//!
//! [`egress`] says which URLs and addresses may be called. [`resolve`] finds the addresses of names. [`tls`] has client
//! identities and authorities, and [`keys`] those that are in use. [`client`] makes calls for one definition, within limits.
//! [`clients`] has the clients that are in use. [`error`] says why a call failed. [`observe`] makes spans and metrics. `bounded` has
//! lists in responses, and `retry_after` the wait that one asks for. [`login`] has a system check a log-in, and [`license`] speaks to a licence server. [`oauth`] exchanges grants for
//! tokens, and [`oidc`] knows the users of OpenID Connect. [`source`] asks credential sources. [`probe`] finds out whether a system can be called. Modules use each other in this order: `egress`, `resolve`, `tls`, `keys`, `error`, `observe`, `client`,
//! `clients`, `bounded`, `retry_after`, `login`, `license`, `oauth`, `oidc`, `source` and `probe`.

mod bounded;
pub mod client;
pub mod clients;
pub mod egress;
pub mod error;
pub mod keys;
pub mod license;
pub mod login;
pub mod oauth;
pub mod observe;
pub mod oidc;
pub mod probe;
pub mod resolve;
mod retry_after;
pub mod source;
pub mod tls;
