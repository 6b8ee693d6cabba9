//! Start-up: the database is checked against the keyring, brought up to date and given what a first start needs.

use std::path::Path;
use std::sync::Arc;

use jackfield_domain::tenant::Tenant;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::TenantName;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{Clock, Error, Result, TenantId};
use jackfield_store::{Database, PoolSettings, Store, StoreError};
use jackfield_vault::{Keyring, KeyringError, Vault, WrappedDataKey};

use crate::cache::tokens::TokenCacheSettings;
use crate::change::{Change, Length};
use crate::key::PublicRoots;
use crate::login::LoginSettings;
use crate::outbound::OutboundSettings;
use crate::refresh::{RefreshSettings, Refreshes};
use crate::services::{Facts, Services};

/// The settings of the services.
pub struct Settings {
    pub database: Database,
    pub pool: PoolSettings,
    /// Bring the schema up to date first; otherwise it must be up to date.
    pub migrate: bool,
    /// The tenant that is created if there is none at all.
    pub bootstrap_tenant: Option<TenantName>,
    pub reveal_enabled: bool,
    pub token_cache: TokenCacheSettings,
    pub outbound: OutboundSettings,
    pub login: LoginSettings,
    pub refresh: RefreshSettings,
    /// The URL of the callback listener, if there is one.
    pub callback_url: Option<HttpUrl>,
    /// The tenant whose users the login in front of the callback listener names, if there is such a login.
    pub callback_tenant: Option<TenantName>,
    /// The authorities whose client certificates have a warning.
    pub public_roots: PublicRoots,
    /// Only shown by GetServerInfo.
    pub development: bool,
}

/// The keyring of a start, and whether it was proven to be the one of the database. It is read once, and the database is checked
/// against it once.
pub struct Preflight {
    vault: Vault,
    /// True if a data key of the database opened.
    proven: bool,
}

/// The reason why the services do not open, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error("the key-encryption key \"{id}\" of the keyring does not open the data keys that were wrapped with it")]
    KeyringWrong { id: String },
    #[error("the first data key or tenant could not be made: {0}")]
    Bootstrap(#[source] Error),
    #[error("refresh.journal: received tokens cannot be kept in the directory {directory}: {source}")]
    Journal { directory: String, source: std::io::Error },
}

/// The number of data keys that must fail to open before their key-encryption key is considered the wrong one. A single one
/// may be damaged.
const KEK_SAMPLE: u64 = 5;

// === impl Preflight ===

impl Preflight {
    /// A start with a keyring, on a database that is not checked yet.
    pub fn new(keyring: Keyring) -> Self {
        Preflight { vault: Vault::new(keyring), proven: false }
    }

    /// Checks an SQLite file that is going to be opened, and changes nothing. No other process may write to the file from here on.
    ///
    /// # Errors
    /// The schema is newer than this program, or the keyring does not open what is in the file.
    pub async fn check(&mut self, path: &Path) -> Result<(), OpenError> {
        let store = Store::open_read_only(path).await?;
        let checked = check_keyring(&store, &self.vault).await;
        store.close().await;
        self.proven = checked?;
        Ok(())
    }
}

// === impl Services ===

