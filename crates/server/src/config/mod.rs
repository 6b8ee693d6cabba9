//! The configuration: defaults ← TOML file ← environment (`JACKFIELD__SECTION__KEY`) ← flags (`--set section.key=value`).
//!
//! `config.default.toml` beside this crate documents every key; a test ensures that it equals the code.

mod callback;
mod check;
mod database;
mod egress;
mod http_section;
mod license_api;
mod load;
mod refresh;
mod secret_url;
mod sections;
mod token_cache;
mod vault;

pub use callback::Callback;
pub use check::is_spiffe;
pub use database::{Database, DatabaseUrlError};
pub use egress::{Egress, Login};
pub use http_section::HttpSection;
pub use jackfield_transport::config::{
    Deadlines, Drain, Identity, Limits, Listen, LogFormat, PrincipalConfig, Size, Streams, Telemetry, Tls, TlsFiles,
};
pub use license_api::LicenseApi;
pub use load::{ConfigError, DEFAULT_FILE, Sources, variable};
pub use refresh::Refresh;
pub use secret_url::SecretUrl;
pub use sections::{Config, Mode, OPERATOR_SPIFFE};
pub use token_cache::TokenCache;
pub use vault::{Bootstrap, Reveal, Vault, VaultProvider};

/// The documented defaults.
pub const DEFAULTS: &str = include_str!("../../config.default.toml");

#[cfg(test)]
mod tests;
