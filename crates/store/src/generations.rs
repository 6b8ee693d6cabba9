//! Generations: a count of changes for each object, by which a cache learns that an entry is stale.
//!
//! Only the changes of this process are seen here. A change counts from the time its commit begins until the commit has ended,
//! whether it succeeded or failed: while it is under way, no entry that depends on its objects is current. So no caller finds a
//! new row in the database and then an entry of the old one, and none finds such an entry after the change was answered.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jackfield_domain::TenantId;
use uuid::Uuid;

/// The generations of a process; clones share them.
#[derive(Clone)]
pub struct Generations(Arc<Counters>);

struct Counters {
    /// Counts changes.
    count: AtomicU64,
    slots: Box<[Slot]>,
    hasher: RandomState,
}

/// The generation of all objects that hash to this slot: a change of one of them counts as a change of all.
#[derive(Default)]
struct Slot {
    /// The count after the last change.
    changed: AtomicU64,
    /// Commits under way.
    pending: AtomicU32,
}

/// A point in time between two changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot(u64);

/// The rows that a cache entry depends on, and the time since which it does.
#[derive(Clone, Debug)]
pub struct Dependencies {
    since: Snapshot,
    slots: Arc<[u16]>,
}

/// The rows that a transaction changes.
pub(crate) struct PendingChanges {
    generations: Generations,
    slots: Mutex<BTreeSet<u16>>,
}

/// A commit under way. Entries that depend on its rows are stale as soon as it exists, and rows can be cached again when it is
/// dropped.
pub(crate) struct Committing {
    generations: Generations,
    slots: BTreeSet<u16>,
}

/// The number of slots: few enough to take next to no memory, and enough that objects which are often read seldom share
/// one.
const SLOTS: u16 = 4_096;

// === impl Generations ===

impl Generations {
    pub(crate) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Generations(Arc::new(Counters { count: AtomicU64::new(0), slots, hasher: RandomState::new() }))
    }

    /// The current point in time. It has to be taken before the rows of the [`Dependencies`] are read.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.0.count.load(Ordering::Acquire))
    }

    /// The dependencies of an entry that is made of rows of a tenant, which were read since a snapshot.
    pub fn dependencies(&self, since: Snapshot, tenant: TenantId, ids: impl IntoIterator<Item = Uuid>) -> Dependencies {
        let slots = std::iter::once(tenant.0).chain(ids).map(|id| self.slot_of(tenant, id)).collect();
        Dependencies { since, slots }
    }

    /// Returns whether none of the rows has changed since.
    pub fn is_current(&self, dependencies: &Dependencies) -> bool {
        dependencies.slots.iter().filter_map(|slot| self.0.slots.get(usize::from(*slot))).all(|slot| {
            // In this order: a commit first notes its change and then ends.
            slot.pending.load(Ordering::Acquire) == 0 && slot.changed.load(Ordering::Acquire) <= dependencies.since.0
        })
    }

    pub(crate) fn pending(&self) -> PendingChanges {
        PendingChanges { generations: self.clone(), slots: Mutex::default() }
    }

    fn slot_of(&self, tenant: TenantId, id: Uuid) -> u16 {
        let hash = self.0.hasher.hash_one((tenant, id));
        u16::try_from(hash % u64::from(SLOTS)).unwrap_or_default()
    }

    fn slots_of<'a>(&'a self, slots: &'a BTreeSet<u16>) -> impl Iterator<Item = &'a Slot> {
        slots.iter().filter_map(|slot| self.0.slots.get(usize::from(*slot)))
    }
}

// === impl PendingChanges ===

