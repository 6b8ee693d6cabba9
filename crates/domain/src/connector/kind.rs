//! The kinds of connectors: what each has beside what all have, and how that is changed.

use serde::{Deserialize, Serialize};

use crate::document::is_default;
use crate::error::{Violation, Violations};
use crate::value::secret::SecretPatch;
use crate::value::url::HttpUrl;

/// What kind of system a connector reaches, with the settings of that kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectorKind {
    ApiKey(ApiKey),
    ClientCertificate(ClientCertificate),
    Generic(Generic),
    HttpBasic(HttpBasic),
    License(License),
    OAuth2(OAuth2Endpoints),
}

/// An HTTP authenticator (FusionAuth Generic Connector).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generic {
    pub authentication_url: HttpUrl,
    #[serde(default, skip_serializing_if = "is_default")]
    pub username: Option<String>,
    /// Whether a password is sealed beside the connector.
    #[serde(default, skip_serializing_if = "is_default")]
    pub password_set: bool,
}

/// A licence server (Cloudspot).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct License {
    pub base_url: HttpUrl,
    pub application_id: String,
}

/// Endpoints of an OAuth 2.0 or OpenID Connect provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OAuth2Endpoints {
    #[serde(default, skip_serializing_if = "is_default")]
    pub issuer_url: Option<HttpUrl>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub authorization_url: Option<HttpUrl>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub token_url: Option<HttpUrl>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub profile_url: Option<HttpUrl>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub revocation_url: Option<HttpUrl>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub jwks_url: Option<HttpUrl>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub device_authorization_url: Option<HttpUrl>,
}

/// An API that takes a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    #[serde(default, skip_serializing_if = "is_default")]
    pub base_url: Option<HttpUrl>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub header_name: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub value_prefix: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub query_parameter: Option<String>,
}

/// An API that takes HTTP basic authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpBasic {
    #[serde(default, skip_serializing_if = "is_default")]
    pub base_url: Option<HttpUrl>,
}

/// An API that takes only a client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    #[serde(default, skip_serializing_if = "is_default")]
    pub base_url: Option<HttpUrl>,
}

/// A change of the settings of one kind. It must be the kind that the connector has.
#[derive(Debug)]
pub enum KindPatch {
    ApiKey(ApiKeyPatch),
    ClientCertificate(BaseUrlPatch),
    Generic(GenericPatch),
    HttpBasic(BaseUrlPatch),
    License(LicensePatch),
    OAuth2(OAuth2Patch),
}

/// A change of [`Generic`].
#[derive(Debug, Default)]
pub struct GenericPatch {
    pub authentication_url: Option<HttpUrl>,
    pub username: Option<Option<String>>,
    pub password: SecretPatch,
}

/// A change of [`License`].
#[derive(Debug, Default)]
pub struct LicensePatch {
    pub base_url: Option<HttpUrl>,
    pub application_id: Option<String>,
}

/// A change of [`OAuth2Endpoints`]; the inner `None` takes an endpoint away.
#[derive(Debug, Default)]
pub struct OAuth2Patch {
    pub issuer_url: Option<Option<HttpUrl>>,
    pub authorization_url: Option<Option<HttpUrl>>,
    pub token_url: Option<Option<HttpUrl>>,
    pub profile_url: Option<Option<HttpUrl>>,
    pub revocation_url: Option<Option<HttpUrl>>,
    pub jwks_url: Option<Option<HttpUrl>>,
    pub device_authorization_url: Option<Option<HttpUrl>>,
}

/// A change of [`ApiKey`].
#[derive(Debug, Default)]
pub struct ApiKeyPatch {
    pub base_url: Option<Option<HttpUrl>>,
    pub header_name: Option<Option<String>>,
    pub value_prefix: Option<Option<String>>,
    pub query_parameter: Option<Option<String>>,
}

/// A change of settings that are a base URL only.
#[derive(Debug, Default)]
pub struct BaseUrlPatch {
    pub base_url: Option<Option<HttpUrl>>,
}

