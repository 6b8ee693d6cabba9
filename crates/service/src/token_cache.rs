//! Opened tokens, kept for the next call that asks for the same one: the only place where opened material stays in memory.
//!
//! What is kept is good for as long as nothing that it rests on has changed ([`jackfield_store::Generations`]). Rights, scopes and
//! the time that is left are not kept: they are checked at every call. A refusal is not kept either.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jackfield_domain::credential::{CredentialRef, IssuedToken};
use jackfield_domain::{Secret, TenantId, Timestamp};
use jackfield_store::{Dependencies, Generations, Snapshot, Store};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, OptionsBuilder, Weighter};

/// How many opened tokens are kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct TokenCacheSettings {
    /// 0: none.
    pub max_tokens: u32,
    /// Bytes that they take together.
    pub max_bytes: u64,
    /// How long a token may be handed out after another replica has changed it. Of its own changes a process knows at once.
    pub max_staleness: Duration,
}

/// The opened tokens of this process.
pub(crate) struct TokenCache {
    /// `None` if none are to be kept.
    opened: Option<Cache<Key, Opened, Weight, RandomState>>,
    max_age: Duration,
}

/// What a token is kept under: the question, not the credential that is its answer.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    tenant: TenantId,
    reference: CredentialRef,
}

/// A [`Key`] that is not owned.
#[derive(Hash)]
struct Asked<'a> {
    tenant: TenantId,
    reference: &'a CredentialRef,
}

/// A token, wiped when nobody holds it any more.
#[derive(Clone)]
struct Opened {
    issued: Arc<IssuedToken>,
    dependencies: Dependencies,
    since: Instant,
}

/// When rows are read, by both ways in which a change is noticed.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) snapshot: Snapshot,
    since: Instant,
}

/// Counts bytes. Small tokens count for as much as makes the full number of them fill the cache.
#[derive(Clone)]
struct Weight {
    least: u64,
}

/// What nobody has asked for since is not kept for longer, even if it is good.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// What an entry takes besides its texts.
const ENTRY_BYTES: usize = 512;

// === impl TokenCache ===

impl TokenCache {
    pub(crate) fn new(settings: TokenCacheSettings, store: &Store) -> Self {
        let TokenCacheSettings { max_tokens, max_bytes, max_staleness } = settings;
        let max_age = if store.is_shared() { max_staleness.min(MAX_AGE) } else { MAX_AGE };
        let options = OptionsBuilder::new()
            .estimated_items_capacity(max_tokens as usize)
            .weight_capacity(max_bytes)
            .build()
            .ok()
            .filter(|_| max_tokens > 0);
        let opened = options.map(|options| {
            let weight = Weight { least: max_bytes.div_ceil(u64::from(max_tokens)) };
            Cache::with_options(options, weight, RandomState::new(), DefaultLifecycle::default())
        });
        TokenCache { opened, max_age }
    }

    /// To be called before the rows are read that a token comes from.
    pub(crate) fn reading(&self, generations: &Generations) -> Reading {
        Reading { snapshot: generations.snapshot(), since: Instant::now() }
    }

    /// The token that was given to the same question before, if it would be given again.
    pub(crate) fn get(
        &self,
        generations: &Generations,
        tenant: TenantId,
        reference: &CredentialRef,
        now: Timestamp,
    ) -> Option<Arc<IssuedToken>> {
        let cache = self.opened.as_ref()?;
        let asked = Asked { tenant, reference };
        let opened = cache.get(&asked)?;
        if self.is_good(&opened, generations, now) {
            return Some(opened.issued);
        }
        cache.remove_if(&asked, |kept| Arc::ptr_eq(&kept.issued, &opened.issued));
        None
    }

    /// Keeps a token.
    pub(crate) fn put(
        &self,
        tenant: TenantId,
        reference: &CredentialRef,
        issued: &Arc<IssuedToken>,
        dependencies: Dependencies,
        reading: Reading,
    ) {
        if let Some(cache) = &self.opened {
            let opened = Opened { issued: Arc::clone(issued), dependencies, since: reading.since };
            cache.insert(Key { tenant, reference: reference.clone() }, opened);
        }
    }

