//! Explanations: why a credential has no token to issue, or will have none, and what has to be done.

use super::{Credential, CredentialKind, CredentialState, FailureClass, RefreshHold, RefreshOutlook, Remedy};
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
    /// The server tries again by itself, or when a token is asked for.
    Wait,
    /// The user authorises again.
    Reauthorize,
    /// The caller who stored the material stores new one: no user can authorise.
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
/// The reason of a refresh whose access token is good for any bearer, while only the client could use the one before.
pub const TOKEN_TYPE_DOWNGRADED: &str = "TOKEN_TYPE_DOWNGRADED";
/// The reason of a refresh whose access token is good, and whose refresh token cannot be used, while the one that was sent may be spent.
pub const REFRESH_TOKEN_INVALID: &str = "REFRESH_TOKEN_INVALID";

const UPSTREAM_UNAVAILABLE: &str = "UPSTREAM_UNAVAILABLE";
const SERVER_UNAVAILABLE: &str = "SERVER_UNAVAILABLE";

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
        TOKEN_TYPE_DOWNGRADED => Some("a token of a weaker type"),
        _ => None,
    }
}

/// The loss of a refresh token, for people.
pub fn loss_of(reason: &str) -> String {
    match reason {
        REFRESH_TOKEN_INVALID => format!(
            "the provider answered a refresh with a refresh token that cannot be used ({reason}), so the one before may be \
             spent"
        ),
        _ => format!("the response to a refresh was lost ({reason}), so the refresh token may be spent"),
    }
}

/// An obstacle that keeps a token from being replaced.
struct Held {
    /// The reason of the error for a caller who needs a new token; `None` if the provider is asked.
    obstacle: Option<&'static str>,
    next_step: NextStep,
    text: String,
}

// === impl Credential ===

impl Credential {
    /// Explains whether a token is issued at a time, what the server does about it next, and what has to be done.
    pub fn explain(&self, parents: ParentStates, outlook: &RefreshOutlook, now: Timestamp) -> Explanation {
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
        match (is_good, outlook.hold.as_ref().map(|hold| self.held(hold, outlook.next))) {
            (false, Some(Held { obstacle, next_step, text })) => Explanation { obstacle, next_step, text },
            (true, Some(Held { obstacle: _, next_step, text })) => Explanation {
                obstacle: None,
                next_step,
                text: format!("a token is issued until it expires, but it cannot be refreshed: {text}"),
            },
            (false, None) if !self.refreshes() => {
                let text = match self.has_token() {
                    true => format!("the access token has expired, and {}", self.lacking()),
                    false => "there are no tokens".to_owned(),
                };
                refused(Precondition::ReauthRequired, self.renewal(), &text)
            }
            (false, None) => {
                let text = match outlook {
                    RefreshOutlook { is_under_way: true, .. } => UNDER_WAY.to_owned(),
                    RefreshOutlook { next: Some(next), .. } => {
                        format!("the token is replaced when it is asked for, and at {next} at the latest")
                    }
                    _ => "the token is replaced when it is asked for".to_owned(),
                };
                Explanation { obstacle: None, next_step: NextStep::None, text }
            }
            (true, None) => self.explain_issued(outlook),
        }
    }

    /// Explains a token that is issued: until when, when it is replaced, and what it lacks.
    fn explain_issued(&self, outlook: &RefreshOutlook) -> Explanation {
        let mut parts = Vec::new();
        let mut next_step = match self.expire_time.filter(|_| !self.refreshes()) {
            Some(expiry) => {
                parts.push(format!("a token is issued until {expiry}, and {}", self.lacking()));
                self.renewal()
            }
            None => {
                parts.push("a token is issued".to_owned());
                NextStep::None
            }
        };
        match outlook {
            RefreshOutlook { is_under_way: true, .. } => parts.push(UNDER_WAY.to_owned()),
            RefreshOutlook { next: Some(next), .. } => parts.push(format!("it is refreshed at {next}")),
            _ if self.refreshes() => {
                parts.push("it is refreshed when it is asked for shortly before it expires".to_owned())
            }
            _ => {}
        }
        let missing = self.missing_scopes();
        if !missing.is_empty() {
            parts.push(format!("it lacks scopes that the user was asked for: {}", missing.join(" ")));
        }
        if let Some(rejection) = self.rejection() {
            let scopes = rejection.scopes.join(" ");
            let demand = if scopes.is_empty() { scopes } else { format!(" and demands the scopes {scopes}") };
            parts.push(format!("an API rejected this token ({rejection}){demand}"));
            if rejection.remedy() != Remedy::Replacement || !self.refreshes() {
                next_step = self.renewal();
            }
        }
        parts.extend(self.authorization_expire_time.map(|end| format!("the provider ends the authorisation at {end}")));
        Explanation { obstacle: None, next_step, text: parts.join("; ") }
    }

