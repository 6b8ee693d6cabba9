//! The services as a whole: how they are opened, what they share, what they say of themselves.

use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::principal::right::Admin;
use jackfield_domain::tenant::Tenant;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::TenantName;
use jackfield_domain::{Clock, Error, Result, TenantId, Timestamp};
use jackfield_store::{Database, PoolSettings, Store, StoreError};
use jackfield_vault::{Keyring, KeyringChange, KeyringError, Vault, WrappedDataKey};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::caller::Caller;
use crate::data_keys::DataKeys;
use crate::gauges::{Gauges, RewrapBoard};
use crate::tenant_names::TenantNames;
use crate::token_cache::{TokenCache, TokenCacheSettings};

/// Everything that use cases need. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) vault: Vault,
    pub(crate) data_keys: DataKeys,
    pub(crate) tenant_names: TenantNames,
    pub(crate) tokens: TokenCache,
    pub(crate) rewraps: RewrapBoard,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    reveal_enabled: bool,
    development: bool,
    start_time: Timestamp,
    schema_version: String,
}

/// What the services are opened with.
pub struct Settings {
    pub database: Database,
    pub pool: PoolSettings,
    /// Bring the schema up to date first; otherwise it must be so already.
    pub migrate: bool,
    /// The tenant that is made when there is none at all.
    pub bootstrap_tenant: Option<TenantName>,
    pub reveal_enabled: bool,
    pub token_cache: TokenCacheSettings,
    /// Said by GetServerInfo only.
    pub development: bool,
}

/// Why the services do not open, for the operator.
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
}

/// Facts of the server.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    pub database_backend: &'static str,
    pub database_version: String,
    pub schema_version: String,
    pub active_key: String,
    pub keys: Vec<String>,
    pub start_time: Timestamp,
    pub reveal_enabled: bool,
    pub development: bool,
}

/// So many data keys have to be damaged before their key-encryption key is taken for the wrong one.
const KEK_SAMPLE: u64 = 5;

/// How often answers to repeated requests are looked through for those whose time has passed, and re-wraps for those whose
/// worker died.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(30);

/// How often a write is tried after one has failed.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Answers that are forgotten in one transaction. Calls come in between.
const PURGE_BATCH: u64 = 500;

// === impl Services ===

impl Services {
    /// Opens the database, checks that the keyring can open what is in it, and makes what a first start needs.
    pub async fn open(settings: Settings, vault: Vault, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let store = Store::connect(&settings.database, settings.pool).await?;
        let schema_version = match prepare(&store, &vault, settings.migrate).await {
            Ok(schema_version) => schema_version,
            Err(error) => {
                store.close().await;
                return Err(error);
            }
        };
        let start_time = clock.now();
        let shared = Shared {
            tokens: TokenCache::new(settings.token_cache, &store),
            store,
            vault,
            data_keys: DataKeys::default(),
            tenant_names: TenantNames::default(),
            rewraps: RewrapBoard::default(),
            clock,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            reveal_enabled: settings.reveal_enabled,
            development: settings.development,
            start_time,
            schema_version,
        };
        let services = Services { shared: Arc::new(shared) };
        services.bootstrap(settings.bootstrap_tenant).await.map_err(OpenError::Bootstrap)?;
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

    /// Whether calls can be served: the database answers and can be written, and the keyring opens what is in it.
    pub async fn ready(&self) -> Result<()> {
        self.shared.store.writable().await?;
        self.data_key_probe().await
    }

    /// Puts another keyring in place, unless it lacks a key that data keys are wrapped with.
    pub async fn keyring_replace(&self, keyring: Keyring) -> Result<KeyringChange, OpenError> {
        let in_use = self.shared.store.read().kek_ids_in_use().await.map_err(OpenError::Bootstrap)?;
        let has = keyring.ids();
        let missing: Vec<String> = in_use.into_iter().filter(|id| !has.contains(id)).collect();
        if !missing.is_empty() {
            return Err(KeyringError::KeysMissing { ids: missing }.into());
        }
        let change = self.shared.vault.reload(keyring)?;
        // A key that was taken away must not leave behind what it opened.
        self.shared.tokens.clear();
        Ok(change)
    }

    /// Facts of this server.
    pub async fn server_info(&self, _: &Caller<Admin>) -> Result<ServerInfo> {
        Ok(ServerInfo {
            database_backend: self.shared.store.backend_name(),
            database_version: self.shared.store.backend_version().await?,
            schema_version: self.shared.schema_version.clone(),
            active_key: self.shared.vault.active_key_id(),
            keys: self.shared.vault.key_ids(),
            start_time: self.shared.start_time,
            reveal_enabled: self.shared.reveal_enabled,
            development: self.shared.development,
        })
    }

    /// What metrics look at.
    pub fn gauges(&self) -> Gauges {
        Gauges::of(self)
    }

    /// Ends background work and closes the database.
    pub async fn close(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.store.clone().close().await;
    }

    /// The store, for tests that look below the services.
    #[doc(hidden)]
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The present, as the services see it.
    pub fn time(&self) -> Timestamp {
        self.now()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    pub(crate) fn reveal_enabled(&self) -> bool {
        self.shared.reveal_enabled
    }

    /// Makes the data key of the system and the first tenant where they are missing. Of several replicas that start at
    /// once on an empty database one does it and the others find it done.
    async fn bootstrap(&self, tenant: Option<TenantName>) -> Result<()> {
        let txn = self.shared.store.write().await?;
        txn.lock_deployment().await?;
        if txn.data_keys_fetch(TenantId::SYSTEM).await?.is_empty() {
            self.data_key_create(&txn, TenantId::SYSTEM).await?;
        }
        if let Some(name) = tenant
            && txn.tenants_count().await? == 0
        {
            let meta = Meta::new(self.now());
            let tenant = Tenant { id: TenantId::generate(), name, display_name: String::new(), meta };
            txn.insert(tenant.id, &tenant).await?;
            self.data_key_create(&txn, tenant.id).await?;
            tracing::info!(tenant.id = %tenant.id, tenant.name = %tenant.name, "first tenant created");
        }
        txn.commit().await
    }

    fn start_maintenance(&self) {
        let services = self.clone();
        self.shared.tasks.spawn(async move { services.try_writes().await });
        let services = self.clone();
        self.shared.tasks.spawn(async move { services.shared.store.keep_log_empty(&services.shared.stop).await });
        let services = self.clone();
        self.shared.tasks.spawn(async move {
            loop {
                // First of all at the start: what a process that died left behind need not wait.
                if let Err(error) = services.maintain().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "maintenance failed");
                }
                tokio::select! {
                    () = services.shared.stop.cancelled() => return,
                    () = tokio::time::sleep(MAINTENANCE_INTERVAL) => {}
                }
            }
        });
    }

