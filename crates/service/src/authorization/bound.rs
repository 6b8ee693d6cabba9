//! The return of the browser of a cookie-bound session: it is known by its cookie, and the code is redeemed at once.

use std::fmt;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jackfield_domain::authorization::{
    AuthorizationClient, AuthorizationEnd, AuthorizationFailure, AuthorizationResponse, AuthorizationSession,
    AuthorizationState, BrowserCookies,
};
use jackfield_domain::connection::Connection;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{AuthorizationSessionId, Error, Result, Secret, TenantId};
use tracing::Instrument as _;

use super::account::AccountClient;
use super::callback::ReturnedAuthorization;
use super::complete::{Checked, Said, require_documents};
use super::redeem::warn_of_failure;
use super::redemptions::Ended;
use super::{judged, missing};
use crate::change::{Change, Length};
use crate::planted::{AuthorizationBug, planted_in};
use crate::services::Services;

/// A code that is being redeemed, whether or not a browser waits for it.
pub struct Redeeming {
    ended: BoxFuture<'static, Result<AuthorizationSession>>,
    /// The session as it is when it is asked for.
    now: BoxFuture<'static, Result<AuthorizationSession>>,
}

// === impl Services ===

impl Services {
    /// Takes the response that a browser brought for a cookie-bound session. Without the cookie the session fails, and nothing of the response
    /// is used: the browser that brings it has a URL of the provider that was meant for another browser.
    pub(super) async fn authorization_returned_bound(
        &self,
        (tenant, found): (TenantId, AuthorizationSession),
        response: AuthorizationResponse,
        cookies: &BrowserCookies,
    ) -> Result<ReturnedAuthorization> {
        let id = found.id;
        let cookies = self.cookie_digests(cookies, id).await?;
        let is_overdue = found.is_overdue(self.now());
        let found = found.settled(self.now());
        if found.state != AuthorizationState::Started {
            if is_overdue {
                self.lapse_found(tenant, id).await?;
                self.shared.changed_authorizations.tell(id);
            }
            return Ok(match (found.state, self.shared.redemptions.under_way(id)) {
                // The cookie is there until the end.
                (AuthorizationState::Confirmed, Some(ended)) if found.is_bound_to(&cookies) => {
                    ReturnedAuthorization::Redeeming(self.redeeming_elsewhere((tenant, id), ended))
                }
                // It may have ended since it was read.
                (AuthorizationState::Confirmed, _) => {
                    ReturnedAuthorization::Over(Box::new(self.authorization_now(tenant, id).await?))
                }
                (_, _) => ReturnedAuthorization::Over(Box::new(found)),
            });
        }
        // Its cookie does not change any more: the state of a session that has none is not known outside.
        let is_bound = found.is_bound_to(&cookies);
        let said = match is_bound || planted_in(found.connection, AuthorizationBug::CookieNotCompared) {
            false => Said::End(AuthorizationEnd::failed(AuthorizationFailure::WrongBrowser, "")),
            true => match judged(&found, &response) {
                Ok(code) => Said::Code(code.duplicate()),
                Err(end) => Said::End(end),
            },
        };
        match said {
            Said::Code(code) => {
                let turn = match self.shared.redemptions.turn(id) {
                    Ok(turn) => turn,
                    // The browser has loaded the page again. One code is enough.
                    Err(ended) => {
                        return Ok(ReturnedAuthorization::Redeeming(self.redeeming_elsewhere((tenant, id), ended)));
                    }
                };
                let services = self.clone();
                // It goes on if the browser leaves: a code that was taken and not redeemed would be lost.
                let redeeming = async move {
                    let _turn = turn;
                    services.bound_redeem(tenant, found, code).await
                };
                let task = self.shared.tasks.spawn(redeeming.in_current_span());
                let ended = async move { task.await.map_err(Error::internal)? }.boxed();
                Ok(ReturnedAuthorization::Redeeming(Redeeming { ended, now: self.as_it_is((tenant, id)) }))
            }
            said @ Said::End(_) => {
                let checked = self.bound_take(tenant, id, None, said).await?;
                let ended = self.finish((tenant, id), checked, None).await?;
                Ok(ReturnedAuthorization::Ended(Box::new(ended)))
            }
        }
    }

    /// The end of a redemption that another request has begun.
    fn redeeming_elsewhere(&self, of: (TenantId, AuthorizationSessionId), ended: Ended) -> Redeeming {
        let session = self.as_it_is(of);
        let ended = async move {
            ended.wait().await;
            session.await
        };
        Redeeming { ended: ended.boxed(), now: self.as_it_is(of) }
    }

