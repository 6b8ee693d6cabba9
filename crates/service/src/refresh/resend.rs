//! Refresh tokens that were sent before: whether earlier attempts leave one that can be sent again.

use std::time::Duration;

use jackfield_domain::credential::{Credential, OAuth2Material, RefreshAttempt, RefreshEnd, RefreshOutcome};
use jackfield_domain::{Secret, TenantId, Timestamp};
use jackfield_vault::DataKey;
use uuid::Uuid;

use super::attempt::micros;

/// The earlier attempts with a refresh token.
pub(super) struct Earlier<'a> {
    made: &'a [RefreshAttempt],
    /// The digest of the refresh token.
    digest: [u8; 32],
    /// True if a refresh token may be good for one use only.
    rotates: bool,
    /// The time for which the provider accepts a refresh token again that was used.
    grace: Duration,
}

/// The use that is left of a refresh token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resend {
    /// None of them may have spent it, or it stays whatever becomes of it.
    Free,
    /// One may have spent it, and the provider accepts it again for as long as a request of this length may take.
    Within(Duration),
    /// The attempt may have spent it, for this reason.
    Lost { attempt: Uuid, reason: String },
}

/// The shortest time that a request is given. With less left of the grace period, none is sent.
const LEAST_LIMIT: Duration = Duration::from_secs(1);
/// The reason of an attempt whose process ended before it had the response.
pub(super) const PROCESS_ENDED: &str = "PROCESS_ENDED";

// === impl Earlier ===

impl<'a> Earlier<'a> {
    /// The attempts of a credential, the newest first, with a refresh token of this digest.
    pub(super) fn of(
        made: &'a [RefreshAttempt],
        digest: [u8; 32],
        credential: &Credential,
        grace: Option<Duration>,
    ) -> Self {
        Earlier { made, digest, rotates: credential.refresh_token_rotates(), grace: grace.unwrap_or_default() }
    }

    /// Those with the refresh token of the last attempt with the material that a credential has now. `None` if there was none.
    pub(super) fn of_present(
        made: &'a [RefreshAttempt],
        credential: &Credential,
        grace: Option<Duration>,
    ) -> Option<Self> {
        let last = made.iter().find(|made| made.material_version == credential.material_version)?;
        Some(Self::of(made, last.token_digest, credential, grace))
    }

    /// Those that may have spent it, or have its tokens in a journal, whatever is known of the provider. What came of it later shows that
    /// those before have not: it stayed.
    fn spenders(&self) -> impl DoubleEndedIterator<Item = &'a RefreshAttempt> {
        let (digest, rotates) = (self.digest, self.rotates);
        let is_unknown = |end: &RefreshEnd| end.outcome == RefreshOutcome::Unknown;
        let last = self.made.iter().position(|made| is_good(made, digest)).unwrap_or(self.made.len());
        self.made[..last].iter().filter(move |made| {
            made.token_digest == digest && made.end.as_ref().is_none_or(|end| rotates && is_unknown(end))
        })
    }

    /// Returns whether the refresh token was good after an attempt, so that the attempt says nothing about it.
    pub(super) fn is_outlived(&self, attempt: Uuid) -> bool {
        let mut later = self.made.iter().take_while(|made| made.id != attempt);
        later.any(|made| is_good(made, self.digest))
    }

    /// Returns whether one may have spent it.
    pub(super) fn may_be_spent(&self) -> bool {
        self.spenders().next().is_some()
    }

    /// Those that have no end.
    pub(super) fn open(&self) -> impl Iterator<Item = &'a RefreshAttempt> {
        self.spenders().filter(|made| made.end.is_none())
    }

    /// The time until which it can be sent again; `None` if no time ends that.
    pub(super) fn until(&self) -> Option<Timestamp> {
        // A token that stays can be sent again, whatever became of it.
        let first = self.spenders().next_back().filter(|_| self.rotates)?;
        Some(first.sent_time.plus_micros(micros(self.grace)).plus_micros(-micros(LEAST_LIMIT * 2)))
    }

    /// The use that is left of it at a time of the database.
    pub(super) fn resend(&self, now: Timestamp) -> Resend {
        let Some(until) = self.until() else { return Resend::Free };
        // Half of what is left: a request that is given up may reach the provider later.
        let left = until.0.saturating_sub(now.0).saturating_add(micros(LEAST_LIMIT * 2));
        match self.spenders().next() {
            Some(last) if until < now => {
                let reason = last.end.as_ref().map_or(PROCESS_ENDED, |end| &end.reason).to_owned();
                Resend::Lost { attempt: last.id, reason }
            }
            _ => Resend::Within(Duration::from_micros(u64::try_from(left / 2).unwrap_or_default())),
        }
    }
}

/// Returns whether an attempt with a refresh token of this digest got new tokens.
fn is_good(made: &RefreshAttempt, digest: [u8; 32]) -> bool {
    made.token_digest == digest && made.end.as_ref().is_some_and(|end| end.outcome == RefreshOutcome::Refreshed)
}

