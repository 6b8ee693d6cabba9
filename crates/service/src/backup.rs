//! Backups: a copy of an SQLite database, and the proof that it is whole and opens.

use std::collections::HashMap;
use std::path::Path;

use jackfield_domain::{Error, TenantId};
use jackfield_store::{SecretRow, Store, StoreError};
use jackfield_vault::{DataKey, KeyringError, Vault, WrappedDataKey};
use uuid::Uuid;

use crate::services::Services;

/// Rows in one read.
const BATCH: u64 = 500;

/// The contents of a database, all of which opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The newest migration that was applied.
    pub schema: String,
    pub data_keys: u64,
    pub secrets: u64,
    /// Rows of resources, each of which agrees with its document. `None` if the schema is older than this program, which can
    /// then not compare them.
    pub rows: Option<u64>,
}

/// The reason why a database file is not a backup.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Store(StoreError),
    #[error("it is damaged: {}", .0.join("; "))]
    Damaged(Vec<String>),
    #[error("it holds no data of Jackfield")]
    Empty,
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error("the key-encryption key \"{kek}\" of the keyring does not open the data key {id} of tenant {tenant}")]
    DataKey { kek: String, id: Uuid, tenant: TenantId },
    #[error("the secret \"{name}\" of the {owner} {id} of tenant {tenant} does not open")]
    Secret { name: String, owner: &'static str, id: Uuid, tenant: TenantId },
    #[error("it cannot be read: {0}")]
    Read(#[source] Error),
}

// === impl VerifyError ===

impl VerifyError {
    /// The error of a read. What the database returned and is no value of its type is damage.
    fn read(error: Error) -> Self {
        match error {
            Error::Internal(cause) => VerifyError::Damaged(vec![cause.to_string()]),
            other => VerifyError::Read(other),
        }
    }
}

impl From<StoreError> for VerifyError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged(fault) => VerifyError::Damaged(vec![fault]),
            other => VerifyError::Store(other),
        }
    }
}

// === impl Services ===

impl Services {
    /// Copies an SQLite database as it is at this moment into an empty file. Others may use it meanwhile.
    ///
    /// # Errors
    /// The database cannot be read, or the file cannot be written.
    pub async fn copy(path: &Path, to: &Path) -> Result<(), StoreError> {
        Store::copy_to(path, to).await
    }

    /// Checks an SQLite file that no server uses: it is sound, its schema is known, every row agrees with its document, and every
    /// data key and every secret in it opens with this keyring. Rows of an older schema are not compared. Changes nothing.
    ///
    /// # Errors
    /// The first of these that is not true.
    pub async fn verify(path: &Path, vault: &Vault) -> Result<Verified, VerifyError> {
        let store = Store::open_read_only(path).await?;
        let verified = verify(&store, vault).await;
        store.close().await;
        verified
    }
}

async fn verify(store: &Store, vault: &Vault) -> Result<Verified, VerifyError> {
    let faults = store.faults().await.map_err(VerifyError::read)?;
    if !faults.is_empty() {
        return Err(VerifyError::Damaged(faults));
    }
    let schema = store.schema_known().await?.ok_or(VerifyError::Empty)?;
    let (rows, faults) = store.row_faults().await.map_err(VerifyError::read)?;
    if !faults.is_empty() {
        return Err(VerifyError::Damaged(faults));
    }
    let in_use = store.read().kek_ids_in_use().await.map_err(VerifyError::read)?;
    vault.require_keys(in_use.iter().map(String::as_str))?;
    let keys = open_data_keys(store, vault).await?;
    let mut tenants: Vec<TenantId> = keys.keys().map(|(tenant, _)| *tenant).collect();
    tenants.sort_unstable_by_key(|tenant| tenant.0);
    tenants.dedup();
    let mut secrets = 0;
    for tenant in tenants {
        secrets += open_secrets(store, tenant, &keys).await?;
    }
    let all = store.read().secrets_count().await.map_err(VerifyError::read)?;
    if all != secrets {
        return Err(VerifyError::Damaged(vec![format!(
            "secrets that belong to no tenant with a data key: {}",
            all - secrets
        )]));
    }
    Ok(Verified { schema, data_keys: keys.len() as u64, secrets, rows })
}

async fn open_data_keys(store: &Store, vault: &Vault) -> Result<HashMap<(TenantId, Uuid), DataKey>, VerifyError> {
    let (mut keys, mut last) = (HashMap::new(), None);
    loop {
        let rows = store.read().data_keys_after(last, BATCH).await.map_err(VerifyError::read)?;
        let Some(row) = rows.last() else { return Ok(keys) };
        last = Some((row.tenant, row.id));
        for row in rows {
            let wrapped = WrappedDataKey { kek_id: row.kek_id, bytes: row.wrapped };
            let key = match vault.data_key_open(row.tenant, row.id, &wrapped).await {
                Err(Error::DecryptFailed { .. }) => {
                    let (kek, id, tenant) = (wrapped.kek_id, row.id, row.tenant);
                    return Err(VerifyError::DataKey { kek, id, tenant });
                }
                opened => opened.map_err(VerifyError::Read)?,
            };
            keys.insert((row.tenant, row.id), key);
        }
    }
}

/// Opens all secrets of a tenant and returns their number.
async fn open_secrets(
    store: &Store,
    tenant: TenantId,
    keys: &HashMap<(TenantId, Uuid), DataKey>,
) -> Result<u64, VerifyError> {
    let (mut count, mut last): (u64, Option<SecretRow>) = (0, None);
    loop {
        let mut rows = store.read().secrets_after(tenant, last.as_ref(), BATCH).await.map_err(VerifyError::read)?;
        for row in &rows {
            let key =
                DataKey::id_of(&row.sealed).filter(|id| *id == row.data_key).and_then(|id| keys.get(&(tenant, id)));
            let opened = key.is_some_and(|key| key.open(&row.address(), &row.sealed).is_ok());
            if !opened {
                let (name, owner, id) = (row.name.clone(), row.owner.as_str(), row.owner_id);
                return Err(VerifyError::Secret { name, owner, id, tenant });
            }
            count += 1;
        }
        match rows.pop() {
            Some(row) => last = Some(row),
            None => return Ok(count),
        }
    }
}
