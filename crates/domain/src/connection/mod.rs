//! Connections: SSO and OAuth set-ups on connectors (Authress).

mod list;

use serde::{Deserialize, Serialize};

use crate::connector::set;
use crate::document::is_default;
use crate::error::Violation;
use crate::request::map_patch::MapPatch;
use crate::request::reference::Ref;
use crate::value::id::{ConnectionId, ConnectorId};
use crate::value::maps::{Labels, Parameters};
use crate::value::meta::Meta;
use crate::value::secret::Secret;
use crate::value::text::{CountryCode, Name, Slug};
use crate::value::time::Timestamp;
use crate::value::url::{HttpUrl, RedirectUri};

pub use list::SCHEMA;

/// A connection, without its client secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    pub id: ConnectionId,
    pub connector: ConnectorId,
    pub settings: ConnectionSettings,
    /// The client secrets that are sealed beside it, in the order in which they are tried.
    pub client_secrets: Vec<ClientSecretFacts>,
    pub meta: Meta,
}

/// Everything of a connection that a caller sets and reads back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionSettings {
    pub name: Name,
    #[serde(default, skip_serializing_if = "is_default")]
    pub external_id: Option<Slug>,
    pub kind: ConnectionKind,
    #[serde(default, skip_serializing_if = "is_default")]
    pub authentication_url: Option<HttpUrl>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub token_url: Option<HttpUrl>,
    /// OpenID issuer or SAML entity id; the latter need not be a URL.
    #[serde(default, skip_serializing_if = "is_default")]
    pub issuer_url: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub provider_certificate: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub client_id: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub user_data_location: Option<CountryCode>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub provider_tenant_id: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub developer_account_id: String,
    pub content_type: TokenContentType,
    #[serde(default, skip_serializing_if = "is_default")]
    pub oidc_user_endpoint_url: Option<HttpUrl>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub user_id_expression: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub trust_identity_user_id: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub scope: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub parameters: Parameters,
    #[serde(default, skip_serializing_if = "is_default")]
    pub require_business_account: bool,
    pub linking: Linking,
    pub active: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub tags: Labels,
    #[serde(default, skip_serializing_if = "is_default")]
    pub redirect_uris: Vec<RedirectUri>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub revocation_url: Option<HttpUrl>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub jwks_url: Option<HttpUrl>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub device_authorization_url: Option<HttpUrl>,
}

/// What may be known of a client secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSecretFacts {
    /// Which secret it is; may be empty.
    pub secret_id: String,
    /// When this value was stored.
    pub create_time: Timestamp,
}

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionKind {
    #[serde(rename = "OAUTH2")]
    OAuth2,
    #[serde(rename = "SAML2")]
    Saml2,
    #[serde(rename = "WEBAUTHN")]
    WebAuthn,
    Password,
    #[serde(rename = "OPENID_LEGACY")]
    OpenIdLegacy,
}

/// How the body of a call to the token endpoint is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TokenContentType {
    Json,
    Form,
}

/// Whether identities of a connection may be linked to one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Linking {
    Disabled,
    Explicit,
    Automatic,
}

/// A change of a connection: what is `None` stays as it is; an inner `None` takes the value away.
#[derive(Debug, Default)]
pub struct ConnectionPatch {
    pub name: Option<Name>,
    pub external_id: Option<Option<Slug>>,
    /// Required on create; later it may only say the same again.
    pub connector: Option<Ref>,
    pub kind: Option<ConnectionKind>,
    pub authentication_url: Option<Option<HttpUrl>>,
    pub token_url: Option<Option<HttpUrl>>,
    pub issuer_url: Option<String>,
    pub provider_certificate: Option<String>,
    pub client_id: Option<String>,
    pub client_secrets: ClientSecretsPatch,
    pub user_data_location: Option<Option<CountryCode>>,
    pub provider_tenant_id: Option<String>,
    pub developer_account_id: Option<String>,
    pub content_type: Option<TokenContentType>,
    pub oidc_user_endpoint_url: Option<Option<HttpUrl>>,
    pub user_id_expression: Option<String>,
    pub trust_identity_user_id: Option<bool>,
    pub scope: Option<String>,
    pub parameters: MapPatch<Parameters>,
    pub require_business_account: Option<bool>,
    pub linking: Option<Linking>,
    pub active: Option<bool>,
    pub tags: MapPatch<Labels>,
    pub redirect_uris: Option<Vec<RedirectUri>>,
    pub revocation_url: Option<Option<HttpUrl>>,
    pub jwks_url: Option<Option<HttpUrl>>,
    pub device_authorization_url: Option<Option<HttpUrl>>,
}

