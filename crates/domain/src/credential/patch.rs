//! New credentials and changes of credentials.

use super::email::EmailDigest;
use super::material::{Material, MaterialPatch};
use crate::patch::Patch;
use crate::request::map_patch::MapPatch;
use crate::request::reference::Ref;
use crate::value::id::CredentialId;
use crate::value::json::JsonObject;
use crate::value::maps::Labels;
use crate::value::text::{ExternalId, UserId};

/// A new credential.
#[derive(Debug)]
pub struct CredentialDraft {
    pub id: Option<CredentialId>,
    pub external_id: Option<ExternalId>,
    pub user_id: UserId,
    pub connector: Ref,
    pub connection: Option<Ref>,
    pub provider_account_id: String,
    /// A digest of the verified e-mail address of the account, if the authorisation says it.
    pub email_digest: Option<EmailDigest>,
    pub provider_data: JsonObject,
    pub labels: Labels,
    pub is_default: Option<bool>,
    /// The scopes that the authorisation asked for.
    pub requested_scopes: Vec<String>,
    pub material: Material,
}

/// A change of a credential.
#[derive(Debug, Default)]
pub struct CredentialPatch {
    /// The inner `None` removes the external id.
    pub external_id: Option<Option<ExternalId>>,
    pub provider_account_id: Option<String>,
    pub provider_data: Option<JsonObject>,
    pub labels: MapPatch<Labels>,
    /// `true` makes this the default credential. A default cannot be removed, only moved.
    pub is_default: Option<bool>,
    pub material: MaterialPatch,
    pub parents: CredentialParents,
}

/// The parents of a credential as a change names them. A caller that sends back what it has read names them, too; they
/// cannot be changed.
#[derive(Debug, Default)]
pub struct CredentialParents {
    pub user_id: Option<UserId>,
    pub connector: Option<Ref>,
    pub connection: Option<Ref>,
}

// === impl CredentialPatch ===

impl Patch for CredentialPatch {
    fn is_empty(&self) -> bool {
        let CredentialPatch { external_id, provider_account_id, provider_data, labels, is_default, material, parents } =
            self;
        let CredentialParents { user_id, connector, connection } = parents;
        external_id.is_empty()
            && provider_account_id.is_none()
            && provider_data.is_none()
            && labels.is_empty()
            && is_default.is_none()
            && material.is_empty()
            && user_id.is_none()
            && connector.is_none()
            && connection.is_none()
    }
}
