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
    pub(crate) async fn secret_open(
        &self,
        txn: Option<&Writer>,
        place: SecretPlace<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let failed = || Error::DecryptFailed { resource: place.owner, id: place.owner_id.to_string() };
        let key = DataKey::id_of(sealed).ok_or_else(failed)?;
        let key = self.data_key_by_id(txn, place.tenant, key).await?.ok_or_else(failed)?;
        key.open(&place.for_vault(), sealed)
    }

    /// Fetches and opens a secret, in a transaction or beside any; `None` if there is none.
    pub(crate) async fn secret_fetch(
        &self,
        txn: Option<&Writer>,
        place: SecretPlace<'_>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let mut sealed = self.secret_sealed(txn, place).await?;
        while let Some(present) = sealed {
            match self.secret_open(txn, place, &present).await {
                // A re-wrap may have sealed it anew and destroyed the former data key since it was read. What does not
                // open and did not change either is broken.
                Err(error @ Error::DecryptFailed { .. }) => {
                    sealed = self.secret_sealed(txn, place).await?;
                    if sealed.as_ref() == Some(&present) {
                        return Err(error);
                    }
                }
                opened => return opened.map(Some),
            }
        }
        Ok(None)
    }

    async fn secret_sealed(&self, txn: Option<&Writer>, place: SecretPlace<'_>) -> Result<Option<Vec<u8>>> {
        let SecretPlace { tenant, owner, owner_id, name } = place;
        match txn {
            Some(txn) => txn.secret_fetch(tenant, owner, owner_id, name).await,
            None => self.shared.store.read().secret_fetch(tenant, owner, owner_id, name).await,
        }
    }
}

// === impl SecretPlace ===

impl<'a> SecretPlace<'a> {
    pub(crate) fn for_vault(self) -> Place<'a> {
        Place { tenant: self.tenant, resource: self.owner, id: self.owner_id, column: self.name }
    }
}
