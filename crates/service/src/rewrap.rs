//! Re-wrapping: all data keys under the active key-encryption key and, if asked for, all secrets under fresh data keys.
//! It runs beside the calls, in small transactions; when the process that works on it dies, another goes on.

use std::collections::HashSet;
use std::time::Duration;

use jackfield_domain::page::{Order, OrderBy, RowKey};
use jackfield_domain::{Error, Resource, Result, TenantId, Timestamp};
use jackfield_store::{DataKeyRow, Hints, PageQuery, RewrapRow, RewrapState, Scope, SecretRow, Writer};
use jackfield_vault::{DataKey, WrappedDataKey};
use uuid::Uuid;

use crate::caller::Caller;
use crate::mutation::{Begun, Mutation};
use crate::open::Services;
use crate::secrets::SecretPlace;

/// Data keys or secrets in one transaction.
const BATCH: u64 = 100;
/// A worker that gave no sign of life for this long is taken for dead: 60 s, in microseconds.
const DEAD_AFTER_MICROS: i64 = 60 * 1_000_000;
/// How often the work is tried again while the database is away, and how long after.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);

/// A re-wrap at work.
struct Worker {
    services: Services,
    row: RewrapRow,
    /// What failed; it is left out from then on.
    failed: HashSet<(Uuid, String)>,
}

// === impl Services ===

impl Services {
    /// Starts a re-wrap, or finds the one that is under way.
    pub async fn rewrap_start(&self, caller: &Caller, mutation: &Mutation, reseal: bool) -> Result<RewrapRow> {
        let change = match self.begin(caller, mutation).await? {
            Begun::Replay(answer) => return Ok(answer),
            Begun::Fresh(change) => change,
        };
        change.txn.alone().await?;
        let now = self.now();
        let former = change.txn.rewrap_fetch().await?;
        if let Some(running) = former.filter(|former| former.state == RewrapState::Running && !is_dead(former, now)) {
            return self.finish(caller, mutation, change, running).await;
        }
        let kek_id = self.shared.vault.active_key_id();
        let row = RewrapRow {
            id: Uuid::now_v7(),
            state: RewrapState::Running,
            data_keys_total: count(change.txn.data_keys_of_other_keks_count(&kek_id).await?),
            kek_id,
            reseal,
            data_keys_done: 0,
            secrets_total: if reseal { count(change.txn.secrets_count().await?) } else { 0 },
            secrets_done: 0,
            failed: 0,
            start_time: now,
            end_time: None,
            heartbeat_time: now,
        };
        change.txn.rewrap_insert(&row).await?;
        let row = self.finish(caller, mutation, change, row).await?;
        if !mutation.validate_only {
            self.rewrap_work(row.clone());
        }
        Ok(row)
    }

    /// How the newest re-wrap stands.
    pub async fn rewrap_status(&self, _: &Caller) -> Result<RewrapRow> {
        let row = self.shared.store.read().rewrap_fetch().await?;
        row.ok_or_else(|| Error::not_found(Resource::Rewrap, "newest"))
    }

    /// Goes on with a re-wrap whose worker died.
    pub(crate) async fn rewrap_take_over(&self) -> Result<()> {
        let txn = self.shared.store.write().await?;
        txn.alone().await?;
        let now = self.now();
        let Some(mut row) = txn.rewrap_fetch().await? else { return Ok(()) };
        if row.state != RewrapState::Running || !is_dead(&row, now) {
            return Ok(());
        }
        row.heartbeat_time = now;
        txn.rewrap_replace(&row).await?;
        txn.commit().await?;
        tracing::info!(rewrap.id = %row.id, "re-wrap taken over");
        self.rewrap_work(row);
        Ok(())
    }