    fn as_it_is(
        &self,
        (tenant, id): (TenantId, AuthorizationSessionId),
    ) -> BoxFuture<'static, Result<AuthorizationSession>> {
        let services = self.clone();
        async move { services.authorization_now(tenant, id).await }.boxed()
    }

    /// Redeems the code of a session whose browser has come back.
    async fn bound_redeem(
        &self,
        tenant: TenantId,
        found: AuthorizationSession,
        code: Secret,
    ) -> Result<AuthorizationSession> {
        // Before the code is taken, as in CompleteAuthorization: the browser can load the page again.
        let prepared = async {
            let connection = self.find::<Connection>(tenant, &Ref::Id(found.connection.0)).await?;
            let client = self.token_client(tenant, &connection).await?;
            let source =
                self.account_source(AccountClient { tenant, connection: &connection, client: &client }, &found);
            let source = source.await;
            if let Err(fault) = &source {
                require_documents(&connection, fault)?;
            }
            self.shared.refreshes.authorizations.writable().await?;
            Ok::<_, Error>((connection, client, source))
        };
        let (connection, client, source) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => return self.bound_return_in_vain((tenant, found.id), error).await,
        };
        let of = AccountClient { tenant, connection: &connection, client: &client };
        let facts = client.facts(&connection);
        let checked = self.bound_take(tenant, found.id, Some(&facts), Said::Code(code)).await?;
        self.finish((tenant, found.id), checked, Some((of, source))).await
    }

    /// Counts a return whose code could not be taken, and returns the error. After too many of them, the session ends.
    async fn bound_return_in_vain(
        &self,
        (tenant, id): (TenantId, AuthorizationSessionId),
        error: Error,
    ) -> Result<AuthorizationSession> {
        let end = AuthorizationEnd::failed(AuthorizationFailure::EndpointUnavailable, error.reason());
        let mut ended = None;
        let counted = self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            ended = None;
            let found = txn.authorization_fetch_for_update(tenant, id).await?;
            let open = found.filter(|found| found.clone().settled(self.now()).state == AuthorizationState::Started);
            let Some(mut session) = open else { return Ok(()) };
            match session.count_vain_return() {
                true => txn.authorization_replace(tenant, &session).await?,
                false => ended = Some(self.end(txn, tenant, session, end.clone()).await?),
            }
            Ok(())
        });
        if let Err(error) = counted.await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, authorization.id = %id, "the return of a browser could not be counted");
            ended = None;
        }
        let Some(ended) = ended else { return Err(error) };
        warn_of_failure(&ended, &end);
        self.shared.changed_authorizations.tell(id);
        Ok(ended)
    }

    /// Takes the code of a session, or ends it, unless that has happened in between.
    async fn bound_take(
        &self,
        tenant: TenantId,
        id: AuthorizationSessionId,
        client: Option<&AuthorizationClient>,
        said: Said,
    ) -> Result<Checked> {
        let mut made = None;
        let changed = self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            let locked = txn.authorization_fetch_for_update(tenant, id).await?.ok_or_else(|| missing(id))?;
            let session = locked.settled(self.now());
            made = Some(match session.state {
                AuthorizationState::Started => self.take(txn, tenant, (session, client), said).await?,
                _ => Checked::Ended(Box::new(session)),
            });
            Ok(())
        });
        let changed = changed.await;
        self.taken(tenant, changed, made).await
    }
}

// === impl Redeeming ===

impl Redeeming {
    /// Waits until the session has ended, or its tokens wait for the database, or the code cannot be sent as things are, or the patience is
    /// over. Returns the session as it then is: its code was not taken if it is still started, so the response can be brought again.
    ///
    /// # Errors
    /// The same call may succeed later; or it is not known what became of the session.
    pub async fn ended(self, patience: Duration) -> Result<AuthorizationSession> {
        match tokio::time::timeout(patience, self.ended).await {
            Ok(Err(error)) if !error.retryable() => {
                warn_of_error(&error);
                self.now.await
            }
            Ok(ended) => ended,
            Err(_) => self.now.await,
        }
    }
}

fn warn_of_error(error: &Error) {
    tracing::warn!(error = error as &dyn std::error::Error, "the code that a browser brought could not be redeemed");
}

impl fmt::Debug for Redeeming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redeeming")
    }
}

#[cfg(test)]
mod tests {
    use futures::future::pending;
    use jackfield_domain::Resource;
    use jackfield_domain::error::Precondition;

    use super::*;

    fn in_state(state: &str) -> AuthorizationSession {
        let id = uuid::Uuid::from_u128(1);
        let session = serde_json::json!({
            "id": id, "principal": "app", "user_id": "ada", "connection": id, "issuer": {}, "state": state,
            "client": { "token_url": "https://as.example/token", "client_id": "c" }, "state_digest": "00",
            "expire_time": 1, "meta": { "create_time": 1, "update_time": 1, "version": 1 },
        });
        serde_json::from_value(session).unwrap()
    }

    fn of(state: &str) -> BoxFuture<'static, Result<AuthorizationSession>> {
        let session = in_state(state);
        async move { Ok(session) }.boxed()
    }

    fn failing(error: Error) -> BoxFuture<'static, Result<AuthorizationSession>> {
        async move { Err(error) }.boxed()
    }

    /// A connector that is disabled can be enabled again while the session is open.
    #[tokio::test]
    async fn a_browser_whose_code_was_not_taken_may_bring_it_again() {
        let disabled = || Error::precondition(Precondition::ConnectorDisabled, Resource::Connector, "c", "disabled");
        for state in [AuthorizationState::Started, AuthorizationState::Confirmed] {
            let redeeming = Redeeming { ended: failing(disabled()), now: of(state.as_str()) };
            assert_eq!(redeeming.ended(Duration::from_secs(10)).await.unwrap().state, state);
        }
        let busy = Error::ServerUnavailable { retry_after: Duration::from_secs(1) };
        let redeeming = Redeeming { ended: failing(busy), now: pending().boxed() };
        assert!(redeeming.ended(Duration::from_secs(10)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_browser_that_has_waited_long_enough_is_told_what_is_true_then() {
        for (redeeming, state) in [
            (Redeeming { ended: of("COMPLETED"), now: pending().boxed() }, AuthorizationState::Completed),
            (Redeeming { ended: pending().boxed(), now: of("STARTED") }, AuthorizationState::Started),
            (Redeeming { ended: pending().boxed(), now: of("CONFIRMED") }, AuthorizationState::Confirmed),
        ] {
            assert_eq!(redeeming.ended(Duration::from_secs(10)).await.unwrap().state, state);
        }
    }
}
