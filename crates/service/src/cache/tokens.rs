//! Opened tokens, kept for the next call that asks for the same one: the only place where opened material stays in memory.
//!
//! An entry is good for as long as nothing that it depends on has changed ([`Freshness`]). Rights, scopes and the remaining validity
//! are checked at every call and are not cached. Refusals are not cached either.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::credential::{CredentialRef, IssuedToken};
use jackfield_domain::{Secret, TenantId, Timestamp};
use jackfield_store::Store;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, OptionsBuilder, Weighter};
use uuid::Uuid;

use super::freshness::{Freshness, Origin, ReadStart};

/// The bounds of the cache.
#[derive(Clone, Copy, Debug)]
pub struct TokenCacheSettings {
    /// Tokens at most; 0 switches the cache off.
    pub max_tokens: u32,
    /// Bytes of all tokens together.
    pub max_bytes: u64,
    /// The time for which a token may be handed out, and a connector be used as it was, after another replica has changed them. A
    /// process knows of its own changes at once.
    pub max_staleness: Duration,
}

/// The opened tokens of this process.
pub(crate) struct Tokens {
    /// `None` if the cache is off.
    entries: Option<Cache<CacheKey, Entry, EntryWeight, RandomState>>,
    freshness: Freshness,
}

/// The key of an entry: the question, not the credential that answers it.
#[derive(PartialEq, Eq, Hash)]
struct CacheKey {
    tenant: TenantId,
    reference: CredentialRef,
}

/// A [`CacheKey`] that borrows its reference.
#[derive(Hash)]
struct BorrowedKey<'a> {
    tenant: TenantId,
    reference: &'a CredentialRef,
}

/// A token, wiped when the last user drops it.
#[derive(Clone)]
struct Entry {
    issued: Arc<IssuedToken>,
    origin: Origin,
}

/// Weighs entries in bytes. Small tokens weigh enough for the full number of them to fill the cache.
#[derive(Clone)]
struct EntryWeight {
    least: u64,
}

/// Bytes of an entry besides its texts.
const ENTRY_BYTES: usize = 512;

// === impl Tokens ===

impl Tokens {
    pub(crate) fn new(settings: TokenCacheSettings, store: &Store) -> Self {
        let TokenCacheSettings { max_tokens, max_bytes, max_staleness } = settings;
        let options = OptionsBuilder::new()
            .estimated_items_capacity(max_tokens as usize)
            .weight_capacity(max_bytes)
            .build()
            .ok()
            .filter(|_| max_tokens > 0);
        let entries = options.map(|options| {
            let weight = EntryWeight { least: max_bytes.div_ceil(u64::from(max_tokens)) };
            Cache::with_options(options, weight, RandomState::new(), DefaultLifecycle::default())
        });
        Tokens { entries, freshness: Freshness::new(store, max_staleness) }
    }

    /// The token that was given to the same question before, if it would be given again.
    pub(crate) fn get(&self, tenant: TenantId, reference: &CredentialRef, now: Timestamp) -> Option<Arc<IssuedToken>> {
        let entries = self.entries.as_ref()?;
        let key = BorrowedKey { tenant, reference };
        let entry = entries.get(&key)?;
        if self.is_good(&entry, now) {
            return Some(entry.issued);
        }
        entries.remove_if(&key, |kept| Arc::ptr_eq(&kept.issued, &entry.issued));
        None
    }

    /// Has to be called before the rows that a token comes from are read.
    pub(crate) fn start_read(&self) -> ReadStart {
        self.freshness.start_read()
    }

    /// Keeps a token that was made from some rows.
    pub(crate) fn put(
        &self,
        tenant: TenantId,
        reference: &CredentialRef,
        issued: &Arc<IssuedToken>,
        start: ReadStart,
        rows: impl IntoIterator<Item = Uuid>,
    ) {
        if let Some(entries) = &self.entries {
            let entry = Entry { issued: Arc::clone(issued), origin: self.freshness.origin(start, tenant, rows) };
            entries.insert(CacheKey { tenant, reference: reference.clone() }, entry);
        }
    }

    /// Drops entries that would not be given again.
    pub(crate) fn sweep(&self, now: Timestamp) {
        if let Some(entries) = &self.entries {
            entries.retain(|_, entry| self.is_good(entry, now));
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        if let Some(entries) = &self.entries {
            entries.clear();
        }
    }

    fn is_good(&self, entry: &Entry, now: Timestamp) -> bool {
        self.freshness.is_good(&entry.origin) && entry.issued.expire_time.is_none_or(|expiry| now < expiry)
    }
}

// === impl BorrowedKey ===

impl Equivalent<CacheKey> for BorrowedKey<'_> {
    fn equivalent(&self, key: &CacheKey) -> bool {
        self.tenant == key.tenant && *self.reference == key.reference
    }
}

