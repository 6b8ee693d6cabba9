//! The use case that authenticates a user for a connector: material becomes that of the default credential of the link.

use futures::TryFutureExt as _;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::{Credential, CredentialDraft, Material, MaterialPatch, TokensPatch};
use jackfield_domain::principal::right::CredentialsWrite;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::user_connector::Authenticated;
use jackfield_domain::value::text::UserId;
use jackfield_domain::{ConnectorId, Error, Result, SecretPatch, TenantId};
use jackfield_store::Writer;
use tokio::time::Instant;

use super::crud::Parents;
use crate::caller::Caller;
use crate::change::{Change, Length, Prepared, RequestOptions, lock_parent};
use crate::services::Services;
use crate::source::MaterialOrigin;
use crate::user_connector::link_of;

// === impl Services ===

impl Services {
    /// Stores material as that of the default credential of a link. It replaces material of the same kind; otherwise there is a new
    /// credential, which becomes the default.
    pub async fn user_connector_authenticate(
        &self,
        caller: &Caller<CredentialsWrite>,
        request: &RequestOptions,
        user_id: UserId,
        connector: &Ref,
        origin: MaterialOrigin<'_>,
        deadline: Option<Instant>,
    ) -> Result<Authenticated> {
        let (change, tenant) = (Change::of_tenant(caller, request, Length::Short), caller.tenant());
        let material = match origin {
            MaterialOrigin::Given(material) => Prepared::from((None, material)),
            MaterialOrigin::Source(form, deadline) => {
                let asked = self.source_material(tenant, (&user_id, connector), form, deadline);
                let asked = asked.map_ok(|(connector, material)| (Some(connector), material));
                self.shared.changes.prepare(change, asked).await?
            }
        };
        let authenticated = self.change(change, async |txn| {
            let (asked_for, material) = material.get()?;
            // Another connector may have got the name while the source was asked.
            let connector = &asked_for.map_or_else(|| connector.clone(), |id: ConnectorId| Ref::Id(id.0));
            let id = lock_parent::<Connector>(txn, tenant, connector).await?.id;
            let link = link_of(txn, tenant, &user_id, (id, connector)).await?;
            let present = txn.credential_fetch_default_for_update(tenant, link).await?;
            // That of a client has no material of a user.
            let (credential, created) = match present.filter(|it| it.kind == material.kind() && !it.client_grant) {
                Some(present) => (self.material_replace(txn, tenant, present, material).await?, false),
                None => {
                    let parents = Parents { connector: id, connection: None, link };
                    let draft = new_default(user_id.clone(), connector.clone(), material);
                    (self.credential_insert(txn, tenant, parents, draft).await?, true)
                }
            };
            let stored = txn.user_connector_fetch_pair(tenant, &user_id, id, self.now()).await?;
            let user_connector = stored.ok_or_else(|| Error::internal("a link that was locked is not there"))?;
            Ok(Authenticated { user_connector, credential, created })
        });
        let Authenticated { mut user_connector, mut credential, created } = authenticated.await?;
        if let Some(exchanged) = self.exchanged(tenant, request, &credential, deadline).await {
            let link = (&exchanged.user_id, exchanged.connector);
            let found = self.shared.store.read().user_connector_fetch_pair(tenant, link.0, link.1, self.now()).await;
            user_connector = found.ok().flatten().unwrap_or(user_connector);
            credential = exchanged;
        }
        Ok(Authenticated { user_connector, credential: self.settled(credential), created })
    }

    /// Replaces all the material of a credential that is locked.
    async fn material_replace(
        &self,
        txn: &Writer,
        tenant: TenantId,
        mut credential: Credential,
        material: Material,
    ) -> Result<Credential> {
        // Nothing says whose the new material is.
        credential.provider_account_id.clear();
        // A token that is not given belongs to the grant before.
        let gone = TokensPatch { refresh_token: SecretPatch::Clear, id_token: SecretPatch::Clear };
        self.material_change(txn, tenant, &mut credential, MaterialPatch::Replace(material, gone)).await?;
        credential.meta = credential.meta.changed(self.now());
        txn.replace(tenant, &credential).await?;
        Ok(credential)
    }
}

/// A new default credential of a user, of which nothing but the material is known.
fn new_default(user_id: UserId, connector: Ref, material: Material) -> CredentialDraft {
    CredentialDraft {
        id: None,
        external_id: None,
        user_id,
        connector,
        connection: None,
        provider_account_id: String::new(),
        email_digest: None,
        provider_data: Default::default(),
        labels: Default::default(),
        is_default: Some(true),
        requested_scopes: Vec::new(),
        material,
    }
}
