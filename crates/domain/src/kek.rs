//! Key-encryption keys, which wrap the data keys of tenants. A keyring in a file or in the environment implements
//! [`KeyEncryption`], and so can a client of a key management service, which is why it is asynchronous.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::error::Cause;

/// A boxed future, so that [`KeyEncryption`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Wraps and unwraps data keys with key-encryption keys that it never gives away.
pub trait KeyEncryption: Send + Sync {
    /// Wraps `key` with the active key-encryption key. Unwrapping needs the same `context`, which is bound to the result
    /// but not in it; an implementation binds the id of its key as well.
    fn wrap<'a>(&'a self, context: &'a [u8], key: &'a [u8]) -> BoxFuture<'a, Result<WrappedKey, KekError>>;

    /// Unwraps what [`wrap`](Self::wrap) made with the key-encryption key `kek_id` and the same `context`.
    fn unwrap<'a>(
        &'a self,
        kek_id: &'a str,
        context: &'a [u8],
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<Vec<u8>>, KekError>>;

    /// The id of the key that [`wrap`](Self::wrap) uses now. It may change between two calls; [`WrappedKey::kek_id`] says
    /// which key was used.
    fn active_id(&self) -> String;

    /// The ids of all keys that can unwrap, the active one among them.
    fn ids(&self) -> Vec<String>;
}

/// A key under a key-encryption key, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WrappedKey {
    /// The key-encryption key that opens it.
    pub kek_id: String,
    /// The wrapped key, in a form that only the implementation knows.
    pub bytes: Vec<u8>,
}

/// The reason why a key was not wrapped or unwrapped.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// There is no key-encryption key with this id.
    #[error("key-encryption key {id:?} is not available")]
    UnknownKey {
        /// The id that was asked for.
        id: String,
    },
    /// The wrapped key was altered, or belongs to another context or another key-encryption key.
    #[error("wrapped key does not open with key-encryption key {id:?}")]
    Rejected {
        /// The key-encryption key that was tried.
        id: String,
    },
    /// The service that holds the keys does not answer at the moment.
    #[error("key-encryption service is unavailable")]
    Unavailable {
        /// The time to wait before the next attempt.
        retry_after: Duration,
        #[source]
        source: Cause,
    },
    /// Anything else.
    #[error("key-encryption failed")]
    Failed(#[source] Cause),
}
