//! Bugs that tests plant, to prove that they would notice them, in refreshes and in authorisations; and the steps of a refresh at which a
//! harness can end processes. Only the test kit compiles them in (feature `planted-bugs`), and none is there until a test plants it.

#[cfg(feature = "planted-bugs")]
mod switch;

pub(crate) use self::switch::{by_local_clock, planted, planted_in, reached};
#[cfg(feature = "planted-bugs")]
pub use self::switch::{cut_at, plant, plant_in, stop_at};

/// A bug of refreshes that a careless change could bring. All servers of the process have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PlantedBug {
    /// Tokens that were read before the lease are sent under it.
    NoSecondReading = 1,
    /// A response that was lost counts as one to a request that was not processed.
    LostIsRepeated,
    /// A refused refresh token counts for its credential, whatever is stored by then.
    FirstRefusalBelieved,
    /// The time of the process decides when leases end.
    LeaseOnLocalClock,
    /// Tokens are stored only by a server that still has the lease.
    FenceCompared,
    /// A response without a good access token is refused before its refresh token is sealed.
    JudgedBeforeSealed,
    /// A lost response counts for its credential, whatever is stored by then.
    LossWithoutVersion,
    /// Tokens are not in the journal before they are in the database.
    NotJournaled,
}

/// A bug of authorisations: a check that a careless change could leave out, and without which an attack wins. One connection has it, so that
/// tests of other connections go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationBug {
    /// Whichever user completes a session, it is completed.
    UserNotCompared,
    /// A session that another user brings stays open.
    MismatchEndsNothing,
    /// Whichever caller completes a session, it is completed.
    PrincipalNotCompared,
    /// A response is one to the open session of its user, whatever state it has.
    StateNotCompared,
    /// A response may come from any issuer.
    IssuerNotCompared,
    /// A response may come to the path of any connection.
    PathNotCompared,
    /// A response that comes after another one replaces it.
    ResponseTakenTwice,
    /// A code goes to the endpoint that the connection has by then.
    ClientNotCompared,
    /// All sessions have the same code verifier.
    VerifierShared,
    /// An ID token may be one for any log-in.
    NonceNotCompared,
    /// An account may take the place of another one.
    AccountNotCompared,
    /// Any tenant may start sessions for users whom the login of another one names.
    TenantNotCompared,
    /// Any user who is logged in where a connect URL is opened gets the cookie.
    VisitorNotCompared,
    /// A response may come from any browser.
    CookieNotCompared,
}

/// A step of a refresh. A harness can stop refreshes at each of them, and then end their process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Nothing is written.
    Planned,
    /// The attempt is written, and not sent.
    Recorded,
    /// The response is there, and nothing of it is written.
    Received,
    /// The response is in the journal.
    Journaled,
    /// The response is in the database, too.
    Stored,
    /// The response is no longer in the journal, and no caller has it.
    Ended,
    /// There is no good response, and that is not written.
    Failed,
}

#[cfg(feature = "planted-bugs")]
impl Step {
    /// All of them.
    pub const ALL: [Step; 7] =
        [Step::Planned, Step::Recorded, Step::Received, Step::Journaled, Step::Stored, Step::Ended, Step::Failed];
}

/// Nothing is planted.
#[cfg(not(feature = "planted-bugs"))]
mod switch {
    use std::time::Duration;

    use jackfield_domain::authorization::AuthorizationSession;
    use jackfield_domain::credential::{Credential, Material};
    use jackfield_domain::value::text::UserId;
    use jackfield_domain::{ConnectionId, CredentialId, Result, TenantId, Timestamp};

    use super::{AuthorizationBug, PlantedBug, Step};
    use crate::services::Services;

    type Stale = (Option<Credential>, Option<(Material, i64)>);

    pub(crate) const fn planted(_: PlantedBug) -> bool {
        false
    }

    pub(crate) const fn planted_in(_: ConnectionId, _: AuthorizationBug) -> bool {
        false
    }

    pub(crate) const fn by_local_clock(length: Duration, _: Timestamp, _: Timestamp) -> Duration {
        length
    }

    pub(crate) fn reached(_: CredentialId, _: Step) -> std::future::Ready<()> {
        std::future::ready(())
    }

    impl Services {
        pub(crate) async fn planted_reading(&self, _: TenantId, _: CredentialId) -> Result<Stale> {
            Ok((None, None))
        }

        pub(crate) async fn planted_session(&self, _: TenantId, _: &UserId) -> Result<Option<AuthorizationSession>> {
            Ok(None)
        }
    }
}
