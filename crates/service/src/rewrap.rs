//! Re-wrapping: all data keys under the active key-encryption key and, if asked for, all secrets under fresh data keys.
//! It runs beside the calls, in small transactions; when the process that works on it dies, another goes on.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::principal::right::Admin;
use jackfield_domain::{Error, Resource, Result, TenantId, Timestamp};
use jackfield_store::{DataKeyRow, RewrapRow, RewrapState, SecretRow, Writer};
use jackfield_vault::{DataKey, WrappedDataKey};
use uuid::Uuid;

use crate::caller::Caller;
use crate::mutation::{Mutation, Weight};
use crate::open::Services;
use crate::secrets::SecretPlace;

/// Data keys or secrets in one transaction.
const BATCH: u64 = 100;
/// A worker that gave no sign of life for this long is taken for dead: 60 s, in microseconds.
const DEAD_AFTER_MICROS: i64 = 60 * 1_000_000;
/// How often the work is tried again while the database is away, and how long after.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);

/// How often a worker gives a sign of life at least, if it gets to it: 10 s, in microseconds.
const BEAT_MICROS: i64 = 10 * 1_000_000;

/// A re-wrap at work.
struct Worker {
    services: Services,
    /// As it stands in the database. Whoever takes the re-wrap over changes the sign of life there, and then nothing that this
    /// worker does can be committed any more.
    row: RewrapRow,
    /// As it was to stand after a commit whose outcome is not known.
    tried: Option<RewrapRow>,
    /// What failed; it is left out from then on.
    failed: HashSet<(Uuid, String)>,
}

/// Why a worker stops before it is done.
enum Stop {
    /// It may go on later.
    Failed(Error),
    /// The re-wrap is in other hands.
    Superseded,
}

// === impl Services ===

impl Services {
    /// Starts a re-wrap, or finds the one that is under way.
    pub async fn rewrap_start(&self, caller: &Caller<Admin>, mutation: &Mutation, reseal: bool) -> Result<RewrapRow> {
        let mut started = None;
        let row = self.change_for_all(caller, mutation, Weight::Heavy, async |txn| {
            txn.lock_deployment().await?;
            let now = self.now();
            // One whose worker died would be taken over; a new one does all that it would have done.
            let settled = txn.rewraps_settle(now.plus_micros(-DEAD_AFTER_MICROS), now).await?;
            if settled > 0 {
                tracing::warn!(rewrap.settled = settled, "re-wraps without a sign of life ended as failed");
            }
            if let Some(running) = txn.rewrap_fetch().await?.filter(|row| row.state == RewrapState::Running) {
                return Ok(running);
            }
            let kek_id = self.shared.vault.active_key_id();
            let row = RewrapRow {
                id: Uuid::now_v7(),
                state: RewrapState::Running,
                data_keys_total: count(txn.data_keys_of_other_keks_count(&kek_id).await?),
                kek_id,
                reseal,
                data_keys_done: 0,
                secrets_total: if reseal { count(txn.secrets_count().await?) } else { 0 },
                secrets_done: 0,
                failed: 0,
                start_time: now,
                end_time: None,
                heartbeat_time: now,
            };
            txn.rewrap_insert(&row).await?;
            started = Some(row.clone());
            Ok(row)
        });
        let row = row.await?;
        if let Some(started) = started.filter(|_| !mutation.validate_only) {
            self.rewrap_work(started);
        }
        Ok(row)
    }

    /// How the newest re-wrap stands.
    pub async fn rewrap_get(&self, _: &Caller<Admin>) -> Result<RewrapRow> {
        let row = self.shared.store.read().rewrap_fetch().await?;
        row.ok_or_else(|| Error::not_found(Resource::Rewrap, "newest"))
    }

    /// Goes on with a re-wrap whose worker died.
    pub(crate) async fn rewrap_take_over(&self) -> Result<()> {
        let now = self.now();
        let to_take = |row: &RewrapRow| row.state == RewrapState::Running && is_dead(row, now);
        if !self.shared.store.read().rewrap_fetch().await?.is_some_and(|row| to_take(&row)) {
            return Ok(());
        }
        let txn = self.shared.store.write_long().await?;
        txn.lock_deployment().await?;
        let Some(former) = txn.rewrap_fetch().await?.filter(to_take) else { return Ok(()) };
        let row = RewrapRow { heartbeat_time: now, ..former.clone() };
        if !txn.rewrap_advance(&row, former.heartbeat_time).await? {
            return Ok(());
        }
        txn.commit().await?;
        tracing::info!(rewrap.id = %row.id, "re-wrap taken over");
        self.rewrap_work(row);
        Ok(())
    }

    fn rewrap_work(&self, row: RewrapRow) {
        let worker = Worker { services: self.clone(), row, tried: None, failed: HashSet::new() };
        let stop = self.shared.stop.clone();
        self.shared.tasks.spawn(async move {
            // Between two batches nothing is half done, so it may stop anywhere.
            stop.run_until_cancelled(worker.run()).await;
        });
    }
}

