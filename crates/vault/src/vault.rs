//! The vault makes, opens and re-wraps the data keys of tenants.

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use jackfield_domain::kek::{BoxFuture, KekError, KeyEncryption, WrappedKey};
use jackfield_domain::{Error, Resource, Result, TenantId};
use tracing::Instrument as _;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::WrappedDataKey;
use crate::cipher::{self, KEY_LEN};
use crate::envelope::DataKey;
use crate::error::KeyringError;
use crate::keyring::Keyring;

/// Wraps and unwraps data keys. The caller stores the wrapped keys.
pub struct Vault {
    keys: Arc<dyn KeyEncryption>,
    /// The same as `keys` if they come from a keyring.
    keyring: Option<Arc<LocalKeys>>,
}

/// The changes that a new keyring brings. Each list is in the order of the keyring that has its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyringChange {
    /// The new active key, if it changed.
    pub activated: Option<String>,
    /// Keys that were not there before.
    pub added: Vec<String>,
    /// Keys that are no longer there. Data keys that they wrapped cannot be opened any more.
    pub removed: Vec<String>,
}

/// A keyring that can be replaced while it is in use.
struct LocalKeys(RwLock<Arc<Keyring>>);

// === impl Vault ===

impl Vault {
    /// A vault over a keyring.
    pub fn new(keyring: Keyring) -> Self {
        let keyring = Arc::new(LocalKeys(RwLock::new(Arc::new(keyring))));
        Vault { keys: Arc::<LocalKeys>::clone(&keyring), keyring: Some(keyring) }
    }

    /// A vault over another source of key-encryption keys, such as a key management service.
    pub fn with_provider(keys: Arc<dyn KeyEncryption>) -> Self {
        Vault { keys, keyring: None }
    }

    /// Replaces the current keyring. Running calls finish with the keyring they began with.
    ///
    /// Only the store knows whether a key is still needed: first check the result of [`compare`](Self::compare) against
    /// it, and do not reload a keyring that lacks a key which still wraps data keys.
    ///
    /// # Errors
    /// As [`compare`](Self::compare); the current keyring then stays.
    pub fn reload(&self, keyring: Keyring) -> Result<KeyringChange, KeyringError> {
        self.local()?.replace(keyring)
    }

    /// The changes that [`reload`](Self::reload) would make.
    ///
    /// # Errors
    /// `ActiveKeyDropped` if the new keyring lacks the active key of the current one, `SecretChanged` if a key has a
    /// different secret there, `NotAKeyring` if this vault has no keyring.
    pub fn compare(&self, keyring: &Keyring) -> Result<KeyringChange, KeyringError> {
        compare(&self.local()?.current(), keyring)
    }

    /// The id of the key-encryption key that new data keys are wrapped with.
    pub fn active_key_id(&self) -> String {
        self.keys.active_id()
    }

    /// The ids of all key-encryption keys.
    pub fn key_ids(&self) -> Vec<String> {
        self.keys.ids()
    }

    /// Checks that every key-encryption key that wraps a stored data key is available. The server does not start
    /// otherwise.
    ///
    /// # Errors
    /// `KeysMissing` with the missing ids.
    pub fn require_keys<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> Result<(), KeyringError> {
        let present = self.keys.ids();
        let missing = ids.into_iter().filter(|id| !present.iter().any(|present| present == id));
        let mut ids: Vec<_> = missing.map(str::to_owned).collect();
        ids.sort();
        ids.dedup();
        if ids.is_empty() { Ok(()) } else { Err(KeyringError::KeysMissing { ids }) }
    }

    /// Makes a data key for a tenant and wraps it with the active key-encryption key.
    ///
    /// # Errors
    /// `ServerUnavailable` if the keys are with a service that does not answer; otherwise `Internal`.
    pub async fn data_key_create(&self, tenant: TenantId) -> Result<(DataKey, WrappedDataKey)> {
        let id = Uuid::now_v7();
        let secret = cipher::random_key().map_err(|_| Error::from(KeyringError::Random))?;
        let key = data_key(tenant, id, &secret)?;
        let wrapped = self.wrap(tenant, id, &secret).instrument(tracing::info_span!("wrap a data key")).await?;
        Ok((key, wrapped))
    }

    /// Opens the stored data key `id` of a tenant.
    ///
    /// # Errors
    /// `DecryptFailed` for the tenant if the wrapped key was altered or is not this key of this tenant; `Internal` with
    /// [`KekError::UnknownKey`] as cause if its key-encryption key is missing; `ServerUnavailable` if the keys are with
    /// a service that does not answer.
    pub async fn data_key_open(&self, tenant: TenantId, id: Uuid, wrapped: &WrappedDataKey) -> Result<DataKey> {
        let opening = tracing::info_span!("open a data key");
        let secret = self.unwrap(tenant, id, wrapped).instrument(opening).await?;
        data_key(tenant, id, &secret)
    }

