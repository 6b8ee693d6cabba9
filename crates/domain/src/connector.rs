//! Connectors: definitions of outside systems and how to reach them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Violation, Violations};
use crate::id::{ConnectorId, KeyId};
use crate::json::JsonObject;
use crate::meta::Meta;
use crate::reference::Ref;
use crate::secret::{Secret, SecretPatch};
use crate::text::{Headers, HttpUrl, Labels, Name};

/// A connector, without its secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connector {
    pub id: ConnectorId,
    pub name: Name,
    pub description: String,
    pub enabled: bool,
    pub kind: ConnectorKind,
    pub headers: Headers,
    /// Names of the sealed headers, sorted.
    pub secret_header_names: Vec<String>,
    pub timeouts: Timeouts,
    /// The client identity that is presented to the system.
    pub client_identity_key: Option<KeyId>,
    /// The CAs that the system's certificate must chain to.
    pub trust_bundle_key: Option<KeyId>,
    pub data: JsonObject,
    pub debug: bool,
    pub labels: Labels,
    pub meta: Meta,
}

/// How long calls to the system may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// TCP and TLS; more than 0, at most 60 s.
    pub connect: Duration,
    /// Between two reads; more than 0, at most 300 s.
    pub read: Duration,
    /// The whole call; more than 0, at most 600 s, not less than `connect`.
    pub total: Duration,
}

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
    pub username: Option<String>,
    /// Whether a password is sealed beside the connector.
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
    pub issuer_url: Option<HttpUrl>,
    pub authorization_url: Option<HttpUrl>,
    pub token_url: Option<HttpUrl>,
    pub profile_url: Option<HttpUrl>,
    pub revocation_url: Option<HttpUrl>,
    pub jwks_url: Option<HttpUrl>,
    pub device_authorization_url: Option<HttpUrl>,
}

/// An API that takes a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    pub base_url: Option<HttpUrl>,
    pub header_name: Option<String>,
    pub value_prefix: Option<String>,
    pub query_parameter: Option<String>,
}

/// An API that takes HTTP basic authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpBasic {
    pub base_url: Option<HttpUrl>,
}

/// An API that takes only a client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    pub base_url: Option<HttpUrl>,
}

/// A change of a connector: what is `None` stays as it is. Creation is a change of nothing.
#[derive(Debug, Default)]
pub struct ConnectorPatch {
    pub name: Option<Name>,
    pub description: Option<String>,
    pub enabled: Option<bool>,
    pub kind: Option<KindPatch>,
    pub headers: Option<Headers>,
    pub secret_headers: SecretHeadersPatch,
    /// The inner `None` asks for the default.
    pub connect_timeout: Option<Option<Duration>>,
    pub read_timeout: Option<Option<Duration>>,
    pub total_timeout: Option<Option<Duration>>,
    /// The inner `None` takes the key away.
    pub client_identity_key: Option<Option<Ref>>,
    pub trust_bundle_key: Option<Option<Ref>>,
    pub data: Option<JsonObject>,
    pub debug: Option<bool>,
    pub labels: Option<Labels>,
}

/// What happens to the sealed headers, which are kept as one value.
#[derive(Debug, Default)]
pub enum SecretHeadersPatch {
    #[default]
    Keep,
    /// Replace all of them: names, sorted, and the JSON object of names and values.
    Set {
        names: Vec<String>,
        sealed: Secret,
    },
    Clear,
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

/// The keys of a patch after their references were looked up.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectorKeys {
    pub client_identity_key: Option<Option<KeyId>>,
    pub trust_bundle_key: Option<Option<KeyId>>,
}

/// Longest time for connecting.
pub const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time between two reads.
pub const MAX_READ_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest time for a whole call.
pub const MAX_TOTAL_TIMEOUT: Duration = Duration::from_secs(600);
/// Column of the sealed basic-authentication password.
pub const PASSWORD_COLUMN: &str = "generic.http_authentication_password";
/// Column of the sealed headers.
pub const SECRET_HEADERS_COLUMN: &str = "secret_headers";

// === impl Connector ===

