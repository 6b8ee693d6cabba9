//! The outlook of a credential: what happens next to its token. It is put together from what attempts and the schedule ask before they act.

use jackfield_domain::connection::Connection;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::{Credential, FailureClass, RefreshAttempt, RefreshHold, RefreshOutlook};
use jackfield_domain::error::Precondition;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Error, Result, TenantId, Timestamp};

use super::CredentialIdentity;
use super::attempt::micros;
use super::hold::Hold;
use super::plan::grace_of;
use super::resend::Earlier;
use crate::authorization::require_complete;
use crate::services::Services;

/// The reasons of the contract for which a connection could not be used, as a credential notes them.
const OF_THE_CONTRACT: [&str; 8] = [
    "CONNECTION_INCOMPLETE",
    "CONNECTION_INACTIVE",
    "CONNECTOR_DISABLED",
    "CONNECTION_REFUSED",
    "DECRYPT_FAILED",
    "INTERNAL",
    "KEY_EXPIRED",
    "UPSTREAM_UNAVAILABLE",
];

// === impl Services ===

impl Services {
    /// The next refresh of a credential, whose last attempts are these, the newest first.
    pub(crate) async fn refresh_outlook(
        &self,
        tenant: TenantId,
        credential: &Credential,
        attempts: &[RefreshAttempt],
    ) -> Result<RefreshOutlook> {
        let now = self.now();
        let has_open = attempts.first().is_some_and(|made| made.end.is_none());
        let is_under_way = has_open || self.is_refreshing(tenant, CredentialIdentity::of(credential));
        let held = |connection| Hold::of_credential(credential, connection, now).and_then(|hold| shown(hold, now));
        let Some(connection) = credential.connection.filter(|_| credential.refreshes()) else {
            return Ok(RefreshOutlook { hold: held(None).filter(is_final), next: None, is_under_way });
        };
        let connection = self.find::<Connection>(tenant, &Ref::Id(connection.0)).await?;
        // The first is the one that is shown.
        let mut holds = match held(Some(connection.meta.version)) {
            Some(hold) if is_final(&hold) => vec![hold],
            own => {
                let others = self.refresh_holds(tenant, credential, &connection, now).await?;
                others.into_iter().chain(own).collect()
            }
        };
        let (ahead, due) = (self.shared.refreshes.budget.is_ahead(), credential.next_refresh_time);
        let from = if ahead { due.map_or(now, |due| due.max(now)) } else { now };
        let time = holds.iter().filter_map(RefreshHold::until).fold(from, Timestamp::max);
        if !is_under_way
            && !holds.iter().any(is_final)
            && let Some(hold) = resent(attempts, credential, &connection, time)
        {
            // It explains the wait, or there is none that helps.
            holds.retain(|hold| !matches!(hold, RefreshHold::BackOff { .. }));
            if is_final(&hold) {
                holds.clear();
            }
            holds.push(hold);
        }
        if credential.failure_class == Some(FailureClass::Connection) && holds.is_empty() {
            holds.push(refused_before(credential));
        }
        let is_lasting = holds.iter().any(RefreshHold::is_lasting);
        let next = due.filter(|_| ahead && !is_lasting).map(|_| time);
        Ok(RefreshOutlook { hold: holds.into_iter().next(), next, is_under_way })
    }

    /// The holds of the connection of a credential, and of this server.
    async fn refresh_holds(
        &self,
        tenant: TenantId,
        credential: &Credential,
        connection: &Connection,
        now: Timestamp,
    ) -> Result<Vec<RefreshHold>> {
        let connector = self.find::<Connector>(tenant, &Ref::Id(connection.connector.0)).await?;
        let mut holds = Vec::new();
        if let Err(error) = require_complete(connection, &connector) {
            let obstacle = match &error {
                Error::Precondition { reason, .. } => reason.as_str(),
                _ => Precondition::ConnectionIncomplete.as_str(),
            };
            let message = match error {
                Error::Precondition { message, .. } => message,
                error => error.to_string(),
            };
            holds.push(RefreshHold::Incomplete { obstacle, message });
        }
        let client = self.shared.outbound.client_version(tenant, connection).await?;
        let spent = self.shared.refreshes.budget.of(tenant, connection.id, now);
        let of_provider =
            spent.hold(CredentialIdentity::of(credential), &client, now).into_iter().chain(spent.silence());
        holds.extend(of_provider.filter_map(|hold| shown(hold, now)));
        if !self.shared.refreshes.journal.is_writable() {
            holds.push(RefreshHold::Journal);
        }
        Ok(holds)
    }
}

fn is_final(hold: &RefreshHold) -> bool {
    matches!(hold, RefreshHold::Final { .. })
}

/// A hold as ExplainCredential shows it; `None` for one that the state of the credential shows already.
fn shown(hold: Hold, now: Timestamp) -> Option<RefreshHold> {
    let after = |rest| now.plus_micros(micros(rest));
    Some(match hold {
        Hold::Failed(failure) => match failure.class {
            class @ (FailureClass::Permanent | FailureClass::Indeterminate) => {
                RefreshHold::Final { class, reason: failure.reason }
            }
            FailureClass::Transient | FailureClass::Connection => {
                RefreshHold::BackOff { reason: failure.reason, until: after(failure.retry_after) }
            }
        },
        Hold::Refused { reason, rest } => RefreshHold::Refused {
            obstacle: Some(Precondition::ConnectionRefused.as_str()),
            reason,
            until: Some(after(rest)),
        },
        Hold::Silent(rest) => RefreshHold::Silent { until: after(rest) },
        Hold::Paused(rest) => RefreshHold::Paused { until: after(rest) },
        Hold::NotValid(_) | Hold::NoRefreshToken | Hold::NoConnection => return None,
    })
}

/// The hold that a lost response is, if the next attempt is made at a time: the last one may have spent the refresh token. `None` if it has
/// not, or can be made again.
fn resent(
    attempts: &[RefreshAttempt],
    credential: &Credential,
    connection: &Connection,
    time: Timestamp,
) -> Option<RefreshHold> {
    let accepted_until = Earlier::of_present(attempts, credential, grace_of(connection))?.until()?;
    let last = attempts.iter().find_map(|made| made.end.as_ref());
    let reason = last.map(|end| end.reason.clone()).unwrap_or_default();
    Some(match accepted_until < time {
        true => RefreshHold::Final { class: FailureClass::Indeterminate, reason },
        false => RefreshHold::Repeat { reason, until: time, accepted_until },
    })
}

/// The hold of a credential whose connection could not be used when it was tried last. Nothing that is known says that it can be used now.
fn refused_before(credential: &Credential) -> RefreshHold {
    let reason = credential.failure_reason.clone();
    let obstacle = OF_THE_CONTRACT.into_iter().find(|known| *known == reason);
    RefreshHold::Refused { obstacle, reason, until: None }
}
