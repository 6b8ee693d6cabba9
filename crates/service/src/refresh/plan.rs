//! Plans: everything that a refresh needs before its attempt begins, or the reason why there can be none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::connection::Connection;
use jackfield_domain::credential::{Credential, FailureClass, RefreshOutcome};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Error, Result, TenantId, Timestamp};
use jackfield_upstream::oauth::Grant;

use super::attempt::{Sending, micros};
use super::budget::Spent;
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::hold::Hold;
use super::{CredentialIdentity, RefreshError};
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
        let present = self.refresh_connection_version(tenant, &credential).await?;
        if let Some(mut hold) = Hold::of_credential(&credential, present, self.now()) {
            if let Hold::Failed(failure) = &mut hold
                && let Some(connection) = credential.connection
            {
                // Otherwise callers who come again then would have to come once more.
                failure.outlast(self.shared.refreshes.budget.rest(tenant, connection, self.now()));
            }
            return Err(hold.into_error(&credential));
        }
        let connection = credential.connection.ok_or_else(|| Error::internal("a refresh without a connection"))?;
        let connection = self.find::<Connection>(tenant, &Ref::Id(connection.0)).await?;
        let budget = self.shared.refreshes.budget.of(tenant, connection.id, self.now());
        let version = self.shared.outbound.client_version(tenant, &connection).await?;
        if let Some(hold) = budget.hold(CredentialIdentity::of(&credential), &version, self.now()) {
            return Err(hold.into_error(&credential));
        }
        let client = self.token_client(tenant, &connection).await?;
        let endpoint = self.shared.refreshes.budget.endpoint(tenant, &connection, &client.token_url, &budget);
        match endpoint.rest() {
            Some(rest) => Err(Hold::Silent(rest).into_error(&credential)),
            None => Ok(Plan { tenant, credential, connection, client, version, budget, endpoint }),
        }
    }

    /// The version of the connection of a credential that waits after a failure; `None` if it ends no wait.
    async fn refresh_connection_version(&self, tenant: TenantId, credential: &Credential) -> Result<Option<i64>> {
        let may_end = credential.failure_class == Some(FailureClass::Transient)
            && credential.failure_connection_version.is_some();
        match credential.connection.filter(|_| may_end) {
            Some(connection) => {
                let connection = self.find::<Connection>(tenant, &Ref::Id(connection.0)).await?;
                Ok(Some(connection.meta.version))
            }
            None => Ok(None),
        }
    }
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
    pub(super) fn grace(&self) -> Option<Duration> {
        grace_of(&self.connection)
    }

    /// Notes what a failure says about other requests of the connection.
    pub(super) fn note(&self, failure: &Failure, now: Timestamp) {
        let Failure { outcome, reason, retry_after, refuses_client, pause, .. } = failure;
        if *outcome == RefreshOutcome::ConnectionRefused {
            let of = Some(CredentialIdentity::of(&self.credential)).filter(|_| !refuses_client);
            self.budget.refuse(of, &self.version, reason, *retry_after);
        }
        if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
            let seconds = pause.as_secs_f64();
            tracing::warn!(
                connection.id = %self.connection.id,
                pause = seconds,
                "a provider asks for a pause: until it is over, no refresh of the connection is sent"
            );
            self.budget.pause(&self.version, now.plus_micros(micros(pause)));
        }
    }
}

/// The time for which the provider of a connection accepts a refresh token again that was used; `None` if it does not.
pub(super) fn grace_of(connection: &Connection) -> Option<Duration> {
    connection.settings.refresh_token_grace_period.filter(|grace| !grace.is_zero())
}
