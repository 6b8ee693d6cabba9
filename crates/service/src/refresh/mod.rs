//! Refreshes: access tokens are replaced before they expire, with the refresh token of their credential.
//!
//! Many providers give a new refresh token for each one that is used, and end the grant when one is used twice. So:
//! - In a process, one task refreshes a credential, and all who need it wait for its outcome ([`flight`]). The task goes on if they leave.
//! - Of several replicas, one has the lease of the credential. It reads the credential again under the lease, and writes the attempt before
//!   the request leaves ([`attempt`]), so that one that comes later knows that the refresh token may be spent.
//! - The response is written to the local journal before it is committed ([`journal`]). It is committed if the material is still the one that
//!   was sent, or if the attempt was made after the one that replaced it ([`commit`]). Other changes of the credential do not matter.
//!   If the database is away, it is committed when it is back ([`recover`]).
//! - A request that may have been processed, without a response that says so, is not repeated.
//! - A token endpoint that does not answer gets one request at a time, so that few refresh tokens may be spent ([`endpoint`]).
//! - What keeps a refresh from being attempted is found in one place ([`hold`]), and so what happens next is known ([`outlook`]).
//! - An attempt whose process has ended gets its end soon ([`settle`]).

mod attempt;
mod budget;
mod commit;
mod endpoint;
mod expected;
mod failure;
mod flight;
mod hold;
mod journal;
mod outlook;
mod plan;
mod received;
mod recover;
mod resend;
mod schedule;
mod settle;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use uuid::Uuid;

use self::flight::Flights;
use crate::journal::Journal;

pub use self::budget::RefreshBudget;
pub(crate) use self::expected::{CredentialIdentity, ExpectedRefresh, runs_out};
pub(crate) use self::failure::RefreshError;
pub(crate) use self::flight::Patience;

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
    budget: budget::Budget,
    /// The number of journals that cannot be written.
    unwritable_journals: Arc<AtomicU64>,
}

/// The wait before a lease is tried again that another replica has.
const LEASE_POLL: Duration = Duration::from_millis(100);
/// The attempts of a credential that are kept and shown.
pub(crate) const KEPT_ATTEMPTS: u64 = 10;
/// The most attempts of a credential that there are: older ones are kept that say since when a refresh token may be spent.
pub(crate) const ALL_ATTEMPTS: u64 = 2 * KEPT_ATTEMPTS;

// === impl Refreshes ===

impl Refreshes {
    /// Opens the journals, and remembers nothing else.
    ///
    /// # Errors
    /// One of them cannot be written, and where it is.
    pub(crate) fn open(settings: RefreshSettings) -> Result<Self, (PathBuf, io::Error)> {
        let unwritable_journals = Arc::<AtomicU64>::default();
        let opened = |purpose| {
            let directory = settings.journal.join(purpose);
            let opened = Journal::open(&directory, purpose, Arc::clone(&unwritable_journals));
            opened.map_err(|error| (directory, error))
        };
        let (journal, authorizations) = (opened("refreshes")?, opened("authorizations")?);
        let budget = budget::Budget::new(settings.budget, settings.timeout);
        let (flights, holder) = (Flights::default(), Uuid::now_v7());
        Ok(Refreshes { settings, journal, authorizations, flights, holder, budget, unwritable_journals })
    }

    /// Looks whether the journals can be written, so that it is known, and logged, before a token is asked for.
    pub(crate) async fn try_journals(&self) {
        // Each has noted it.
        let _ = self.journal.writable().await;
        let _ = self.authorizations.writable().await;
    }

    /// The number of journals that cannot be written.
    pub(crate) fn unwritable_journals(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unwritable_journals)
    }

    /// The longest time that a token endpoint may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// True if credentials are refreshed ahead of their expiry, and not only when a token is asked for.
    pub(crate) fn is_ahead(&self) -> bool {
        self.budget.is_ahead()
    }

    /// The number of token endpoints that do not answer.
    pub(crate) fn silent_endpoints(&self) -> Arc<AtomicU64> {
        self.budget.silent_endpoints()
    }

    /// Forgets silent endpoints that were not asked for a long time.
    pub(crate) fn sweep_endpoints(&self) {
        self.budget.sweep();
    }

    /// The time for which a lease is held: longer than a request and the writes around it may take.
    fn lease(&self) -> Duration {
        self.settings.timeout * 3
    }
}