impl Services {
    /// Opens the database, checks that the keyring opens what is in it, and creates what a first start needs.
    pub async fn open(settings: Settings, preflight: Preflight, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let store = Store::connect(&settings.database, settings.pool).await?;
        let prepared = prepare(&store, &preflight, settings.migrate).await;
        // Last, so that a start that is refused makes nothing.
        let opened = prepared.and_then(|schema_version| Ok((schema_version, open_journal(settings.refresh.clone())?)));
        let (schema_version, refreshes) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                store.close().await;
                return Err(error);
            }
        };
        let Settings { reveal_enabled, development, public_roots, outbound, login, .. } = settings;
        let Settings { callback_url, callback_tenant, .. } = settings;
        let start_time = clock.now();
        let facts = Facts {
            reveal_enabled,
            development,
            callback_url,
            callback_tenant,
            public_roots,
            start_time,
            schema_version,
        };
        let (token_cache, bootstrap_tenant) = (settings.token_cache, settings.bootstrap_tenant);
        let services = Services::new(store, preflight.vault, clock, token_cache, (outbound, login), refreshes, facts);
        services.bootstrap(bootstrap_tenant).await.map_err(OpenError::Bootstrap)?;
        // Refreshed tokens that a process that died has received are stored before a caller asks for them. Those of authorisations need
        // their provider, which may be away.
        if let Err(error) = services.refreshes_recover().await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "tokens of the journal could not be stored");
        }
        services.start_maintenance();
        Ok(services)
    }

    /// Opens the database only to bring its schema up to date; returns the newest migration.
    pub async fn migrate(database: &Database, pool: PoolSettings) -> Result<String, StoreError> {
        let store = Store::connect(database, pool).await?;
        let newest = store.migrate().await?;
        store.close().await;
        Ok(newest)
    }

    /// Creates the data key of the system and the first tenant if they are missing. If several replicas start at once on an
    /// empty database, one of them creates these and the others find them.
    async fn bootstrap(&self, tenant: Option<TenantName>) -> Result<()> {
        let created = self.change(Change::by_system(Length::Short), async |txn| {
            txn.lock_deployment().await?;
            if txn.data_keys_fetch(TenantId::SYSTEM).await?.is_empty() {
                self.shared.data_keys.create(txn, TenantId::SYSTEM).await?;
            }
            let Some(name) = tenant else { return Ok(None) };
            if txn.tenants_count().await? > 0 {
                return Ok(None);
            }
            let meta = Meta::new(self.now());
            let tenant = Tenant { id: TenantId::generate(), name, display_name: String::new(), meta };
            txn.insert(tenant.id, &tenant).await?;
            self.shared.data_keys.create(txn, tenant.id).await?;
            Ok(Some(tenant))
        });
        if let Some(tenant) = created.await? {
            tracing::info!(tenant.id = %tenant.id, tenant.name = %tenant.name, "first tenant created");
        }
        Ok(())
    }
}

fn open_journal(settings: RefreshSettings) -> Result<Refreshes, OpenError> {
    Refreshes::open(settings).map_err(|(directory, source)| {
        let directory = directory.display().to_string();
        OpenError::Journal { directory, source }
    })
}

/// Checks the database before anything in it is changed, and brings its schema up to date.
async fn prepare(store: &Store, preflight: &Preflight, migrate: bool) -> Result<String, OpenError> {
    let Preflight { vault, proven } = preflight;
    let proven = *proven || check_keyring(store, vault).await?;
    let schema_version = if migrate { store.migrate().await? } else { store.schema_check().await? };
    if !proven {
        // The database was empty. Another replica may have started on it since, with another keyring.
        check_keyring(store, vault).await?;
    }
    Ok(schema_version)
}

/// Refuses a schema that is newer than this program, and a keyring that does not open what is in the database. Changes nothing.
/// Returns true if anything was opened.
async fn check_keyring(store: &Store, vault: &Vault) -> Result<bool, OpenError> {
    if store.schema_known().await?.is_none() {
        return Ok(false);
    }
    let in_use = store.read().kek_ids_in_use().await.map_err(OpenError::Bootstrap)?;
    vault.require_keys(in_use.iter().map(String::as_str))?;
    let mut proven = false;
    for id in &in_use {
        proven |= check_kek(store, vault, id).await?;
    }
    Ok(proven)
}

/// Refuses a key-encryption key that has the right name but is another key: no other key would open what it seals.
async fn check_kek(store: &Store, vault: &Vault, id: &str) -> Result<bool, OpenError> {
    let sample = store.read().data_keys_of_kek(id, KEK_SAMPLE).await.map_err(OpenError::Bootstrap)?;
    if sample.is_empty() {
        // Another replica has re-wrapped them in the meantime.
        return Ok(false);
    }
    for row in sample {
        let wrapped = WrappedDataKey { kek_id: row.kek_id, bytes: row.wrapped };
        match vault.data_key_open(row.tenant, row.id, &wrapped).await {
            Ok(_) => return Ok(true),
            Err(Error::DecryptFailed { .. }) => {}
            Err(error) => return Err(OpenError::Bootstrap(error)),
        }
    }
    Err(OpenError::KeyringWrong { id: id.to_owned() })
}
