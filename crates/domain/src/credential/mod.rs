//! Credentials: the authorised material of users. The facts are here in the open; the material is a [`Material`], which
//! has no printable form and leaves only sealed or by the two calls that are made for it.

mod list;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::is_default;
use crate::error::Violation;
use crate::request::map_patch::{Entries, MapPatch};
use crate::request::reference::Ref;
use crate::value::id::{ConfigurationId, ConnectionId, ConnectorId, CredentialId, KeyId, UserConnectorId};
use crate::value::json::JsonObject;
use crate::value::maps::Labels;
use crate::value::meta::Meta;
use crate::value::secret::Secret;
use crate::value::text::{ExternalId, UserId};
use crate::value::time::Timestamp;

pub use list::SCHEMA;

/// The facts of a credential.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    pub id: CredentialId,
    #[serde(default, skip_serializing_if = "is_default")]
    pub external_id: Option<ExternalId>,
    pub user_id: UserId,
    pub connector: ConnectorId,
    #[serde(default, skip_serializing_if = "is_default")]
    pub connection: Option<ConnectionId>,
    pub user_connector: UserConnectorId,
    /// The key of a client certificate.
    #[serde(default, skip_serializing_if = "is_default")]
    pub key: Option<KeyId>,
    pub kind: CredentialKind,
    /// As stored; [`Credential::state_at`] says how it reads now.
    pub state: CredentialState,
    #[serde(default, skip_serializing_if = "is_default")]
    pub scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub token_type: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub expire_time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub provider_account_id: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub provider_data: JsonObject,
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: Labels,
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_default: bool,
    /// Counts changes of the material, from 1.
    pub material_version: i64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub refreshable: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub last_refresh_time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub refresh_failure_count: i32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub failure_class: Option<FailureClass>,
    pub default_configuration: ConfigurationId,
    pub meta: Meta,
}

/// How a credential stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CredentialState {
    Pending,
    Valid,
    /// Never stored: a valid credential whose token has run out reads so.
    Expired,
    NeedsReauth,
    Revoked,
    Indeterminate,
}

/// The kind of material of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CredentialKind {
    #[serde(rename = "OAUTH2")]
    OAuth2,
    ApiKey,
    Basic,
    ClientCredentials,
    ClientCertificate,
    Custom,
}

/// Why the last renewal failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureClass {
    Transient,
    Permanent,
    Connection,
    Indeterminate,
}

/// The secret material of a credential.
#[derive(Debug)]
pub enum Material {
    OAuth2(OAuth2Material),
    ApiKey(Secret),
    Basic {
        username: Secret,
        password: Secret,
    },
    ClientCredentials {
        client_id: Secret,
        client_secret: Secret,
    },
    /// The private key stays in the key.
    ClientCertificate {
        key: Ref,
    },
    Custom(BTreeMap<String, Secret>),
}

/// OAuth 2.0 tokens.
#[derive(Debug, Default)]
pub struct OAuth2Material {
    pub access_token: Option<Secret>,
    pub refresh_token: Option<Secret>,
    pub id_token: Option<Secret>,
    pub token_type: String,
    pub expire_time: Option<Timestamp>,
    pub scopes: Vec<String>,
}

/// What a new credential is made of.
#[derive(Debug)]
pub struct CredentialDraft {
    pub id: Option<CredentialId>,
    pub external_id: Option<ExternalId>,
    pub user_id: UserId,
    pub connector: Ref,
    pub connection: Option<Ref>,
    pub provider_account_id: String,
    pub provider_data: JsonObject,
    pub labels: Labels,
    pub is_default: Option<bool>,
    pub material: Material,
}

/// A change of a credential: what is `None` stays as it is.
#[derive(Debug, Default)]
pub struct CredentialPatch {
    /// The inner `None` takes the external id away.
    pub external_id: Option<Option<ExternalId>>,
    pub provider_account_id: Option<String>,
    pub provider_data: Option<JsonObject>,
    pub labels: MapPatch<Labels>,
    /// `true` moves the mark here; there is no way to take it away.
    pub is_default: Option<bool>,
    pub material: MaterialPatch,
    pub parents: CredentialParents,
}

/// What happens to sealed material. Its kind stays.
#[derive(Debug, Default)]
pub enum MaterialPatch {
    #[default]
    Keep,
    /// All of it anew. Tokens that are absent and not among the cleared ones stay.
    Replace(Material, ClearedTokens),
    /// Single fields of custom material; the others stay.
    Fields(Entries<Secret>),
}

/// Which tokens go if they are not given.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClearedTokens {
    pub refresh_token: bool,
    pub id_token: bool,
}

/// What a change says a credential hangs on. It may say so, as who sends back what was read does, and may not change it.
#[derive(Debug, Default)]
pub struct CredentialParents {
    pub user_id: Option<UserId>,
    pub connector: Option<Ref>,
    pub connection: Option<Ref>,
}

/// How IssueAccessToken names a credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CredentialRef {
    /// By id or external id.
    Ref(Ref),
    /// The default credential of a user for a connector.
    DefaultOf { user_id: UserId, connector: Ref },
}

