//! Opened data keys, kept in memory so that a read costs no unwrapping.
//!
//! Which data key seals is asked of the database each time: another replica may have made a new one. Which one opens is
//! written in the sealed value.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use jackfield_domain::{Error, Result, TenantId};
use jackfield_store::{DataKeyRow, Writer};
use jackfield_vault::{DataKey, WrappedDataKey};
use uuid::Uuid;

use crate::open::Services;

/// The opened data keys of this process.
#[derive(Default)]
pub(crate) struct DataKeys {
    of_tenants: RwLock<HashMap<(TenantId, Uuid), Arc<DataKey>>>,
    of_system: OnceLock<Arc<DataKey>>,
}

/// More tenants than this in one process, and the cache begins anew.
const MAX_CACHED: usize = 10_000;

// === impl DataKeys ===

impl DataKeys {
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

    /// Forgets the keys of a tenant.
    pub(crate) fn forget(&self, tenant: TenantId) {
        let mut keys = self.of_tenants.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|(owner, _), _| *owner != tenant);
    }
}

// === impl Services ===

impl Services {
    /// Makes a data key for a tenant.
    pub(crate) async fn data_key_create(&self, txn: &Writer, tenant: TenantId) -> Result<Arc<DataKey>> {
        let (key, wrapped) = self.shared.vault.data_key_create(tenant).await?;
        let row = DataKeyRow {
            tenant,
            id: key.id(),
            kek_id: wrapped.kek_id,
            wrapped: wrapped.bytes,
            create_time: self.now(),
        };
        txn.data_key_insert(&row).await?;
        Ok(self.shared.data_keys.put(key))
    }

    /// The data key that seals now, as the transaction sees it. It stays until the transaction ends.
    pub(crate) async fn data_key_active(&self, txn: &Writer, tenant: TenantId) -> Result<Arc<DataKey>> {
        let newest = txn.data_key_fetch_active(tenant).await?;
        // Every tenant has one, unless it was deleted since the call began.
        let newest = newest.ok_or_else(|| Error::TenantUnknown { tenant: tenant.to_string() })?;
        self.data_key_opened(newest).await
    }

    /// A data key by its id. Within a transaction it is looked up there: a second connection while one is held would make
    /// callers wait for each other.
    pub(crate) async fn data_key_by_id(
        &self,
        txn: Option<&Writer>,
        tenant: TenantId,
        id: Uuid,
    ) -> Result<Option<Arc<DataKey>>> {
        if let Some(key) = self.shared.data_keys.get(tenant, id) {
            return Ok(Some(key));
        }
        let rows = match txn {
            Some(txn) => txn.data_keys_fetch(tenant).await?,
            None => self.shared.store.read().data_keys_fetch(tenant).await?,
        };
        match rows.into_iter().find(|row| row.id == id) {
            Some(row) => self.data_key_opened(row).await.map(Some),
            None => Ok(None),
        }
    }

    /// The data key of the system: it makes page tokens and fingerprints of requests. It is never replaced, only wrapped
    /// anew, so tokens outlive a rotation.
    pub(crate) async fn data_key_of_system(&self) -> Result<Arc<DataKey>> {
        if let Some(key) = self.shared.data_keys.of_system.get() {
            return Ok(Arc::clone(key));
        }
        let rows = self.shared.store.read().data_keys_fetch(TenantId::SYSTEM).await?;
        let row = rows.into_iter().next().ok_or_else(|| Error::internal("the system has no data key"))?;
        let key = self.data_key_opened(row).await?;
        Ok(Arc::clone(self.shared.data_keys.of_system.get_or_init(|| key)))
    }

    /// Fetches the data key of the system and unwraps it, past the cache.
    pub(crate) async fn data_key_probe(&self) -> Result<()> {
        let rows = self.shared.store.read().data_keys_fetch(TenantId::SYSTEM).await?;
        let row = rows.into_iter().next().ok_or_else(|| Error::internal("the system has no data key"))?;
        let wrapped = WrappedDataKey { kek_id: row.kek_id, bytes: row.wrapped };
        self.shared.vault.data_key_open(row.tenant, row.id, &wrapped).await.map(|_| ())
    }

    async fn data_key_opened(&self, row: DataKeyRow) -> Result<Arc<DataKey>> {
        if let Some(key) = self.shared.data_keys.get(row.tenant, row.id) {
            return Ok(key);
        }
        let wrapped = WrappedDataKey { kek_id: row.kek_id, bytes: row.wrapped };
        let key = self.shared.vault.data_key_open(row.tenant, row.id, &wrapped).await?;
        Ok(self.shared.data_keys.put(key))
    }
}