// === impl EntryWeight ===

impl Weighter<CacheKey, Entry> for EntryWeight {
    fn weight(&self, _: &CacheKey, entry: &Entry) -> u64 {
        let IssuedToken { token, token_type, scopes, missing_scopes, fields, .. } = &*entry.issued;
        let scopes = scopes.iter().chain(missing_scopes).map(|scope| scope.len() + size_of::<String>());
        let fields =
            fields.iter().map(|(name, value)| name.len() + value.expose().len() + size_of::<(String, Secret)>());
        let texts = token.expose().len() + token_type.len() + scopes.chain(fields).sum::<usize>();
        ((ENTRY_BYTES + texts) as u64).max(self.least)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jackfield_domain::CredentialId;
    use jackfield_domain::request::reference::Ref;
    use jackfield_store::{Database, PoolSettings};
    use uuid::Uuid;

    use super::*;

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));
    const NOW: Timestamp = Timestamp(1_000_000);

    struct Fixture {
        _directory: tempfile::TempDir,
        store: Store,
    }

    async fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::Sqlite(directory.path().join("test.sqlite3"));
        let settings = PoolSettings { max_connections: 1, acquire_timeout: Duration::from_secs(5) };
        let store = Store::connect(&database, settings).await.unwrap();
        Fixture { _directory: directory, store }
    }

    fn settings(max_tokens: u32, max_bytes: u64) -> TokenCacheSettings {
        TokenCacheSettings { max_tokens, max_bytes, max_staleness: Duration::from_secs(1) }
    }

    fn of(number: u128) -> CredentialRef {
        CredentialRef::Ref(Ref::Id(Uuid::from_u128(number)))
    }

    fn token(text: &str, expire_time: Option<Timestamp>) -> Arc<IssuedToken> {
        Arc::new(IssuedToken {
            credential: CredentialId(Uuid::from_u128(9)),
            material_version: 1,
            token: Secret::new(text.to_owned()),
            token_type: "Bearer".to_owned(),
            expire_time,
            scopes: Vec::new(),
            missing_scopes: Vec::new(),
            next_refresh_time: None,
            fields: BTreeMap::new(),
        })
    }

    fn keep(cache: &Tokens, number: u128, issued: &Arc<IssuedToken>) {
        cache.put(TENANT, &of(number), issued, cache.start_read(), []);
    }

    fn count(cache: &Tokens) -> usize {
        cache.entries.as_ref().map_or(0, Cache::len)
    }

    #[tokio::test]
    async fn number_and_bytes_are_bounded() {
        let Fixture { store, _directory } = fixture().await;
        let small = Tokens::new(settings(100, 1 << 20), &store);
        for number in 0..1_000 {
            keep(&small, number, &token("t", None));
        }
        assert!((50..=100).contains(&count(&small)), "{}", count(&small));

        let large = "t".repeat(10_000);
        let few_bytes = Tokens::new(settings(1_000, 1 << 20), &store);
        for number in 0..1_000 {
            keep(&few_bytes, number, &token(&large, None));
        }
        assert!((50..=99).contains(&count(&few_bytes)), "{}", count(&few_bytes));

        let none = Tokens::new(settings(0, 1 << 20), &store);
        keep(&none, 1, &token("t", None));
        assert!(none.get(TENANT, &of(1), NOW).is_none());
        store.close().await;
    }

    #[tokio::test]
    async fn expired_tokens_are_not_given_and_are_swept() {
        let Fixture { store, _directory } = fixture().await;
        let cache = Tokens::new(settings(100, 1 << 20), &store);
        let weak: Vec<_> = [None, Some(NOW), Some(Timestamp(NOW.0 + 1))]
            .into_iter()
            .zip(0..)
            .map(|(expiry, number)| {
                let issued = token("t", expiry);
                keep(&cache, number, &issued);
                Arc::downgrade(&issued)
            })
            .collect();
        assert_eq!(count(&cache), 3);
        cache.sweep(NOW);
        let kept: Vec<bool> = weak.iter().map(|issued| issued.strong_count() > 0).collect();
        assert_eq!(kept, [true, false, true], "an expired token is no longer in memory");
        assert!(cache.get(TENANT, &of(2), NOW).is_some());
        assert!(cache.get(TENANT, &of(2), Timestamp(NOW.0 + 1)).is_none());
        assert!(cache.get(TenantId(Uuid::from_u128(2)), &of(0), NOW).is_none(), "of another tenant");
        cache.clear();
        assert!(weak.iter().all(|issued| issued.strong_count() == 0));
        store.close().await;
    }
}
