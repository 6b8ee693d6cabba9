//! The settings of connections: one table defines them, their patch, and how the patch changes them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client_secrets::ClientSecretsPatch;
use crate::document::is_default;
use crate::names::names;
use crate::patch::patchable;
use crate::request::map_patch::MapPatch;
use crate::request::reference::Ref;
use crate::value::maps::{AuthorizationParameters, Labels, RefreshParameters, TokenParameters};
use crate::value::text::{CountryCode, Name, Slug};
use crate::value::url::{HttpUrl, RedirectUri};

patchable! {
    /// The parts of a connection that a caller sets and reads back.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct ConnectionSettings in "connection", pub(super) blank(name: Name);

    /// A change of a connection. An inner `None` removes the value.
    pub struct ConnectionPatch;

    fixed {}
    patched {
        name: Name = name,
        #[serde(default, skip_serializing_if = "is_default")]
        external_id: Option<Slug>,
        kind: ConnectionKind,
        #[serde(default, skip_serializing_if = "is_default")]
        authentication_url: Option<HttpUrl>,
        #[serde(default, skip_serializing_if = "is_default")]
        token_url: Option<HttpUrl>,
        /// OpenID issuer or SAML entity id; an entity id need not be a URL.
        #[serde(default, skip_serializing_if = "is_default")]
        issuer_url: String,
        #[serde(default, skip_serializing_if = "is_default")]
        provider_certificate: String,
        #[serde(default, skip_serializing_if = "is_default")]
        client_id: String,
        #[serde(default, skip_serializing_if = "is_default")]
        user_data_location: Option<CountryCode>,
        #[serde(default, skip_serializing_if = "is_default")]
        provider_tenant_id: String,
        #[serde(default, skip_serializing_if = "is_default")]
        developer_account_id: String,
        content_type: TokenContentType,
        #[serde(default, skip_serializing_if = "is_default")]
        oidc_user_endpoint_url: Option<HttpUrl>,
        #[serde(default, skip_serializing_if = "is_default")]
        user_id_expression: String = DEFAULT_USER_ID_EXPRESSION.to_owned(),
        /// The user ids of the provider mean the same at other connections that say so, too.
        #[serde(default, skip_serializing_if = "is_default")]
        trust_identity_user_id: bool,
        #[serde(default, skip_serializing_if = "is_default")]
        scope: String = DEFAULT_SCOPE.to_owned(),
        #[serde(default, skip_serializing_if = "is_default")]
        parameters: AuthorizationParameters => MapPatch<AuthorizationParameters>,
        #[serde(default, skip_serializing_if = "is_default")]
        require_business_account: bool,
        linking: Linking,
        active: bool = true,
        #[serde(default, skip_serializing_if = "is_default")]
        tags: Labels => MapPatch<Labels>,
        #[serde(default, skip_serializing_if = "is_default")]
        redirect_uris: Vec<RedirectUri>,
        #[serde(default, skip_serializing_if = "is_default")]
        revocation_url: Option<HttpUrl>,
        #[serde(default, skip_serializing_if = "is_default")]
        jwks_url: Option<HttpUrl>,
        #[serde(default, skip_serializing_if = "is_default")]
        device_authorization_url: Option<HttpUrl>,
        #[serde(default, skip_serializing_if = "is_default")]
        client_authentication: ClientAuthentication,
        #[serde(default, skip_serializing_if = "is_default")]
        token_parameters: TokenParameters => MapPatch<TokenParameters>,
        #[serde(default, skip_serializing_if = "is_default")]
        refresh_parameters: RefreshParameters => MapPatch<RefreshParameters>,
        /// The time for which the provider accepts a refresh token again that was used.
        #[serde(default, skip_serializing_if = "is_default")]
        refresh_token_grace_period: Option<Duration>,
        /// URIs of applications to which a browser may be sent after a callback.
        #[serde(default, skip_serializing_if = "is_default")]
        return_uris: Vec<RedirectUri>,
        /// The provider says that its authorisation responses have `iss` (RFC 9207 3).
        #[serde(default, skip_serializing_if = "is_default")]
        iss_parameter_supported: bool,
        /// The grant by which credentials of the connection get tokens. It may not be changed.
        #[serde(default, skip_serializing_if = "is_default")]
        grant: ConnectionGrant,
    }
    patch only {
        /// Required on create; later it can only repeat what is stored.
        connector: Option<Ref>,
        client_secrets: ClientSecretsPatch,
        /// The key by which the client says who it is. An inner `None` removes it.
        client_key: Option<Option<Ref>>,
    }
}

names! {
    /// The protocol of a connection.
    #[derive(Default)]
    pub enum ConnectionKind {
        #[default]
        OAuth2 = "OAUTH2",
        Saml2 = "SAML2",
        WebAuthn = "WEBAUTHN",
        Password = "PASSWORD",
        OpenIdLegacy = "OPENID_LEGACY",
    }
}

/// The encoding of the body of a call to the token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TokenContentType {
    #[default]
    Json,
    Form,
}

/// The way in which a client says who it is at the token endpoint (RFC 6749 2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientAuthentication {
    /// A public client, which only names itself.
    None,
    #[default]
    ClientSecretBasic,
    ClientSecretPost,
    /// A signature by the key of the connection (RFC 7523 2.2, OpenID Connect Core 1.0 9).
    PrivateKeyJwt,
    /// The certificate of the key, which an authority has issued (RFC 8705 2.1).
    TlsClientAuth,
    /// The certificate of the key, which is registered itself (RFC 8705 2.2).
    SelfSignedTlsClientAuth,
}

/// The grant by which credentials of a connection get tokens (RFC 6749 1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionGrant {
    /// A user authorises, and refresh tokens replace the tokens that came of it.
    #[default]
    AuthorizationCode,
    /// The client has tokens of its own (RFC 6749 4.4).
    ClientCredentials,
}

/// The rule by which an authorisation tells of other users with the same identity. Both connections have to allow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Linking {
    #[default]
    Disabled,
    Explicit,
    Automatic,
}

/// The default of [`ConnectionSettings::scope`] (Authress).
pub const DEFAULT_SCOPE: &str = "profile email openid";
/// The default of [`ConnectionSettings::user_id_expression`] (Authress).
pub const DEFAULT_USER_ID_EXPRESSION: &str = "{sub}";

// === impl ConnectionSettings ===

impl ConnectionSettings {
    /// The scopes for which a client asks in its own name, separated by spaces.
    pub fn scope_of_client(&self) -> &str {
        let among_parameters = || self.token_parameters.as_map().get("scope").map_or("", String::as_str);
        if self.scope.is_empty() { among_parameters() } else { &self.scope }
    }
}

// === impl ClientAuthentication ===

impl ClientAuthentication {
    /// Returns whether the client says who it is by a secret.
    pub fn has_secret(self) -> bool {
        matches!(self, ClientAuthentication::ClientSecretBasic | ClientAuthentication::ClientSecretPost)
    }

    /// Returns whether the client presents the certificate of its key.
    pub fn presents_certificate(self) -> bool {
        match self {
            ClientAuthentication::TlsClientAuth | ClientAuthentication::SelfSignedTlsClientAuth => true,
            ClientAuthentication::None
            | ClientAuthentication::ClientSecretBasic
            | ClientAuthentication::ClientSecretPost
            | ClientAuthentication::PrivateKeyJwt => false,
        }
    }
}
