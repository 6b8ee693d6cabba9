//! When which object changed last, so that what is remembered of rows can be known to be stale.
//!
//! Only the changes of this process are seen here. A change counts from the moment its commit begins until that has ended,
//! however it ended: while it is under way nothing that rests on its objects is current. So no caller finds a new row in the
//! database and then what was remembered of the old one, and none does after the change was answered.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jackfield_domain::TenantId;
use uuid::Uuid;

/// The stamps of a process; clones share them.
#[derive(Clone)]
pub struct Stamps(Arc<Table>);

struct Table {
    /// Counts changes.
    count: AtomicU64,
    slots: Box<[Slot]>,
    hasher: RandomState,
}

/// Stands for all objects that hash to it: that they share it makes a change of one look like a change of all.
#[derive(Default)]
struct Slot {
    /// The count after the last change.
    changed: AtomicU64,
    /// Commits under way.
    pending: AtomicU32,
}

/// A point between two changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u64);

/// What something that was read rests on.
#[derive(Clone, Debug)]
pub struct Basis {
    since: Moment,
    slots: Arc<[u16]>,
}

/// What a transaction changes.
pub(crate) struct Touched {
    stamps: Stamps,
    slots: Mutex<BTreeSet<u16>>,
}

/// A commit under way. What it changes is stale from when it is made, and current again when it is dropped.
pub(crate) struct Committing {
    stamps: Stamps,
    slots: BTreeSet<u16>,
}

/// Few enough to be nothing, many enough that objects which are asked for much seldom share one.
const SLOTS: u16 = 4_096;

// === impl Stamps ===

impl Stamps {
    pub(crate) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Stamps(Arc::new(Table { count: AtomicU64::new(0), slots, hasher: RandomState::new() }))
    }

    /// The present. It has to be asked for before the rows are read that a [`Basis`] is made of.
    pub fn now(&self) -> Moment {
        Moment(self.0.count.load(Ordering::Acquire))
    }

    /// What was read since a moment from rows of a tenant with these ids.
    pub fn basis(&self, since: Moment, tenant: TenantId, ids: impl IntoIterator<Item = Uuid>) -> Basis {
        let slots = std::iter::once(tenant.0).chain(ids).map(|id| self.slot_of(tenant, id)).collect();
        Basis { since, slots }
    }

    /// Whether nothing of what it rests on has changed since.
    pub fn is_current(&self, basis: &Basis) -> bool {
        basis.slots.iter().filter_map(|slot| self.0.slots.get(usize::from(*slot))).all(|slot| {
            // In this order: a commit first notes its change and then ends.
            slot.pending.load(Ordering::Acquire) == 0 && slot.changed.load(Ordering::Acquire) <= basis.since.0
        })
    }

    pub(crate) fn touched(&self) -> Touched {
        Touched { stamps: self.clone(), slots: Mutex::default() }
    }

    fn slot_of(&self, tenant: TenantId, id: Uuid) -> u16 {
        let hash = self.0.hasher.hash_one((tenant, id));
        u16::try_from(hash % u64::from(SLOTS)).unwrap_or_default()
    }

    fn slots_of<'a>(&'a self, slots: &'a BTreeSet<u16>) -> impl Iterator<Item = &'a Slot> {
        slots.iter().filter_map(|slot| self.0.slots.get(usize::from(*slot)))
    }
}

// === impl Touched ===

impl Touched {
    /// Notes that a row of a tenant changes.
    pub(crate) fn row(&self, tenant: TenantId, id: Uuid) {
        let slot = self.stamps.slot_of(tenant, id);
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).insert(slot);
    }

    /// Notes that anything of a tenant may change.
    pub(crate) fn tenant(&self, tenant: TenantId) {
        self.row(tenant, tenant.0);
    }

    /// To be called before the commit begins. The result has to be kept until its outcome is known and nothing of it can
    /// happen any more, and be dropped before the change is answered.
    pub(crate) fn commit(self) -> Committing {
        let slots = self.slots.into_inner().unwrap_or_else(PoisonError::into_inner);
        let committing = Committing { stamps: self.stamps, slots };
        for slot in committing.stamps.slots_of(&committing.slots) {
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
        let count = self.stamps.0.count.fetch_add(1, Ordering::AcqRel) + 1;
        for slot in self.stamps.slots_of(&self.slots) {
            slot.changed.fetch_max(count, Ordering::AcqRel);
            slot.pending.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));

    fn stamps_of(ids: &[u128]) -> (Stamps, Vec<Uuid>) {
        let ids: Vec<Uuid> = ids.iter().map(|id| Uuid::from_u128(*id)).collect();
        loop {
            // Which objects share a slot is by chance: here none does.
            let stamps = Stamps::new();
            let slots = ids.iter().chain([&TENANT.0]).map(|id| stamps.slot_of(TENANT, *id));
            if slots.collect::<BTreeSet<_>>().len() == ids.len() + 1 {
                return (stamps, ids);
            }
        }
    }

    #[test]
    fn what_rests_on_a_changed_row_is_stale_from_the_start_of_the_commit() {
        let (stamps, ids) = stamps_of(&[10, 11]);
        let basis = |id: usize| stamps.basis(stamps.now(), TENANT, [ids[id]]);
        let (one, other) = (basis(0), basis(1));
        let touched = stamps.touched();
        touched.row(TENANT, ids[0]);
        assert!(stamps.is_current(&one), "nothing was committed");
        let committing = touched.commit();
        assert!(!stamps.is_current(&one));
        // What is read meanwhile may be of before or after: it is not current now and never will be.
        let meanwhile = basis(0);
        assert!(!stamps.is_current(&meanwhile));
        drop(committing);
        assert!(!stamps.is_current(&one) && !stamps.is_current(&meanwhile));
        assert!(stamps.is_current(&basis(0)));
        assert!(stamps.is_current(&other));
    }

    #[test]
    fn commits_at_once_end_each_for_itself() {
        let (stamps, ids) = stamps_of(&[10]);
        let commit = || {
            let touched = stamps.touched();
            touched.row(TENANT, ids[0]);
            touched.commit()
        };
        let (first, second) = (commit(), commit());
        drop(second);
        let between = stamps.basis(stamps.now(), TENANT, ids.clone());
        assert!(!stamps.is_current(&between), "the first is still under way");
        drop(first);
        assert!(!stamps.is_current(&between), "and changed the row after it was read");
        assert!(stamps.is_current(&stamps.basis(stamps.now(), TENANT, ids)));
    }

    #[test]
    fn a_change_of_the_tenant_is_one_of_all_its_rows_and_of_no_others() {
        let (stamps, ids) = stamps_of(&[10, 11]);
        let basis = stamps.basis(stamps.now(), TENANT, ids);
        let rolled_back = stamps.touched();
        rolled_back.tenant(TENANT);
        drop(rolled_back);
        assert!(stamps.is_current(&basis), "what was undone is no change");
        let touched = stamps.touched();
        touched.tenant(TenantId(Uuid::from_u128(2)));
        touched.row(TenantId(Uuid::from_u128(2)), Uuid::from_u128(10));
        let shared = touched.slots.lock().unwrap().iter().any(|slot| basis.slots.contains(slot));
        drop(touched.commit());
        assert_eq!(stamps.is_current(&basis), !shared);
        let touched = stamps.touched();
        touched.tenant(TENANT);
        drop(touched.commit());
        assert!(!stamps.is_current(&basis));
    }
}