/// A keyed digest of a refresh token.
pub(super) fn token_digest(system: &DataKey, tenant: TenantId, refresh_token: &Secret) -> [u8; 32] {
    system.fingerprint("refresh token", &[tenant.0.as_bytes().as_slice(), refresh_token.expose().as_bytes()])
}

/// The digest of what an attempt for a credential sends; `None` if it has nothing to send.
pub(super) fn digest_of(
    system: &DataKey,
    tenant: TenantId,
    credential: &Credential,
    tokens: &OAuth2Material,
) -> Option<[u8; 32]> {
    match &tokens.refresh_token {
        // Nothing that is sent could be spent.
        _ if credential.client_grant => Some(token_digest(system, tenant, &Secret::new(String::new()))),
        refresh_token => refresh_token.as_ref().map(|token| token_digest(system, tenant, token)),
    }
}

#[cfg(test)]
mod tests {
    use jackfield_domain::CredentialId;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const GRACE: Duration = Duration::from_secs(60);

    /// An attempt at a second, with its outcome.
    fn attempt(second: i64, outcome: Option<RefreshOutcome>) -> RefreshAttempt {
        RefreshAttempt {
            id: Uuid::from_u128(second.unsigned_abs().into()),
            credential: CredentialId(Uuid::nil()),
            material_version: 1,
            token_digest: [1; 32],
            sent_time: Timestamp(second * SECOND),
            end: outcome.map(|outcome| RefreshEnd {
                time: Timestamp(second * SECOND),
                outcome,
                reason: "READ_TIMEOUT".to_owned(),
                status: None,
            }),
        }
    }

    fn resend(made: &[RefreshAttempt], rotates: bool, grace: Duration, second: i64) -> Resend {
        Earlier { made, digest: [1; 32], rotates, grace }.resend(Timestamp(second * SECOND))
    }

    fn lost(second: i64, reason: &str) -> Resend {
        Resend::Lost { attempt: Uuid::from_u128(second.unsigned_abs().into()), reason: reason.to_owned() }
    }

    #[test]
    fn a_refresh_token_that_may_be_spent_is_sent_within_the_grace_period_alone() {
        let made = [attempt(30, Some(RefreshOutcome::Unknown)), attempt(10, Some(RefreshOutcome::Unknown))];
        assert_eq!(resend(&made, true, Duration::ZERO, 31), lost(30, "READ_TIMEOUT"));
        let half = |second| resend(&made, true, GRACE, second);
        assert_eq!(half(40), Resend::Within(Duration::from_secs(15)), "it begins with the first");
        assert_eq!(half(68), Resend::Within(Duration::from_secs(1)));
        assert_eq!(half(69), lost(30, "READ_TIMEOUT"));
        assert_eq!(resend(&[attempt(10, None)], true, Duration::ZERO, 11), lost(10, PROCESS_ENDED));
    }

    #[test]
    fn a_refresh_token_that_was_good_after_a_loss_was_not_spent_by_it() {
        let [refreshed, unknown] = [Some(RefreshOutcome::Refreshed), Some(RefreshOutcome::Unknown)];
        let made = [attempt(20, refreshed), attempt(10, unknown), attempt(9, None)];
        assert_eq!(resend(&made, true, Duration::ZERO, 90), Resend::Free);
        let earlier = Earlier { made: &made, digest: [1; 32], rotates: true, grace: GRACE };
        assert_eq!(
            (earlier.open().count(), earlier.is_outlived(made[2].id), earlier.is_outlived(made[0].id)),
            (0, true, false)
        );
        let lost_again = [attempt(80, unknown), attempt(20, refreshed), attempt(10, unknown)];
        assert_eq!(resend(&lost_again, true, GRACE, 90), Resend::Within(Duration::from_secs(25)), "it begins again");
        let other = Earlier { made: &made, digest: [2; 32], rotates: true, grace: GRACE };
        assert!(!other.is_outlived(made[2].id));
    }

    #[test]
    fn what_was_not_processed_or_is_not_spent_can_be_sent_again() {
        let unsent = [attempt(10, Some(RefreshOutcome::NotProcessed))];
        assert_eq!(resend(&unsent, true, Duration::ZERO, 11), Resend::Free);
        let may_be_spent = |made: &[RefreshAttempt]| {
            Earlier { made, digest: [1; 32], rotates: true, grace: Duration::ZERO }.may_be_spent()
        };
        let lost_before = [unsent[0].clone(), attempt(9, Some(RefreshOutcome::Unknown))];
        assert_eq!((may_be_spent(&unsent), may_be_spent(&lost_before)), (false, true));
        let unknown = [attempt(10, Some(RefreshOutcome::Unknown)), attempt(9, None)];
        assert_eq!(resend(&unknown, false, Duration::ZERO, 11), Resend::Free);
        let of_another = Earlier { made: &unknown, digest: [2; 32], rotates: true, grace: Duration::ZERO };
        assert_eq!((of_another.resend(Timestamp(11 * SECOND)), of_another.open().count()), (Resend::Free, 0));
        let stays = Earlier { made: &unknown, digest: [1; 32], rotates: false, grace: Duration::ZERO };
        assert_eq!(stays.open().count(), 1, "its tokens may be in a journal");
    }
}
