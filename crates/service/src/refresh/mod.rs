//! Refreshes: access tokens are replaced before they expire, with the refresh token of their credential.
//!
//! Many providers give a new refresh token for each one that is used, and end the grant when one is used twice. So:
//! - In a process, one task refreshes a credential, and all who need it wait for its outcome ([`flight`]). The task goes on if they leave.
//! - Of several replicas, one has the lease of the credential. It reads the credential again under the lease, and writes the attempt before
//!   the request leaves ([`attempt`]), so that whoever comes later knows that the refresh token may be spent.
//! - The response is written to the local journal before it is committed ([`journal`]). It is committed if the material is still the one that
//!   was sent, or if the attempt was made after the one that replaced it ([`commit`]). Other changes of the credential do not matter.
//!   If the database is away, it is committed when it is back ([`recover`]).
//! - A request that may have been processed, without a response that says so, is not repeated.
//! - A token endpoint that does not answer gets one request at a time, so that few refresh tokens may be spent ([`endpoint`]).

mod attempt;
mod commit;
mod endpoint;
mod failure;
mod flight;
mod journal;
mod plan;
mod received;
mod recover;
mod schedule;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use uuid::Uuid;

use self::flight::Flights;
use crate::journal::Journal;

pub(crate) use self::failure::RefreshError;
pub use self::schedule::RefreshBudget;

/// The settings of refreshes.
#[derive(Clone, Debug)]
pub struct RefreshSettings {
    /// The longest time that a token endpoint may take.
    pub timeout: Duration,
    /// The directory of the journals.
    pub journal: PathBuf,
    pub budget: RefreshBudget,
}

/// The refreshes of this process.
pub(crate) struct Refreshes {
    settings: RefreshSettings,
    journal: Journal,
    /// The tokens of authorisations.
    pub(crate) authorizations: Journal,
    flights: Flights,
    /// The name of this process in leases.
    holder: Uuid,
    budget: schedule::Budget,
}

/// The wait before a lease is tried again that another replica has.
const LEASE_POLL: Duration = Duration::from_millis(100);
/// The attempts of a credential that are kept.
pub(crate) const KEPT_ATTEMPTS: u64 = 10;

// === impl Refreshes ===

impl Refreshes {
    pub(crate) fn open(settings: RefreshSettings) -> std::io::Result<Self> {
        let journal = Journal::open(&settings.journal.join("refreshes"), "refreshes")?;
        let authorizations = Journal::open(&settings.journal.join("authorizations"), "authorizations")?;
        let budget = schedule::Budget::new(settings.budget, settings.timeout);
        Ok(Refreshes { journal, authorizations, budget, settings, flights: Flights::default(), holder: Uuid::now_v7() })
    }

    /// The longest time that a token endpoint may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// The number of token endpoints that do not answer.
    pub(crate) fn silent_endpoints(&self) -> Arc<AtomicU64> {
        self.budget.silent_endpoints()
    }

    /// The time for which a lease is held: longer than a request and the writes around it may take.
    fn lease(&self) -> Duration {
        self.settings.timeout * 3
    }
}