    /// The lack that keeps it from being refreshed, for people.
    fn lacking(&self) -> &'static str {
        match (self.refreshable, self.connection.is_some()) {
            (true, _) => "there is no connection through which it could be replaced",
            (false, true) => "there is no refresh token to replace it",
            (false, false) => "there is neither a refresh token nor a connection to replace it",
        }
    }

    /// The step that gives new material to a credential which has none that can be used.
    fn renewal(&self) -> NextStep {
        if self.can_be_authorized() { NextStep::Reauthorize } else { NextStep::StoreMaterial }
    }

    /// Explains what holds refreshes back, and what the server does next.
    fn held(&self, hold: &RefreshHold, next: Option<Timestamp>) -> Held {
        let waits = |obstacle, text| Held { obstacle: Some(obstacle), next_step: NextStep::Wait, text };
        let again = |until: &Timestamp| match next {
            Some(next) => format!("it is asked again at {next}"),
            None => format!("it is asked again when a token is asked for, from {until} on"),
        };
        match hold {
            RefreshHold::Final { class, reason } => {
                let text = match (class, tokens_refused(reason)) {
                    (FailureClass::Indeterminate, _) => loss_of(reason),
                    (_, Some(tokens)) => format!("the provider answered a refresh with {tokens} ({reason})"),
                    _ => format!("the provider refused the refresh token ({reason})"),
                };
                Held { obstacle: Some(Precondition::ReauthRequired.as_str()), next_step: self.renewal(), text }
            }
            RefreshHold::BackOff { reason, until } => {
                waits(UPSTREAM_UNAVAILABLE, format!("the provider has given no new token ({reason}); {}", again(until)))
            }
            RefreshHold::Repeat { reason, until, accepted_until } => {
                let again = again(until);
                let text = format!(
                    "the response to a refresh was lost ({reason}), and the provider accepts the refresh token again until \
                     {accepted_until}; {again}"
                );
                waits(UPSTREAM_UNAVAILABLE, text)
            }
            RefreshHold::Refused { obstacle, reason, until } => {
                let again = until.as_ref().map(again);
                let again = again.unwrap_or_else(|| match next {
                    Some(next) => format!("it is tried again at {next}"),
                    None => "it is tried again when a token is asked for".to_owned(),
                });
                let text = format!(
                    "the connection cannot be used for refreshes ({reason}); {again}; once the connection is corrected, the next call \
                     refreshes"
                );
                Held { obstacle: *obstacle, next_step: NextStep::CorrectConnection, text }
            }
            RefreshHold::Incomplete { obstacle, message } => {
                let text = format!("the connection cannot be used for refreshes ({obstacle}): {message}");
                Held { obstacle: Some(*obstacle), next_step: NextStep::CorrectConnection, text }
            }
            RefreshHold::Silent { until } => {
                let text = format!(
                    "the token endpoint did not answer several requests in a row, or failed (CIRCUIT_OPEN): it is not asked \
                     before {until}, but by one refresh at a time; {}",
                    again(until)
                );
                waits(UPSTREAM_UNAVAILABLE, text)
            }
            RefreshHold::Paused { until } => {
                let text = format!(
                    "the provider asked for a pause (PROVIDER_PAUSE): no refresh of the connection is sent before {until}; {}",
                    again(until)
                );
                waits(UPSTREAM_UNAVAILABLE, text)
            }
            RefreshHold::Journal => {
                let text = "this server cannot write its journal of received tokens (JOURNAL_UNWRITABLE), without which no provider is \
                     asked; its operator has to see to refresh.journal";
                waits(SERVER_UNAVAILABLE, text.to_owned())
            }
        }
    }
}

const UNDER_WAY: &str = "a refresh is under way, or the server that sent it has ended, which is found out within a minute of the end of its lease";
