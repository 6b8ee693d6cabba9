//! TLS towards other systems: who we are, whom we trust, and what a failed handshake means.

mod certificate;
mod client_auth;
mod config;
mod fault;
mod identity;
mod inspect;
mod names;
mod trust;

pub use self::certificate::certificate_facts;
pub(crate) use self::certificate::{has_ended, not_after};
pub use self::client_auth::ClientAuth;
pub(crate) use self::config::{Handshakes, server_name};
pub use self::fault::{ClientCertificateFault, ServerCertificateFault, TlsFault};
pub use self::identity::{Identity, IdentityError};
pub(crate) use self::identity::{IdentityParts, signing_key};
pub(crate) use self::inspect::{Inspection, inspecting_config};
pub use self::trust::{Trust, TrustError};
