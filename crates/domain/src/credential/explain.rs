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
    /// The time until which the token endpoint of the connection is not asked, because it does not answer; `None` if it is asked.
    pub silent_until: Option<Timestamp>,
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
    /// Whoever stored the material stores new one: no user can authorise.
    StoreMaterial,
    /// The settings of the connection are corrected.
    CorrectConnection,
    /// The connection is activated.
    ActivateConnection,
    /// The connector is enabled.
    EnableConnector,
}

/// The reason of a refresh whose response has an ID token of another user than the one that is stored (OpenID Connect Core 1.0 12.2).
pub const SUBJECT_CHANGED: &str = "SUBJECT_CHANGED";
/// The reason of a refresh whose access token has another type than the one before: a token that was bound to its client may be one of
/// whoever bears it.
pub const TOKEN_TYPE_CHANGED: &str = "TOKEN_TYPE_CHANGED";

const UPSTREAM_UNAVAILABLE: &str = "UPSTREAM_UNAVAILABLE";

/// An explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The reason for which no token is issued now; `None` if one is issued.
    pub obstacle: Option<&'static str>,
    pub next_step: NextStep,
    pub text: String,
}

/// The tokens that came with a refresh and are not issued, so that the user has to authorise again; `None` for any other reason.
pub fn tokens_refused(reason: &str) -> Option<&'static str> {
    match reason {
        SUBJECT_CHANGED => Some("tokens of another account"),
        TOKEN_TYPE_CHANGED => Some("a token of another type"),
        _ => None,
    }
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
                return refused(Precondition::CredentialNotValid, self.renewal(), &text);
            }
            _ => {}
        }
        let is_good = self.has_token() && self.expire_time.is_none_or(|expiry| expiry > now);
        let failure = self.explain_failure(now).or_else(|| self.explain_silence(parents));
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
                refused(Precondition::ReauthRequired, self.renewal(), text)
            }
            (false, None) => Explanation {
                obstacle: None,
                next_step: NextStep::None,
                text: "the token is replaced when it is asked for".to_owned(),
            },
            (true, None) => self.explain_issued(),
        }
    }

    /// Explains a token that is issued: until when, and what it lacks.
    fn explain_issued(&self) -> Explanation {
        let mut parts = Vec::new();
        let next_step = match self.expire_time.filter(|_| !self.refreshes()) {
            Some(expiry) => {
                parts.push(format!(
                    "a token is issued until {expiry}, and there is no refresh token and connection to replace it"
                ));
                self.renewal()
            }
            None => {
                parts.push("a token is issued".to_owned());
                NextStep::None
            }
        };
        let missing = self.missing_scopes();
        if !missing.is_empty() {
            parts.push(format!("it lacks scopes that the user was asked for: {}", missing.join(" ")));
        }
        parts.extend(self.authorization_expire_time.map(|end| format!("the provider ends the authorisation at {end}")));
        Explanation { obstacle: None, next_step, text: parts.join("; ") }
    }

    /// The step that gives new material to a credential which has none that can be used.
    fn renewal(&self) -> NextStep {
        if self.can_be_authorized() { NextStep::Reauthorize } else { NextStep::StoreMaterial }
    }

    /// Explains that no refresh is attempted, because the token endpoint does not answer.
    fn explain_silence(&self, parents: ParentStates) -> Option<(&'static str, NextStep, String)> {
        let until = parents.silent_until.filter(|_| self.refreshes())?;
        let text = format!(
            "the token endpoint did not answer several requests in a row, or failed (CIRCUIT_OPEN): it is not asked before {until}, \
             but by one refresh at a time"
        );
        Some((UPSTREAM_UNAVAILABLE, NextStep::Wait, text))
    }

    /// Explains the last failure of a refresh, as long as no other attempt is due.
    fn explain_failure(&self, now: Timestamp) -> Option<(&'static str, NextStep, String)> {
        let reason = &self.failure_reason;
        let is_due = self.next_refresh_time.is_none_or(|time| time <= now);
        Some(match self.failure_class? {
            FailureClass::Permanent => {
                let text = match tokens_refused(reason) {
                    Some(tokens) => format!("the provider answered a refresh with {tokens} ({reason})"),
                    None => format!("the provider refused the refresh token ({reason})"),
                };
                (Precondition::ReauthRequired.as_str(), self.renewal(), text)
            }
            FailureClass::Indeterminate => {
                let text = format!("the response to a refresh was lost ({reason}), so the refresh token may be spent");
                (Precondition::ReauthRequired.as_str(), self.renewal(), text)
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
                (UPSTREAM_UNAVAILABLE, NextStep::Wait, text)
            }
        })
    }
}
