//! The kinds of connectors: the settings that each kind has in addition to those of all connectors.

use serde::{Deserialize, Serialize};

use crate::document::is_default;
use crate::error::{Violation, Violations};
use crate::patch::{FieldPatch, Patch, patchable};
use crate::value::secret::SecretPatch;
use crate::value::url::HttpUrl;

/// The kind of system that a connector reaches, with the settings of that kind.
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

/// A change of the settings of one kind. It must be the kind that the connector has.
#[derive(Debug, Default)]
pub enum KindPatch {
    #[default]
    Keep,
    ApiKey(ApiKeyPatch),
    ClientCertificate(ClientCertificatePatch),
    Generic(GenericPatch),
    HttpBasic(HttpBasicPatch),
    License(LicensePatch),
    OAuth2(OAuth2Patch),
}

patchable! {
    /// An HTTP authenticator (FusionAuth Generic Connector).
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Generic in "connector.generic", blank(authentication_url: HttpUrl);

    /// A change of [`Generic`].
    pub struct GenericPatch;

    fixed {}
    patched {
        authentication_url: HttpUrl = authentication_url,
        #[serde(default, skip_serializing_if = "is_default")]
        username: Option<String>,
    }
    fixed {
        /// True if a sealed password is stored.
        #[serde(default, skip_serializing_if = "is_default")]
        password_set: bool,
    }
    patched {
        /// The first accepted log-in of a user stores the user here, and later ones are checked here.
        #[serde(default, skip_serializing_if = "is_default")]
        migrate_users: bool,
    }
    patch only {
        password: SecretPatch,
    }
}

patchable! {
    /// A licence server (Cloudspot).
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct License in "connector.license", blank(base_url: HttpUrl, application_id: String);

    /// A change of [`License`].
    pub struct LicensePatch;

    fixed {}
    patched {
        base_url: HttpUrl = base_url,
        application_id: String = application_id,
    }
    patch only {}
}

patchable! {
    /// Endpoints of an OAuth 2.0 or OpenID Connect provider.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    pub struct OAuth2Endpoints in "connector.oauth2", blank();

    /// A change of [`OAuth2Endpoints`]; an inner `None` removes an endpoint.
    pub struct OAuth2Patch;

    fixed {}
    patched {
        #[serde(default, skip_serializing_if = "is_default")]
        issuer_url: Option<HttpUrl>,
        #[serde(default, skip_serializing_if = "is_default")]
        authorization_url: Option<HttpUrl>,
        #[serde(default, skip_serializing_if = "is_default")]
        token_url: Option<HttpUrl>,
        #[serde(default, skip_serializing_if = "is_default")]
        profile_url: Option<HttpUrl>,
        #[serde(default, skip_serializing_if = "is_default")]
        revocation_url: Option<HttpUrl>,
        #[serde(default, skip_serializing_if = "is_default")]
        jwks_url: Option<HttpUrl>,
        #[serde(default, skip_serializing_if = "is_default")]
        device_authorization_url: Option<HttpUrl>,
    }
    patch only {}
}

patchable! {
    /// An API that takes a key.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ApiKey in "connector.api_key", blank();

    /// A change of [`ApiKey`].
    pub struct ApiKeyPatch;

    fixed {}
    patched {
        #[serde(default, skip_serializing_if = "is_default")]
        base_url: Option<HttpUrl>,
        #[serde(default, skip_serializing_if = "is_default")]
        header_name: Option<String>,
        #[serde(default, skip_serializing_if = "is_default")]
        value_prefix: Option<String>,
        #[serde(default, skip_serializing_if = "is_default")]
        query_parameter: Option<String>,
    }
    patch only {}
}

patchable! {
    /// An API that takes HTTP basic authentication.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    pub struct HttpBasic in "connector.http_basic", blank();

    /// A change of [`HttpBasic`].
    pub struct HttpBasicPatch;

    fixed {}
    patched {
        #[serde(default, skip_serializing_if = "is_default")]
        base_url: Option<HttpUrl>,
    }
    patch only {}
}

patchable! {
    /// An API that takes only a client certificate.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ClientCertificate in "connector.client_certificate", blank();

    /// A change of [`ClientCertificate`].
    pub struct ClientCertificatePatch;

    fixed {}
    patched {
        #[serde(default, skip_serializing_if = "is_default")]
        base_url: Option<HttpUrl>,
    }
    patch only {}
}

