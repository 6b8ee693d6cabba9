//! Holds: the reasons for which no refresh is attempted now. They are found by the functions here and of the budget alone, so that attempts,
//! the schedule and explanations say the same.

use std::time::Duration;

use jackfield_domain::credential::{Credential, CredentialState, FailureClass};
use jackfield_domain::error::Precondition;
use jackfield_domain::{Error, Resource, Timestamp};

use super::RefreshError;
use super::failure::Failure;

/// The reason for which a refresh is not attempted.
#[derive(Debug)]
pub(super) enum Hold {
    /// The last failure is final, or the wait after it is not over.
    Failed(Failure),
    /// The credential has no material in its state.
    NotValid(CredentialState),
    NoRefreshToken,
    NoConnection,
    /// The provider refused the client, or its request for this credential, a short time ago.
    Refused {
        reason: String,
        rest: Duration,
    },
    /// The token endpoint does not answer, and is not asked for so long.
    Silent(Duration),
    /// The provider has asked for a pause, which lasts for so long.
    Paused(Duration),
}

/// The reason of a request that is not sent because others had no answer.
pub(super) const CIRCUIT_OPEN: &str = "CIRCUIT_OPEN";
/// The reason of a request that is not sent because the provider has asked for a pause.
pub(super) const PROVIDER_PAUSE: &str = "PROVIDER_PAUSE";

// === impl Hold ===

impl Hold {
    /// The hold that a credential has in itself. Its connection has a version now, if that is known.
    pub(super) fn of_credential(credential: &Credential, connection: Option<i64>, now: Timestamp) -> Option<Self> {
        if let Some(failure) = last_failure(credential, connection, now) {
            return Some(Hold::Failed(failure));
        }
        match credential.state {
            state @ (CredentialState::Revoked | CredentialState::Pending) => Some(Hold::NotValid(state)),
            _ if credential.connection.is_none() => Some(Hold::NoConnection),
            _ if !credential.refreshes() => Some(Hold::NoRefreshToken),
            _ => None,
        }
    }

    /// The error for those who wait for a refresh of a credential.
    pub(super) fn into_error(self, credential: &Credential) -> RefreshError {
        let refused = |reason, message: String| {
            RefreshError::Other(Error::precondition(reason, Resource::Credential, credential.id, message))
        };
        match self {
            Hold::Failed(failure) => RefreshError::Failed(failure),
            Hold::NotValid(state) => {
                refused(Precondition::CredentialNotValid, format!("the credential is {}", state.as_str()))
            }
            Hold::NoRefreshToken => {
                let message = "there is no refresh token: the user has to authorise";
                refused(Precondition::ReauthRequired, message.to_owned())
            }
            Hold::NoConnection => {
                let message = "the credential has no connection, through which it could be refreshed";
                refused(Precondition::ReauthRequired, message.to_owned())
            }
            Hold::Refused { reason, rest } => RefreshError::Failed(Failure::of_client(reason, rest)),
            Hold::Silent(rest) => RefreshError::Failed(Failure::not_processed(CIRCUIT_OPEN, rest)),
            Hold::Paused(rest) => RefreshError::Failed(Failure::not_processed(PROVIDER_PAUSE, rest)),
        }
    }
}

/// The last failure of a credential, if no attempt may be made now.
fn last_failure(credential: &Credential, connection: Option<i64>, now: Timestamp) -> Option<Failure> {
    let class = credential.failure_class?;
    let wait = credential.next_refresh_time.map(|time| time.0.saturating_sub(now.0)).unwrap_or_default();
    let retry_after = Duration::from_micros(u64::try_from(wait).unwrap_or_default());
    let blocks = match class {
        FailureClass::Permanent | FailureClass::Indeterminate => true,
        // A change of the connection may be the remedy, and a pause was asked of the client before it.
        FailureClass::Transient => {
            let failed = credential.failure_connection_version;
            let is_other = failed.is_some_and(|failed| connection.is_some_and(|connection| connection != failed));
            !retry_after.is_zero() && !is_other
        }
        // The budget of the connection knows whether it is still the same.
        FailureClass::Connection => false,
    };
    blocks.then(|| Failure::of_last(class, &credential.failure_reason, retry_after))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    /// A credential that can be refreshed at second 10.
    fn credential(class: Option<FailureClass>) -> Credential {
        let id = Uuid::from_u128;
        serde_json::from_value(json!({
            "id": id(1), "user_id": "a", "connector": id(2), "user_connector": id(3), "connection": id(5),
            "kind": "OAUTH2", "state": "VALID", "token_type": "Bearer", "material_version": 1, "refreshable": true,
            "failure_class": class, "failure_reason": "READ_TIMEOUT", "next_refresh_time": 10_000_000,
            "default_configuration": id(4), "meta": { "create_time": 1, "update_time": 1, "version": 1 },
        }))
        .expect("a document")
    }

    #[test]
    fn a_failure_holds_until_its_wait_is_over_or_for_good() {
        let held = |class, second: i64| Hold::of_credential(&credential(class), None, Timestamp(second * 1_000_000));
        assert!(held(None, 1).is_none());
        assert!(held(Some(FailureClass::Connection), 1).is_none(), "the connection may be another one");
        let rest = |hold| match hold {
            Some(Hold::Failed(failure)) => Some(failure.retry_after),
            _ => None,
        };
        assert_eq!(rest(held(Some(FailureClass::Transient), 4)), Some(Duration::from_secs(6)));
        assert_eq!(rest(held(Some(FailureClass::Transient), 10)), None);
        for class in [FailureClass::Permanent, FailureClass::Indeterminate] {
            assert!(held(Some(class), 100).is_some(), "{class:?}");
        }
    }

    #[test]
    fn a_change_of_the_connection_ends_a_wait() {
        let held = |class, failed, connection| {
            let credential = Credential { failure_connection_version: failed, ..credential(Some(class)) };
            Hold::of_credential(&credential, connection, Timestamp(4_000_000)).is_some()
        };
        assert!(held(FailureClass::Transient, Some(3), Some(3)));
        assert!(!held(FailureClass::Transient, Some(3), Some(4)));
        for (failed, connection) in [(None, Some(4)), (Some(3), None), (None, None)] {
            assert!(held(FailureClass::Transient, failed, connection), "it is not known to have changed");
        }
        for class in [FailureClass::Permanent, FailureClass::Indeterminate] {
            assert!(held(class, Some(3), Some(4)), "{class:?}");
        }
    }

    #[test]
    fn what_cannot_be_refreshed_is_held() {
        let now = Timestamp(1);
        let unconnected = Credential { connection: None, ..credential(None) };
        assert!(matches!(Hold::of_credential(&unconnected, None, now), Some(Hold::NoConnection)));
        let without = Credential { refreshable: false, ..credential(None) };
        assert!(matches!(Hold::of_credential(&without, None, now), Some(Hold::NoRefreshToken)));
        let revoked = Credential { state: CredentialState::Revoked, ..credential(None) };
        assert!(matches!(Hold::of_credential(&revoked, None, now), Some(Hold::NotValid(CredentialState::Revoked))));
    }
}
