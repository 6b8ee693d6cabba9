//! All sections of the configuration together.

use std::path::PathBuf;

use jackfield_transport::config::{
    Deadlines, Drain, HttpListen, Identity, Limits, Listen, PrincipalConfig, Streams, Telemetry, Tls, TlsFiles,
    TransportConfig,
};
use serde::{Deserialize, Serialize};

use super::callback::Callback;
use super::database::{Database, DatabaseUrlError};
use super::egress::{Egress, Login};
use super::http_section::HttpSection;
use super::license_api::LicenseApi;
use super::refresh::Refresh;
use super::secret_url::SecretUrl;
use super::token_cache::TokenCache;
use super::vault::{Bootstrap, Reveal, Vault};

/// The SPIFFE URI of the client certificate that development mode makes, and of the built-in principal `operator`.
pub const OPERATOR_SPIFFE: &str = "spiffe://jackfield.local/client/operator";

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The mode, which says which missing files the server may create.
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
    pub egress: Egress,
    pub login: Login,
    pub refresh: Refresh,
    pub license_api: LicenseApi,
    pub callback: Callback,
    pub bootstrap: Bootstrap,
    pub telemetry: Telemetry,
}

/// The files that the server may create itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Creates a keyring and certificates if there are none, and knows the principal `operator`.
    #[default]
    Development,
    /// Creates neither, and refuses to start without them.
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
            egress: Egress::default(),
            login: Login::default(),
            refresh: Refresh::default(),
            license_api: LicenseApi::default(),
            callback: Callback::default(),
            bootstrap: Bootstrap::default(),
            telemetry: Telemetry::default(),
        }
    }
}

impl Config {
    /// Returns whether keys, certificates and the principal `operator` may be made.
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

    /// Returns the database that the URL names.
    ///
    /// # Errors
    /// The URL names none, or has parameters that are not supported.
    pub fn database(&self) -> Result<jackfield_service::Database, DatabaseUrlError> {
        self.database.target(&self.database_url())
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

    /// Returns whether gRPC is served with TLS.
    pub fn serves_tls(&self) -> bool {
        self.listen.tcp_address().is_some() && !self.listen.plaintext
    }

    /// Returns whether `serve` makes the development certificates that are missing: a listener uses them.
    pub fn makes_certificates(&self) -> bool {
        let files = self.tls_files();
        let uses_them = |http: HttpSection<'_>| !http.has_certificate() && http.certificate_files(&files).is_some();
        let is_used = !self.listen.plaintext || self.http_sections().into_iter().any(uses_them);
        self.development() && self.tls.certificate.as_os_str().is_empty() && is_used
    }

    /// The sections of HTTP listeners.
    pub fn http_sections(&self) -> [HttpSection<'_>; 2] {
        [self.license_api.http(), self.callback.http()]
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

    /// Returns what the transport reads of the configuration.
    pub fn transport(&self) -> TransportConfig {
        TransportConfig {
            listen: self.listen.clone(),
            tls: self.tls.clone(),
            tls_files: self.tls_files(),
            limits: self.limits.clone(),
            streams: self.streams.clone(),
            deadlines: self.deadlines.clone(),
            drain: self.drain.clone(),
            telemetry: self.telemetry.clone(),
            principals: self.principals(),
            http: self.http_listeners(),
        }
    }

    fn http_listeners(&self) -> Vec<HttpListen> {
        let files = self.tls_files();
        self.license_api.listener(&files).into_iter().chain(self.callback.listener(&files)).collect()
    }

    /// The effective configuration as TOML, without passwords.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# not printable: {error}\n"))
    }
}

fn or_else(path: &std::path::Path, default: impl FnOnce() -> PathBuf) -> PathBuf {
    if path.as_os_str().is_empty() { default() } else { path.to_owned() }
}
