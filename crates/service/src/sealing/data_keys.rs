//! The data keys of tenants. They are kept open in memory, so that a read costs no unwrapping.
//!
//! The key that seals is looked up in the database each time, because another replica may have made a new one. The key that opens
//! is named in the sealed value.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use jackfield_domain::{Clock, Error, Result, TenantId, Timestamp};
use jackfield_store::{DataKeyRow, Store, Writer};
use jackfield_vault::{DataKey, Vault, WrappedDataKey};
use uuid::Uuid;

/// The data keys, of which this process keeps open those that it used.
pub(crate) struct DataKeys {
    store: Store,
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    of_tenants: RwLock<HashMap<(TenantId, Uuid), Arc<DataKey>>>,
    of_system: OnceLock<Arc<DataKey>>,
}

/// The number of open keys at which the cache starts over.
const MAX_CACHED: usize = 10_000;

// === impl DataKeys ===

impl DataKeys {
    pub(crate) fn new(store: Store, vault: Arc<Vault>, clock: Arc<dyn Clock>) -> Self {
        DataKeys { store, vault, clock, of_tenants: RwLock::default(), of_system: OnceLock::new() }
    }

    /// Makes a data key for a tenant. It seals from then on.
    pub(crate) async fn create(&self, txn: &Writer, tenant: TenantId) -> Result<Arc<DataKey>> {
        self.create_after(txn, tenant, self.clock.now()).await
    }

    /// Makes a data key for a tenant. Its creation time is not before `time`, and is after those of the other keys of the tenant,
    /// so it seals from then on.
    pub(crate) async fn create_after(&self, txn: &Writer, tenant: TenantId, time: Timestamp) -> Result<Arc<DataKey>> {
        let (key, wrapped) = self.vault.data_key_create(tenant).await?;
        // The newest key seals. The others may have been made by a clock that was ahead.
        let newest = txn.data_keys_fetch(tenant).await?.into_iter().next();
        let create_time = newest.map_or(time, |newest| newest.create_time.plus_micros(1).max(time));
        let row = DataKeyRow { tenant, id: key.id(), kek_id: wrapped.kek_id, wrapped: wrapped.bytes, create_time };
        txn.data_key_insert(&row).await?;
        Ok(self.put(key))
    }

    /// The data key that seals now, as the transaction sees it. It stays until the transaction ends.
    pub(crate) async fn active(&self, txn: &Writer, tenant: TenantId) -> Result<Arc<DataKey>> {
        let newest = txn.data_key_fetch_active(tenant).await?;
        // Every tenant has one, unless it was deleted since the call began.
        let newest = newest.ok_or_else(|| Error::TenantUnknown { tenant: tenant.to_string() })?;
        self.opened(newest).await
    }

    /// A data key by its id. Within a transaction it is looked up there: calls that hold one connection and wait for a second one
    /// would wait for each other.
    pub(crate) async fn by_id(&self, txn: Option<&Writer>, tenant: TenantId, id: Uuid) -> Result<Option<Arc<DataKey>>> {
        if let Some(key) = self.get(tenant, id) {
            return Ok(Some(key));
        }
        let rows = match txn {
            Some(txn) => txn.data_keys_fetch(tenant).await?,
            None => self.store.read().data_keys_fetch(tenant).await?,
        };
        match rows.into_iter().find(|row| row.id == id) {
            Some(row) => self.opened(row).await.map(Some),
            None => Ok(None),
        }
    }

    /// The data key of the system: it makes page tokens and fingerprints of requests. It is re-wrapped but never replaced, so that
    /// tokens outlive a rotation.
    pub(crate) async fn system(&self) -> Result<Arc<DataKey>> {
        if let Some(key) = self.of_system.get() {
            return Ok(Arc::clone(key));
        }
        let key = self.opened(self.system_row().await?).await?;
        Ok(Arc::clone(self.of_system.get_or_init(|| key)))
    }

    /// Fetches the data key of the system and unwraps it without the cache, to check that database and keyring still match.
    pub(crate) async fn probe(&self) -> Result<()> {
        let row = self.system_row().await?;
        let wrapped = WrappedDataKey { kek_id: row.kek_id, bytes: row.wrapped };
        self.vault.data_key_open(row.tenant, row.id, &wrapped).await.map(drop)
    }

    /// Drops the open keys of a tenant.
    pub(crate) fn forget(&self, tenant: TenantId) {
        let mut keys = self.of_tenants.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|(owner, _), _| *owner != tenant);
    }

    async fn system_row(&self) -> Result<DataKeyRow> {
        let rows = self.store.read().data_keys_fetch(TenantId::SYSTEM).await?;
        rows.into_iter().next().ok_or_else(|| Error::internal("the system has no data key"))
    }

    /// The data key of a row.
    pub(crate) async fn opened(&self, row: DataKeyRow) -> Result<Arc<DataKey>> {
        if let Some(key) = self.get(row.tenant, row.id) {
            return Ok(key);
        }
        let wrapped = WrappedDataKey { kek_id: row.kek_id, bytes: row.wrapped };
        let key = self.vault.data_key_open(row.tenant, row.id, &wrapped).await?;
        Ok(self.put(key))
    }

    fn get(&self, tenant: TenantId, id: Uuid) -> Option<Arc<DataKey>> {
        self.of_tenants.read().unwrap_or_else(PoisonError::into_inner).get(&(tenant, id)).cloned()
    }

    fn put(&self, key: DataKey) -> Arc<DataKey> {
        let key = Arc::new(key);
        let mut keys = self.of_tenants.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_CACHED {
            keys.clear();
        }
        keys.insert((key.tenant(), key.id()), Arc::clone(&key));
        key
    }
}