// === impl ConnectorKind ===

impl ConnectorKind {
    /// Names of the kinds, as filters use them: the oneof fields of the contract.
    pub const NAMES: &'static [&'static str] =
        &["api_key", "client_certificate", "generic", "http_basic", "license", "oauth2"];

    /// The name of this kind.
    pub const fn as_str(&self) -> &'static str {
        match self {
            ConnectorKind::ApiKey(_) => "api_key",
            ConnectorKind::ClientCertificate(_) => "client_certificate",
            ConnectorKind::Generic(_) => "generic",
            ConnectorKind::HttpBasic(_) => "http_basic",
            ConnectorKind::License(_) => "license",
            ConnectorKind::OAuth2(_) => "oauth2",
        }
    }

    /// All texts of the settings, for searches.
    pub fn texts(&self) -> Vec<&str> {
        let (urls, texts): (Vec<Option<&HttpUrl>>, Vec<Option<&String>>) = match self {
            ConnectorKind::ApiKey(ApiKey { base_url, header_name, value_prefix, query_parameter }) => {
                (vec![base_url.as_ref()], vec![header_name.as_ref(), value_prefix.as_ref(), query_parameter.as_ref()])
            }
            ConnectorKind::ClientCertificate(ClientCertificate { base_url })
            | ConnectorKind::HttpBasic(HttpBasic { base_url }) => (vec![base_url.as_ref()], Vec::new()),
            ConnectorKind::Generic(Generic { authentication_url, username, password_set: _ }) => {
                (vec![Some(authentication_url)], vec![username.as_ref()])
            }
            ConnectorKind::License(License { base_url, application_id }) => {
                (vec![Some(base_url)], vec![Some(application_id)])
            }
            ConnectorKind::OAuth2(settings) => (settings.urls().to_vec(), Vec::new()),
        };
        let urls = urls.into_iter().flatten().map(HttpUrl::as_str);
        urls.chain(texts.into_iter().flatten().map(String::as_str)).collect()
    }

    pub(super) fn create(patch: &KindPatch) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        let mut required = |value: &Option<HttpUrl>, field: &str| {
            violations.check(value.clone().ok_or_else(|| Violation::field(field, "is required")))
        };
        let mut kind = match patch {
            KindPatch::ApiKey(_) => ConnectorKind::ApiKey(ApiKey::default()),
            KindPatch::ClientCertificate(_) => ConnectorKind::ClientCertificate(ClientCertificate::default()),
            KindPatch::HttpBasic(_) => ConnectorKind::HttpBasic(HttpBasic::default()),
            KindPatch::OAuth2(_) => ConnectorKind::OAuth2(OAuth2Endpoints::default()),
            KindPatch::Generic(patch) => {
                let url = required(&patch.authentication_url, "connector.generic.authentication_url");
                let Some(authentication_url) = url else { return Err(violations.into_vec()) };
                ConnectorKind::Generic(Generic { authentication_url, username: None, password_set: false })
            }
            KindPatch::License(patch) => {
                let url = required(&patch.base_url, "connector.license.base_url");
                let application = patch.application_id.clone();
                let application = violations.check(
                    application.ok_or_else(|| Violation::field("connector.license.application_id", "is required")),
                );
                let (Some(base_url), Some(application_id)) = (url, application) else {
                    return Err(violations.into_vec());
                };
                ConnectorKind::License(License { base_url, application_id })
            }
        };
        let violations = kind.apply(patch);
        if violations.is_empty() { Ok(kind) } else { Err(violations) }
    }

    pub(super) fn apply(&mut self, patch: &KindPatch) -> Vec<Violation> {
        match (self, patch) {
            (ConnectorKind::ApiKey(settings), KindPatch::ApiKey(patch)) => return settings.apply(patch),
            (ConnectorKind::ClientCertificate(settings), KindPatch::ClientCertificate(patch)) => {
                set(&mut settings.base_url, &patch.base_url);
            }
            (ConnectorKind::HttpBasic(settings), KindPatch::HttpBasic(patch)) => {
                set(&mut settings.base_url, &patch.base_url);
            }
            (ConnectorKind::OAuth2(settings), KindPatch::OAuth2(patch)) => settings.apply(patch),
            (ConnectorKind::Generic(settings), KindPatch::Generic(patch)) => {
                set(&mut settings.authentication_url, &patch.authentication_url);
                set(&mut settings.username, &patch.username);
                match patch.password {
                    SecretPatch::Keep => {}
                    SecretPatch::Set(_) => settings.password_set = true,
                    SecretPatch::Clear => settings.password_set = false,
                }
            }
            (ConnectorKind::License(settings), KindPatch::License(patch)) => {
                set(&mut settings.base_url, &patch.base_url);
                set(&mut settings.application_id, &patch.application_id);
            }
            (kind, _) => {
                let description = format!("cannot be changed: this is a connector of kind {}", kind.as_str());
                return vec![Violation::field("connector.kind", description)];
            }
        }
        Vec::new()
    }
}

