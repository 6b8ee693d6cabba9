//! The two ways in which material leaves: a usable token, and the material itself for those who may reveal it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::{Credential, CredentialRef, CredentialState, IssuedToken, Material, OAuth2Material};
use jackfield_domain::error::Precondition;
use jackfield_domain::principal::right::{CredentialsIssue, CredentialsReveal};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{CredentialId, Error, Resource, Result, Secret, TenantId, Timestamp};
use jackfield_store::{AuditEvent, Dependencies, IssuableCredential};
use uuid::Uuid;

use crate::caller::Caller;
use crate::credentials::material_place;
use crate::links::pair;
use crate::material;
use crate::open::Services;
use crate::token_cache::Reading;

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
        caller: &Caller<CredentialsIssue>,
        reference: &CredentialRef,
        min_validity_micros: i64,
        scopes: &[String],
    ) -> Result<Arc<IssuedToken>> {
        let tenant = caller.tenant();
        let generations = self.shared.store.generations();
        if let Some(issued) = self.shared.tokens.get(generations, tenant, reference, self.now()) {
            check_scopes(issued.credential, &issued.scopes, scopes)?;
            check_expiry(issued.credential, issued.expire_time, self.now().plus_micros(min_validity_micros))?;
            return Ok(issued);
        }
        let (credential, material, dependencies, reading) = self.credential_opened(tenant, reference).await?;
        check_scopes(credential.id, &credential.scopes, scopes)?;
        if matches!(credential.state, CredentialState::Revoked | CredentialState::Pending) {
            let message = format!("the credential is {}", credential.state.as_str());
            return Err(refusal(Precondition::CredentialNotValid, credential.id, message));
        }
        check_expiry(credential.id, credential.expire_time, self.now().plus_micros(min_validity_micros))?;
        let issued = Arc::new(token_of(credential, material)?);
        self.shared.tokens.put(tenant, reference, &issued, dependencies, reading);
        Ok(issued)
    }

    /// Hands out the material itself. The record of it is durable before the material is opened.
    pub async fn credential_reveal(
        &self,
        caller: &Caller<CredentialsReveal>,
        reference: &Ref,
        purpose: String,
    ) -> Result<Revealed> {
        let tenant = caller.tenant();
        let credential = self.credential_find(tenant, reference).await?;
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
            request_id: caller.request_id().to_string(),
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

    /// A credential that may be used, with its material and what both rest on.
    async fn credential_opened(
        &self,
        tenant: TenantId,
        reference: &CredentialRef,
    ) -> Result<(Credential, Material, Dependencies, Reading)> {
        let generations = self.shared.store.generations();
        let mut former = None;
        for _ in 0..CHANGES_OUTRUN {
            let reading = self.shared.tokens.reading(generations);
            let Some(usable) = self.shared.store.read().credential_fetch_issuable(tenant, reference).await? else {
                return Err(self.credential_missing(tenant, reference).await?);
            };
            check_usable(&usable)?;
            let IssuableCredential { credential, material, .. } = usable;
            let sealed = material.ok_or_else(|| Error::not_found(Resource::Credential, credential.id))?;
            match self.secret_open(None, material_place(tenant, credential.id), &sealed).await {
                Ok(bytes) => {
                    let (material, version) = material::from_bytes(&bytes)?;
                    if version != credential.material_version {
                        return Err(Error::internal("the material is not of its credential's version"));
                    }
                    let parents = [credential.user_connector.0, credential.connector.0];
                    let rows =
                        parents.into_iter().chain(credential.connection.map(Uuid::from)).chain([credential.id.0]);
                    let dependencies = generations.dependencies(reading.snapshot, tenant, rows);
                    return Ok((credential, material, dependencies, reading));
                }
                // A re-wrap may have sealed it anew and destroyed the former data key since it was read. What does not
                // open and did not change either is broken.
                Err(Error::DecryptFailed { .. }) if former.as_ref() != Some(&sealed) => former = Some(sealed),
                Err(error) => return Err(error),
            }
        }
        Err(Error::ServerUnavailable { retry_after: RETRY_AFTER })
    }

    /// What it is that is not there.
    async fn credential_missing(&self, tenant: TenantId, reference: &CredentialRef) -> Result<Error> {
        let read = self.shared.store.read();
        let (user_id, connector) = match reference {
            CredentialRef::Ref(reference) => return Ok(Error::not_found(Resource::Credential, reference)),
            CredentialRef::DefaultOf { user_id, connector } => (user_id, connector),
        };
        let Some(found) = read.find::<Connector>(tenant, connector).await? else {
            return Ok(Error::not_found(Resource::Connector, connector));
        };
        let link = read.user_connector_fetch_pair(tenant, user_id, found.id, self.now()).await?;
        let resource = if link.is_some() { Resource::Credential } else { Resource::UserConnector };
        Ok(Error::not_found_by(resource, None, pair(user_id, connector)))
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
            credential = self.shared.store.read().fetch::<Credential>(tenant, credential.id).await?.ok_or_else(gone)?;
        }
        Err(Error::ServerUnavailable { retry_after: RETRY_AFTER })
    }
}