/// The description of the violation when a new connector has no kind.
pub const KIND_REQUIRED: &str =
    "one of generic, license, oauth2, api_key, http_basic and client_certificate is required";

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

    /// The URLs that the server itself calls, with the names of their fields. The APIs of the other kinds are for the users of
    /// credentials, who may reach what the server may not: at most a test calls them.
    pub fn called_urls(&self) -> Vec<(&'static str, &HttpUrl)> {
        match self {
            ConnectorKind::ApiKey(_) | ConnectorKind::ClientCertificate(_) | ConnectorKind::HttpBasic(_) => Vec::new(),
            ConnectorKind::Generic(_) | ConnectorKind::License(_) | ConnectorKind::OAuth2(_) => self.system_urls(),
        }
    }

    /// The URLs of the system, with the names of their fields. Their origins get the secrets and the certificate of the connector. An
    /// authorisation endpoint is for browsers, which have neither and may be in another network: at most a test calls it.
    pub fn system_urls(&self) -> Vec<(&'static str, &HttpUrl)> {
        let (field, url) = match self {
            ConnectorKind::ApiKey(settings) => ("connector.api_key.base_url", settings.base_url.as_ref()),
            ConnectorKind::ClientCertificate(settings) => {
                ("connector.client_certificate.base_url", settings.base_url.as_ref())
            }
            ConnectorKind::Generic(settings) => {
                ("connector.generic.authentication_url", Some(&settings.authentication_url))
            }
            ConnectorKind::HttpBasic(settings) => ("connector.http_basic.base_url", settings.base_url.as_ref()),
            ConnectorKind::License(settings) => ("connector.license.base_url", Some(&settings.base_url)),
            ConnectorKind::OAuth2(endpoints) => return endpoints.system_urls(),
        };
        url.map(|url| (field, url)).into_iter().collect()
    }

    /// All texts of the settings, for searches.
    pub fn texts(&self) -> Vec<&str> {
        let (urls, texts): (Vec<Option<&HttpUrl>>, Vec<Option<&String>>) = match self {
            ConnectorKind::ApiKey(ApiKey { base_url, header_name, value_prefix, query_parameter }) => {
                (vec![base_url.as_ref()], vec![header_name.as_ref(), value_prefix.as_ref(), query_parameter.as_ref()])
            }
            ConnectorKind::ClientCertificate(ClientCertificate { base_url })
            | ConnectorKind::HttpBasic(HttpBasic { base_url }) => (vec![base_url.as_ref()], Vec::new()),
            ConnectorKind::Generic(Generic { authentication_url, username, password_set: _, migrate_users: _ }) => {
                (vec![Some(authentication_url)], vec![username.as_ref()])
            }
            ConnectorKind::License(License { base_url, application_id }) => {
                (vec![Some(base_url)], vec![Some(application_id)])
            }
            ConnectorKind::OAuth2(OAuth2Endpoints {
                issuer_url,
                authorization_url,
                token_url,
                profile_url,
                revocation_url,
                jwks_url,
                device_authorization_url,
            }) => {
                let providers = [issuer_url, authorization_url, token_url, profile_url];
                let others = [revocation_url, jwks_url, device_authorization_url];
                (providers.into_iter().chain(others).map(Option::as_ref).collect(), Vec::new())
            }
        };
        let urls = urls.into_iter().flatten().map(HttpUrl::as_str);
        urls.chain(texts.into_iter().flatten().map(String::as_str)).collect()
    }

    pub(super) fn create(patch: &KindPatch) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        let kind = match patch {
            KindPatch::Keep => violations.check(Err(Violation::field("connector.kind", KIND_REQUIRED))),
            KindPatch::ApiKey(_) => Some(ConnectorKind::ApiKey(ApiKey::blank())),
            KindPatch::ClientCertificate(_) => Some(ConnectorKind::ClientCertificate(ClientCertificate::blank())),
            KindPatch::HttpBasic(_) => Some(ConnectorKind::HttpBasic(HttpBasic::blank())),
            KindPatch::OAuth2(_) => Some(ConnectorKind::OAuth2(OAuth2Endpoints::blank())),
            KindPatch::Generic(patch) => {
                let url = required(&patch.authentication_url, "connector.generic.authentication_url");
                violations.check(url).map(|url| ConnectorKind::Generic(Generic::blank(url)))
            }
            KindPatch::License(patch) => {
                let url = violations.check(required(&patch.base_url, "connector.license.base_url"));
                let application = required(&patch.application_id, "connector.license.application_id");
                let application = violations.check(application);
                url.zip(application).map(|(url, application)| ConnectorKind::License(License::blank(url, application)))
            }
        };
        let Some(mut kind) = kind else { return Err(violations.into_vec()) };
        patch.apply("connector.kind", &mut kind, &mut violations);
        violations.into_whole(kind)
    }
}