/// What happens to the sealed client secrets.
#[derive(Debug, Default)]
pub enum ClientSecretsPatch {
    #[default]
    Keep,
    /// Exactly these, in this order.
    Set(Vec<ClientSecretPatch>),
    Clear,
}

/// One client secret of a new list.
#[derive(Debug)]
pub struct ClientSecretPatch {
    pub secret_id: String,
    /// `None` keeps the stored value of this `secret_id`.
    pub value: Option<Secret>,
}

/// Client secrets in one connection at most.
pub const MAX_CLIENT_SECRETS: usize = 8;
/// Default of [`ConnectionSettings::scope`] (Authress).
pub const DEFAULT_SCOPE: &str = "profile email openid";
/// Default of [`ConnectionSettings::user_id_expression`] (Authress).
pub const DEFAULT_USER_ID_EXPRESSION: &str = "{sub}";

/// Checks a template that gives the user id: names in braces, and text around them. One without a name would make all
/// users one.
pub fn check_user_id_expression(field: &str, expression: &str) -> Result<(), Violation> {
    let mut rest = expression;
    let mut names = 0;
    while let Some(at) = rest.find(['{', '}']) {
        let inner = rest[at..].strip_prefix('{').and_then(|inner| inner.split_once('}'));
        match inner {
            Some((name, _)) if name.trim().is_empty() => return Err(Violation::field(field, "has empty braces")),
            Some((name, after)) if !name.contains('{') => rest = after,
            _ => return Err(Violation::field(field, "has braces that do not pair, or nest")),
        }
        names += 1;
    }
    match names {
        0 => Err(Violation::field(field, "must have at least one name in braces, such as {sub}")),
        _ => Ok(()),
    }
}

/// Column of a sealed client secret.
pub fn client_secret_column(secret_id: &str) -> String {
    format!("client_secret/{secret_id}")
}

// === impl Connection ===

impl Connection {
    /// A new connection from a patch in which everything required is present.
    pub fn create(
        id: ConnectionId,
        connector: ConnectorId,
        patch: &ConnectionPatch,
        meta: Meta,
    ) -> Result<Self, Vec<Violation>> {
        let Some(name) = patch.name.clone() else {
            return Err(vec![Violation::field("connection.name", "is required")]);
        };
        let blank =
            Connection { id, connector, settings: ConnectionSettings::blank(name), client_secrets: Vec::new(), meta };
        blank.patched(patch, meta)
    }

    /// This connection after a patch, or what is wrong with the result.
    pub fn patched(mut self, patch: &ConnectionPatch, meta: Meta) -> Result<Self, Vec<Violation>> {
        let mut violations = self.settings.apply(patch);
        match &patch.client_secrets {
            ClientSecretsPatch::Keep => {}
            ClientSecretsPatch::Clear => self.client_secrets.clear(),
            ClientSecretsPatch::Set(secrets) => {
                violations.extend(self.replace_client_secrets(secrets, meta.update_time));
            }
        }
        self.meta = meta;
        if violations.is_empty() { Ok(self) } else { Err(violations) }
    }

    fn replace_client_secrets(&mut self, secrets: &[ClientSecretPatch], now: Timestamp) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut facts = Vec::with_capacity(secrets.len());
        for (index, ClientSecretPatch { secret_id, value }) in secrets.iter().enumerate() {
            let stored = self.client_secrets.iter().find(|stored| stored.secret_id == *secret_id);
            match (value, stored) {
                (Some(_), _) => {
                    facts.push(ClientSecretFacts { secret_id: secret_id.clone(), create_time: now });
                }
                (None, Some(stored)) => facts.push(stored.clone()),
                (None, None) => {
                    let description = format!("is required: no secret with secret_id \"{secret_id}\" is stored");
                    violations.push(Violation::field(format!("connection.client_secrets[{index}].value"), description));
                }
            }
        }
        self.client_secrets = facts;
        violations
    }
}

// === impl ConnectionPatch ===

