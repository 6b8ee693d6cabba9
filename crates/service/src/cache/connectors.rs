//! Connectors that were used a moment ago, so that a call through one needs no query. They have no secrets: these are in the
//! clients alone.

use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::connector::Connector;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{TenantId, Timestamp};
use jackfield_store::Store;
use jackfield_upstream::clients::Revision;
use quick_cache::Equivalent;
use quick_cache::sync::Cache;
use uuid::Uuid;

use super::freshness::{Freshness, Origin, ReadStart};

/// Connectors by the reference that named them. All spellings of a name are one reference.
pub(crate) struct Connectors {
    entries: Cache<CacheKey, Entry>,
    freshness: Freshness,
}

/// A connector as it was read, with what decides which client it has.
pub(crate) struct KnownConnector {
    pub(crate) connector: Arc<Connector>,
    pub(crate) revision: Revision,
    /// The time at which one of its keys gets other material.
    pub(crate) activate_time: Option<Timestamp>,
}

/// The key of an entry: the reference, not the connector that it names.
#[derive(PartialEq, Eq, Hash)]
struct CacheKey {
    tenant: TenantId,
    reference: Ref,
}

/// A [`CacheKey`] that borrows its reference.
#[derive(Hash)]
struct BorrowedKey<'a> {
    tenant: TenantId,
    reference: &'a Ref,
}

#[derive(Clone)]
struct Entry {
    known: Arc<KnownConnector>,
    origin: Origin,
}

// === impl Connectors ===

impl Connectors {
    /// Keeps at most so many connectors, each for as long as it has not changed. If other replicas can change it, it is read again
    /// after `max_staleness`.
    pub(crate) fn new(store: &Store, max: usize, max_staleness: Duration) -> Self {
        Connectors { entries: Cache::new(max), freshness: Freshness::new(store, max_staleness) }
    }

    /// The connector that a reference named before, if it is still the same.
    pub(crate) fn get(&self, tenant: TenantId, reference: &Ref, now: Timestamp) -> Option<Arc<KnownConnector>> {
        let key = BorrowedKey { tenant, reference };
        let entry = self.entries.get(&key)?;
        if self.is_good(&entry, now) {
            return Some(entry.known);
        }
        self.entries.remove_if(&key, |kept| Arc::ptr_eq(&kept.known, &entry.known));
        None
    }

    /// Has to be called before the rows of a connector are read.
    pub(crate) fn start_read(&self) -> ReadStart {
        self.freshness.start_read()
    }

    /// Keeps a connector that was made of its row and those of its keys.
    pub(crate) fn put(&self, tenant: TenantId, reference: &Ref, known: Arc<KnownConnector>, start: ReadStart) {
        let Connector { id, client_identity_key, trust_bundle_key, .. } = &*known.connector;
        let keys = [*client_identity_key, *trust_bundle_key].into_iter().flatten().map(Uuid::from);
        let origin = self.freshness.origin(start, tenant, keys.chain([id.0]));
        self.entries.insert(CacheKey { tenant, reference: reference.clone() }, Entry { known, origin });
    }

    /// Drops entries that would not be used again.
    pub(crate) fn sweep(&self, now: Timestamp) {
        self.entries.retain(|_, entry| self.is_good(entry, now));
    }

    fn is_good(&self, entry: &Entry, now: Timestamp) -> bool {
        self.freshness.is_good(&entry.origin) && entry.known.activate_time.is_none_or(|time| now < time)
    }
}

// === impl BorrowedKey ===

impl Equivalent<CacheKey> for BorrowedKey<'_> {
    fn equivalent(&self, key: &CacheKey) -> bool {
        self.tenant == key.tenant && *self.reference == key.reference
    }
}

#[cfg(test)]
mod tests {
    use jackfield_domain::ConnectorId;
    use jackfield_domain::connector::{ConnectorKeys, ConnectorPatch, KindPatch, OAuth2Patch};
    use jackfield_domain::request::reference::ReferenceForms;
    use jackfield_domain::value::meta::Meta;
    use jackfield_domain::value::text::Name;
    use jackfield_store::{Database, PoolSettings};

    use super::*;

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));
    const NOW: Timestamp = Timestamp(1_000_000);

    fn known(name: &str) -> Arc<KnownConnector> {
        let patch = ConnectorPatch {
            name: Some(Name::parse("name", name, 191).unwrap()),
            kind: KindPatch::OAuth2(OAuth2Patch::default()),
            ..ConnectorPatch::default()
        };
        let keys = ConnectorKeys::default();
        let connector = Connector::create(ConnectorId::generate(), &patch, keys, Meta::new(NOW)).unwrap();
        let revision = Revision::of([(connector.id.0, 1)]);
        Arc::new(KnownConnector { connector: Arc::new(connector), revision, activate_time: None })
    }

    fn named(text: &str) -> Ref {
        Ref::parse("reference", text, ReferenceForms::ID_NAME).unwrap()
    }

    #[tokio::test]
    async fn spellings_of_a_name_are_one_entry() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::Sqlite(directory.path().join("test.sqlite3"));
        let settings = PoolSettings { max_connections: 1, acquire_timeout: Duration::from_secs(5) };
        let store = Store::connect(&database, settings).await.unwrap();
        let cache = Connectors::new(&store, 10, Duration::from_secs(60));
        let (cafe, other) = (known("Caf\u{e9}"), known("Cafe"));
        cache.put(TENANT, &named("name:Caf\u{e9}"), Arc::clone(&cafe), cache.start_read());
        cache.put(TENANT, &named("name:Cafe"), Arc::clone(&other), cache.start_read());
        let found = |reference: &str| cache.get(TENANT, &named(reference), NOW).map(|known| known.connector.id);
        for spelling in ["name:Caf\u{e9}", "name:CAF\u{c9}", "name:cafe\u{301}"] {
            assert_eq!(found(spelling), Some(cafe.connector.id), "{spelling}");
            cache.put(TENANT, &named(spelling), Arc::clone(&cafe), cache.start_read());
        }
        assert_eq!((found("name:CAFE"), found("name:caf")), (Some(other.connector.id), None));
        assert_eq!(cache.entries.len(), 2);
        store.close().await;
    }
}
