//! Refreshes: the times at which tokens are refreshed, and the attempts to do so.

use std::time::Duration;

use uuid::Uuid;

use crate::names::names;
use crate::value::id::CredentialId;
use crate::value::time::Timestamp;

names! {
    /// The outcome of an attempt to refresh.
    pub enum RefreshOutcome {
        /// The tokens of the response are the material of the credential.
        Refreshed = "REFRESHED",
        /// The response had tokens, and the credential had newer material already. They are kept as its alternate.
        Superseded = "SUPERSEDED",
        /// The request did not leave, or the provider says that it did not process it.
        NotProcessed = "NOT_PROCESSED",
        /// The request left, and there is no response that says what became of it.
        Unknown = "UNKNOWN",
        /// The provider refused the refresh token.
        Refused = "REFUSED",
        /// The provider refused the client, or the request in another part than the refresh token.
        ConnectionRefused = "CONNECTION_REFUSED",
    }
}

/// An attempt to refresh. It is written before the request leaves, so that a server that comes later knows that the refresh token may be spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshAttempt {
    /// Attempts sort by it in the order in which they were made (UUIDv7).
    pub id: Uuid,
    pub credential: CredentialId,
    /// The version of the material whose refresh token is sent.
    pub material_version: i64,
    /// A keyed digest of that refresh token.
    pub token_digest: [u8; 32],
    /// The time of the attempt, by the clock of the database: those of several replicas can be compared.
    pub sent_time: Timestamp,
    /// `None` while it is under way, or if the process ended meanwhile.
    pub end: Option<RefreshEnd>,
}

/// The end of an attempt to refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshEnd {
    pub time: Timestamp,
    pub outcome: RefreshOutcome,
    /// The reason of a failure, such as "invalid_grant" or "READ_TIMEOUT"; empty if there is none.
    pub reason: String,
    /// The HTTP status of the response. `None`: none came completely, or an earlier release has not noted it.
    pub status: Option<u16>,
}

/// The validity that a token must have left to be issued without a refresh before.
pub const LEAST_VALIDITY: Duration = Duration::from_secs(30);
/// The time after which a token is refreshed whose expiry the provider does not tell.
const UNKNOWN_LIFETIME: Duration = Duration::from_secs(50 * 60);
/// The time before their expiry at which tokens are refreshed. A provider may be away for half an hour of it, and in the rest those that
/// waited are refreshed within their budget.
const LEAST_AHEAD: Duration = Duration::from_secs(40 * 60);
/// The age that a token has at the least when it is refreshed, if that is less than half of its lifetime.
const LEAST_AGE: Duration = Duration::from_secs(20 * 60);
/// The age at which a token is refreshed that lives shorter than that. Its credential may be one that is not used, and its provider is not
/// asked every second for it: a caller who needs a token meanwhile asks.
const SHORT_LIFETIME: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_secs(5);
const MAX_BACKOFF: Duration = Duration::from_secs(2 * 60);

/// The time at which a token is refreshed that was got at a time: 40 minutes before it expires, or a fifth of its lifetime if that is more; but
/// not in its first 20 minutes, or the first half of its lifetime if that is less. One that lives shorter than a minute is refreshed when it is a
/// minute old, and one that has expired already at once. It varies by a tenth between credentials, so that those that
/// were refreshed together do not stay so.
pub fn refresh_time(credential: CredentialId, got: Timestamp, expiry: Option<Timestamp>) -> Timestamp {
    let age = match expiry {
        Some(expiry) => {
            let lifetime = Duration::from_micros(u64::try_from(expiry.0.saturating_sub(got.0)).unwrap_or_default());
            let latest = lifetime.saturating_sub(LEAST_AHEAD.max(lifetime / 5));
            // A provider may hand out the same token again, with the rest of its lifetime: half of that would soon be nothing.
            match !lifetime.is_zero() && lifetime < SHORT_LIFETIME {
                true => SHORT_LIFETIME,
                false => latest.max(LEAST_AGE.min(lifetime / 2)),
            }
        }
        None => UNKNOWN_LIFETIME,
    };
    got.plus_micros(micros(varied(credential.0, age)))
}

/// The time after which a refresh is tried again that has failed this many times.
pub fn backoff(credential: CredentialId, failures: i32) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or_default();
    varied(credential.0, FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(doublings)).min(MAX_BACKOFF))
}

/// A duration between nine and ten tenths of another one.
fn varied(id: Uuid, duration: Duration) -> Duration {
    // The last bits of a UUIDv7 are random.
    let share = f64::from(u16::from_be_bytes([id.as_bytes()[14], id.as_bytes()[15]])) / f64::from(u16::MAX);
    duration.mul_f64(1.0 - share / 10.0)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOT: Timestamp = Timestamp(1_000_000_000_000);

    /// The wait until the refresh, in seconds, of the credential whose random bits are all 0 or all 1.
    fn wait(bits: u8, lifetime: Option<i64>) -> i64 {
        let credential = CredentialId(Uuid::from_bytes([bits; 16]));
        let expiry = lifetime.map(|seconds| GOT.plus_micros(seconds * 1_000_000));
        (refresh_time(credential, GOT, expiry).0 - GOT.0) / 1_000_000
    }

    #[test]
    fn tokens_are_refreshed_ahead_of_their_expiry() {
        for (lifetime, expected) in [
            (Some(86_400), 69_120),
            (Some(7_200), 4_800),
            (Some(3_600), 1_200),
            (Some(3_000), 1_200),
            (Some(1_000), 500),
            (Some(600), 300),
            (Some(60), 30),
            (Some(59), 60),
            (Some(1), 60),
            (Some(0), 0),
            (None, 3_000),
        ] {
            assert_eq!((wait(0, lifetime), wait(0xff, lifetime)), (expected, expected * 9 / 10), "{lifetime:?}");
        }
        assert_eq!(wait(0, Some(-10)), 0);
    }

    #[test]
    fn the_wait_after_failures_doubles_up_to_a_limit() {
        let none = CredentialId(Uuid::nil());
        let waits = [0, 1, 2, 3, 8, 9, i32::MAX].map(|failures| backoff(none, failures).as_secs());
        assert_eq!(waits, [5, 5, 10, 20, 120, 120, 120]);
    }
}