// === impl KindPatch ===

impl KindPatch {
    /// Whether it asks for no change of anything.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            KindPatch::ApiKey(ApiKeyPatch { base_url, header_name, value_prefix, query_parameter }) => {
                base_url.is_none() && header_name.is_none() && value_prefix.is_none() && query_parameter.is_none()
            }
            KindPatch::ClientCertificate(BaseUrlPatch { base_url })
            | KindPatch::HttpBasic(BaseUrlPatch { base_url }) => base_url.is_none(),
            KindPatch::Generic(GenericPatch { authentication_url, username, password }) => {
                authentication_url.is_none() && username.is_none() && matches!(password, SecretPatch::Keep)
            }
            KindPatch::License(LicensePatch { base_url, application_id }) => {
                base_url.is_none() && application_id.is_none()
            }
            KindPatch::OAuth2(OAuth2Patch {
                issuer_url,
                authorization_url,
                token_url,
                profile_url,
                revocation_url,
                jwks_url,
                device_authorization_url,
            }) => [
                issuer_url,
                authorization_url,
                token_url,
                profile_url,
                revocation_url,
                jwks_url,
                device_authorization_url,
            ]
            .iter()
            .all(|url| url.is_none()),
        }
    }
}

// === impl OAuth2Endpoints ===

impl OAuth2Endpoints {
    fn urls(&self) -> [Option<&HttpUrl>; 7] {
        let OAuth2Endpoints {
            issuer_url,
            authorization_url,
            token_url,
            profile_url,
            revocation_url,
            jwks_url,
            device_authorization_url,
        } = self;
        [issuer_url, authorization_url, token_url, profile_url, revocation_url, jwks_url, device_authorization_url]
            .map(Option::as_ref)
    }

    fn apply(&mut self, patch: &OAuth2Patch) {
        set(&mut self.issuer_url, &patch.issuer_url);
        set(&mut self.authorization_url, &patch.authorization_url);
        set(&mut self.token_url, &patch.token_url);
        set(&mut self.profile_url, &patch.profile_url);
        set(&mut self.revocation_url, &patch.revocation_url);
        set(&mut self.jwks_url, &patch.jwks_url);
        set(&mut self.device_authorization_url, &patch.device_authorization_url);
    }
}

// === impl ApiKey ===

impl ApiKey {
    fn apply(&mut self, patch: &ApiKeyPatch) -> Vec<Violation> {
        set(&mut self.base_url, &patch.base_url);
        set(&mut self.header_name, &patch.header_name);
        set(&mut self.value_prefix, &patch.value_prefix);
        set(&mut self.query_parameter, &patch.query_parameter);
        match self.header_name.is_some() && self.query_parameter.is_some() {
            true => vec![key_in_two_places()],
            false => Vec::new(),
        }
    }
}

pub(super) fn key_in_two_places() -> Violation {
    let description = "cannot be given together with header_name: a key travels in one place";
    Violation::field("connector.api_key.query_parameter", description)
}

/// Sets a field to a value that a patch gives.
pub(crate) fn set<T: Clone>(field: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        field.clone_from(value);
    }
}
