//! The journal of authorisations: tokens that came for a code, until they are in the database.

use jackfield_domain::authorization::{AuthorizationSession, AuthorizationState};
use jackfield_domain::connection::Connection;
use jackfield_domain::credential::Material;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{AuthorizationSessionId, ConnectionId, Error, Result, TenantId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::redeem::{Tokens, may_pass, not_stored};
use crate::sealing::material::{self, SealedForm};
use crate::services::Services;

/// Tokens in the form in which they are sealed.
#[derive(Serialize, Deserialize)]
struct Entry {
    tenant: TenantId,
    connection: ConnectionId,
    material: SealedForm,
    account: Option<String>,
}

// === impl Services ===

impl Services {
    /// Writes tokens to the journal. Returns whether they are there.
    pub(super) async fn authorization_journal(
        &self,
        tenant: TenantId,
        session: &AuthorizationSession,
        tokens: &Tokens,
    ) -> bool {
        let written = async {
            let system = self.shared.data_keys.system().await?;
            let material = material::to_form(&Material::OAuth2(tokens.oauth.duplicate()), None)?;
            let entry = Entry { tenant, connection: session.connection, material, account: tokens.account.clone() };
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
            // One that cannot be stored does not keep the others from being stored.
            if let Err(error) = self.authorization_recover(id).await {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn authorization_recover(&self, id: Uuid) -> Result<()> {
        let journal = &self.shared.refreshes.authorizations;
        let system = self.shared.data_keys.system().await?;
        let Some(entry) = journal.read::<Entry>(&system, id).await? else { return Ok(()) };
        let Entry { tenant, connection, material, account } = entry;
        let Material::OAuth2(oauth) = material::from_form(material) else {
            return Err(Error::internal("tokens of an authorisation of another kind"));
        };
        let session = self.shared.store.read().authorization_fetch(tenant, AuthorizationSessionId(id)).await?;
        // Otherwise they are stored, or the session is gone.
        if let Some(session) = session.filter(|session| session.state == AuthorizationState::Confirmed) {
            let connection = match self.find::<Connection>(tenant, &Ref::Id(connection.0)).await {
                Err(error) => Err(error),
                Ok(found) => self.tokens_store(tenant, &found, &session, &Tokens { oauth, account }).await,
            };
            match connection {
                Ok(_) => {
                    tracing::info!(authorization.id = %session.id, "the tokens of an authorisation in the journal are stored")
                }
                Err(error) if may_pass(&error) => return Err(error),
                Err(error) => drop(self.end_confirmed(tenant, &session, not_stored(&session, &error)).await?),
            }
            self.shared.changed_authorizations.tell(session.id);
        }
        journal.remove(id).await;
        Ok(())
    }
}
