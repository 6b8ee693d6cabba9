//! The keys of issuers. An issuer may have a new key at any time: a signature by an unknown one has the keys fetched again, but not often.

use jackfield_domain::TenantId;
use jackfield_domain::value::url::HttpUrl;
use serde::Deserialize;
use serde_json::Value;

use super::algorithm::Algorithm;
use super::documents::{Documents, Fetcher, read};
use super::fault::{DocumentFault, IdTokenFault};
use super::jwk::{Jwk, Members};
use crate::bounded::BoundedList;
use crate::clients::ClientId;

/// The keys of issuers, as connections have fetched them.
pub struct KeySets {
    documents: Documents<KeySet>,
}

/// The usable keys of a document.
pub(super) struct KeySet(Vec<Jwk>);

/// A signed text, and what its header says about the signature.
pub(super) struct Signed<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    pub(super) message: &'a [u8],
    pub(super) signature: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mismatch {
    /// No key, or more than one, is meant.
    Unknown,
    /// The signature is not by the key that is named.
    Wrong,
    /// The signature is not by the only key that could be meant. The issuer may have another one by now.
    WrongUnnamed,
}

#[derive(Deserialize)]
struct Body {
    keys: BoundedList<Value, MAX_KEYS>,
}

/// The most keys of an issuer. Those after it count as if they were not there.
const MAX_KEYS: usize = 100;

// === impl KeySets ===

impl KeySets {
    /// Keeps the keys of at most so many issuers.
    pub fn new(max: usize) -> Self {
        KeySets { documents: Documents::new(max) }
    }

    /// Fetches the keys at a URL, unless they are known. What cannot be checked later need not be asked for.
    ///
    /// # Errors
    /// The keys cannot be had, or not be used.
    pub async fn prepare(&self, fetcher: &Fetcher<'_>, url: &HttpUrl) -> Result<(), DocumentFault> {
        self.documents.get(fetcher, url, fetch(fetcher, url)).await.map(drop)
    }

    /// Checks a signature by the keys at a URL.
    pub(super) async fn verify(
        &self,
        fetcher: &Fetcher<'_>,
        url: &HttpUrl,
        signed: &Signed<'_>,
    ) -> Result<(), IdTokenFault> {
        let unreachable = IdTokenFault::KeysUnreachable;
        let keys = self.documents.get(fetcher, url, fetch(fetcher, url)).await.map_err(unreachable)?;
        let outcome = match keys.verify(signed) {
            Err(Mismatch::Unknown | Mismatch::WrongUnnamed) => {
                let renewed = self.documents.renewed(&keys, fetcher, url, fetch(fetcher, url));
                renewed.await.map_err(unreachable)?.unwrap_or(keys).verify(signed)
            }
            outcome => outcome,
        };
        outcome.map_err(|mismatch| match mismatch {
            Mismatch::Unknown => IdTokenFault::UnknownKey,
            Mismatch::Wrong | Mismatch::WrongUnnamed => IdTokenFault::SignatureWrong,
        })
    }

    /// Forgets what was fetched for a connection.
    pub fn remove(&self, id: ClientId) {
        self.documents.remove(id);
    }

    /// Forgets what was fetched for a tenant.
    pub fn remove_tenant(&self, tenant: TenantId) {
        self.documents.remove_tenant(tenant);
    }
}

/// The number of keys in a key set, and of those by which signatures can be checked.
pub(crate) fn count_keys(body: &[u8]) -> Result<(usize, usize), DocumentFault> {
    let body: Body = read(body)?;
    let BoundedList(keys) = &body.keys;
    let all = keys.len();
    Ok((all, KeySet::of(body).0.len()))
}

async fn fetch(fetcher: &Fetcher<'_>, url: &HttpUrl) -> Result<KeySet, DocumentFault> {
    fetcher.fetch(url).await.map(KeySet::of)
}

// === impl KeySet ===

impl KeySet {
    /// Takes the usable keys. One that is not understood may be for others.
    fn of(body: Body) -> Self {
        let BoundedList(keys) = body.keys;
        let usable = |key: Value| key.is_object().then(|| serde_json::from_value::<Members>(key).ok()).flatten();
        KeySet(keys.into_iter().take(MAX_KEYS).filter_map(usable).filter_map(Jwk::of).collect())
    }

    fn verify(&self, signed: &Signed<'_>) -> Result<(), Mismatch> {
        let Signed { algorithm, kid, message, signature } = signed;
        let fitting: Vec<&Jwk> = self.0.iter().filter(|key| key.fits(*algorithm)).collect();
        let named: Vec<&Jwk> = match kid {
            Some(kid) => fitting.iter().filter(|key| key.kid() == Some(kid)).copied().collect(),
            None => Vec::new(),
        };
        let verifies = |key: &Jwk| key.verifies(*algorithm, message, signature);
        if !named.is_empty() {
            return if named.into_iter().any(verifies) { Ok(()) } else { Err(Mismatch::Wrong) };
        }
        // A name that is missing, on either side, is no matter if there is one key alone (OpenID Connect Core 1.0 10.1).
        match &fitting[..] {
            [only] if kid.is_none() || only.kid().is_none() => {
                if verifies(only) {
                    Ok(())
                } else {
                    Err(Mismatch::WrongUnnamed)
                }
            }
            _ => Err(Mismatch::Unknown),
        }
    }
}

#[cfg(test)]
mod tests;