// === impl OAuth2Endpoints ===

impl OAuth2Endpoints {
    fn system_urls(&self) -> Vec<(&'static str, &HttpUrl)> {
        let OAuth2Endpoints {
            issuer_url,
            authorization_url: _,
            token_url,
            profile_url,
            revocation_url,
            jwks_url,
            device_authorization_url,
        } = self;
        let urls = [
            ("connector.oauth2.issuer_url", issuer_url),
            ("connector.oauth2.token_url", token_url),
            ("connector.oauth2.profile_url", profile_url),
            ("connector.oauth2.revocation_url", revocation_url),
            ("connector.oauth2.jwks_url", jwks_url),
            ("connector.oauth2.device_authorization_url", device_authorization_url),
        ];
        urls.into_iter().filter_map(|(field, url)| Some((field, url.as_ref()?))).collect()
    }
}

// === impl KindPatch ===

impl KindPatch {
    /// Finds an API key that would be sent in two places, regardless of what is stored.
    pub(super) fn contradiction(&self) -> Option<Violation> {
        match self {
            KindPatch::ApiKey(ApiKeyPatch { header_name: Some(Some(_)), query_parameter: Some(Some(_)), .. }) => {
                Some(key_in_two_places())
            }
            _ => None,
        }
    }
}

impl Patch for KindPatch {
    fn is_empty(&self) -> bool {
        match self {
            KindPatch::Keep => true,
            KindPatch::ApiKey(patch) => patch.is_empty(),
            KindPatch::ClientCertificate(patch) => patch.is_empty(),
            KindPatch::Generic(patch) => patch.is_empty(),
            KindPatch::HttpBasic(patch) => patch.is_empty(),
            KindPatch::License(patch) => patch.is_empty(),
            KindPatch::OAuth2(patch) => patch.is_empty(),
        }
    }
}

impl FieldPatch<ConnectorKind> for KindPatch {
    fn apply(&self, path: &str, kind: &mut ConnectorKind, violations: &mut Violations) {
        match (kind, self) {
            (_, KindPatch::Keep) => {}
            (ConnectorKind::ApiKey(settings), KindPatch::ApiKey(patch)) => {
                settings.apply(patch, violations);
                if settings.header_name.is_some() && settings.query_parameter.is_some() {
                    violations.push(key_in_two_places());
                }
            }
            (ConnectorKind::ClientCertificate(settings), KindPatch::ClientCertificate(patch)) => {
                settings.apply(patch, violations);
            }
            (ConnectorKind::HttpBasic(settings), KindPatch::HttpBasic(patch)) => settings.apply(patch, violations),
            (ConnectorKind::OAuth2(settings), KindPatch::OAuth2(patch)) => settings.apply(patch, violations),
            (ConnectorKind::Generic(settings), KindPatch::Generic(patch)) => {
                settings.apply(patch, violations);
                patch.password.apply_to_flag(&mut settings.password_set);
            }
            (ConnectorKind::License(settings), KindPatch::License(patch)) => settings.apply(patch, violations),
            (kind, _) => {
                let description = format!("cannot be changed: this is a connector of kind {}", kind.as_str());
                violations.push(Violation::field(path, description));
            }
        }
    }
}

fn required<T: Clone>(value: &Option<T>, field: &str) -> Result<T, Violation> {
    value.clone().ok_or_else(|| Violation::field(field, "is required"))
}

fn key_in_two_places() -> Violation {
    let description = "cannot be given together with header_name: a key is sent in one place";
    Violation::field("connector.api_key.query_parameter", description)
}
