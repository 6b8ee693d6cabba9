//! Explanations: why a credential has no token to issue, or will have none, and what has to be done.

use super::{Credential, CredentialKind, CredentialState, FailureClass};
use crate::error::Precondition;
use crate::value::time::Timestamp;

/// The state of the parents of a credential.
#[derive(Clone, Copy, Debug)]
pub struct ParentStates {
    pub connector_enabled: bool,
    /// `None` if the credential has no connection.
    pub connection_active: Option<bool>,
}

/// The step that keeps a credential usable, or makes it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// None: it is usable.
    None,
    /// The server tries again by itself.
    Wait,
    /// The user authorises again.
    Reauthorize,
    /// The settings of the connection are corrected.
    CorrectConnection,
    /// The connection is activated.
    ActivateConnection,
    /// The connector is enabled.
    EnableConnector,
}

/// An explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The reason for which no token is issued now; `None` if one is issued.
    pub obstacle: Option<&'static str>,
    pub next_step: NextStep,
    pub text: String,
}

// === impl Credential ===

impl Credential {
    /// Explains whether a token is issued at a time, and what has to be done.
    pub fn explain(&self, parents: ParentStates, now: Timestamp) -> Explanation {
        let refused = |reason: Precondition, step, text: &str| Explanation {
            obstacle: Some(reason.as_str()),
            next_step: step,
            text: text.to_owned(),
        };
        if !parents.connector_enabled {
            let text = "the connector of the credential is disabled";
            return refused(Precondition::ConnectorDisabled, NextStep::EnableConnector, text);
        }
        if parents.connection_active == Some(false) {
            let text = "the connection of the credential is not active";
            return refused(Precondition::ConnectionInactive, NextStep::ActivateConnection, text);
        }
        match (self.kind, self.state) {
            (CredentialKind::ClientCertificate | CredentialKind::ClientCredentials, _) => {
                let text = format!("a credential of the kind {} holds no token", self.kind.as_str());
                return refused(Precondition::CredentialNotValid, NextStep::None, &text);
            }
            (_, CredentialState::Revoked | CredentialState::Pending) => {
                let text = format!("the credential is {}", self.state.as_str());
                return refused(Precondition::CredentialNotValid, NextStep::Reauthorize, &text);
            }
            _ => {}
        }
        let is_good = self.has_token() && self.expire_time.is_none_or(|expiry| expiry > now);
        let failure = self.explain_failure(now);
        match (is_good, failure) {
            (false, Some((obstacle, next_step, text))) => Explanation { obstacle: Some(obstacle), next_step, text },
            (true, Some((_, next_step, text))) => Explanation {
                obstacle: None,
                next_step,
                text: format!("a token is issued until it expires, but it cannot be refreshed: {text}"),
            },
            (false, None) if !self.refreshes() => {
                let text = match self.has_token() {
                    true => "the access token has expired, and there is no refresh token and connection to replace it",
                    false => "there are no tokens",
                };
                refused(Precondition::ReauthRequired, NextStep::Reauthorize, text)
            }
            (false, None) => Explanation {
                obstacle: None,
                next_step: NextStep::None,
                text: "the token is replaced when it is asked for".to_owned(),
            },
            (true, None) => {
                Explanation { obstacle: None, next_step: NextStep::None, text: "a token is issued".to_owned() }
            }
        }
    }

    /// Explains the last failure of a refresh, as long as no other attempt is due.
    fn explain_failure(&self, now: Timestamp) -> Option<(&'static str, NextStep, String)> {
        let reason = &self.failure_reason;
        let is_due = self.next_refresh_time.is_none_or(|time| time <= now);
        Some(match self.failure_class? {
            FailureClass::Permanent => {
                let text = format!("the provider refused the refresh token ({reason})");
                (Precondition::ReauthRequired.as_str(), NextStep::Reauthorize, text)
            }
            FailureClass::Indeterminate => {
                let text = format!("the response to a refresh was lost ({reason}), so the refresh token may be spent");
                (Precondition::ReauthRequired.as_str(), NextStep::Reauthorize, text)
            }
            FailureClass::Connection => {
                let text = format!(
                    "the connection cannot be used for refreshes ({reason}); once it is corrected, the next call refreshes"
                );
                (Precondition::ConnectionRefused.as_str(), NextStep::CorrectConnection, text)
            }
            FailureClass::Transient if is_due => return None,
            FailureClass::Transient => {
                let text = format!("the provider could not be asked ({reason}), and is asked again later");
                ("UPSTREAM_UNAVAILABLE", NextStep::Wait, text)
            }
        })
    }
}