impl Connector {
    /// A new connector from a patch in which everything required is present.
    pub fn create(
        id: ConnectorId,
        patch: &ConnectorPatch,
        keys: ConnectorKeys,
        meta: Meta,
    ) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        let name =
            violations.check(patch.name.clone().ok_or_else(|| Violation::field("connector.name", "is required")));
        let kind = patch.kind.as_ref().ok_or_else(|| vec![Violation::field("connector.kind", KIND_REQUIRED)]);
        let kind =
            kind.and_then(ConnectorKind::create).map_err(|found| found.into_iter().for_each(|v| violations.push(v)));
        let (Some(name), Ok(kind)) = (name, kind) else {
            return Err(violations.into_vec());
        };
        let blank = Connector {
            id,
            name,
            description: String::new(),
            enabled: true,
            kind,
            headers: Headers::default(),
            secret_header_names: Vec::new(),
            timeouts: Timeouts::resolve(None, None, None),
            client_identity_key: None,
            trust_bundle_key: None,
            data: JsonObject::default(),
            debug: false,
            labels: Labels::default(),
            meta,
        };
        blank.patched(patch, keys, meta)
    }

    /// This connector after a patch, or what is wrong with the result.
    pub fn patched(mut self, patch: &ConnectorPatch, keys: ConnectorKeys, meta: Meta) -> Result<Self, Vec<Violation>> {
        let ConnectorPatch {
            name,
            description,
            enabled,
            kind,
            headers,
            secret_headers,
            connect_timeout,
            read_timeout,
            total_timeout,
            client_identity_key: _, // looked up: in `keys`
            trust_bundle_key: _,
            data,
            debug,
            labels,
        } = patch;
        let mut violations = Violations::default();
        set(&mut self.name, name);
        set(&mut self.description, description);
        set(&mut self.enabled, enabled);
        set(&mut self.headers, headers);
        set(&mut self.data, data);
        set(&mut self.debug, debug);
        set(&mut self.labels, labels);
        if let Some(kind) = kind {
            self.kind.apply(kind).into_iter().for_each(|violation| violations.push(violation));
        }
        match secret_headers {
            SecretHeadersPatch::Keep => {}
            SecretHeadersPatch::Set { names, .. } => self.secret_header_names.clone_from(names),
            SecretHeadersPatch::Clear => self.secret_header_names.clear(),
        }
        self.timeouts = self.timeouts.patched(*connect_timeout, *read_timeout, *total_timeout);
        if self.timeouts.total < self.timeouts.connect {
            violations.push(total_too_short());
        }
        set(&mut self.client_identity_key, &keys.client_identity_key);
        set(&mut self.trust_bundle_key, &keys.trust_bundle_key);
        if matches!(self.kind, ConnectorKind::ClientCertificate(_)) && self.client_identity_key.is_none() {
            violations.push(identity_required());
        }
        violations.extend(headers_given_twice(&self.headers, &self.secret_header_names));
        self.meta = meta;
        if violations.is_empty() { Ok(self) } else { Err(violations.into_vec()) }
    }

    /// The URL of the system, as far as it has one.
    pub fn url(&self) -> Option<&HttpUrl> {
        match &self.kind {
            ConnectorKind::ApiKey(settings) => settings.base_url.as_ref(),
            ConnectorKind::ClientCertificate(settings) => settings.base_url.as_ref(),
            ConnectorKind::Generic(settings) => Some(&settings.authentication_url),
            ConnectorKind::HttpBasic(settings) => settings.base_url.as_ref(),
            ConnectorKind::License(settings) => Some(&settings.base_url),
            ConnectorKind::OAuth2(settings) => settings.issuer_url.as_ref().or(settings.authorization_url.as_ref()),
        }
    }
}

// === impl ConnectorPatch ===

impl ConnectorPatch {
    /// Where what is given does not go together, whatever is stored. With it a caller learns of these together with all
    /// else that is wrong with a message; [`Connector::patched`] finds what does not go with what is stored.
    pub fn contradictions(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        if let (Some(connect), Some(Some(total))) = (self.connect_timeout, self.total_timeout)
            && total < connect.unwrap_or(Timeouts::DEFAULT_CONNECT)
        {
            violations.push(total_too_short());
        }
        match &self.kind {
            Some(KindPatch::ClientCertificate(_)) if matches!(self.client_identity_key, Some(None)) => {
                violations.push(identity_required());
            }
            Some(KindPatch::ApiKey(ApiKeyPatch {
                header_name: Some(Some(_)), query_parameter: Some(Some(_)), ..
            })) => violations.push(key_in_two_places()),
            _ => {}
        }
        if let (Some(headers), SecretHeadersPatch::Set { names, .. }) = (&self.headers, &self.secret_headers) {
            violations.extend(headers_given_twice(headers, names));
        }
        violations
    }
}

fn total_too_short() -> Violation {
    Violation::field("connector.total_timeout", "must not be less than connect_timeout")
}

fn identity_required() -> Violation {
    Violation::field("connector.client_identity_key", "is required for a client-certificate connector")
}

fn key_in_two_places() -> Violation {
    let description = "cannot be given together with header_name: a key travels in one place";
    Violation::field("connector.api_key.query_parameter", description)
}

fn headers_given_twice(headers: &Headers, secret_names: &[String]) -> Vec<Violation> {
    let twice = |name: &&String| headers.iter().any(|(plain, _)| plain.eq_ignore_ascii_case(name));
    let violation = |name: &String| {
        Violation::field("connector.secret_headers", format!("header \"{name}\" stands in headers too"))
    };
    secret_names.iter().filter(twice).map(violation).collect()
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

    fn create(patch: &KindPatch) -> Result<Self, Vec<Violation>> {
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

    fn apply(&mut self, patch: &KindPatch) -> Vec<Violation> {
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

// === impl OAuth2Endpoints ===

impl OAuth2Endpoints {
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

// === impl Timeouts ===

impl Timeouts {
    const DEFAULT_CONNECT: Duration = Duration::from_secs(5);
    const DEFAULT_READ: Duration = Duration::from_secs(10);
    const DEFAULT_TOTAL: Duration = Duration::from_secs(30);

    fn resolve(connect: Option<Duration>, read: Option<Duration>, total: Option<Duration>) -> Self {
        let connect = connect.unwrap_or(Self::DEFAULT_CONNECT);
        let read = read.unwrap_or(Self::DEFAULT_READ);
        let total = total.unwrap_or_else(|| Self::DEFAULT_TOTAL.max(connect + read));
        Timeouts { connect, read, total }
    }

    fn patched(
        self,
        connect: Option<Option<Duration>>,
        read: Option<Option<Duration>>,
        total: Option<Option<Duration>>,
    ) -> Self {
        Self::resolve(
            connect.unwrap_or(Some(self.connect)),
            read.unwrap_or(Some(self.read)),
            total.unwrap_or(Some(self.total)),
        )
    }
}

/// Sets a field to a value that a patch gives.
pub(crate) fn set<T: Clone>(field: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        field.clone_from(value);
    }
}

const KIND_REQUIRED: &str = "one of generic, license, oauth2, api_key, http_basic and client_certificate is required";
