//! Background work of the services: the secrets of expired authorisations are destroyed, expired answers, sessions, authorisations, events
//! and counts of attempts are deleted, events of connectors are written, providers are polled for device authorisations, refreshes whose
//! process has ended are settled, abandoned re-wraps are continued, the next material of keys is activated, keys that expire are counted, and
//! a database or a journal that cannot be written is tried again.

use std::time::Duration;

use jackfield_domain::Result;
use jackfield_domain::authorization::KEEP_MICROS;

use crate::change::{Change, Length};
use crate::services::Services;

/// The interval of the search for what has expired, for abandoned re-wraps, and for keys to be activated or renewed.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(30);

/// The interval at which a write is tried after one has failed.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The interval of the search for refreshes whose process has ended.
const SETTLE_INTERVAL: Duration = Duration::from_secs(10);

/// The interval at which idle connections to other systems are closed if their time is over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Rows of each kind that are deleted in one transaction. Calls come in between.
const PURGE_BATCH: u64 = 500;

// === impl Services ===

impl Services {
    pub(crate) fn start_maintenance(&self) {
        let services = self.clone();
        self.shared.tasks.spawn(async move { services.try_writes().await });
        let services = self.clone();
        self.shared.tasks.spawn(async move { services.shared.store.keep_log_empty(&services.shared.stop).await });
        let services = self.clone();
        self.shared.tasks.spawn(async move { services.write_events().await });
        let services = self.clone();
        self.shared.tasks.spawn(async move { services.refresh_due().await });
        let services = self.clone();
        self.shared.tasks.spawn(async move {
            while services.shared.stop.run_until_cancelled(tokio::time::sleep(SETTLE_INTERVAL)).await.is_some() {
                if let Err(error) = services.refreshes_settle().await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "refreshes whose server has ended could not be settled");
                }
            }
        });
        let services = self.clone();
        self.shared.tasks.spawn(async move { services.authorizations_poll().await });
        let services = self.clone();
        self.shared.tasks.spawn(async move {
            while services.shared.stop.run_until_cancelled(tokio::time::sleep(SWEEP_INTERVAL)).await.is_some() {
                services.shared.outbound.sweep();
            }
        });
        let services = self.clone();
        // Apart, because it waits for providers.
        self.shared.tasks.spawn(async move {
            loop {
                if let Err(error) = services.authorizations_recover().await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "tokens of authorisations in the journal cannot be stored yet"
                    );
                }
                tokio::select! {
                    () = services.shared.stop.cancelled() => return,
                    () = tokio::time::sleep(MAINTENANCE_INTERVAL) => {}
                }
            }
        });
        let services = self.clone();
        self.shared.tasks.spawn(async move {
            loop {
                // At once at the start: what a process that died left behind need not wait.
                services.maintain().await;
                tokio::select! {
                    () = services.shared.stop.cancelled() => return,
                    () = tokio::time::sleep(MAINTENANCE_INTERVAL) => {}
                }
            }
        });
    }

    /// Checks whether the database can be written again after a write failed, so that readiness need not wait for a
    /// caller's write.
    async fn try_writes(&self) {
        let (shared, mut is_logged) = (&self.shared, false);
        while shared.stop.run_until_cancelled(tokio::time::sleep(WRITE_INTERVAL)).await.is_some() {
            if shared.store.is_writable() != Some(false) {
                if std::mem::take(&mut is_logged) {
                    tracing::info!("the database can be written again");
                }
                continue;
            }
            if let Err(error) = shared.store.try_write().await
                && !std::mem::replace(&mut is_logged, true)
            {
                tracing::warn!(error = &error as &dyn std::error::Error, "the database cannot be written");
            }
        }
    }

    /// Does all steps. One that fails does not keep the others from being done.
    async fn maintain(&self) {
        self.shared.tokens.sweep(self.now());
        self.shared.outbound.sweep_connectors();
        self.shared.refreshes.sweep_endpoints();
        self.shared.refreshes.try_journals().await;
        let steps = [
            ("re-wraps", self.rewrap_take_over().await),
            ("refreshed tokens of the journal", self.refreshes_recover().await),
            ("activation of keys", self.keys_activate().await),
            ("count of expiring keys", self.keys_count_expiring().await),
            ("removal of what has expired", self.purge().await),
        ];
        for (step, result) in steps {
            if let Err(error) = result {
                tracing::warn!(error = &error as &dyn std::error::Error, step, "maintenance failed");
            }
        }
    }

    async fn purge(&self) -> Result<()> {
        while !self.shared.stop.is_cancelled() {
            let purge = Change::by_system(Length::Long);
            let purged = self.change(purge, async |txn| {
                let requests = txn.requests_purge(self.now(), PURGE_BATCH).await?;
                let sessions = txn.sessions_purge(self.now(), PURGE_BATCH).await?;
                let ended = self.now().plus_micros(-KEEP_MICROS);
                let authorizations = txn.authorizations_purge(ended, PURGE_BATCH).await?;
                let overdue = txn.authorizations_forget_overdue(self.now(), PURGE_BATCH).await?;
                let events = txn.connector_events_purge(self.now(), PURGE_BATCH).await?;
                // Last, because log-ins wait for the rows.
                let attempts = txn.login_attempts_purge(self.now(), PURGE_BATCH).await?;
                Ok(requests.max(sessions).max(authorizations).max(overdue).max(events).max(attempts))
            });
            if purged.await? < PURGE_BATCH {
                break;
            }
        }
        Ok(())
    }
}
