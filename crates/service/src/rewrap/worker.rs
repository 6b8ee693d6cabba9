//! The worker of a re-wrap. Its progress is in the rows themselves, so a worker that continues it starts from the
//! beginning.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::rewrap::{Rewrap, RewrapState};
use jackfield_domain::{Error, Resource, Result, TenantId};
use jackfield_store::{DataKeyRow, SecretRow, Writer};
use jackfield_vault::{DataKey, WrappedDataKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::change::{Change, Length};
use crate::services::Services;

/// Data keys or secrets in one transaction.
const BATCH: u64 = 100;

/// The number of attempts while the database cannot be reached, and the pause between them.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);

/// The interval of heartbeats while there is nothing else to commit: 10 s, in microseconds.
const BEAT_MICROS: i64 = 10 * 1_000_000;

/// A re-wrap in progress.
pub(super) struct Worker {
    services: Services,
    /// The re-wrap as it is in the database. Another worker that takes it over changes the heartbeat there, and then nothing that
    /// this worker does can be committed any more.
    rewrap: Rewrap,
    /// The re-wrap as it should be after a commit whose outcome is not known.
    tried: Option<Rewrap>,
    /// The keys and secrets that failed. They are left out from then on.
    failed: HashSet<Failed>,
}

/// A data key, or a secret with its owner. Callers choose ids, so the same id can occur elsewhere.
#[derive(PartialEq, Eq, Hash)]
enum Failed {
    DataKey(TenantId, Uuid),
    Secret(TenantId, Resource, Uuid, String),
}

/// The reason why a worker stops early.
enum Stop {
    /// It may continue later.
    Failed(Error),
    /// Another worker has taken the re-wrap over.
    Superseded,
}

// === impl Worker ===

impl Worker {
    pub(super) fn new(services: Services, rewrap: Rewrap) -> Self {
        Worker { services, rewrap, tried: None, failed: HashSet::new() }
    }

    /// Works until the re-wrap is done.
    pub(super) async fn run(mut self) {
        let id = self.rewrap.id;
        let services = self.services.clone();
        let _at_work = services.shared.gauge_sources.rewrap_begin();
        services.shared.gauge_sources.rewrap_advance(&self.rewrap);
        let mut tries = 0;
        while tries < TRIES {
            let before = self.rewrap.heartbeat_time;
            match self.work().await {
                Ok(()) => {
                    tracing::info!(
                        rewrap.id = %id,
                        rewrap.data_keys = self.rewrap.data_keys_done,
                        rewrap.secrets = self.rewrap.secrets_done,
                        rewrap.failed = self.rewrap.failed,
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
            tries = if self.rewrap.heartbeat_time == before { tries + 1 } else { 1 };
        }
        // It stays RUNNING without a heartbeat, and is taken over.
        tracing::error!(rewrap.id = %id, "re-wrap given up for now");
    }

    async fn work(&mut self) -> Result<(), Stop> {
        self.resolve_unknown_commit().await?;
        self.wrap_data_keys().await?;
        if self.rewrap.reseal {
            let mut after = None;
            while let Some(tenant) = self.next_tenant(&mut after).await? {
                self.reseal(tenant).await?;
                self.beat().await?;
            }
        }
        let state = if self.rewrap.failed == 0 { RewrapState::Done } else { RewrapState::Failed };
        let end_time = Some(self.services.now().max(self.rewrap.start_time));
        self.change(async |_| Ok(()), |rewrap, ()| (rewrap.state, rewrap.end_time) = (state, end_time)).await
    }

    /// Finds out whether a commit took place whose outcome was not known.
    async fn resolve_unknown_commit(&mut self) -> Result<(), Stop> {
        let Some(tried) = self.tried.take() else { return Ok(()) };
        let stored = match self.services.shared.store.read().rewrap_fetch().await {
            Ok(stored) => stored,
            Err(error) => {
                self.tried = Some(tried);
                return Err(error.into());
            }
        };
        if stored.as_ref() == Some(&tried) {
            self.advance(tried);
        }
        Ok(())
    }

    /// Writes a heartbeat if the last one was a while ago.
    async fn beat(&mut self) -> Result<(), Stop> {
        if self.rewrap.heartbeat_time.plus_micros(BEAT_MICROS) > self.services.now() {
            return Ok(());
        }
        self.change(async |_| Ok(()), |_, ()| ()).await
    }

    /// Wraps all data keys with the active key-encryption key.
    async fn wrap_data_keys(&mut self) -> Result<(), Stop> {
        loop {
            // Another key may have become active since the re-wrap was started, by this process or by one that died. The vault wraps
            // with the active one, so the keys to look for are those of all others.
            self.rewrap.kek_id = self.services.shared.vault.active_key_id();
            let limit = BATCH + self.failed.len() as u64;
            let rows = self.services.shared.store.read().data_keys_of_other_keks(&self.rewrap.kek_id, limit).await?;
            let rows: Vec<_> =
                rows.into_iter().filter(|row| !self.failed.contains(&Failed::DataKey(row.tenant, row.id))).collect();
            if rows.is_empty() {
                return Ok(());
            }
            let mut wrapped = Vec::new();
            for row in rows {
                match self.wrap(&row).await {
                    Ok(row) => wrapped.push(row),
                    Err(error) if error.retryable() => return Err(error.into()),
                    Err(error) => self.give_up(Failed::DataKey(row.tenant, row.id), &error),
                }
                self.beat().await?;
            }
            let done = i64::try_from(wrapped.len()).unwrap_or(i64::MAX);
            self.change(
                async |txn| {
                    for row in &wrapped {
                        txn.data_key_replace(row).await?;
                    }
                    Ok(())
                },
                |rewrap, ()| rewrap.data_keys_done += done,
            )
            .await?;
        }
    }

    async fn wrap(&self, row: &DataKeyRow) -> Result<DataKeyRow> {
        let present = WrappedDataKey { kek_id: row.kek_id.clone(), bytes: row.wrapped.clone() };
        let wrapped = self.services.shared.vault.data_key_rewrap(row.tenant, row.id, &present).await?;
        Ok(DataKeyRow { kek_id: wrapped.kek_id, wrapped: wrapped.bytes, ..row.clone() })
    }

    /// The tenant after another one. Its row is not decoded: a tenant whose row is damaged has secrets as well.
    async fn next_tenant(&self, after: &mut Option<TenantId>) -> Result<Option<TenantId>> {
        *after = self.services.shared.store.read().tenant_after(*after).await?;
        Ok(*after)
    }

    /// Seals all secrets of a tenant with the data key of this re-wrap, then destroys the others.
    async fn reseal(&mut self, tenant: TenantId) -> Result<(), Stop> {
        let Some(fresh) = self.fresh_data_key(tenant).await? else { return Ok(()) };
        let is_complete = loop {
            let limit = BATCH + self.failed.len() as u64;
            let rows = self.services.shared.store.read().secrets_of_other_keys(tenant, fresh.id(), limit).await?;
            let is_complete = rows.is_empty();
            let rows: Vec<SecretRow> =
                rows.into_iter().filter(|row| !self.failed.contains(&Failed::secret(row))).collect();
            if rows.is_empty() {
                break is_complete;
            }
            let mut sealed = Vec::new();
            for row in rows {
                match self.seal(&row, &fresh).await {
                    Ok(value) => sealed.push((row, value)),
                    Err(error) if error.retryable() => return Err(error.into()),
                    Err(error) => self.give_up(Failed::secret(&row), &error),
                }
            }
            self.change(
                async |txn| {
                    let mut done: i64 = 0;
                    for (row, value) in sealed {
                        // A secret that was changed in between comes again, unless it is under the fresh key already.
                        done += i64::from(txn.secret_reseal(&row, fresh.id(), value).await?);
                    }
                    Ok(done)
                },
                |rewrap, done| rewrap.secrets_done += done,
            )
            .await?;
        };
        if is_complete && self.services.shared.store.read().data_keys_fetch(tenant).await?.len() > 1 {
            // The database refuses this as long as a key seals anything, so nothing can be lost here.
            self.change(async |txn| txn.data_keys_delete_others(tenant, fresh.id()).await, |_, _| ()).await?;
            self.services.shared.data_keys.forget(tenant);
        }
        Ok(())
    }

    /// The data key of a tenant that was made since the re-wrap began, or else a new one. `None` if the tenant is gone or the key
    /// cannot be opened.
    async fn fresh_data_key(&mut self, tenant: TenantId) -> Result<Option<Arc<DataKey>>, Stop> {
        let shared = Arc::clone(&self.services.shared);
        let start_time = self.rewrap.start_time;
        // A change is made only if there is something to change: it writes a heartbeat, which counts as progress.
        let newest = shared.store.read().data_keys_fetch(tenant).await?.into_iter().next();
        if let Some(row) = newest.filter(|newest| newest.create_time >= start_time) {
            let failed = Failed::DataKey(tenant, row.id);
            return match shared.data_keys.opened(row).await {
                Ok(fresh) => Ok(Some(fresh)),
                Err(error) if error.retryable() => Err(error.into()),
                Err(error) => {
                    self.give_up(failed, &error);
                    Ok(None)
                }
            };
        }
        let mut fresh = None;
        self.change(
            async |txn| {
                if txn.tenant_lock_shared(tenant).await? && txn.tenant_exists(tenant).await? {
                    let time = start_time.max(shared.clock.now());
                    fresh = Some(shared.data_keys.create_after(txn, tenant, time).await?);
                }
                Ok(())
            },
            |_, ()| (),
        )
        .await?;
        Ok(fresh)
    }

    async fn seal(&self, row: &SecretRow, fresh: &DataKey) -> Result<Vec<u8>> {
        let address = row.address();
        let plaintext = self.services.shared.secrets.open(None, address, &row.sealed).await?;
        fresh.seal(&address, &plaintext)
    }

    fn give_up(&mut self, failed: Failed, error: &Error) {
        let (tenant, id, name) = match &failed {
            Failed::DataKey(tenant, id) => (tenant, id, ""),
            Failed::Secret(tenant, _, owner, name) => (tenant, owner, name.as_str()),
        };
        tracing::error!(
            rewrap.id = %self.rewrap.id,
            tenant.id = %tenant,
            secret.owner = %id,
            secret.name = name,
            error = error as &dyn std::error::Error,
            "a key or secret cannot be re-wrapped"
        );
        if self.failed.insert(failed) {
            self.rewrap.failed += 1;
            self.services.shared.gauge_sources.rewrap_fail();
        }
    }

    /// Makes a batch durable together with the progress, which is also the heartbeat; unless the re-wrap was taken over. The
    /// transaction shares its commit with no call, and gives way to calls.
    async fn change<T, W, P>(&mut self, work: W, progress: P) -> Result<T, Stop>
    where
        T: Serialize + DeserializeOwned,
        W: AsyncFnOnce(&Writer) -> Result<T>,
        P: FnOnce(&mut Rewrap, &T),
    {
        let Worker { services, rewrap: before, tried, .. } = &mut *self;
        let mut is_superseded = false;
        let done = services.change(Change::by_system(Length::Long), async |txn| {
            txn.give_way().await?;
            let done = work(txn).await?;
            // Later than the last one even if the clock stops: a heartbeat that stays the same is of a dead worker.
            let beat = services.now().max(before.heartbeat_time.plus_micros(1));
            let mut rewrap = Rewrap { heartbeat_time: beat, ..before.clone() };
            progress(&mut rewrap, &done);
            if !txn.rewrap_advance(&rewrap, before.heartbeat_time).await? {
                is_superseded = true;
                return Err(Error::internal("the re-wrap was taken over"));
            }
            *tried = Some(rewrap);
            Ok(done)
        });
        let done = done.await;
        if is_superseded {
            return Err(Stop::Superseded);
        }
        let done = done?;
        if let Some(rewrap) = self.tried.take() {
            self.advance(rewrap);
        }
        Ok(done)
    }

    fn advance(&mut self, rewrap: Rewrap) {
        self.rewrap = rewrap;
        self.services.shared.gauge_sources.rewrap_advance(&self.rewrap);
    }
}

// === impl Failed ===

impl Failed {
    fn secret(row: &SecretRow) -> Self {
        Failed::Secret(row.tenant, row.owner, row.owner_id, row.name.clone())
    }
}

// === impl Stop ===

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}
