//! Connection messages as patches. The limits are those of the Authress model.

use std::collections::BTreeSet;
use std::time::Duration;

use jackfield_api::v1 as pb;
use jackfield_domain::connection::{
    ClientAuthentication, ClientSecretPatch, ClientSecretsPatch, ConnectionGrant, ConnectionKind, ConnectionPatch,
    DEFAULT_SCOPE, DEFAULT_USER_ID_EXPRESSION, Linking, MAX_CLIENT_SECRETS, TokenContentType, check_user_id_expression,
};
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::pem;
use jackfield_domain::value::scopes::Scopes;
use jackfield_domain::value::text::{CountryCode, MAX_CONNECTION_NAME, Name, Slug, bounded_text};
use jackfield_domain::value::url::RedirectUri;
use jackfield_domain::{Secret, Violation, Violations};

use crate::grpc::fields::{Fields, MAX_URL};

const MAX_URIS: usize = 32;
/// The longest time for which a refresh token may be good after its use: 30 days.
const MAX_GRACE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The longest list of scopes, in characters: those of several APIs of one provider are asked for together.
const MAX_SCOPE: usize = 4_096;
const MAX_CERTIFICATE: usize = 65_536;

/// The patch that a message asks for.
pub(super) fn parse(fields: &mut Fields<'_>, connection: pb::Connection) -> ConnectionPatch {
    let pb::Connection {
        name,
        external_id,
        connector,
        r#type: kind,
        authentication_url,
        token_url,
        issuer_url,
        provider_certificate,
        client_id,
        client_secrets,
        user_data_location,
        provider_tenant_id,
        developer_account_id,
        supported_content_type,
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
        client_authentication,
        client_key,
        token_parameters,
        refresh_parameters,
        refresh_token_grace_period,
        return_uris,
        iss_parameter_supported,
        grant_type,
        id: _,
        create_time: _,
        update_time: _,
        etag: _,
    } = connection;
    // The scopes of a profile are those of a user.
    let is_of_client = grant_type == i32::from(pb::ConnectionGrantType::ClientCredentials);
    let default_scope = if is_of_client { "" } else { DEFAULT_SCOPE };
    ConnectionPatch {
        client_secrets: parse_secrets(fields, client_secrets),
        authentication_url: fields.url("authentication_url", authentication_url),
        token_url: fields.url("token_url", token_url),
        issuer_url: fields.text("issuer_url", issuer_url, MAX_URL),
        client_id: fields.identifier("client_id", client_id, MAX_URL),
        provider_tenant_id: fields.identifier("provider_tenant_id", provider_tenant_id, 256),
        developer_account_id: fields.identifier("developer_account_id", developer_account_id, 128),
        oidc_user_endpoint_url: fields.url("oidc_user_endpoint_url", oidc_user_endpoint_url),
        user_id_expression: fields.value("user_id_expression", user_id_expression, parse_user_id_expression),
        revocation_url: fields.url("revocation_url", revocation_url),
        jwks_url: fields.url("jwks_url", jwks_url),
        device_authorization_url: fields.url("device_authorization_url", device_authorization_url),
        name: fields.required("name", &name, |field, name| Name::parse(field, name, MAX_CONNECTION_NAME)),
        external_id: fields.optional("external_id", external_id, Slug::parse),
        connector: fields
            .parent("connector", &connector, |field, connector| Ref::parse(field, connector, ReferenceForms::ID_NAME)),
        kind: fields.choice("type", kind, kind_from_message),
        provider_certificate: fields.value("provider_certificate", provider_certificate, parse_certificate),
        user_data_location: fields.optional("user_data_location", user_data_location, CountryCode::parse),
        content_type: fields.choice(
            "supported_content_type",
            supported_content_type,
            |content_type| match content_type {
                pb::TokenContentType::Unspecified | pb::TokenContentType::Json => TokenContentType::Json,
                pb::TokenContentType::Form => TokenContentType::Form,
            },
        ),
        trust_identity_user_id: fields.switch("trust_identity_user_id", trust_identity_user_id, false),
        scope: fields.value("scope", scope, |field, scope| {
            let scopes = Scopes::parse(field, scope.as_deref().unwrap_or(default_scope), MAX_SCOPE)?;
            Ok(scopes.to_string())
        }),
        parameters: fields.map("parameters", parameters),
        require_business_account: fields.switch("require_business_account", require_business_account, false),
        linking: fields.choice("linking", linking, |linking| match linking {
            pb::LinkingType::Unspecified | pb::LinkingType::Disabled => Linking::Disabled,
            pb::LinkingType::Explicit => Linking::Explicit,
            pb::LinkingType::Automatic => Linking::Automatic,
        }),
        active: fields.switch("active", active, true),
        tags: fields.map("tags", tags),
        redirect_uris: parse_uris(fields, "redirect_uris", &redirect_uris),
        client_authentication: fields.choice("client_authentication", client_authentication, authentication_of),
        client_key: fields.reference("client_key", client_key, ReferenceForms::ID_NAME),
        token_parameters: fields.map("token_parameters", token_parameters),
        refresh_parameters: fields.map("refresh_parameters", refresh_parameters),
        refresh_token_grace_period: fields.timeout("refresh_token_grace_period", refresh_token_grace_period, MAX_GRACE),
        return_uris: parse_uris(fields, "return_uris", &return_uris),
        iss_parameter_supported: fields.switch("iss_parameter_supported", iss_parameter_supported, false),
        grant: match grant_type {
            // It is set once.
            0 => None,
            _ => fields.choice("grant_type", grant_type, grant_of),
        },
    }
}