    /// Tries again whether the database can be written, after it could not: whoever watches it need not wait for a caller.
    async fn try_writes(&self) {
        let (shared, mut is_said) = (&self.shared, false);
        while shared.stop.run_until_cancelled(tokio::time::sleep(WRITE_INTERVAL)).await.is_some() {
            if shared.store.is_writable() != Some(false) {
                if std::mem::take(&mut is_said) {
                    tracing::info!("the database can be written again");
                }
                continue;
            }
            if let Err(error) = shared.store.try_write().await
                && !std::mem::replace(&mut is_said, true)
            {
                tracing::warn!(error = &error as &dyn std::error::Error, "the database cannot be written");
            }
        }
    }

    async fn maintain(&self) -> Result<()> {
        self.shared.tokens.sweep(self.shared.store.generations(), self.now());
        self.rewrap_take_over().await?;
        while !self.shared.stop.is_cancelled() {
            let txn = self.shared.store.write_long().await?;
            let purged = txn.requests_purge(self.now(), PURGE_BATCH).await?;
            txn.commit().await?;
            if purged < PURGE_BATCH {
                break;
            }
        }
        Ok(())
    }
}

/// Checks what is there before anything is changed, and brings the schema up to date.
async fn prepare(store: &Store, vault: &Vault, migrate: bool) -> Result<String, OpenError> {
    check_keyring(store, vault).await?;
    let schema_version = if migrate { store.migrate().await? } else { store.schema_check().await? };
    // Another replica may have begun on the same empty database, with other keys.
    check_keyring(store, vault).await?;
    Ok(schema_version)
}

/// Refuses a schema that is newer than this program, and a keyring that does not open what is there. Changes nothing.
pub(crate) async fn check_keyring(store: &Store, vault: &Vault) -> Result<(), OpenError> {
    if store.schema_known().await?.is_none() {
        return Ok(());
    }
    let in_use = store.read().kek_ids_in_use().await.map_err(OpenError::Bootstrap)?;
    vault.require_keys(in_use.iter().map(String::as_str))?;
    for id in &in_use {
        check_kek(store, vault, id).await?;
    }
    Ok(())
}

/// Refuses a key-encryption key that has the right name and is another key: it would seal what nothing else opens.
async fn check_kek(store: &Store, vault: &Vault, id: &str) -> Result<(), OpenError> {
    let sample = store.read().data_keys_of_kek(id, KEK_SAMPLE).await.map_err(OpenError::Bootstrap)?;
    if sample.is_empty() {
        // Another replica has wrapped them anew since they were looked for.
        return Ok(());
    }
    for row in sample {
        let wrapped = WrappedDataKey { kek_id: row.kek_id, bytes: row.wrapped };
        match vault.data_key_open(row.tenant, row.id, &wrapped).await {
            Ok(_) => return Ok(()),
            Err(Error::DecryptFailed { .. }) => {}
            Err(error) => return Err(OpenError::Bootstrap(error)),
        }
    }
    Err(OpenError::KeyringWrong { id: id.to_owned() })
}
