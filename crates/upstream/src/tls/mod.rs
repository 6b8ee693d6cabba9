//! TLS towards other systems: who we are, whom we trust, and what a failed handshake means.

mod client_auth;
mod config;
mod fault;
mod identity;
mod trust;

pub use self::client_auth::ClientAuth;
pub(crate) use self::config::{client_config, server_name};
pub use self::fault::{ClientCertificateFault, ServerCertificateFault, TlsFault};
pub use self::identity::{Identity, IdentityError};
pub use self::trust::{Trust, TrustError};
