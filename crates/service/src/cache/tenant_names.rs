//! Names of tenants. They are looked up for every call and kept for a moment, so that a call costs no query for it.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use jackfield_domain::TenantId;

/// Tenants by name. Only the names of configured principals are looked up, so there are few.
#[derive(Default)]
pub(crate) struct TenantNames(RwLock<HashMap<String, (TenantId, Instant)>>);

/// The time for which a tenant may be taken to exist after another replica has deleted it. Its rows are gone all the same.
const KEPT: Duration = Duration::from_secs(1);

// === impl TenantNames ===

impl TenantNames {
    /// The tenant, if its name was looked up a moment ago.
    pub(crate) fn get(&self, name: &str) -> Option<TenantId> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.get(name).filter(|(_, since)| since.elapsed() < KEPT).map(|(tenant, _)| *tenant)
    }

    /// Keeps a tenant that was looked up.
    pub(crate) fn put(&self, name: &str, tenant: TenantId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), (tenant, Instant::now()));
    }

    /// Drops a tenant that was deleted.
    pub(crate) fn forget(&self, tenant: TenantId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|_, (known, _)| *known != tenant);
    }
}