impl PendingChanges {
    /// Notes that a row of a tenant changes.
    pub(crate) fn row(&self, tenant: TenantId, id: Uuid) {
        let slot = self.generations.slot_of(tenant, id);
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).insert(slot);
    }

    /// Notes that any row of a tenant may change.
    pub(crate) fn tenant(&self, tenant: TenantId) {
        self.row(tenant, tenant.0);
    }

    /// Has to be called before the commit begins. The result has to be kept until the commit has ended and can have no further
    /// effect, and has to be dropped before the change is answered.
    pub(crate) fn commit(self) -> Committing {
        let slots = self.slots.into_inner().unwrap_or_else(PoisonError::into_inner);
        let committing = Committing { generations: self.generations, slots };
        for slot in committing.generations.slots_of(&committing.slots) {
            slot.pending.fetch_add(1, Ordering::AcqRel);
        }
        committing
    }
}

// === impl Committing ===

impl Drop for Committing {
    fn drop(&mut self) {
        if self.slots.is_empty() {
            return;
        }
        let count = self.generations.0.count.fetch_add(1, Ordering::AcqRel) + 1;
        for slot in self.generations.slots_of(&self.slots) {
            slot.changed.fetch_max(count, Ordering::AcqRel);
            slot.pending.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));

    fn generations_of(ids: &[u128]) -> (Generations, Vec<Uuid>) {
        let ids: Vec<Uuid> = ids.iter().map(|id| Uuid::from_u128(*id)).collect();
        loop {
            // Objects share a slot by chance; here none do.
            let generations = Generations::new();
            let slots = ids.iter().chain([&TENANT.0]).map(|id| generations.slot_of(TENANT, *id));
            if slots.collect::<BTreeSet<_>>().len() == ids.len() + 1 {
                return (generations, ids);
            }
        }
    }

    #[test]
    fn an_entry_of_a_changed_row_is_stale_from_the_start_of_the_commit() {
        let (generations, ids) = generations_of(&[10, 11]);
        let dependencies = |id: usize| generations.dependencies(generations.snapshot(), TENANT, [ids[id]]);
        let (one, other) = (dependencies(0), dependencies(1));
        let pending = generations.pending();
        pending.row(TENANT, ids[0]);
        assert!(generations.is_current(&one), "nothing was committed");
        let committing = pending.commit();
        assert!(!generations.is_current(&one));
        // A row that is read meanwhile may be the old or the new one, so the entry is not current now and never will be.
        let meanwhile = dependencies(0);
        assert!(!generations.is_current(&meanwhile));
        drop(committing);
        assert!(!generations.is_current(&one) && !generations.is_current(&meanwhile));
        assert!(generations.is_current(&dependencies(0)));
        assert!(generations.is_current(&other));
    }

    #[test]
    fn concurrent_commits_end_independently() {
        let (generations, ids) = generations_of(&[10]);
        let commit = || {
            let pending = generations.pending();
            pending.row(TENANT, ids[0]);
            pending.commit()
        };
        let (first, second) = (commit(), commit());
        drop(second);
        let between = generations.dependencies(generations.snapshot(), TENANT, ids.clone());
        assert!(!generations.is_current(&between), "the first is still under way");
        drop(first);
        assert!(!generations.is_current(&between), "and changed the row after it was read");
        assert!(generations.is_current(&generations.dependencies(generations.snapshot(), TENANT, ids)));
    }

    #[test]
    fn a_change_of_a_tenant_counts_for_all_its_rows_and_no_others() {
        let (generations, ids) = generations_of(&[10, 11]);
        let dependencies = generations.dependencies(generations.snapshot(), TENANT, ids);
        let rolled_back = generations.pending();
        rolled_back.tenant(TENANT);
        drop(rolled_back);
        assert!(generations.is_current(&dependencies), "a transaction that was rolled back is no change");
        let pending = generations.pending();
        pending.tenant(TenantId(Uuid::from_u128(2)));
        pending.row(TenantId(Uuid::from_u128(2)), Uuid::from_u128(10));
        let shared = pending.slots.lock().unwrap().iter().any(|slot| dependencies.slots.contains(slot));
        drop(pending.commit());
        assert_eq!(generations.is_current(&dependencies), !shared);
        let pending = generations.pending();
        pending.tenant(TENANT);
        drop(pending.commit());
        assert!(!generations.is_current(&dependencies));
    }
}
