//! The journal of authorisations: tokens that came for a code or a device code, until they are in the database.

use jackfield_domain::authorization::{
    AuthorizationEnd, AuthorizationFailure, AuthorizationSession, AuthorizationState,
};
use jackfield_domain::connection::Connection;
use jackfield_domain::credential::{Material, OAuth2Material};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{AuthorizationSessionId, ConnectionId, Error, Result, Secret, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::account::{AccountClient, unavailable};
use super::redeem::not_stored;
use crate::sealing::material::{self, Plain, SealedForm};
use crate::services::Services;

/// Tokens in the form in which they are sealed, as they came: whose they are is found when they are stored.
#[derive(Serialize, Deserialize)]
struct Entry {
    tenant: TenantId,
    connection: ConnectionId,
    material: SealedForm,
    nonce: Option<Plain>,
    /// The time at which the tokens came.
    received: Timestamp,
}

// === impl Services ===

impl Services {
    /// Writes tokens to the journal. Returns whether they are there.
    pub(super) async fn authorization_journal(
        &self,
        tenant: TenantId,
        session: &AuthorizationSession,
        oauth: &OAuth2Material,
        nonce: Option<&Secret>,
    ) -> bool {
        let written = async {
            let system = self.shared.data_keys.system().await?;
            let material = material::to_form(&Material::OAuth2(oauth.duplicate()), None)?;
            let entry = Entry {
                tenant,
                connection: session.connection,
                material,
                nonce: nonce.map(Plain::of),
                received: self.now(),
            };
            self.shared.refreshes.authorizations.append(&system, session.id.0, &entry).await
        };
        let written = written.await;
        if let Err(error) = &written {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, authorization.id = %session.id, "the journal of authorisations cannot be written");
        }
        written.is_ok()
    }

    /// Stores what the journal has.
    pub(crate) async fn authorizations_recover(&self) -> Result<()> {
        let mut failed = None;
        for id in self.shared.refreshes.authorizations.ids().await? {
            match self.authorization_recover(id).await {
                Ok(()) => {}
                // The others would fail as well, and each would take its time.
                Err(error @ Error::StoreUnavailable { .. }) => return Err(error),
                // One that cannot be stored does not keep the others from being stored.
                Err(error) => failed = Some(error),
            }
            if self.shared.stop.is_cancelled() {
                break;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    pub(super) async fn authorization_recover(&self, id: Uuid) -> Result<()> {
        let journal = &self.shared.refreshes.authorizations;
        let _held = journal.hold(id);
        let system = self.shared.data_keys.system().await?;
        let Some(entry) = journal.read::<Entry>(&system, id).await? else { return Ok(()) };
        let Entry { tenant, connection, material, nonce, received } = entry;
        let Material::OAuth2(oauth) = material::from_form(material) else {
            return Err(Error::internal("tokens of an authorisation of another kind"));
        };
        let found = self.shared.store.read().authorization_fetch(tenant, AuthorizationSessionId(id)).await?;
        let Some(session) = found else {
            tracing::warn!(authorization.id = %id, "tokens in the journal belong to no authorisation any more, and are dropped");
            journal.remove(id).await;
            return Ok(());
        };
        let settled = session.clone().settled(self.now());
        match settled.state {
            AuthorizationState::Completed => {
                journal.remove(id).await;
                return Ok(());
            }
            _ if settled.takes_tokens(self.now()) => {}
            // Its watchers have heard that it has ended.
            _ => {
                let end = AuthorizationEnd::failed(AuthorizationFailure::Interrupted, "");
                let ended = self.end_confirmed(tenant, &session, end, 1).await?;
                self.tokens_drop(tenant, &ended, oauth).await;
                return Ok(());
            }
        }
        // From here on, no replica polls for it.
        if session.device.is_some() {
            self.device_confirm(tenant, &session).await?;
        }
        let nonce = nonce.map(Plain::into_secret);
        let settled = async {
            let connection = self.find::<Connection>(tenant, &Ref::Id(connection.0)).await?;
            let client = self.token_client(tenant, &connection).await?;
            let of = AccountClient { tenant, connection: &connection, client: &client };
            match self.account_source(of, &session).await {
                Ok(source) => {
                    let source = source.of_time(received);
                    let source = (&source, nonce.as_ref());
                    self.tokens_settle(of, &session, source, oauth.duplicate(), (true, 1)).await
                }
                Err(fault) if fault.is_transient() => {
                    let connector = connection.connector.to_string();
                    Err(Error::UpstreamUnavailable { connector, retry_after: std::time::Duration::ZERO })
                }
                Err(fault) => {
                    let ended = self.end_confirmed(tenant, &session, unavailable(&fault), 1).await?;
                    self.tokens_drop(tenant, &ended, oauth.duplicate()).await;
                    Ok(ended)
                }
            }
        };
        match settled.await {
            Ok(settled) if settled.state == AuthorizationState::Completed => {
                tracing::info!(authorization.id = %session.id, "the tokens of an authorisation in the journal are stored");
            }
            Ok(_) => {}
            Err(error @ Error::NotFound { .. }) => {
                let ended = self.end_confirmed(tenant, &session, not_stored(&session, &error), 1).await?;
                self.tokens_drop(tenant, &ended, oauth).await;
            }
            // The connection may be mended until the time of the session is over.
            Err(error) => return Err(error),
        }
        self.shared.changed_authorizations.tell(session.id);
        Ok(())
    }
}
