//! The outlook of a credential: what the server does next about its access token, as those decide that refresh it.

use super::FailureClass;
use crate::value::time::Timestamp;

/// The next refresh of a credential, and what holds it back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefreshOutlook {
    /// The reason for which no attempt is made now; `None` if one is made when the token is asked for, or is due.
    pub hold: Option<RefreshHold>,
    /// The time at which the server makes the next attempt by itself; `None` if it makes none.
    pub next: Option<Timestamp>,
    /// True if an attempt is queued, or was begun and has no end yet.
    pub is_under_way: bool,
}

/// The reason for which no refresh is attempted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefreshHold {
    /// Nothing is attempted until there is new material: the refresh token was refused, or may be spent.
    Final { class: FailureClass, reason: String },
    /// The last attempt failed, and the wait after it is not over.
    BackOff { reason: String, until: Timestamp },
    /// The response to the last attempt was lost, and it is asked for again. Until a time, the provider accepts the refresh token.
    Repeat { reason: String, until: Timestamp, accepted_until: Timestamp },
    /// The provider refuses the client, or its request for this credential. Without a time, it is asked again at once; what it refuses then
    /// is known only if `obstacle` says it.
    Refused { obstacle: Option<&'static str>, reason: String, until: Option<Timestamp> },
    /// The connection lacks what a request needs.
    Incomplete { obstacle: &'static str, message: String },
    /// The token endpoint does not answer.
    Silent { until: Timestamp },
    /// The provider has asked for a pause.
    Paused { until: Timestamp },
    /// The journal of this server cannot be written.
    Journal,
}

// === impl RefreshHold ===

impl RefreshHold {
    /// The time at which it ends; `None` if no time ends it.
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            RefreshHold::BackOff { until, .. }
            | RefreshHold::Repeat { until, .. }
            | RefreshHold::Silent { until }
            | RefreshHold::Paused { until } => Some(*until),
            RefreshHold::Refused { until, .. } => *until,
            RefreshHold::Final { .. } | RefreshHold::Incomplete { .. } | RefreshHold::Journal => None,
        }
    }

    /// Returns whether only a change by an operator or a user ends it.
    pub fn is_lasting(&self) -> bool {
        matches!(self, RefreshHold::Final { .. } | RefreshHold::Incomplete { .. } | RefreshHold::Journal)
    }
}
