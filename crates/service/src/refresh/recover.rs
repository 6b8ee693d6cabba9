//! Tokens that are in the journal and not in the database: they are committed as soon as it can be written.

use jackfield_domain::{Error, Result};
use jackfield_store::RefreshLease;
use uuid::Uuid;

use super::commit::{TRY_AGAIN, may_pass};
use super::journal::Entry;
use crate::services::Services;

// === impl Services ===

impl Services {
    /// Commits what the journal has.
    pub(crate) async fn refreshes_recover(&self) -> Result<()> {
        let journal = &self.shared.refreshes.journal;
        let mut failed = None;
        for attempt in journal.ids().await? {
            // One that cannot be stored does not keep the others from being stored.
            if let Err(error) = self.refresh_recover(attempt, None).await {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Commits what the journal has of an attempt, and releases its lease. Returns whether it had something.
    pub(super) async fn refresh_recover(&self, attempt: Uuid, lease: Option<&RefreshLease>) -> Result<bool> {
        let journal = &self.shared.refreshes.journal;
        let system = self.shared.data_keys.system().await?;
        let entry = journal.read::<Entry>(&system, attempt).await?;
        let Some(received) = entry.and_then(Entry::received) else { return Ok(false) };
        match self.refresh_commit(&received, lease).await {
            // The tenant was deleted, and with it everything by which its tokens could be revoked.
            Err(Error::TenantUnknown { .. }) => {}
            Err(error) => return Err(error),
            Ok(None) => self.revoke_received(received),
            Ok(Some((credential, _))) => {
                tracing::info!(credential.id = %credential.id, "refreshed tokens of the journal are stored");
            }
        }
        journal.remove(attempt).await;
        Ok(true)
    }

    /// Commits what the journal has of an attempt as soon as the database is back: until then another replica would find the attempt without
    /// an end, and its tokens lost. There are as many of these tasks as there were requests when the database went away.
    pub(super) fn refresh_recover_soon(&self, attempt: Uuid, lease: RefreshLease) {
        let services = self.clone();
        self.shared.tasks.spawn(async move {
            loop {
                let pause = tokio::time::sleep(TRY_AGAIN);
                if services.shared.stop.run_until_cancelled(pause).await.is_none() {
                    return;
                }
                match services.refresh_recover(attempt, Some(&lease)).await {
                    Err(error) if may_pass(&error) => {}
                    // What cannot be read is left to maintenance, which logs it.
                    Err(_) | Ok(_) => return,
                }
            }
        });
    }
}
