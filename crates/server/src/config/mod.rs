//! The configuration: defaults ← TOML file ← environment (`JACKFIELD__SECTION__KEY`) ← flags (`--set section.key=value`).
//!
//! `config.default.toml` beside this crate documents every key; a test keeps it equal to the code.

mod check;
mod database;
mod identity;
mod limits;
mod listen;
mod load;
mod telemetry;
mod token_cache;
mod values;
mod vault;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use check::is_spiffe;
pub use database::{Database, DatabaseUrlError};
pub use identity::{Identity, PrincipalConfig};
pub use limits::{Deadlines, Drain, Limits, Streams};
pub use listen::{Listen, Tls};
pub use load::{ConfigError, DEFAULT_FILE, Sources, variable};
pub use telemetry::{LogFormat, Telemetry};
pub use token_cache::TokenCache;
pub use values::{SecretUrl, Size};
pub use vault::{Bootstrap, Reveal, Vault, VaultProvider};

/// The documented defaults.
pub const DEFAULTS: &str = include_str!("../../config.default.toml");

/// The SPIFFE URI of the client certificate that development mode makes, and of the built-in principal `operator`.
pub const OPERATOR_SPIFFE: &str = "spiffe://jackfield.local/client/operator";

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What may be made when it is missing.
    pub mode: Mode,
    /// Directory of everything that the server keeps in files.
    pub data_dir: PathBuf,
    pub listen: Listen,
    pub tls: Tls,
    pub database: Database,
    pub limits: Limits,
    pub streams: Streams,
    pub deadlines: Deadlines,
    pub drain: Drain,
    pub vault: Vault,
    pub identity: Identity,
    pub reveal: Reveal,
    pub token_cache: TokenCache,
    pub bootstrap: Bootstrap,
    pub telemetry: Telemetry,
}

/// What the server may make itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Makes a keyring and certificates when there are none, and knows the principal `operator`.
    #[default]
    Development,
    /// Makes neither: refuses to start without them.
    Production,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mode: Mode::default(),
            data_dir: "data".into(),
            listen: Listen::default(),
            tls: Tls::default(),
            database: Database::default(),
            limits: Limits::default(),
            streams: Streams::default(),
            deadlines: Deadlines::default(),
            drain: Drain::default(),
            vault: Vault::default(),
            identity: Identity::default(),
            reveal: Reveal::default(),
            token_cache: TokenCache::default(),
            bootstrap: Bootstrap::default(),
            telemetry: Telemetry::default(),
        }
    }
}

impl Config {
    /// Whether keys, certificates and the principal `operator` may be made.
    pub fn development(&self) -> bool {
        self.mode == Mode::Development
    }

    /// The directory of the development certificates.
    pub fn pki_dir(&self) -> PathBuf {
        self.data_dir.join("pki")
    }

    /// The URL of the database, the embedded default spelt out.
    pub fn database_url(&self) -> SecretUrl {
        match self.database.url.expose() {
            "" => SecretUrl::new(format!("sqlite:{}", self.data_dir.join("jackfield.sqlite3").display())),
            _ => self.database.url.clone(),
        }
    }

    /// The keyring file of vault provider `file`.
    pub fn keyring_file(&self) -> PathBuf {
        or_else(&self.vault.file, || self.data_dir.join("keyring.toml"))
    }

    /// The certificate files, defaults spelt out.
    pub fn tls_files(&self) -> TlsFiles {
        let pki = self.pki_dir();
        TlsFiles {
            certificate: or_else(&self.tls.certificate, || pki.join("server.pem")),
            private_key: or_else(&self.tls.private_key, || pki.join("server-key.pem")),
            client_ca: or_else(&self.tls.client_ca, || pki.join("ca.pem")),
            client_crl: Some(self.tls.client_crl.clone()).filter(|path| !path.as_os_str().is_empty()),
        }
    }

    /// The known callers, the built-in one of development mode included.
    pub fn principals(&self) -> Vec<PrincipalConfig> {
        let mut principals = self.identity.principals.clone();
        let known = |p: &PrincipalConfig| p.spiffe == OPERATOR_SPIFFE || p.name == "operator";
        if self.development() && !principals.iter().any(known) {
            principals.push(PrincipalConfig {
                name: "operator".into(),
                tenant: self.bootstrap.tenant.clone(),
                rights: vec!["*".into()],
                spiffe: OPERATOR_SPIFFE.into(),
                ..PrincipalConfig::default()
            });
        }
        principals
    }

    /// The effective configuration as TOML, without passwords.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# not printable: {error}\n"))
    }
}

/// Paths of the certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    pub client_ca: PathBuf,
    pub client_crl: Option<PathBuf>,
}

fn or_else(path: &std::path::Path, default: impl FnOnce() -> PathBuf) -> PathBuf {
    if path.as_os_str().is_empty() { default() } else { path.to_owned() }
}

#[cfg(test)]
mod tests;