fn parse_user_id_expression(field: &str, text: Option<String>) -> Result<String, Violation> {
    let expression = bounded_text(field, &text.unwrap_or_default(), 512, true)?;
    let expression = if expression.is_empty() { DEFAULT_USER_ID_EXPRESSION.to_owned() } else { expression };
    check_user_id_expression(field, &expression).map(|()| expression)
}

/// The client secret that is to be added, and its id, if one is given.
pub(super) fn new_secret(
    violations: &mut Violations,
    secret_id: String,
    client_secret: String,
) -> Option<(Option<String>, Secret)> {
    let secret_id = match secret_id.is_empty() {
        true => Some(None),
        false => violations.check(parse_secret_id("secret_id", &secret_id)).map(Some),
    };
    let secret = match client_secret.is_empty() {
        true => violations.check(Err(Violation::field("client_secret", "is required"))),
        false => violations.check(parse_secret("client_secret", client_secret)),
    };
    secret_id.zip(secret)
}

fn parse_secret_id(field: &str, secret_id: &str) -> Result<String, Violation> {
    bounded_text(field, secret_id, 32, true)
}

fn parse_secret(field: &str, secret: String) -> Result<Secret, Violation> {
    Secret::parse_token(field, secret, 2_048)
}

fn parse_secrets(fields: &mut Fields<'_>, secrets: Vec<pb::ClientSecret>) -> ClientSecretsPatch {
    const PATH: &str = "client_secrets";
    if secrets.is_empty() {
        return if fields.mask().names(PATH) { ClientSecretsPatch::Clear } else { ClientSecretsPatch::Keep };
    }
    if !fields.mask().covers(PATH, true) {
        return ClientSecretsPatch::Keep;
    }
    if secrets.len() > MAX_CLIENT_SECRETS {
        fields.refuse(PATH, format!("must have at most {MAX_CLIENT_SECRETS} entries"));
        return ClientSecretsPatch::Keep;
    }
    let mut seen = BTreeSet::new();
    let mut patches = Vec::with_capacity(secrets.len());
    for (index, secret) in secrets.into_iter().enumerate() {
        let path = |name: &str| format!("connection.client_secrets[{index}].{name}");
        let pb::ClientSecret { secret_id, value, create_time: _ } = secret;
        let secret_id = fields.violations.check(parse_secret_id(&path("secret_id"), &secret_id));
        if let Some(secret_id) = &secret_id
            && !seen.insert(secret_id.clone())
        {
            fields.violations.push(Violation::field(path("secret_id"), "is in the list twice"));
        }
        let value = match value.is_empty() {
            true => Some(None),
            false => fields.violations.check(parse_secret(&path("value"), value)).map(Some),
        };
        if let (Some(secret_id), Some(value)) = (secret_id, value) {
            patches.push(ClientSecretPatch { secret_id, value });
        }
    }
    ClientSecretsPatch::Set(patches)
}

