//! Re-wraps: all data keys are wrapped with the active key-encryption key and, if asked for, all secrets are sealed with fresh
//! data keys. A re-wrap runs beside the calls, in small transactions. When the process that works on it dies, another continues.

mod worker;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jackfield_domain::principal::right::Admin;
use jackfield_domain::rewrap::{Rewrap, RewrapState};
use jackfield_domain::{Error, Resource, Result, Timestamp};
use uuid::Uuid;

use self::worker::Worker;
use crate::caller::Caller;
use crate::change::{Change, Length, RequestOptions};
use crate::services::Services;

/// A worker is considered dead if its last heartbeat is older.
const DEAD_AFTER: Duration = Duration::from_secs(60);
const DEAD_AFTER_MICROS: i64 = 60 * 1_000_000;

// === impl Services ===

impl Services {
    /// Starts a re-wrap, or finds the one that is under way.
    pub async fn rewrap_start(&self, caller: &Caller<Admin>, request: &RequestOptions, reseal: bool) -> Result<Rewrap> {
        let (mut started, mut settled) = (None, 0);
        let row = self.change(Change::of_deployment(caller, request, Length::Long), async |txn| {
            txn.lock_deployment().await?;
            let now = self.now();
            // An abandoned one would be continued, but the new one does all that it would have done.
            settled = txn.rewraps_settle(now.plus_micros(-DEAD_AFTER_MICROS), now).await?;
            let newest = txn.rewrap_fetch().await?;
            if let Some(running) = newest.as_ref().filter(|row| row.state == RewrapState::Running) {
                return Ok(running.clone());
            }
            // All data keys are older than it, and so are all other re-wraps, even if a clock was ahead.
            let others = [newest.map(|row| row.start_time), txn.data_keys_last_created().await?];
            let start_time = others.into_iter().flatten().map(|time| time.plus_micros(1)).fold(now, Timestamp::max);
            let kek_id = self.shared.vault.active_key_id();
            let row = Rewrap {
                id: Uuid::now_v7(),
                state: RewrapState::Running,
                data_keys_total: count(txn.data_keys_of_other_keks_count(&kek_id).await?),
                kek_id,
                reseal,
                data_keys_done: 0,
                secrets_total: if reseal { count(txn.secrets_count().await?) } else { 0 },
                secrets_done: 0,
                failed: 0,
                start_time,
                end_time: None,
                heartbeat_time: now,
            };
            txn.rewrap_insert(&row).await?;
            started = Some(row.clone());
            Ok(row)
        });
        let row = row.await?;
        if request.validate_only {
            return Ok(row);
        }
        if settled > 0 {
            tracing::warn!(rewrap.settled = settled, "re-wraps without a heartbeat ended as failed");
        }
        if let Some(started) = started {
            self.rewrap_work(started);
        }
        Ok(row)
    }

    /// The newest re-wrap.
    pub async fn rewrap_get(&self, _: &Caller<Admin>) -> Result<Rewrap> {
        let row = self.shared.store.read().rewrap_fetch().await?;
        row.ok_or_else(|| Error::not_found(Resource::Rewrap, "newest"))
    }

    /// Continues a re-wrap whose worker died.
    pub(crate) async fn rewrap_take_over(&self) -> Result<()> {
        let found = self.shared.store.read().rewrap_fetch().await?;
        let Some(seen) = found.filter(|row| row.state == RewrapState::Running) else { return Ok(()) };
        let now = self.now();
        let is_silent = self.shared.rewrap_watch.is_silent(&seen);
        if !is_silent && seen.heartbeat_time.plus_micros(DEAD_AFTER_MICROS) >= now {
            return Ok(());
        }
        let taken = self.change(Change::by_system(Length::Long), async |txn| {
            txn.lock_deployment().await?;
            let row = Rewrap { heartbeat_time: now, ..seen.clone() };
            Ok(txn.rewrap_advance(&row, seen.heartbeat_time).await?.then_some(row))
        });
        if let Some(row) = taken.await? {
            tracing::info!(rewrap.id = %row.id, "re-wrap taken over");
            self.rewrap_work(row);
        }
        Ok(())
    }

    fn rewrap_work(&self, row: Rewrap) {
        let worker = Worker::new(self.clone(), row);
        let stop = self.shared.stop.clone();
        self.shared.tasks.spawn(async move {
            // Between two batches nothing is half done, so it may stop anywhere.
            stop.run_until_cancelled(worker.run()).await;
        });
    }
}

/// The last heartbeat that this process has seen. One that stays the same is of a dead worker, whatever its time: the clock of
/// the worker may have been ahead.
#[derive(Default)]
pub(crate) struct RewrapWatch(Mutex<Option<Seen>>);

struct Seen {
    heartbeat: (Uuid, Timestamp),
    since: Instant,
}

// === impl RewrapWatch ===

impl RewrapWatch {
    /// Notes a heartbeat. Returns true if it is still the one of 60 s ago.
    fn is_silent(&self, row: &Rewrap) -> bool {
        let heartbeat = (row.id, row.heartbeat_time);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = match &mut *seen {
            Some(seen) if seen.heartbeat == heartbeat => seen,
            other => other.insert(Seen { heartbeat, since: Instant::now() }),
        };
        seen.since.elapsed() >= DEAD_AFTER
    }
}

fn count(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_that_stays_the_same_is_of_a_dead_worker() {
        let row = Rewrap {
            id: Uuid::now_v7(),
            state: RewrapState::Running,
            kek_id: String::new(),
            reseal: true,
            data_keys_total: 0,
            data_keys_done: 0,
            secrets_total: 0,
            secrets_done: 0,
            failed: 0,
            start_time: Timestamp(0),
            end_time: None,
            heartbeat_time: Timestamp(0),
        };
        let watch = RewrapWatch::default();
        let age = |by: Duration| {
            let mut seen = watch.0.lock().unwrap();
            let seen = seen.as_mut().unwrap();
            seen.since = seen.since.checked_sub(by).unwrap();
        };
        assert!(!watch.is_silent(&row), "just seen");
        age(DEAD_AFTER / 2);
        assert!(!watch.is_silent(&row));
        age(DEAD_AFTER / 2);
        assert!(watch.is_silent(&row));
        let later = Rewrap { heartbeat_time: Timestamp(1), ..row.clone() };
        assert!(!watch.is_silent(&later), "it lives");
        age(DEAD_AFTER);
        let other = Rewrap { id: Uuid::now_v7(), ..later };
        assert!(!watch.is_silent(&other), "another one");
    }
}
