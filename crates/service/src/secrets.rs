//! Sealing and opening secrets of resources.

use jackfield_domain::{Error, Resource, Result, SecretPatch, TenantId};
use jackfield_store::Writer;
use jackfield_vault::{DataKey, Place};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::open::Services;

/// Where a secret belongs.
#[derive(Clone, Copy)]
pub(crate) struct SecretPlace<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) owner: Resource,
    pub(crate) owner_id: Uuid,
    pub(crate) name: &'a str,
}

impl Services {
    /// Seals a secret and stores it, in place of the one that was there.
    pub(crate) async fn secret_put(&self, txn: &Writer, place: SecretPlace<'_>, plaintext: &[u8]) -> Result<()> {
        let key = self.data_key_active(txn, place.tenant).await?;
        let sealed = key.seal(&place.for_vault(), plaintext)?;
        txn.secret_put(place.tenant, place.owner, place.owner_id, place.name, key.id(), sealed).await
    }

    /// Does to a stored secret what a patch says.
    pub(crate) async fn secret_patch(&self, txn: &Writer, place: SecretPlace<'_>, patch: &SecretPatch) -> Result<()> {
        match patch {
            SecretPatch::Keep => Ok(()),
            SecretPatch::Set(secret) => self.secret_put(txn, place, secret.expose().as_bytes()).await,
            SecretPatch::Clear => txn.secret_delete(place.tenant, place.owner, place.owner_id, place.name).await,
        }
    }

    /// Opens a sealed secret.
    pub(crate) async fn secret_open(&self, place: SecretPlace<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let failed = || Error::DecryptFailed { resource: place.owner, id: place.owner_id.to_string() };
        let key = DataKey::id_of(sealed).ok_or_else(failed)?;
        let key = self.data_key_by_id(place.tenant, key).await?.ok_or_else(failed)?;
        key.open(&place.for_vault(), sealed)
    }

    /// Fetches and opens a secret; `None` if there is none.
    pub(crate) async fn secret_fetch(&self, place: SecretPlace<'_>) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let read = self.shared.store.read();
        match read.secret_fetch(place.tenant, place.owner, place.owner_id, place.name).await? {
            Some(sealed) => self.secret_open(place, &sealed).await.map(Some),
            None => Ok(None),
        }
    }
}

// === impl SecretPlace ===

impl<'a> SecretPlace<'a> {
    pub(crate) fn for_vault(self) -> Place<'a> {
        Place { tenant: self.tenant, resource: self.owner, id: self.owner_id, column: self.name }
    }
}