/// A list of URIs to which a browser may be sent.
fn parse_uris(fields: &mut Fields<'_>, path: &str, uris: &[String]) -> Option<Vec<RedirectUri>> {
    if !fields.mask().covers(path, !uris.is_empty()) {
        return None;
    }
    if uris.len() > MAX_URIS {
        fields.refuse(path, format!("must have at most {MAX_URIS} entries"));
        return None;
    }
    let uris = uris.iter().enumerate().map(|(index, uri)| {
        let field = fields.name(&format!("{path}[{index}]"));
        fields.violations.check(RedirectUri::parse(&field, uri, MAX_URL))
    });
    let uris: Vec<Option<RedirectUri>> = uris.collect();
    uris.into_iter().collect()
}

/// A certificate is PEM, which has line breaks. An empty one removes the certificate.
fn parse_certificate(field: &str, text: Option<String>) -> Result<String, Violation> {
    let text = text.unwrap_or_default();
    if text.is_empty() {
        return Ok(text);
    }
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    let bounded = |text: &str| match text.chars().count() > MAX_CERTIFICATE || !text.chars().all(printable) {
        true => Err(Violation::field(field, format!("must be PEM of at most {MAX_CERTIFICATE} characters"))),
        false => Ok(()),
    };
    bounded(&text)?;
    let stored = pem::stored_certificates(field, &text)?;
    // Lines may have become shorter. The text that a caller gets can be given again.
    bounded(&stored).map(|()| stored)
}

const fn kind_from_message(kind: pb::ConnectionType) -> ConnectionKind {
    match kind {
        pb::ConnectionType::Unspecified | pb::ConnectionType::Oauth2 => ConnectionKind::OAuth2,
        pb::ConnectionType::Saml2 => ConnectionKind::Saml2,
        pb::ConnectionType::Webauthn => ConnectionKind::WebAuthn,
        pb::ConnectionType::Password => ConnectionKind::Password,
        pb::ConnectionType::OpenidLegacy => ConnectionKind::OpenIdLegacy,
    }
}

const fn grant_of(grant: pb::ConnectionGrantType) -> ConnectionGrant {
    match grant {
        pb::ConnectionGrantType::Unspecified | pb::ConnectionGrantType::AuthorizationCode => {
            ConnectionGrant::AuthorizationCode
        }
        pb::ConnectionGrantType::ClientCredentials => ConnectionGrant::ClientCredentials,
    }
}

const fn authentication_of(authentication: pb::ClientAuthentication) -> ClientAuthentication {
    match authentication {
        pb::ClientAuthentication::None => ClientAuthentication::None,
        pb::ClientAuthentication::Unspecified | pb::ClientAuthentication::ClientSecretBasic => {
            ClientAuthentication::ClientSecretBasic
        }
        pb::ClientAuthentication::ClientSecretPost => ClientAuthentication::ClientSecretPost,
        pb::ClientAuthentication::PrivateKeyJwt => ClientAuthentication::PrivateKeyJwt,
        pb::ClientAuthentication::TlsClientAuth => ClientAuthentication::TlsClientAuth,
        pb::ClientAuthentication::SelfSignedTlsClientAuth => ClientAuthentication::SelfSignedTlsClientAuth,
    }
}
