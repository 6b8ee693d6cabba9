//! Plans: everything that a refresh needs before its attempt begins, or the reason why there can be none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::connection::Connection;
use jackfield_domain::credential::{Credential, CredentialState, FailureClass};
use jackfield_domain::error::Precondition;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{ConnectionId, Error, Resource, Result, TenantId, Timestamp};
use jackfield_upstream::oauth::Grant;

use super::RefreshError;
use super::attempt::{Sending, micros};
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::schedule::Spent;
use crate::authorization::TokenClient;
use crate::outbound::ClientVersion;
use crate::services::Services;

/// A refresh that can be attempted.
pub(super) struct Plan {
    pub(super) tenant: TenantId,
    pub(super) credential: Credential,
    pub(super) connection: Connection,
    pub(super) client: TokenClient,
    pub(super) version: ClientVersion,
    pub(super) budget: Arc<Spent>,
    pub(super) endpoint: Arc<Endpoint>,
}

// === impl Services ===

impl Services {
    /// Everything that a refresh needs, or the reason why there can be none.
    pub(super) async fn refresh_plan(&self, tenant: TenantId, credential: Credential) -> Result<Plan, RefreshError> {
        let reauth = |message: &str| {
            Error::precondition(Precondition::ReauthRequired, Resource::Credential, credential.id, message)
        };
        if let Some(failure) = self.refresh_failed(&credential) {
            return Err(RefreshError::Failed(failure));
        }
        match credential.state {
            CredentialState::Revoked | CredentialState::Pending => {
                let message = format!("the credential is {}", credential.state.as_str());
                let reason = Precondition::CredentialNotValid;
                return Err(Error::precondition(reason, Resource::Credential, credential.id, message).into());
            }
            _ if !credential.refreshes() && credential.connection.is_some() => {
                return Err(reauth("there is no refresh token: the user has to authorise").into());
            }
            _ => {}
        }
        let Some(connection) = credential.connection else {
            return Err(reauth("the credential has no connection, through which it could be refreshed").into());
        };
        let connection = self.find::<Connection>(tenant, &Ref::Id(connection.0)).await?;
        let budget = self.shared.refreshes.budget.of(tenant, connection.id);
        let version = self.shared.outbound.client_version(tenant, &connection).await?;
        if let Some((reason, retry_after)) = budget.refused(&version) {
            return Err(RefreshError::Failed(Failure::of_client(reason, retry_after)));
        }
        let client = self.token_client(tenant, &connection).await?;
        let endpoint = self.shared.refreshes.budget.endpoint(tenant, &connection, &client.token_url);
        match endpoint.rest() {
            Some(rest) => Err(held_back(rest)),
            None => Ok(Plan { tenant, credential, connection, client, version, budget, endpoint }),
        }
    }

    /// The last failure of a credential, if no attempt may be made now.
    fn refresh_failed(&self, credential: &Credential) -> Option<Failure> {
        let class = credential.failure_class?;
        let wait = credential.next_refresh_time.map(|time| time.0.saturating_sub(self.now().0)).unwrap_or_default();
        let retry_after = Duration::from_micros(u64::try_from(wait).unwrap_or_default());
        let blocks = match class {
            FailureClass::Permanent | FailureClass::Indeterminate => true,
            FailureClass::Transient => !retry_after.is_zero(),
            // The budget of the connection knows whether it is still the same.
            FailureClass::Connection => false,
        };
        blocks.then(|| Failure::of_last(class, &credential.failure_reason, retry_after))
    }

    /// The time until which no request is sent to the token endpoint of a connection, because it does not answer; `None` if it is asked.
    pub(crate) fn refresh_held_back(&self, tenant: TenantId, connection: ConnectionId) -> Option<Timestamp> {
        let rest = self.shared.refreshes.budget.endpoint_rest(tenant, connection)?;
        Some(self.now().plus_micros(micros(rest)))
    }
}

/// The failure of a refresh that is not attempted, because the token endpoint does not answer.
pub(super) fn held_back(rest: Duration) -> RefreshError {
    RefreshError::Failed(Failure::not_processed(CIRCUIT_OPEN, rest))
}

// === impl Plan ===

impl Plan {
    /// The grant of an attempt, and the parameters of its request.
    pub(super) fn grant<'a>(&'a self, sending: &'a Sending) -> Result<(Grant<'a>, &'a BTreeMap<String, String>)> {
        let settings = &self.connection.settings;
        if self.credential.client_grant {
            let scope = Some(settings.scope.as_str()).filter(|scope| !scope.is_empty());
            return Ok((Grant::ClientCredentials { scope }, settings.token_parameters.as_map()));
        }
        let refresh_token = sending.tokens.refresh_token.as_ref();
        let refresh_token = refresh_token.ok_or_else(|| Error::internal("an attempt without a refresh token"))?;
        Ok((Grant::RefreshToken { refresh_token, scope: None }, settings.refresh_parameters.as_map()))
    }

    /// The time for which the provider accepts a refresh token again that was used.
    pub(super) fn grace(&self) -> Duration {
        self.connection.settings.refresh_token_grace_period.unwrap_or_default()
    }
}

/// The reason of a request that is not sent because others had no answer.
const CIRCUIT_OPEN: &str = "CIRCUIT_OPEN";