    /// Wraps a stored data key with the active key-encryption key, whichever key wraps it now. The data key stays the
    /// same, so everything that it sealed still opens. The result is opened once before it is returned, so it may
    /// replace the old one.
    ///
    /// # Errors
    /// As [`data_key_open`](Self::data_key_open).
    pub async fn data_key_rewrap(
        &self,
        tenant: TenantId,
        id: Uuid,
        wrapped: &WrappedDataKey,
    ) -> Result<WrappedDataKey> {
        let secret = self.unwrap(tenant, id, wrapped).await?;
        let rewrapped = self.wrap(tenant, id, &secret).await?;
        let reopened = self.unwrap(tenant, id, &rewrapped).await?;
        verify_slices_are_equal(&secret, &reopened)
            .map_err(|_| Error::internal("a re-wrapped data key opens as another key"))?;
        Ok(rewrapped)
    }

    async fn wrap(&self, tenant: TenantId, id: Uuid, secret: &[u8]) -> Result<WrappedDataKey> {
        let wrapped = self.keys.wrap(&context(tenant, id), secret).await;
        wrapped.map_err(|error| kek_error(tenant, id, error))
    }

    async fn unwrap(&self, tenant: TenantId, id: Uuid, wrapped: &WrappedDataKey) -> Result<Zeroizing<Vec<u8>>> {
        let WrappedKey { kek_id, bytes } = wrapped;
        let secret = self.keys.unwrap(kek_id, &context(tenant, id), bytes).await;
        let whole = secret.and_then(|secret| match secret.len() {
            KEY_LEN => Ok(secret),
            _ => Err(KekError::Rejected { id: kek_id.clone() }),
        });
        whole.map_err(|error| kek_error(tenant, id, error))
    }

    fn local(&self) -> Result<&LocalKeys, KeyringError> {
        self.keyring.as_deref().ok_or(KeyringError::NotAKeyring)
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field("active_key_id", &self.active_key_id())
            .field("key_ids", &self.key_ids())
            .finish_non_exhaustive()
    }
}

/// The context that a wrapped data key is bound to. The provider adds the id of the key-encryption key.
fn context(tenant: TenantId, id: Uuid) -> Vec<u8> {
    cipher::tuple([b"jackfield.data_key".as_slice(), tenant.0.as_bytes(), id.as_bytes()])
}

fn data_key(tenant: TenantId, id: Uuid, secret: &[u8]) -> Result<DataKey> {
    DataKey::from_secret(tenant, id, secret).map_err(|_| Error::internal("key derivation failed"))
}

/// Callers may know less than an operator needs, so the details go to the log here.
fn kek_error(tenant: TenantId, id: Uuid, error: KekError) -> Error {
    match error {
        KekError::Rejected { id: kek_id } => {
            tracing::error!(tenant.id = %tenant, data_key.id = %id, kek.id = kek_id, "wrapped data key does not open");
            Error::DecryptFailed { resource: Resource::Tenant, id: tenant.to_string() }
        }
        KekError::Unavailable { retry_after, source } => {
            tracing::warn!(tenant.id = %tenant, data_key.id = %id, error = %source, "key-encryption service unavailable");
            Error::ServerUnavailable { retry_after }
        }
        error @ (KekError::UnknownKey { .. } | KekError::Failed(_)) => Error::internal(error),
    }
}

fn compare(old: &Keyring, new: &Keyring) -> Result<KeyringChange, KeyringError> {
    let (old_ids, new_ids) = (old.ids(), new.ids());
    if let Some(id) = new_ids.iter().find(|id| old.differs(new, id)) {
        return Err(KeyringError::SecretChanged { id: id.clone() });
    }
    if !new_ids.iter().any(|id| id == old.active_id()) {
        return Err(KeyringError::ActiveKeyDropped { id: old.active_id().to_owned() });
    }
    Ok(KeyringChange {
        activated: (old.active_id() != new.active_id()).then(|| new.active_id().to_owned()),
        added: new_ids.iter().filter(|id| !old_ids.contains(id)).cloned().collect(),
        removed: old_ids.iter().filter(|id| !new_ids.contains(id)).cloned().collect(),
    })
}

// === impl LocalKeys ===

impl LocalKeys {
    fn current(&self) -> Arc<Keyring> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, keyring: Keyring) -> Result<KeyringChange, KeyringError> {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let change = compare(&current, &keyring)?;
        *current = Arc::new(keyring);
        Ok(change)
    }
}

impl KeyEncryption for LocalKeys {
    fn wrap<'a>(&'a self, context: &'a [u8], key: &'a [u8]) -> BoxFuture<'a, Result<WrappedKey, KekError>> {
        Box::pin(async move { self.current().wrap(context, key) })
    }

    fn unwrap<'a>(
        &'a self,
        kek_id: &'a str,
        context: &'a [u8],
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<Vec<u8>>, KekError>> {
        Box::pin(async move { self.current().unwrap(kek_id, context, wrapped) })
    }

    fn active_id(&self) -> String {
        self.current().active_id().to_owned()
    }

    fn ids(&self) -> Vec<String> {
        self.current().ids()
    }
}