    /// Forgets what would not be given again.
    pub(crate) fn sweep(&self, generations: &Generations, now: Timestamp) {
        if let Some(cache) = &self.opened {
            cache.retain(|_, opened| self.is_good(opened, generations, now));
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        if let Some(cache) = &self.opened {
            cache.clear();
        }
    }

    fn is_good(&self, opened: &Opened, generations: &Generations, now: Timestamp) -> bool {
        generations.is_current(&opened.dependencies)
            && opened.issued.expire_time.is_none_or(|expiry| now < expiry)
            && opened.since.elapsed() < self.max_age
    }
}

// === impl Asked ===

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.tenant == key.tenant && *self.reference == key.reference
    }
}

// === impl Weight ===

impl Weighter<Key, Opened> for Weight {
    fn weight(&self, _: &Key, opened: &Opened) -> u64 {
        let IssuedToken { credential: _, material_version: _, token, token_type, expire_time: _, scopes, fields } =
            &*opened.issued;
        let scopes = scopes.iter().map(|scope| scope.len() + size_of::<String>());
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
            fields: BTreeMap::new(),
        })
    }

    fn keep(cache: &TokenCache, generations: &Generations, number: u128, issued: &Arc<IssuedToken>) {
        let reading = cache.reading(generations);
        cache.put(TENANT, &of(number), issued, generations.dependencies(reading.snapshot, TENANT, []), reading);
    }

    fn count(cache: &TokenCache) -> usize {
        cache.opened.as_ref().map_or(0, Cache::len)
    }

    #[tokio::test]
    async fn number_and_bytes_are_bounded() {
        let Fixture { store, _directory } = fixture().await;
        let generations = store.generations();
        let small = TokenCache::new(settings(100, 1 << 20), &store);
        for number in 0..1_000 {
            keep(&small, generations, number, &token("t", None));
        }
        assert!((50..=100).contains(&count(&small)), "{}", count(&small));

        let large = "t".repeat(10_000);
        let few_bytes = TokenCache::new(settings(1_000, 1 << 20), &store);
        for number in 0..1_000 {
            keep(&few_bytes, generations, number, &token(&large, None));
        }
        assert!((50..=99).contains(&count(&few_bytes)), "{}", count(&few_bytes));

        let none = TokenCache::new(settings(0, 1 << 20), &store);
        keep(&none, generations, 1, &token("t", None));
        assert!(none.get(generations, TENANT, &of(1), NOW).is_none());
        store.close().await;
    }

    #[tokio::test]
    async fn what_has_run_out_is_given_no_more_and_swept() {
        let Fixture { store, _directory } = fixture().await;
        let generations = store.generations();
        let cache = TokenCache::new(settings(100, 1 << 20), &store);
        let weak: Vec<_> = [None, Some(NOW), Some(Timestamp(NOW.0 + 1))]
            .into_iter()
            .zip(0..)
            .map(|(expiry, number)| {
                let issued = token("t", expiry);
                keep(&cache, generations, number, &issued);
                Arc::downgrade(&issued)
            })
            .collect();
        assert_eq!(count(&cache), 3);
        cache.sweep(generations, NOW);
        let kept: Vec<bool> = weak.iter().map(|issued| issued.strong_count() > 0).collect();
        assert_eq!(kept, [true, false, true], "a token that has run out is not in memory any more");
        assert!(cache.get(generations, TENANT, &of(2), NOW).is_some());
        assert!(cache.get(generations, TENANT, &of(2), Timestamp(NOW.0 + 1)).is_none());
        assert!(cache.get(generations, TenantId(Uuid::from_u128(2)), &of(0), NOW).is_none(), "of another tenant");
        cache.clear();
        assert!(weak.iter().all(|issued| issued.strong_count() == 0));
        store.close().await;
    }
}