    fn rewrap_work(&self, row: RewrapRow) {
        let worker = Worker { services: self.clone(), row, failed: HashSet::new() };
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
        for _ in 0..TRIES {
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
                Err(error) => {
                    tracing::warn!(rewrap.id = %id, error = &error as &dyn std::error::Error, "re-wrap interrupted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        // The row stays RUNNING without a sign of life, and is taken over.
        tracing::error!(rewrap.id = %id, "re-wrap given up for now");
    }

    async fn work(&mut self) -> Result<()> {
        self.data_keys().await?;
        if self.row.reseal {
            let mut after = None;
            while let Some(tenant) = self.next_tenant(&mut after).await? {
                self.reseal(tenant).await?;
            }
        }
        let state = if self.row.failed == 0 { RewrapState::Done } else { RewrapState::Failed };
        let row = RewrapRow { state, end_time: Some(self.services.now()), ..self.row.clone() };
        let txn = self.services.shared.store.write().await?;
        txn.rewrap_replace(&row).await?;
        txn.commit().await
    }

    /// Wraps all data keys with the active key-encryption key.
    async fn data_keys(&mut self) -> Result<()> {
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
            let txn = self.services.shared.store.write().await?;
            let mut done = 0;
            for row in rows {
                match self.wrap(&row).await {
                    Ok(wrapped) => {
                        txn.data_key_replace(&wrapped).await?;
                        done += 1;
                    }
                    Err(error) if error.retryable() => return Err(error),
                    Err(error) => self.give_up(row.id, String::new(), row.tenant, &error),
                }
            }
            self.commit(txn, done, 0).await?;
        }
    }

    async fn wrap(&self, row: &DataKeyRow) -> Result<DataKeyRow> {
        let former = WrappedDataKey { kek_id: row.kek_id.clone(), bytes: row.wrapped.clone() };
        let wrapped = self.services.shared.vault.data_key_rewrap(row.tenant, row.id, &former).await?;
        Ok(DataKeyRow { kek_id: wrapped.kek_id, wrapped: wrapped.bytes, ..row.clone() })
    }

    async fn next_tenant(&self, after: &mut Option<RowKey>) -> Result<Option<TenantId>> {
        let query = PageQuery {
            tenant: TenantId::SYSTEM,
            filter: None,
            scope: &Scope::default(),
            order: Order { by: OrderBy::Id, descending: false },
            after: after.take(),
            size: 1,
            now: self.services.now(),
            hints: Hints::default(),
        };
        let page = self.services.shared.store.read().tenant_page(&query).await?;
        let tenant = page.items.first().map(|tenant| tenant.id);
        *after = tenant.map(|tenant| RowKey { value: None, id: tenant.0 });
        Ok(tenant)
    }

    /// Seals all secrets of a tenant with a data key that is younger than this re-wrap, then destroys the older ones.
    async fn reseal(&mut self, tenant: TenantId) -> Result<()> {
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
            let txn = self.services.shared.store.write().await?;
            let mut done = 0;
            for row in rows {
                match self.seal(&row, &fresh).await {
                    // A secret that was changed in between comes again, unless it is under the fresh key already.
                    Ok(value) => done += i64::from(txn.secret_reseal(&row, fresh.id(), value).await?),
                    Err(error) if error.retryable() => return Err(error),
                    Err(error) => self.give_up(row.owner_id, row.name, tenant, &error),
                }
            }
            self.commit(txn, 0, done).await?;
        }
        if self.row.failed == failed_before {
            // Refused by the database as long as a key seals anything: nothing can be lost here.
            let txn = self.services.shared.store.write().await?;
            txn.data_keys_delete(tenant, Some(fresh.id())).await?;
            txn.commit().await?;
            self.services.shared.data_keys.forget(tenant);
        }
        Ok(())
    }

    /// The newest data key of a tenant if it was made for this re-wrap, or else a new one. `None` if the tenant is gone.
    async fn fresh_data_key(&self, tenant: TenantId) -> Result<Option<std::sync::Arc<DataKey>>> {
        let txn = self.services.shared.store.write().await?;
        if txn.tenant_fetch_for_update(tenant).await?.is_none() {
            return Ok(None);
        }
        let newest = txn.data_keys_fetch(tenant).await?.into_iter().next();
        if newest.is_some_and(|newest| newest.create_time >= self.row.start_time) {
            return self.services.data_key_active(&txn, tenant).await.map(Some);
        }
        let fresh = self.services.data_key_create(&txn, tenant).await?;
        txn.commit().await?;
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
        self.failed.insert((id, name));
    }

    /// Makes a batch durable together with the progress, which is also the sign of life.
    async fn commit(&mut self, txn: Writer, data_keys: i64, secrets: i64) -> Result<()> {
        let row = RewrapRow {
            data_keys_done: self.row.data_keys_done + data_keys,
            secrets_done: self.row.secrets_done + secrets,
            heartbeat_time: self.services.now(),
            ..self.row.clone()
        };
        txn.rewrap_replace(&row).await?;
        txn.commit().await?;
        self.row = row;
        Ok(())
    }
}

fn is_dead(row: &RewrapRow, now: Timestamp) -> bool {
    row.heartbeat_time.plus_micros(DEAD_AFTER_MICROS) < now
}

fn count(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
