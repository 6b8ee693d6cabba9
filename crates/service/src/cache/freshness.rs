//! The rule by which copies of rows are good: as long as nothing that they depend on has changed
//! ([`jackfield_store::Generations`]), and for a bounded time.

use std::time::{Duration, Instant};

use jackfield_domain::TenantId;
use jackfield_store::{Dependencies, Generations, Snapshot, Store};
use uuid::Uuid;

/// The rule for the copies of one cache.
pub(crate) struct Freshness {
    generations: Generations,
    max_age: Duration,
}

/// The time before rows were read: changes after it are noticed by count, those of other replicas by age.
#[derive(Clone, Copy)]
pub(crate) struct ReadStart {
    snapshot: Snapshot,
    since: Instant,
}

/// The rows that a copy was made of, and the time before they were read.
#[derive(Clone)]
pub(crate) struct Origin {
    dependencies: Dependencies,
    since: Instant,
}

/// The age at which a copy is dropped even if it is good.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);

// === impl Freshness ===

impl Freshness {
    /// The rule for copies of what a database holds. If other replicas can change it, no copy is older than `max_staleness`.
    pub(crate) fn new(store: &Store, max_staleness: Duration) -> Self {
        let max_age = if store.is_shared() { max_staleness.min(MAX_AGE) } else { MAX_AGE };
        Freshness { generations: store.generations().clone(), max_age }
    }

    /// Has to be called before the rows that a copy comes from are read.
    pub(crate) fn start_read(&self) -> ReadStart {
        ReadStart { snapshot: self.generations.snapshot(), since: Instant::now() }
    }

    /// The origin of a copy that was made of some rows of a tenant.
    pub(crate) fn origin(&self, start: ReadStart, tenant: TenantId, rows: impl IntoIterator<Item = Uuid>) -> Origin {
        Origin { dependencies: self.generations.dependencies(start.snapshot, tenant, rows), since: start.since }
    }

    /// Returns true if a copy would be made again.
    pub(crate) fn is_good(&self, origin: &Origin) -> bool {
        self.generations.is_current(&origin.dependencies) && origin.since.elapsed() < self.max_age
    }
}
