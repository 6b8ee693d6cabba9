//! The schedule: credentials are refreshed ahead of the expiry of their tokens, within the budget of their connection.

use std::time::Duration;

use jackfield_domain::{ConnectionId, ConnectorId, Result, TenantId};
use jackfield_store::DueCredential;

use super::CredentialIdentity;
use super::budget::{Reserved, Wait};
use super::flight::{Key, Patience};
use crate::services::Services;

/// The interval at which credentials are looked for that are due.
const INTERVAL: Duration = Duration::from_secs(1);
/// The interval while some have to wait for the budget of their connection.
const INTERVAL_WITH_BACKLOG: Duration = Duration::from_millis(100);
/// The credentials that are looked at in one step.
const STEP: u64 = 256;

// === impl Services ===

impl Services {
    /// Refreshes credentials that are due, until the server stops.
    pub(crate) async fn refresh_due(&self) {
        if !self.shared.refreshes.budget.is_ahead() {
            return;
        }
        let mut interval = INTERVAL;
        while self.shared.stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            interval = match self.refresh_step().await {
                Ok(true) => INTERVAL,
                Ok(false) => INTERVAL_WITH_BACKLOG,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "credentials that are to be refreshed could not be read");
                    INTERVAL
                }
            };
        }
    }

    /// Forgets what the provider made of requests for a connection that has changed, or is gone.
    pub(crate) fn refresh_forget_connection(&self, tenant: TenantId, connection: ConnectionId) {
        self.shared.refreshes.budget.forget(tenant, connection);
    }

    /// The same for a connector and all of its connections.
    pub(crate) fn refresh_forget_connector(&self, tenant: TenantId, connector: ConnectorId) {
        self.shared.refreshes.budget.forget_connector(tenant, connector);
    }

    /// The same for a tenant that is gone.
    pub(crate) fn refresh_forget_tenant(&self, tenant: TenantId) {
        self.shared.refreshes.budget.forget_tenant(tenant);
    }

    /// Starts a scheduled refresh.
    fn refresh_ahead(&self, (tenant, identity): Key, version: i64, reserved: Reserved) {
        let services = self.clone();
        self.shared.tasks.spawn(async move {
            // Why it failed is noted and logged where it failed.
            let _ = services.refreshed(tenant, identity, version, Patience::default()).await;
            drop(reserved);
        });
    }

    /// Begins as many refreshes as the budgets allow. Returns false if there will be room for more in a moment.
    async fn refresh_step(&self) -> Result<bool> {
        let refreshes = &self.shared.refreshes;
        // While it cannot be written, each attempt would look for itself, in vain.
        if !refreshes.journal.is_writable() && refreshes.journal.writable().await.is_err() {
            return Ok(true);
        }
        // A connection without room is left out, so that it does not keep those of others back.
        let (mut full, mut is_soon) = (Vec::new(), false);
        loop {
            let limit = STEP + refreshes.flights.len() as u64;
            let due = self.shared.store.read().credentials_due(self.now(), &full, limit).await?;
            let (count, known) = (due.len() as u64, full.len());
            for DueCredential { tenant, id, create_time, connection, version } in due {
                let Some(connection) = connection else { continue };
                let key = (tenant, CredentialIdentity { id, create_time });
                if full.contains(&(tenant, connection)) || refreshes.flights.has(key) {
                    continue;
                }
                let now = self.now();
                match refreshes.budget.of(tenant, connection, now).reserve(now) {
                    Ok(reserved) => self.refresh_ahead(key, version, reserved),
                    Err(wait) => {
                        is_soon |= wait == Wait::Budget;
                        full.push((tenant, connection));
                    }
                }
            }
            if count < limit || full.len() == known {
                return Ok(!is_soon);
            }
        }
    }
}
