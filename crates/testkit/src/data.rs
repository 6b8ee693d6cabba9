//! The environment of a test server: its database, certificates and directory, and the callers it knows.

use std::path::Path;
use std::time::Duration;

use jackfield_server::config::{Config, PrincipalConfig};
pub use jackfield_server::config::{LicenseApi, SecretUrl};
use tempfile::TempDir;

use crate::backend::Backend;
use crate::pki::{Identity, Pki};
use crate::postgres::{self, Database};

/// The principals of a test server: name, tenant, rights. [`Identity::of`] the name gives the identity of each.
pub const PRINCIPALS: [(&str, &str, &[&str]); 4] = [
    ("operator", "default", &["*"]),
    ("alpha", "alpha", &["*"]),
    ("beta", "beta", &["*"]),
    (
        "reader",
        "alpha",
        &[
            "applications.read",
            "configurations.read",
            "connections.read",
            "connectors.read",
            "credentials.read",
            "keys.read",
            "user_connectors.read",
            "users.read",
        ],
    ),
];

/// The environment that outlives one run of a server and that replicas share.
pub(crate) struct Data {
    backend: Backend,
    directory: TempDir,
    pki: Pki,
    database: Option<Database>,
}

// === impl Data ===

impl Data {
    pub(crate) fn create(backend: Backend) -> Self {
        Self::with((backend == Backend::Postgres).then(postgres::fresh_database))
    }

    /// Uses an existing PostgreSQL database.
    pub(crate) fn on(database: Database) -> Self {
        Self::with(Some(database))
    }

    fn with(database: Option<Database>) -> Self {
        let directory = tempfile::Builder::new().prefix("jackfield-test-").tempdir().expect("no temporary directory");
        Self {
            backend: if database.is_some() { Backend::Postgres } else { Backend::Sqlite },
            pki: Pki::create(&directory.path().join("test-pki")),
            database,
            directory,
        }
    }

    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn pki(&self) -> &Pki {
        &self.pki
    }

    pub(crate) fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config { data_dir: self.directory.path().join("data"), ..Config::default() };
        config.listen.address = "127.0.0.1:0".to_owned();
        config.tls.certificate = self.pki.path("server.pem");
        config.tls.private_key = self.pki.path("server-key.pem");
        config.tls.client_ca = self.pki.path("ca.pem");
        config.tls.client_crl = self.pki.path("crl.pem");
        config.reveal.enabled = true;
        // The log of the tests contains the spans of all calls.
        config.telemetry.trace_ratio = 1.0;
        config.identity.principals =
            PRINCIPALS.iter().map(|(name, tenant, rights)| principal(name, tenant, rights)).collect();
        // Tests of the time of a rejection set a longer one.
        config.login.rejection_interval = Duration::from_millis(5);
        // Tests of refreshes ahead of time switch them on: otherwise nothing comes between a test and its provider.
        config.refresh.ahead = false;
        if let Some(database) = &self.database {
            config.database.url = SecretUrl::new(database.url());
        }
        // With many concurrent calls, the wait of the last one depends on the machine, and must not become an error.
        // Tests of an unavailable database set a shorter time.
        config.database.acquire_timeout = Duration::from_secs(30);
        config
    }
}

/// A principal whose identity is [`Identity::of`] its name.
pub fn principal(name: &str, tenant: &str, rights: &[&str]) -> PrincipalConfig {
    let Identity::Spiffe(spiffe) = Identity::of(name) else { unreachable!("Identity::of gives a SPIFFE identity") };
    PrincipalConfig {
        name: name.to_owned(),
        tenant: tenant.to_owned(),
        rights: rights.iter().map(|&right| right.to_owned()).collect(),
        spiffe,
        ..PrincipalConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::on_both;

    on_both! {
        async fn data_matches_the_backend_and_is_fresh(backend: Backend) {
            let create = move || (Data::create(backend), Data::create(backend));
            let (one, other) = tokio::task::spawn_blocking(create).await.unwrap();
            let (first, second) = (one.config(), other.config());
            assert_eq!(one.database.is_some(), backend == Backend::Postgres);
            assert_eq!(first.database.url.expose().starts_with("postgres://"), backend == Backend::Postgres);
            assert_ne!(first.database_url().expose(), second.database_url().expose());
            assert_ne!(one.pki.ca_pem(), other.pki.ca_pem());
        }
    }
}
