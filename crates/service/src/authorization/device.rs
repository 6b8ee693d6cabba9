//! The start of a device authorisation (RFC 8628 3.1), and the tokens that come of it.

use futures::FutureExt as _;
use jackfield_domain::authorization::{
    AuthorizationEnd, AuthorizationFailure, AuthorizationSession, AuthorizationState, DEVICE_CODE_COLUMN,
    DEVICE_MICROS, DeviceInvitation, DevicePolling, Invitation, REDEEM_MICROS, UNKNOWN_ERROR_CODE,
};
use jackfield_domain::connection::Connection;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::OAuth2Material;
use jackfield_domain::{Result, TenantId, Timestamp};
use jackfield_upstream::oauth::{DeviceAuthorization, TokenFault};
use tokio::time::Instant;

use super::account::{AccountClient, AccountSource};
use super::endpoint::{TokenClient, endpoints, incomplete};
use super::redeem::{
    JOURNALED_ATTEMPTS, STORE_ATTEMPTS, failure_of, is_unknown_refusal, may_pass, not_stored, repeated,
};
use super::start::Begun;
use crate::change::{Change, Length};
use crate::services::Services;

// === impl Services ===

impl Services {
    /// Asks the provider for the codes of a session. What it refuses is how the session ends.
    pub(super) async fn device_begin(
        &self,
        (connection, connector): (&Connection, &Connector),
        client: &TokenClient,
        scopes: &[String],
    ) -> Result<Begun> {
        let settings = &connection.settings;
        let of_connector = || endpoints(connector)?.device_authorization_url.clone();
        let url = settings.device_authorization_url.clone().or_else(of_connector);
        let field = "device_authorization_url";
        let url = url.ok_or_else(|| incomplete(connection, field, Some(field)))?;
        let (asked, deadline) = (self.now(), Instant::now() + self.shared.refreshes.timeout());
        let outcome = client.authorize_device(&url, scopes, settings.parameters.as_map(), deadline).await;
        Ok(match outcome {
            Ok(begun) => begun_at(asked, begun),
            Err(fault) => {
                Begun { device: Some(DevicePolling::new(None)), end: Some(refusal(&fault)), ..Begun::until(asked) }
            }
        })
    }

    /// Stores the tokens for a device code whose user said yes.
    pub(super) async fn device_approved(
        &self,
        of: AccountClient<'_>,
        session: &AuthorizationSession,
        source: &AccountSource,
        oauth: OAuth2Material,
    ) -> Result<()> {
        let (tenant, id) = (of.tenant, session.id);
        // Before the database is asked for anything: from now on they are in no other place.
        let _held = self.shared.refreshes.authorizations.hold(id.0);
        let is_journaled = self.authorization_journal(tenant, session, &oauth, None).await;
        let attempts = if is_journaled { JOURNALED_ATTEMPTS } else { STORE_ATTEMPTS };
        let confirmed = match repeated(attempts, || self.device_confirm(tenant, session).boxed()).await {
            Ok(Some(confirmed)) if confirmed.state == AuthorizationState::Confirmed => confirmed,
            // They are stored when the database is back.
            Err(error) if is_journaled && may_pass(&error) => return Err(error),
            Err(error) => {
                let end = not_stored(session, &error);
                let ended = self.end_confirmed(tenant, session, end, STORE_ATTEMPTS).await;
                self.tokens_drop(tenant, ended.as_ref().unwrap_or(session), oauth).await;
                return ended.map(|_| ());
            }
            // It has ended meanwhile.
            Ok(ended) => {
                self.tokens_drop(tenant, ended.as_ref().unwrap_or(session), oauth).await;
                return Ok(());
            }
        };
        self.shared.changed_authorizations.tell(id);
        let settled = self.tokens_settle(of, &confirmed, (source, None), oauth, (is_journaled, attempts)).await;
        self.shared.changed_authorizations.tell(id);
        settled.map(|_| ())
    }

    /// Marks a session as confirmed, so that no replica polls for it any more. A session that has
    /// ended is returned as it is. A server that has the tokens may do so, even
    /// if another replica polls by now.
    pub(super) async fn device_confirm(
        &self,
        tenant: TenantId,
        session: &AuthorizationSession,
    ) -> Result<Option<AuthorizationSession>> {
        self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            let found = txn.authorization_fetch_for_update(tenant, session.id).await?;
            let Some(mut found) = found else { return Ok(None) };
            if found.state != AuthorizationState::Confirmed && found.takes_tokens(self.now()) {
                found.advance(AuthorizationState::Confirmed, self.now(), REDEEM_MICROS);
                txn.authorization_forget_secrets(tenant, found.id).await?;
                txn.authorization_poll_stop(tenant, found.id).await?;
                txn.authorization_replace(tenant, &found).await?;
            }
            Ok(Some(found))
        })
        .await
    }
}

/// The beginning of a session whose codes were asked for at a time.
fn begun_at(asked: Timestamp, begun: DeviceAuthorization) -> Begun {
    let DeviceAuthorization { device_code, user_code, verification_uri, verification_uri_complete, lifetime, interval } =
        begun;
    let lifetime = i64::try_from(lifetime.as_micros()).unwrap_or(i64::MAX).min(DEVICE_MICROS);
    Begun {
        device: Some(DevicePolling::new(interval)),
        invitation: Some(Invitation::Device(DeviceInvitation {
            user_code,
            verification_uri,
            verification_uri_complete,
        })),
        secrets: vec![(DEVICE_CODE_COLUMN, device_code)],
        ..Begun::until(asked.plus_micros(lifetime))
    }
}

/// The end of a session whose provider gave no codes. Nothing is lost if the answer is.
fn refusal(fault: &TokenFault) -> AuthorizationEnd {
    if let TokenFault::BodyMalformed { .. } = fault {
        return AuthorizationEnd::failed(AuthorizationFailure::ResponseMalformed, fault.reason());
    }
    // The URL is that of another endpoint, whatever was done.
    if let TokenFault::Status { status, .. } = fault
        && status.is_redirection()
    {
        return AuthorizationEnd::failed(AuthorizationFailure::ClientRefused, fault.reason());
    }
    if is_unknown_refusal(fault) {
        return AuthorizationEnd::failed(AuthorizationFailure::RequestRefused, UNKNOWN_ERROR_CODE);
    }
    match failure_of(fault) {
        AuthorizationEnd::Failed { failure: AuthorizationFailure::AnswerLost, detail } => {
            AuthorizationEnd::failed(AuthorizationFailure::EndpointUnavailable, detail)
        }
        end => end,
    }
}