/// A token that may leave.
#[derive(Debug)]
pub struct IssuedToken {
    pub credential: CredentialId,
    pub material_version: i64,
    pub token: Secret,
    pub token_type: String,
    pub expire_time: Option<Timestamp>,
    pub scopes: Vec<String>,
    /// The fields of custom material.
    pub fields: BTreeMap<String, Secret>,
}

/// Fields of custom material: at most so many, and so many bytes in all.
pub const MAX_CUSTOM_FIELDS: usize = 64;
pub const MAX_CUSTOM_FIELDS_BYTES: usize = 64 * 1024;
/// Column of the sealed material: one sealed JSON object for the whole of it, so that its parts cannot be mixed.
pub const MATERIAL_COLUMN: &str = "material";
/// Longest validity that IssueAccessToken can be asked for, in microseconds: 24 hours.
pub const MAX_MIN_VALIDITY_MICROS: i64 = 24 * 3_600 * 1_000_000;

// === impl Credential ===

impl Credential {
    /// How the credential reads at a time: a token that has run out is expired from that moment on.
    pub fn state_at(&self, now: Timestamp) -> CredentialState {
        match (self.state, self.expire_time) {
            (CredentialState::Valid, Some(expiry)) if expiry <= now => CredentialState::Expired,
            (state, _) => state,
        }
    }
}

// === impl CredentialPatch ===

impl CredentialPatch {
    /// Whether it asks for no change of anything.
    pub fn is_empty(&self) -> bool {
        let CredentialPatch { external_id, provider_account_id, provider_data, labels, is_default, material, parents } =
            self;
        let CredentialParents { user_id, connector, connection } = parents;
        external_id.is_none()
            && provider_account_id.is_none()
            && provider_data.is_none()
            && labels.is_keep()
            && is_default.is_none()
            && matches!(material, MaterialPatch::Keep)
            && user_id.is_none()
            && connector.is_none()
            && connection.is_none()
    }
}

// === impl CredentialState ===

impl CredentialState {
    /// The names, as filters and the database use them.
    pub const NAMES: &'static [&'static str] =
        &["PENDING", "VALID", "EXPIRED", "NEEDS_REAUTH", "REVOKED", "INDETERMINATE"];

    /// The name of this state.
    pub const fn as_str(self) -> &'static str {
        match self {
            CredentialState::Pending => "PENDING",
            CredentialState::Valid => "VALID",
            CredentialState::Expired => "EXPIRED",
            CredentialState::NeedsReauth => "NEEDS_REAUTH",
            CredentialState::Revoked => "REVOKED",
            CredentialState::Indeterminate => "INDETERMINATE",
        }
    }
}

// === impl CredentialKind ===

impl CredentialKind {
    /// The names, as filters and the database use them.
    pub const NAMES: &'static [&'static str] =
        &["OAUTH2", "API_KEY", "BASIC", "CLIENT_CREDENTIALS", "CLIENT_CERTIFICATE", "CUSTOM"];

    /// The name of this kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            CredentialKind::OAuth2 => "OAUTH2",
            CredentialKind::ApiKey => "API_KEY",
            CredentialKind::Basic => "BASIC",
            CredentialKind::ClientCredentials => "CLIENT_CREDENTIALS",
            CredentialKind::ClientCertificate => "CLIENT_CERTIFICATE",
            CredentialKind::Custom => "CUSTOM",
        }
    }
}

// === impl Entries ===

impl Entries<Secret> {
    /// The fields of custom material after it, or what would be wrong with them.
    pub fn applied(self, mut fields: BTreeMap<String, Secret>) -> Result<BTreeMap<String, Secret>, Violation> {
        fields.retain(|name, _| !self.gone.contains(name));
        fields.extend(self.set);
        let bytes = fields.values().map(|value| value.expose().len()).sum();
        check_custom_fields(fields.len(), bytes).map(|()| fields)
    }
}

/// Refuses custom material with too many fields, none, or too many bytes in their values.
pub fn check_custom_fields(count: usize, bytes: usize) -> Result<(), Violation> {
    let field = "material.custom.fields";
    if count == 0 || count > MAX_CUSTOM_FIELDS {
        return Err(Violation::field(field, format!("must have 1 to {MAX_CUSTOM_FIELDS} entries")));
    }
    if bytes > MAX_CUSTOM_FIELDS_BYTES {
        return Err(Violation::field(field, format!("must be at most {MAX_CUSTOM_FIELDS_BYTES} bytes in all")));
    }
    Ok(())
}

// === impl Material ===

impl Material {
    /// The kind of this material.
    pub const fn kind(&self) -> CredentialKind {
        match self {
            Material::OAuth2(_) => CredentialKind::OAuth2,
            Material::ApiKey(_) => CredentialKind::ApiKey,
            Material::Basic { .. } => CredentialKind::Basic,
            Material::ClientCredentials { .. } => CredentialKind::ClientCredentials,
            Material::ClientCertificate { .. } => CredentialKind::ClientCertificate,
            Material::Custom(_) => CredentialKind::Custom,
        }
    }
}