/// Refuses what its connector or connection does not allow.
fn check_usable(usable: &IssuableCredential) -> Result<()> {
    let IssuableCredential { credential, connector_enabled, connection_active, material: _ } = usable;
    if *connector_enabled != Some(true) {
        let message = "the connector of the credential is disabled";
        let id = credential.connector;
        return Err(Error::precondition(Precondition::ConnectorDisabled, Resource::Connector, id, message));
    }
    match credential.connection {
        Some(id) if *connection_active != Some(true) => {
            let message = "the connection of the credential is not active";
            Err(Error::precondition(Precondition::ConnectionInactive, Resource::Connection, id, message))
        }
        _ => Ok(()),
    }
}

fn check_scopes(id: CredentialId, present: &[String], asked: &[String]) -> Result<()> {
    match asked.iter().find(|scope| !present.contains(scope)) {
        Some(missing) => {
            let message = format!("the credential does not have the scope {missing}");
            Err(refusal(Precondition::CredentialNotValid, id, message))
        }
        None => Ok(()),
    }
}

fn check_expiry(id: CredentialId, expiry: Option<Timestamp>, until: Timestamp) -> Result<()> {
    match expiry.filter(|expiry| *expiry <= until) {
        Some(expiry) => {
            let message = format!("the access token is good until {expiry}, which is not long enough");
            Err(refusal(Precondition::ReauthRequired, id, message))
        }
        None => Ok(()),
    }
}

/// What leaves of the material.
fn token_of(credential: Credential, material: Material) -> Result<IssuedToken> {
    let id = credential.id;
    let (token, token_type, fields) = match material {
        Material::OAuth2(OAuth2Material { access_token: Some(token), token_type, .. }) => {
            (token, token_type, BTreeMap::new())
        }
        Material::OAuth2(_) => {
            let message = "no access token is stored: the user has to authorise".to_owned();
            return Err(refusal(Precondition::ReauthRequired, id, message));
        }
        Material::ApiKey(api_key) => (api_key, "ApiKey".to_owned(), BTreeMap::new()),
        Material::Basic { username, password } => (basic(&username, &password), "Basic".to_owned(), BTreeMap::new()),
        Material::Custom(fields) => (Secret::new(String::new()), "Custom".to_owned(), fields),
        Material::ClientCredentials { .. } | Material::ClientCertificate { .. } => {
            let message = format!("a credential of kind {} holds no token", credential.kind.as_str());
            return Err(refusal(Precondition::CredentialNotValid, id, message));
        }
    };
    Ok(IssuedToken {
        credential: id,
        material_version: credential.material_version,
        token,
        token_type,
        expire_time: credential.expire_time,
        scopes: credential.scopes,
        fields,
    })
}

fn refusal(reason: Precondition, id: CredentialId, message: String) -> Error {
    Error::precondition(reason, Resource::Credential, id, message)
}

/// What goes behind "Basic " (RFC 7617).
fn basic(username: &Secret, password: &Secret) -> Secret {
    let pair = Secret::new(format!("{}:{}", username.expose(), password.expose()));
    Secret::new(STANDARD.encode(pair.expose()))
}
