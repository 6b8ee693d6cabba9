//! Re-wraps: all data keys are wrapped with the active key-encryption key and, if asked for, all secrets are sealed with fresh
//! data keys. A re-wrap runs beside the calls, in small transactions. When the process that works on it dies, another continues.

mod worker;

use std::ops::RangeInclusive;

use jackfield_domain::principal::right::Admin;
use jackfield_domain::rewrap::{Rewrap, RewrapState};
use jackfield_domain::{Error, Resource, Result, Timestamp};
use uuid::Uuid;

use self::worker::Worker;
use crate::caller::Caller;
use crate::change::{Change, Length, RequestOptions};
use crate::services::Services;

/// A worker whose last heartbeat is older, or as far in the future, is considered dead: 60 s, in microseconds.
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
            settled = txn.rewraps_settle(alive(now), now).await?;
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
        let now = self.now();
        let is_abandoned = |row: &Rewrap| row.state == RewrapState::Running && is_dead(row, now);
        if !self.shared.store.read().rewrap_fetch().await?.is_some_and(|row| is_abandoned(&row)) {
            return Ok(());
        }
        let taken = self.change(Change::by_system(Length::Long), async |txn| {
            txn.lock_deployment().await?;
            let Some(abandoned) = txn.rewrap_fetch().await?.filter(is_abandoned) else { return Ok(None) };
            let row = Rewrap { heartbeat_time: now, ..abandoned.clone() };
            Ok(txn.rewrap_advance(&row, abandoned.heartbeat_time).await?.then_some(row))
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

fn is_dead(row: &Rewrap, now: Timestamp) -> bool {
    !alive(now).contains(&row.heartbeat_time)
}

/// The heartbeats of workers that are alive. One from the future is of a clock that was ahead.
fn alive(now: Timestamp) -> RangeInclusive<Timestamp> {
    now.plus_micros(-DEAD_AFTER_MICROS)..=now.plus_micros(DEAD_AFTER_MICROS)
}

fn count(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
