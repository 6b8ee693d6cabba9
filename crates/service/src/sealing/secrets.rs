//! Secrets at their addresses: sealed and stored, fetched and opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use jackfield_domain::connector::SecretHeadersPatch;
use jackfield_domain::credential::{ALTERNATE_COLUMN, Credential, MATERIAL_COLUMN, Material, OAuth2Material};
use jackfield_domain::{CredentialId, Error, Result, Secret, SecretAddress, SecretPatch, TenantId};
use jackfield_store::{Store, Writer};
use jackfield_vault::DataKey;
use zeroize::Zeroizing;

use super::data_keys::DataKeys;
use super::material;

/// The secrets of all resources.
pub(crate) struct Secrets {
    store: Store,
    data_keys: Arc<DataKeys>,
}

// === impl Secrets ===

impl Secrets {
    pub(crate) fn new(store: Store, data_keys: Arc<DataKeys>) -> Self {
        Secrets { store, data_keys }
    }

    /// Seals a secret and stores it in place of the one that was there.
    pub(crate) async fn put(&self, txn: &Writer, address: SecretAddress<'_>, plaintext: &[u8]) -> Result<()> {
        let key = self.data_keys.active(txn, address.tenant).await?;
        let sealed = key.seal(&address, plaintext)?;
        txn.secret_put(address, key.id(), sealed).await
    }

