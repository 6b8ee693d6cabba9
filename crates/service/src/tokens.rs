//! The two ways in which material leaves: a usable token, and the material itself for those who may reveal it.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jackfield_domain::credential::{
    Credential, CredentialRef, CredentialStatus, IssuedToken, Material, OAuth2Material,
};
use jackfield_domain::error::Precondition;
use jackfield_domain::reference::Ref;
use jackfield_domain::{Error, Resource, Result, Secret, TenantId};
use jackfield_store::AuditEvent;
use uuid::Uuid;

use crate::caller::Caller;
use crate::credentials::material_place;
use crate::material;
use crate::open::Services;

/// Material that was revealed.
pub struct Revealed {
    pub material: Material,
    pub material_version: i64,
    /// Id of the record of the call.
    pub audit_event: Uuid,
}

/// How many changes in a row a reader outruns before it gives up.
const CHANGES_OUTRUN: usize = 5;
const RETRY_AFTER: Duration = Duration::from_millis(500);

// === impl Services ===

impl Services {
    /// Hands out a usable token.
    pub async fn access_token_issue(
        &self,
        caller: &Caller,
        reference: &CredentialRef,
        min_validity_micros: i64,
        scopes: &[String],
    ) -> Result<IssuedToken> {
        let tenant = caller.tenant();
        let credential = self.credential_named(tenant, reference).await?;
        self.check_usable(tenant, &credential).await?;
        let (credential, material) = self.with_material(tenant, credential).await?;
        let refuse =
            |reason, message: String| Err(Error::precondition(reason, Resource::Credential, credential.id, message));
        if let Some(missing) = scopes.iter().find(|scope| !credential.scopes.contains(scope)) {
            let message = format!("the credential does not have the scope {missing}");
            return refuse(Precondition::CredentialNotValid, message);
        }
        if matches!(credential.status, CredentialStatus::Revoked | CredentialStatus::Pending) {
            let message = format!("the credential is {}", credential.status.as_str());
            return refuse(Precondition::CredentialNotValid, message);
        }
        let until = self.now().plus_micros(min_validity_micros);
        if let Some(expiry) = credential.expire_time.filter(|expiry| *expiry <= until) {
            let message = format!("the access token is good until {expiry}, which is not long enough");
            return refuse(Precondition::ReauthRequired, message);
        }
        let (token, token_type, fields) = match material {
            Material::OAuth2(OAuth2Material { access_token: Some(token), token_type, .. }) => {
                (token, token_type, BTreeMap::new())
            }
            Material::OAuth2(_) => {
                let message = "no access token is stored: the user has to authorise".to_owned();
                return refuse(Precondition::ReauthRequired, message);
            }
            Material::ApiKey(api_key) => (api_key, "ApiKey".to_owned(), BTreeMap::new()),
            Material::Basic { username, password } => {
                (basic(&username, &password), "Basic".to_owned(), BTreeMap::new())
            }
            Material::Custom(fields) => (Secret::new(String::new()), "Custom".to_owned(), fields),
            Material::ClientCredentials { .. } | Material::ClientCertificate { .. } => {
                let message = format!("a credential of kind {} holds no token", credential.kind.as_str());
                return refuse(Precondition::CredentialNotValid, message);
            }
        };
        Ok(IssuedToken {
            credential: credential.id,
            material_version: credential.material_version,
            token,
            token_type,
            expire_time: credential.expire_time,
            scopes: credential.scopes,
            fields,
        })
    }

    /// Hands out the material itself. The record of it is durable before the material is opened.
    pub async fn credential_reveal(&self, caller: &Caller, reference: &Ref, purpose: String) -> Result<Revealed> {
        let tenant = caller.tenant();
        let credential = self.credential_get(caller, reference).await?;
        if !self.reveal_enabled() {
            let message = "the operator of this server has switched RevealCredential off";
            return Err(Error::precondition(
                Precondition::RevealDisabled,
                Resource::Credential,
                credential.id,
                message,
            ));
        }
        let audit_event = Uuid::now_v7();
        let event = AuditEvent {
            id: audit_event,
            time: self.now(),
            principal: caller.name().to_owned(),
            action: "credentials.reveal",
            resource: Resource::Credential,
            resource_id: credential.id.0,
            purpose,
            request_id: caller.request_id().to_owned(),
        };
        let txn = self.shared.store.write().await?;
        txn.audit_insert(tenant, event).await?;
        txn.commit().await?;
        tracing::info!(
            credential.id = %credential.id,
            audit.event = %audit_event,
            caller.name = caller.name(),
            "credential revealed"
        );
        let (credential, material) = self.with_material(tenant, credential).await?;
        Ok(Revealed { material, material_version: credential.material_version, audit_event })
    }

    async fn credential_named(&self, tenant: TenantId, reference: &CredentialRef) -> Result<Credential> {
        let read = self.shared.store.read();
        match reference {
            CredentialRef::Ref(reference) => {
                let found = read.credential_find(tenant, reference).await?;
                found.ok_or_else(|| Error::not_found(Resource::Credential, reference))
            }
            CredentialRef::DefaultOf { user_id, connector } => {
                let found = read.connector_find(tenant, connector).await?;
                let found = found.ok_or_else(|| Error::not_found(Resource::Connector, connector))?;
                let link = read.user_connector_fetch_pair(tenant, user_id, found.id, self.now()).await?;
                let missing = || format!("{user_id} and {connector}");
                let link = link.ok_or_else(|| Error::not_found(Resource::UserConnector, missing()))?;
                let found = read.credential_fetch_default(tenant, link.id).await?;
                found.ok_or_else(|| Error::not_found(Resource::Credential, missing()))
            }
        }
    }

    /// Refuses what its connector or connection does not allow.
    async fn check_usable(&self, tenant: TenantId, credential: &Credential) -> Result<()> {
        let read = self.shared.store.read();
        let connector = read.connector_fetch(tenant, credential.connector).await?;
        if !connector.is_some_and(|connector| connector.enabled) {
            let message = "the connector of the credential is disabled";
            let id = credential.connector;
            return Err(Error::precondition(Precondition::ConnectorDisabled, Resource::Connector, id, message));
        }
        let Some(id) = credential.connection else { return Ok(()) };
        let connection = read.connection_fetch(tenant, id).await?;
        if !connection.is_some_and(|connection| connection.settings.active) {
            let message = "the connection of the credential is not active";
            return Err(Error::precondition(Precondition::ConnectionInactive, Resource::Connection, id, message));
        }
        Ok(())
    }

    /// The material of a credential, with the facts that belong to it: if they were read before a change and the material
    /// after it, they are read again.
    async fn with_material(&self, tenant: TenantId, mut credential: Credential) -> Result<(Credential, Material)> {
        let id = credential.id;
        let gone = || Error::not_found(Resource::Credential, id);
        for _ in 0..CHANGES_OUTRUN {
            // It is there as long as the credential is; if not, the credential went away in between.
            let bytes = self.secret_fetch(None, material_place(tenant, credential.id)).await?.ok_or_else(gone)?;
            let (material, version) = material::from_bytes(&bytes)?;
            if version == credential.material_version {
                return Ok((credential, material));
            }
            credential = self.shared.store.read().credential_fetch(tenant, credential.id).await?.ok_or_else(gone)?;
        }
        Err(Error::ServerUnavailable { retry_after: RETRY_AFTER })
    }
}

/// What goes behind "Basic " (RFC 7617).
fn basic(username: &Secret, password: &Secret) -> Secret {
    let pair = Secret::new(format!("{}:{}", username.expose(), password.expose()));
    Secret::new(STANDARD.encode(pair.expose()))
}
