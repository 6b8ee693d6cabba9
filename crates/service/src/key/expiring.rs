//! The keys whose renewal is due, for metrics.

use jackfield_domain::Result;
use jackfield_domain::key::Remaining;

use crate::gauges::ExpiringKeys;
use crate::services::Services;

/// Keys that are counted at most. More of them need an operator as urgently.
const COUNTED: u64 = 10_000;
/// Keys that are shown one by one at most: each is a time series.
const SHOWN: usize = 100;

// === impl Services ===

impl Services {
    pub(crate) async fn keys_count_expiring(&self) -> Result<()> {
        let now = self.now();
        let due = self.shared.store.read().keys_to_renew(now, COUNTED).await?;
        let count =
            |wanted: Remaining| due.iter().filter(|(.., expiry)| expiry.remaining(now) == Some(wanted)).count() as u64;
        let counts = Remaining::ALL.map(|remaining| (remaining, count(remaining)));
        let first = due.iter().take(SHOWN).map(|(tenant, id, expiry)| (*tenant, *id, expiry.not_after)).collect();
        self.shared.gauge_sources.expiring_keys_set(ExpiringKeys { counts, first });
        Ok(())
    }
}