// === impl Worker ===

impl Worker {
    /// Works until it is done. What is done shows in the rows, so a failed try is followed by another from the beginning.
    async fn run(mut self) {
        let id = self.row.id;
        let services = self.services.clone();
        let _at_work = services.shared.rewraps.begin();
        services.shared.rewraps.advance(&self.row);
        let mut tries = 0;
        while tries < TRIES {
            let before = self.row.heartbeat_time;
            match self.work().await {
                Ok(()) => {
                    tracing::info!(
                        rewrap.id = %id,
                        rewrap.data_keys = self.row.data_keys_done,
                        rewrap.secrets = self.row.secrets_done,
                        rewrap.failed = self.row.failed,
                        "re-wrap ended"
                    );
                    return;
                }
                Err(Stop::Superseded) => {
                    tracing::warn!(rewrap.id = %id, "re-wrap left to another worker");
                    return;
                }
                Err(Stop::Failed(error)) => {
                    tracing::warn!(rewrap.id = %id, error = &error as &dyn std::error::Error, "re-wrap interrupted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            tries = if self.row.heartbeat_time == before { tries + 1 } else { 1 };
        }
        // The row stays RUNNING without a sign of life, and is taken over.
        tracing::error!(rewrap.id = %id, "re-wrap given up for now");
    }

    async fn work(&mut self) -> Result<(), Stop> {
        self.know().await?;
        self.data_keys().await?;
        if self.row.reseal {
            let mut after = None;
            while let Some(tenant) = self.next_tenant(&mut after).await? {
                self.reseal(tenant).await?;
                self.beat().await?;
            }
        }
        let state = if self.row.failed == 0 { RewrapState::Done } else { RewrapState::Failed };
        let end_time = Some(self.services.now());
        let txn = self.begin().await?;
        self.commit(txn, |row| (row.state, row.end_time) = (state, end_time)).await
    }

    /// Finds out whether a commit took place whose outcome was not known.
    async fn know(&mut self) -> Result<(), Stop> {
        let Some(tried) = self.tried.take() else { return Ok(()) };
        let stored = match self.services.shared.store.read().rewrap_fetch().await {
            Ok(stored) => stored,
            Err(error) => {
                self.tried = Some(tried);
                return Err(error.into());
            }
        };
        if stored.as_ref() == Some(&tried) {
            self.row = tried;
            self.services.shared.rewraps.advance(&self.row);
        }
        Ok(())
    }

    /// A transaction for a batch. It shares its commit with no call, and gives way to calls.
    async fn begin(&self) -> Result<Writer> {
        let txn = self.services.shared.store.write_long().await?;
        txn.give_way().await?;
        Ok(txn)
    }

    /// Gives a sign of life, if the last one was a while ago.
    async fn beat(&mut self) -> Result<(), Stop> {
        if self.row.heartbeat_time.plus_micros(BEAT_MICROS) > self.services.now() {
            return Ok(());
        }
        let txn = self.begin().await?;
        self.commit(txn, |_| ()).await
    }

    /// Wraps all data keys with the active key-encryption key.
    async fn data_keys(&mut self) -> Result<(), Stop> {
        loop {
            // Another key may have become active since the re-wrap was started, by this process or by one that died. The
            // vault wraps with that, and so it is what remains to be looked for.
            self.row.kek_id = self.services.shared.vault.active_key_id();
            let limit = BATCH + self.failed.len() as u64;
            let rows = self.services.shared.store.read().data_keys_of_other_keks(&self.row.kek_id, limit).await?;
            let rows: Vec<_> = rows.into_iter().filter(|row| !self.failed.contains(&(row.id, String::new()))).collect();
            if rows.is_empty() {
                return Ok(());
            }
            let mut wrapped = Vec::new();
            for row in rows {
                match self.wrap(&row).await {
                    Ok(anew) => wrapped.push(anew),
                    Err(error) if error.retryable() => return Err(error.into()),
                    Err(error) => self.give_up(row.id, String::new(), row.tenant, &error),
                }
                self.beat().await?;
            }
            let txn = self.begin().await?;
            for row in &wrapped {
                txn.data_key_replace(row).await?;
            }
            let done = i64::try_from(wrapped.len()).unwrap_or(i64::MAX);
            self.commit(txn, |row| row.data_keys_done += done).await?;
        }
    }

    async fn wrap(&self, row: &DataKeyRow) -> Result<DataKeyRow> {
        let former = WrappedDataKey { kek_id: row.kek_id.clone(), bytes: row.wrapped.clone() };
        let wrapped = self.services.shared.vault.data_key_rewrap(row.tenant, row.id, &former).await?;
        Ok(DataKeyRow { kek_id: wrapped.kek_id, wrapped: wrapped.bytes, ..row.clone() })
    }

    /// The tenant behind another one. By its row alone: one that cannot be read has secrets as well.
    async fn next_tenant(&self, after: &mut Option<TenantId>) -> Result<Option<TenantId>> {
        *after = self.services.shared.store.read().tenant_after(*after).await?;
        Ok(*after)
    }

    /// Seals all secrets of a tenant with a data key that is younger than this re-wrap, then destroys the older ones.
    async fn reseal(&mut self, tenant: TenantId) -> Result<(), Stop> {
        let fresh = self.fresh_data_key(tenant).await?;
        let Some(fresh) = fresh else { return Ok(()) };
        let failed_before = self.row.failed;
        loop {
            let limit = BATCH + self.failed.len() as u64;
            let rows = self.services.shared.store.read().secrets_of_other_keys(tenant, fresh.id(), limit).await?;
            let rows: Vec<SecretRow> =
                rows.into_iter().filter(|row| !self.failed.contains(&(row.owner_id, row.name.clone()))).collect();
            if rows.is_empty() {
                break;
            }
            let mut sealed = Vec::new();
            for row in rows {
                match self.seal(&row, &fresh).await {
                    Ok(value) => sealed.push((row, value)),
                    Err(error) if error.retryable() => return Err(error.into()),
                    Err(error) => self.give_up(row.owner_id, row.name, tenant, &error),
                }
            }
            let txn = self.begin().await?;
            let mut done = 0;
            for (row, value) in sealed {
                // A secret that was changed in between comes again, unless it is under the fresh key already.
                done += i64::from(txn.secret_reseal(&row, fresh.id(), value).await?);
            }
            self.commit(txn, |row| row.secrets_done += done).await?;
        }
        if self.row.failed == failed_before {
            // Refused by the database as long as a key seals anything: nothing can be lost here.
            let txn = self.begin().await?;
            if txn.data_keys_delete(tenant, Some(fresh.id())).await? > 0 {
                self.commit(txn, |_| ()).await?;
                self.services.shared.data_keys.forget(tenant);
            }
        }
        Ok(())
    }

    /// The newest data key of a tenant if it was made for this re-wrap, or else a new one. `None` if the tenant is gone.
    async fn fresh_data_key(&mut self, tenant: TenantId) -> Result<Option<Arc<DataKey>>, Stop> {
        let txn = self.begin().await?;
        if !txn.tenant_lock_shared(tenant).await? || !txn.tenant_exists(tenant).await? {
            return Ok(None);
        }
        let newest = txn.data_keys_fetch(tenant).await?.into_iter().next();
        if newest.is_some_and(|newest| newest.create_time >= self.row.start_time) {
            return Ok(self.services.data_key_active(&txn, tenant).await.map(Some)?);
        }
        let fresh = self.services.data_key_create(&txn, tenant).await?;
        self.commit(txn, |_| ()).await?;
        Ok(Some(fresh))
    }

    async fn seal(&self, row: &SecretRow, fresh: &DataKey) -> Result<Vec<u8>> {
        let place = SecretPlace { tenant: row.tenant, owner: row.owner, owner_id: row.owner_id, name: &row.name };
        let plaintext = self.services.secret_open(None, place, &row.sealed).await?;
        fresh.seal(&place.for_vault(), &plaintext)
    }

    fn give_up(&mut self, id: Uuid, name: String, tenant: TenantId, error: &Error) {
        tracing::error!(
            rewrap.id = %self.row.id,
            tenant.id = %tenant,
            secret.owner = %id,
            secret.name = name,
            error = error as &dyn std::error::Error,
            "a key or secret cannot be wrapped anew"
        );
        self.row.failed += 1;
        self.services.shared.rewraps.fail();
        self.failed.insert((id, name));
    }

    /// Makes a batch durable together with the progress, which is also the sign of life; unless the re-wrap was taken over.
    async fn commit(&mut self, txn: Writer, progress: impl FnOnce(&mut RewrapRow)) -> Result<(), Stop> {
        // Later than the last one even if the clock stands still, so that no two workers can give the same.
        let beat = self.services.now().max(self.row.heartbeat_time.plus_micros(1));
        let mut row = RewrapRow { heartbeat_time: beat, ..self.row.clone() };
        progress(&mut row);
        if !txn.rewrap_advance(&row, self.row.heartbeat_time).await? {
            return Err(Stop::Superseded);
        }
        self.tried = Some(row.clone());
        txn.commit().await?;
        (self.row, self.tried) = (row, None);
        self.services.shared.rewraps.advance(&self.row);
        Ok(())
    }
}

// === impl Stop ===

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

fn is_dead(row: &RewrapRow, now: Timestamp) -> bool {
    row.heartbeat_time.plus_micros(DEAD_AFTER_MICROS) < now
}

fn count(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