impl ConnectionPatch {
    /// Whether it asks for no change of anything.
    pub fn is_empty(&self) -> bool {
        let ConnectionPatch {
            name,
            external_id,
            connector,
            kind,
            authentication_url,
            token_url,
            issuer_url,
            provider_certificate,
            client_id,
            client_secrets,
            user_data_location,
            provider_tenant_id,
            developer_account_id,
            content_type,
            oidc_user_endpoint_url,
            user_id_expression,
            trust_identity_user_id,
            scope,
            parameters,
            require_business_account,
            linking,
            active,
            tags,
            redirect_uris,
            revocation_url,
            jwks_url,
            device_authorization_url,
        } = self;
        let urls =
            [authentication_url, token_url, oidc_user_endpoint_url, revocation_url, jwks_url, device_authorization_url];
        let texts = [
            issuer_url,
            provider_certificate,
            client_id,
            provider_tenant_id,
            developer_account_id,
            user_id_expression,
            scope,
        ];
        let switches = [trust_identity_user_id, require_business_account, active];
        urls.iter().all(|url| url.is_none())
            && texts.iter().all(|text| text.is_none())
            && switches.iter().all(|switch| switch.is_none())
            && name.is_none()
            && external_id.is_none()
            && connector.is_none()
            && kind.is_none()
            && matches!(client_secrets, ClientSecretsPatch::Keep)
            && user_data_location.is_none()
            && content_type.is_none()
            && parameters.is_keep()
            && linking.is_none()
            && tags.is_keep()
            && redirect_uris.is_none()
    }
}

// === impl ConnectionSettings ===

impl ConnectionSettings {
    fn blank(name: Name) -> Self {
        ConnectionSettings {
            name,
            external_id: None,
            kind: ConnectionKind::OAuth2,
            authentication_url: None,
            token_url: None,
            issuer_url: String::new(),
            provider_certificate: String::new(),
            client_id: String::new(),
            user_data_location: None,
            provider_tenant_id: String::new(),
            developer_account_id: String::new(),
            content_type: TokenContentType::Json,
            oidc_user_endpoint_url: None,
            user_id_expression: DEFAULT_USER_ID_EXPRESSION.to_owned(),
            trust_identity_user_id: false,
            scope: DEFAULT_SCOPE.to_owned(),
            parameters: Parameters::default(),
            require_business_account: false,
            linking: Linking::Disabled,
            active: true,
            tags: Labels::default(),
            redirect_uris: Vec::new(),
            revocation_url: None,
            jwks_url: None,
            device_authorization_url: None,
        }
    }

    fn apply(&mut self, patch: &ConnectionPatch) -> Vec<Violation> {
        let ConnectionPatch {
            name,
            external_id,
            connector: _, // looked up by the use case
            kind,
            authentication_url,
            token_url,
            issuer_url,
            provider_certificate,
            client_id,
            client_secrets: _, // see Connection::patched
            user_data_location,
            provider_tenant_id,
            developer_account_id,
            content_type,
            oidc_user_endpoint_url,
            user_id_expression,
            trust_identity_user_id,
            scope,
            parameters,
            require_business_account,
            linking,
            active,
            tags,
            redirect_uris,
            revocation_url,
            jwks_url,
            device_authorization_url,
        } = patch;
        set(&mut self.name, name);
        set(&mut self.external_id, external_id);
        set(&mut self.kind, kind);
        set(&mut self.authentication_url, authentication_url);
        set(&mut self.token_url, token_url);
        set(&mut self.issuer_url, issuer_url);
        set(&mut self.provider_certificate, provider_certificate);
        set(&mut self.client_id, client_id);
        set(&mut self.user_data_location, user_data_location);
        set(&mut self.provider_tenant_id, provider_tenant_id);
        set(&mut self.developer_account_id, developer_account_id);
        set(&mut self.content_type, content_type);
        set(&mut self.oidc_user_endpoint_url, oidc_user_endpoint_url);
        set(&mut self.user_id_expression, user_id_expression);
        set(&mut self.trust_identity_user_id, trust_identity_user_id);
        set(&mut self.scope, scope);
        set(&mut self.require_business_account, require_business_account);
        set(&mut self.linking, linking);
        set(&mut self.active, active);
        set(&mut self.redirect_uris, redirect_uris);
        set(&mut self.revocation_url, revocation_url);
        set(&mut self.jwks_url, jwks_url);
        set(&mut self.device_authorization_url, device_authorization_url);
        let mut violations = parameters.apply("connection.parameters", &mut self.parameters);
        violations.extend(tags.apply("connection.tags", &mut self.tags));
        violations
    }
}

// === impl ConnectionKind ===

impl ConnectionKind {
    /// The names, as filters and the database use them.
    pub const NAMES: &'static [&'static str] = &["OAUTH2", "SAML2", "WEBAUTHN", "PASSWORD", "OPENID_LEGACY"];

    /// The name of this kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            ConnectionKind::OAuth2 => "OAUTH2",
            ConnectionKind::Saml2 => "SAML2",
            ConnectionKind::WebAuthn => "WEBAUTHN",
            ConnectionKind::Password => "PASSWORD",
            ConnectionKind::OpenIdLegacy => "OPENID_LEGACY",
        }
    }
}
