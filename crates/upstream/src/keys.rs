//! Identities and bundles as they were read of keys. All definitions with the same key share them, so that each is read once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jackfield_domain::TenantId;
use rustls::RootCertStore;
use uuid::Uuid;

use crate::tls::{Identity, IdentityError, IdentityParts, Trust, TrustError};

/// The identities and bundles that clients have, found by the versions of their keys. What no client has is forgotten.
#[derive(Default)]
pub struct Keys {
    identities: Shared<IdentityParts>,
    bundles: Shared<RootCertStore>,
}

/// The versions of the stored objects that something was made of, in a fixed order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revision(Box<[(Uuid, i64)]>);

/// The tenant of a key, and the versions of the key.
pub type KeyRevision = (TenantId, Revision);

/// Values that others own.
struct Shared<T>(Mutex<HashMap<KeyRevision, Weak<T>>>);

// === impl Revision ===

impl Revision {
    /// Takes ids with the versions that were read.
    pub fn of(versions: impl IntoIterator<Item = (Uuid, i64)>) -> Self {
        Revision(versions.into_iter().collect())
    }
}

// === impl Keys ===

impl Keys {
    /// Returns the identity of a key, and reads it if no client has it.
    ///
    /// # Errors
    /// It cannot be used. Nothing is kept then.
    pub fn identity(
        &self,
        key: KeyRevision,
        read: impl FnOnce() -> Result<Identity, IdentityError>,
    ) -> Result<Identity, IdentityError> {
        self.identities.get_or_read(key, || read().map(|identity| identity.0)).map(Identity)
    }

    /// Returns the authorities of a key, and reads them if no client has them.
    ///
    /// # Errors
    /// They cannot be used. Nothing is kept then.
    pub fn bundle(
        &self,
        key: KeyRevision,
        read: impl FnOnce() -> Result<Trust, TrustError>,
    ) -> Result<Trust, TrustError> {
        self.bundles.get_or_read(key, || read().map(|trust| trust.0)).map(Trust)
    }

    pub(crate) fn sweep(&self) {
        self.identities.sweep();
        self.bundles.sweep();
    }
}

// === impl Shared ===

impl<T> Shared<T> {
    fn get_or_read<E>(&self, key: KeyRevision, read: impl FnOnce() -> Result<Arc<T>, E>) -> Result<Arc<T>, E> {
        let mut values = self.lock();
        if let Some(value) = values.get(&key).and_then(Weak::upgrade) {
            return Ok(value);
        }
        let value = read()?;
        values.insert(key, Arc::downgrade(&value));
        Ok(value)
    }

    fn sweep(&self) {
        self.lock().retain(|_, value| value.strong_count() > 0);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyRevision, Weak<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Shared(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));

    #[test]
    fn a_value_is_read_once_for_a_version_and_forgotten_when_nothing_has_it() {
        let (shared, read) = (Shared::default(), Cell::new(0));
        let get = |version| {
            let key = (TENANT, Revision::of([(Uuid::from_u128(1), version)]));
            let count = || {
                read.set(read.get() + 1);
                Ok::<_, ()>(Arc::new(read.get()))
            };
            shared.get_or_read(key, count).unwrap()
        };
        let (first, again, next) = (get(1), get(1), get(2));
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!((*first, *next), (1, 2));
        assert_eq!(shared.lock().len(), 2);
        drop((first, again));
        shared.sweep();
        assert_eq!(shared.lock().len(), 1);
        assert_eq!((*get(2), *get(1)), (2, 3));
        let of_another = (TenantId(Uuid::from_u128(2)), Revision::of([(Uuid::from_u128(1), 2)]));
        let read_it = || Ok::<_, ()>(Arc::new(7));
        assert_eq!(*shared.get_or_read(of_another, read_it).unwrap(), 7, "the key of another tenant with the same id");
        let key = (TENANT, Revision::of([(Uuid::from_u128(2), 1)]));
        assert_eq!(shared.get_or_read(key.clone(), || Err("unusable")), Err("unusable"));
        assert!(!shared.lock().contains_key(&key));
    }
}
