//! The response of a provider at the callback listener. The listener cannot know whose browser brings it, so the code is kept until the
//! application has confirmed the user, unless the session is bound to a browser.

use jackfield_domain::authorization::{
    AuthorizationResponse, AuthorizationSession, AuthorizationState, BrowserCookies, CODE_COLUMN, CODE_MICROS,
};
use jackfield_domain::value::url::RedirectUri;
use jackfield_domain::{Error, Result, Secret, SecretAddress, TenantId};
use jackfield_store::Writer;
use jackfield_vault::{random_token, secrets_are_equal};

use super::bound::Redeeming;
use super::{COMPLETION, STATE, context_of, judged, warn_of_attack};
use crate::change::{Change, Length};
use crate::planted::{AuthorizationBug, planted_in};
use crate::services::Services;

/// The outcome of the session that a browser came back with.
#[derive(Debug)]
pub enum ReturnedAuthorization {
    /// The browser goes on to the application, with a completion code.
    Continue(Secret),
    /// The session has ended just now.
    Ended(Box<AuthorizationSession>),
    /// The browser of a cookie-bound session has come back, and the code is being redeemed.
    Redeeming(Redeeming),
    /// The session had ended before, or its code is being redeemed.
    Over(Box<AuthorizationSession>),
    /// The session has another response, with which it can still be completed. Nothing changes.
    Answered,
    /// There is no such session at this path.
    Unknown,
}

// === impl Services ===

impl Services {
    /// Takes the response that a browser brought to the path of a connection, with its cookies.
    pub async fn authorization_returned(
        &self,
        context: &str,
        response: AuthorizationResponse,
        cookies: &BrowserCookies,
    ) -> Result<ReturnedAuthorization> {
        let digest = self.authorization_digest(STATE, &response.state).await?;
        let found = self.shared.store.read().authorization_find_of_any_tenant(&digest).await?;
        let Some((tenant, session)) = found else { return Ok(ReturnedAuthorization::Unknown) };
        // The provider of another connection passes the code of this one on, or has the browser do so.
        let is_its_path = context_of(tenant, session.connection) == context;
        if !is_its_path && !planted_in(session.connection, AuthorizationBug::PathNotCompared) {
            if self.shared.misled_sessions.is_to_log(session.id) {
                let (connection, id, reason) = (session.connection, session.id, "PATH_MISMATCH");
                tracing::warn!(tenant.id = %tenant, connection.id = %connection, authorization.id = %id, error.type = reason, "an answer to an authorisation came to the path of another connection");
            }
            return Ok(ReturnedAuthorization::Unknown);
        }
        if session.browser.is_some() {
            return self.authorization_returned_bound((tenant, session), response, cookies).await;
        }
        let Some(return_uri) = session.return_uri.clone() else { return Ok(ReturnedAuthorization::Unknown) };
        let completion = random_token()?;
        let completion_digest = self.authorization_digest(COMPLETION, &completion).await?;
        let (mut returned, mut is_changed) = (None, false);
        self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            let locked = txn.authorization_fetch_for_update(tenant, session.id).await?;
            let locked = locked.ok_or_else(|| super::missing(session.id))?;
            let is_overdue = locked.is_overdue(self.now());
            let mut session = locked.settled(self.now());
            is_changed = is_overdue || session.state == AuthorizationState::Started;
            returned = Some(match (session.state, judged(&session, &response)) {
                (state, Ok(code)) if takes_code(&session, state) => {
                    session.completion_digest = Some(completion_digest);
                    self.keep_code(txn, tenant, session, code).await?;
                    ReturnedAuthorization::Continue(with_code(&return_uri, &completion))
                }
                (AuthorizationState::Started, Err(end)) => {
                    ReturnedAuthorization::Ended(Box::new(self.end(txn, tenant, session, end).await?))
                }
                // The browser may have lost the redirect, and only it has the code. The session expires when it would have.
                (AuthorizationState::Returned, Ok(code)) if self.keeps_code(txn, tenant, &session, code).await? => {
                    session.completion_digest = Some(completion_digest);
                    txn.authorization_replace(tenant, &session).await?;
                    ReturnedAuthorization::Continue(with_code(&return_uri, &completion))
                }
                (AuthorizationState::Returned, _) => ReturnedAuthorization::Answered,
                (_, _) => {
                    if is_overdue {
                        self.lapse(txn, tenant, &session).await?;
                    }
                    ReturnedAuthorization::Over(Box::new(session))
                }
            });
            Ok(())
        })
        .await?;
        if is_changed {
            self.shared.changed_authorizations.tell(session.id);
        }
        if let Some(ReturnedAuthorization::Ended(session)) = &returned {
            warn_of_attack(tenant, session);
        }
        returned.ok_or_else(|| Error::internal("a callback without a result"))
    }

    /// Keeps the code of a session until the application confirms the user.
    async fn keep_code(
        &self,
        txn: &Writer,
        tenant: TenantId,
        mut session: AuthorizationSession,
        code: &Secret,
    ) -> Result<()> {
        session.advance(AuthorizationState::Returned, self.now(), CODE_MICROS);
        let address = SecretAddress::of(tenant, session.id, CODE_COLUMN);
        self.shared.secrets.put(txn, address, code.expose().as_bytes()).await?;
        txn.authorization_replace(tenant, &session).await
    }

    /// Returns true if this is the code that was kept.
    async fn keeps_code(
        &self,
        txn: &Writer,
        tenant: TenantId,
        session: &AuthorizationSession,
        code: &Secret,
    ) -> Result<bool> {
        let kept = self.shared.secrets.text(Some(txn), SecretAddress::of(tenant, session.id, CODE_COLUMN)).await?;
        Ok(kept.is_some_and(|kept| secrets_are_equal(&kept, code)))
    }
}

/// Returns true if a session that is in a state takes the code of a response, and had none before.
fn takes_code(session: &AuthorizationSession, state: AuthorizationState) -> bool {
    match state {
        AuthorizationState::Returned => planted_in(session.connection, AuthorizationBug::ResponseTakenTwice),
        state => state == AuthorizationState::Started,
    }
}

/// The URI of an application with the completion code. The rest of it stays as it was written.
fn with_code(uri: &RedirectUri, code: &Secret) -> Secret {
    let uri = uri.to_ascii();
    let separator = match uri.split_once('?') {
        None => "?",
        Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
        Some(_) => "&",
    };
    // The code has only letters, digits, "-" and "_".
    Secret::new(format!("{uri}{separator}completion_code={}", code.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_completion_code_is_added_to_a_uri() {
        let added = |uri: &str| with_code(&RedirectUri::stored(uri.to_owned()), &Secret::new("c".to_owned()));
        for (uri, expected) in [
            ("https://a.example", "https://a.example?completion_code=c"),
            ("https://a.example/b?", "https://a.example/b?completion_code=c"),
            ("https://a.example/b?c=d", "https://a.example/b?c=d&completion_code=c"),
            ("https://bücher.example/ä", "https://xn--bcher-kva.example/%C3%A4?completion_code=c"),
            ("com.example.app:/done", "com.example.app:/done?completion_code=c"),
        ] {
            assert_eq!(added(uri).expose(), expected);
        }
    }
}