    /// The secret text at an address, in a transaction or outside of any.
    pub(crate) async fn text(&self, txn: Option<&Writer>, address: SecretAddress<'_>) -> Result<Option<Secret>> {
        let Some(bytes) = self.fetch(txn, address).await? else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::internal("a secret is not a text"))?;
        Ok(Some(Secret::new(text.to_owned())))
    }

    /// The secret headers at an address.
    pub(crate) async fn headers(&self, address: SecretAddress<'_>) -> Result<BTreeMap<String, Secret>> {
        let stored = self.fetch(None, address).await?;
        Ok(stored.map(|stored| material::headers_from_bytes(&stored)).transpose()?.unwrap_or_default())
    }

    /// Changes a secret as a patch says.
    pub(crate) async fn patch(&self, txn: &Writer, address: SecretAddress<'_>, patch: &SecretPatch) -> Result<()> {
        match patch {
            SecretPatch::Keep => Ok(()),
            SecretPatch::Set(secret) => self.put(txn, address, secret.expose().as_bytes()).await,
            SecretPatch::Clear => txn.secret_delete(address).await,
        }
    }

    /// Changes secret headers as a patch says. They are one secret, whose entries can be changed one by one.
    pub(crate) async fn patch_headers(
        &self,
        txn: &Writer,
        address: SecretAddress<'_>,
        patch: &SecretHeadersPatch,
    ) -> Result<()> {
        let stored = match patch {
            SecretHeadersPatch::Keep => return Ok(()),
            SecretHeadersPatch::Set(_) | SecretHeadersPatch::Clear => None,
            SecretHeadersPatch::Entries(_) => self.fetch(Some(txn), address).await?,
        };
        let stored = stored.map(|stored| material::headers_from_bytes(&stored)).transpose()?;
        match patch.applied(stored.unwrap_or_default()) {
            Some(headers) => self.put(txn, address, &material::headers_to_bytes(&headers)?).await,
            None => txn.secret_delete(address).await,
        }
    }

    /// Stores the material of a credential, with the version that the credential has.
    pub(crate) async fn put_material(
        &self,
        txn: &Writer,
        tenant: TenantId,
        credential: &Credential,
        material: &Material,
    ) -> Result<()> {
        let bytes = material::to_bytes(material, credential.key, credential.material_version)?;
        self.put(txn, SecretAddress::of(tenant, credential.id, MATERIAL_COLUMN), &bytes).await
    }

    /// The material of a credential and its version, in a transaction or outside of any; `None` if there is none.
    pub(crate) async fn material(
        &self,
        txn: Option<&Writer>,
        tenant: TenantId,
        id: CredentialId,
    ) -> Result<Option<(Material, i64)>> {
        self.fetch(txn, SecretAddress::of(tenant, id, MATERIAL_COLUMN))
            .await?
            .map(|bytes| material::from_bytes(&bytes))
            .transpose()
    }

    /// Stores the alternate of the tokens of a credential.
    pub(crate) async fn put_alternate(
        &self,
        txn: &Writer,
        tenant: TenantId,
        credential: &Credential,
        tokens: &OAuth2Material,
    ) -> Result<()> {
        let material = Material::OAuth2(tokens.duplicate());
        let bytes = material::to_bytes(&material, None, credential.material_version)?;
        self.put(txn, SecretAddress::of(tenant, credential.id, ALTERNATE_COLUMN), &bytes).await
    }

    /// Takes the alternate of the tokens of a credential, if it has one.
    pub(crate) async fn alternate_take(
        &self,
        txn: &Writer,
        tenant: TenantId,
        id: CredentialId,
    ) -> Result<Option<OAuth2Material>> {
        let alternate = self.alternate(txn, tenant, id).await?;
        if alternate.is_some() {
            self.alternate_delete(txn, tenant, id).await?;
        }
        Ok(alternate)
    }

    /// The alternate of the tokens of a credential, if it has one.
    pub(crate) async fn alternate(
        &self,
        txn: &Writer,
        tenant: TenantId,
        id: CredentialId,
    ) -> Result<Option<OAuth2Material>> {
        let address = SecretAddress::of(tenant, id, ALTERNATE_COLUMN);
        let Some(bytes) = self.fetch(Some(txn), address).await? else { return Ok(None) };
        match material::from_bytes(&bytes)?.0 {
            Material::OAuth2(tokens) => Ok(Some(tokens)),
            _ => Err(Error::internal("an alternate that is not of OAuth tokens")),
        }
    }

    /// Deletes the alternate of the tokens of a credential, if it has one.
    pub(crate) async fn alternate_delete(&self, txn: &Writer, tenant: TenantId, id: CredentialId) -> Result<()> {
        txn.secret_delete(SecretAddress::of(tenant, id, ALTERNATE_COLUMN)).await
    }

    /// Opens sealed material.
    pub(crate) async fn open_material(
        &self,
        tenant: TenantId,
        id: CredentialId,
        sealed: &[u8],
    ) -> Result<(Material, i64)> {
        material::from_bytes(&self.open(None, SecretAddress::of(tenant, id, MATERIAL_COLUMN), sealed).await?)
    }

    /// Opens a sealed secret.
    pub(crate) async fn open(
        &self,
        txn: Option<&Writer>,
        address: SecretAddress<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let failed = || Error::DecryptFailed { resource: address.owner, id: address.owner_id.to_string() };
        let key = DataKey::id_of(sealed).ok_or_else(failed)?;
        let key = self.data_keys.by_id(txn, address.tenant, key).await?.ok_or_else(failed)?;
        key.open(&address, sealed)
    }

    async fn fetch(&self, txn: Option<&Writer>, address: SecretAddress<'_>) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let mut sealed = self.sealed(txn, address).await?;
        while let Some(present) = sealed {
            match self.open(txn, address, &present).await {
                // A re-wrap may have resealed it and destroyed the earlier data key since it was read. A secret that does
                // not open although it did not change is broken.
                Err(error @ Error::DecryptFailed { .. }) => {
                    sealed = self.sealed(txn, address).await?;
                    if sealed.as_ref() == Some(&present) {
                        return Err(error);
                    }
                }
                opened => return opened.map(Some),
            }
        }
        Ok(None)
    }

    async fn sealed(&self, txn: Option<&Writer>, address: SecretAddress<'_>) -> Result<Option<Vec<u8>>> {
        match txn {
            Some(txn) => txn.secret_fetch(address).await,
            None => self.store.read().secret_fetch(address).await,
        }
    }
}
