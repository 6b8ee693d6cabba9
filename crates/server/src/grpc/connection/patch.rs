//! Connection messages as patches. The limits are those of the Authress model.

use std::collections::BTreeSet;

use jackfield_api::v1 as pb;
use jackfield_domain::connection::{
    ClientSecretPatch, ClientSecretsPatch, ConnectionKind, ConnectionPatch, DEFAULT_SCOPE, DEFAULT_USER_ID_EXPRESSION,
    Linking, MAX_CLIENT_SECRETS, TokenContentType, check_user_id_expression,
};
use jackfield_domain::key::require_no_private_key;
use jackfield_domain::request::mask::Mask;
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::pem::{CERTIFICATE_LABELS, Pem};
use jackfield_domain::value::scopes::Scopes;
use jackfield_domain::value::text::{CountryCode, MAX_CONNECTION_NAME, Name, Slug, bounded_text};
use jackfield_domain::value::url::{HttpUrl, RedirectUri};
use jackfield_domain::{Secret, Violation, Violations};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::grpc::parse::{self, MAX_URL};
use crate::grpc::update;

/// The paths that an update mask may name.
pub(super) const PATHS: &[&str] = &[
    "name",
    "external_id",
    "connector",
    "type",
    "authentication_url",
    "token_url",
    "issuer_url",
    "provider_certificate",
    "client_id",
    "client_secrets",
    "user_data_location",
    "provider_tenant_id",
    "developer_account_id",
    "supported_content_type",
    "oidc_user_endpoint_url",
    "user_id_expression",
    "trust_identity_user_id",
    "scope",
    "parameters",
    "parameters.*",
    "require_business_account",
    "linking",
    "active",
    "tags",
    "tags.*",
    "redirect_uris",
    "revocation_url",
    "jwks_url",
    "device_authorization_url",
];

/// The paths that may be named without effect.
pub(super) const OUTPUT_ONLY: &[&str] = &["id", "create_time", "update_time", "etag"];

const MAX_REDIRECT_URIS: usize = 32;
/// Longest list of scopes, in characters: those of several APIs of one provider are asked for together.
const MAX_SCOPE: usize = 4_096;
const MAX_CERTIFICATE: usize = 65_536;

/// The patch that a message and a mask ask for. `creating` makes the connector a required field.
pub(super) fn parse(
    wrong: &mut Violations,
    connection: pb::Connection,
    mask: &Mask,
    creating: bool,
) -> ConnectionPatch {
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
        id: _,
        create_time: _,
        update_time: _,
        etag: _,
    } = connection;
    let mut patch =
        ConnectionPatch { client_secrets: parse_secrets(wrong, client_secrets, mask), ..Default::default() };
    let mut fields = Fields { wrong, mask };
    patch.authentication_url = fields.url("authentication_url", authentication_url, MAX_URL);
    patch.token_url = fields.url("token_url", token_url, MAX_URL);
    patch.issuer_url = fields.text("issuer_url", issuer_url, MAX_URL);
    patch.client_id = fields.text("client_id", client_id, MAX_URL);
    patch.provider_tenant_id = fields.text("provider_tenant_id", provider_tenant_id, 256);
    patch.developer_account_id = fields.text("developer_account_id", developer_account_id, 128);
    patch.oidc_user_endpoint_url = fields.url("oidc_user_endpoint_url", oidc_user_endpoint_url, MAX_URL);
    patch.user_id_expression = fields
        .text("user_id_expression", user_id_expression, 512)
        .map(|expression| if expression.is_empty() { DEFAULT_USER_ID_EXPRESSION.to_owned() } else { expression });
    if let Some(expression) = &patch.user_id_expression {
        fields.wrong.check(check_user_id_expression("connection.user_id_expression", expression));
    }
    patch.revocation_url = fields.url("revocation_url", revocation_url, MAX_URL);
    patch.jwks_url = fields.url("jwks_url", jwks_url, MAX_URL);
    patch.device_authorization_url = fields.url("device_authorization_url", device_authorization_url, MAX_URL);

    if mask.covers("name", !name.is_empty()) {
        patch.name = wrong.check(Name::parse("connection.name", &name, MAX_CONNECTION_NAME));
    }
    if mask.covers("external_id", external_id.is_some()) {
        patch.external_id = match external_id.as_deref().and_then(parse::non_empty) {
            Some(text) => wrong.check(Slug::parse("connection.external_id", text)).map(Some),
            None => Some(None),
        };
    }
    if creating || (mask.covers("connector", !connector.is_empty()) && !connector.is_empty()) {
        patch.connector = wrong.check(Ref::parse("connection.connector", &connector, ReferenceForms::ID_NAME));
    }
    if mask.covers("type", kind != 0) {
        patch.kind = wrong.check(parse::known_enum("connection.type", kind).map(kind_from_message));
    }
    if mask.covers("provider_certificate", provider_certificate.is_some()) {
        patch.provider_certificate = wrong.check(certificate(provider_certificate.unwrap_or_default()));
    }
    if mask.covers("user_data_location", user_data_location.is_some()) {
        patch.user_data_location = match user_data_location.as_deref().and_then(parse::non_empty) {
            Some(text) => wrong.check(CountryCode::parse("connection.user_data_location", text)).map(Some),
            None => Some(None),
        };
    }
    if mask.covers("supported_content_type", supported_content_type != 0) {
        let content_type = parse::known_enum("connection.supported_content_type", supported_content_type);
        patch.content_type = wrong.check(content_type.map(|content_type| match content_type {
            pb::TokenContentType::Unspecified | pb::TokenContentType::Json => TokenContentType::Json,
            pb::TokenContentType::Form => TokenContentType::Form,
        }));
    }
    if mask.covers("trust_identity_user_id", trust_identity_user_id.is_some()) {
        patch.trust_identity_user_id = Some(trust_identity_user_id.unwrap_or_default());
    }
    if mask.covers("scope", scope.is_some()) {
        let scope = scope.as_deref().unwrap_or(DEFAULT_SCOPE);
        patch.scope = wrong.check(Scopes::parse("connection.scope", scope, MAX_SCOPE)).map(|scopes| scopes.to_string());
    }
    patch.parameters = update::map(wrong, ("connection", "parameters"), parameters, mask);
    if mask.covers("require_business_account", require_business_account.is_some()) {
        patch.require_business_account = Some(require_business_account.unwrap_or_default());
    }
    if mask.covers("linking", linking != 0) {
        let linking = parse::known_enum("connection.linking", linking);
        patch.linking = wrong.check(linking.map(|linking| match linking {
            pb::LinkingType::Unspecified | pb::LinkingType::Disabled => Linking::Disabled,
            pb::LinkingType::Explicit => Linking::Explicit,
            pb::LinkingType::Automatic => Linking::Automatic,
        }));
    }
    if mask.covers("active", active.is_some()) {
        patch.active = Some(active.unwrap_or(true));
    }
    patch.tags = update::map(wrong, ("connection", "tags"), tags, mask);
    if mask.covers("redirect_uris", !redirect_uris.is_empty()) {
        patch.redirect_uris = parse_redirect_uris(wrong, &redirect_uris);
    }
    patch
}

/// Reads fields where the mask covers them.
struct Fields<'a> {
    wrong: &'a mut Violations,
    mask: &'a Mask,
}

impl Fields<'_> {
    fn url(&mut self, path: &str, text: Option<String>, max: usize) -> Option<Option<HttpUrl>> {
        let covered = self.mask.covers(path, text.is_some());
        covered.then(|| parse::url(self.wrong, &field(path), &text.unwrap_or_default(), max)).flatten()
    }

    fn text(&mut self, path: &str, text: Option<String>, max: usize) -> Option<String> {
        let covered = self.mask.covers(path, text.is_some());
        covered.then(|| self.wrong.check(bounded_text(&field(path), &text.unwrap_or_default(), max, true))).flatten()
    }
}

fn parse_secrets(wrong: &mut Violations, secrets: Vec<pb::ClientSecret>, mask: &Mask) -> ClientSecretsPatch {
    if secrets.is_empty() {
        return if mask.names("client_secrets") { ClientSecretsPatch::Clear } else { ClientSecretsPatch::Keep };
    }
    if !mask.covers("client_secrets", true) {
        return ClientSecretsPatch::Keep;
    }
    if secrets.len() > MAX_CLIENT_SECRETS {
        let description = format!("must have at most {MAX_CLIENT_SECRETS} entries");
        wrong.push(Violation::field("connection.client_secrets", description));
        return ClientSecretsPatch::Keep;
    }
    let mut seen = BTreeSet::new();
    let mut patches = Vec::with_capacity(secrets.len());
    for (index, secret) in secrets.into_iter().enumerate() {
        let path = |name: &str| format!("connection.client_secrets[{index}].{name}");
        let pb::ClientSecret { secret_id, value, create_time: _ } = secret;
        let secret_id = wrong.check(bounded_text(&path("secret_id"), &secret_id, 32, true));
        if let Some(secret_id) = &secret_id
            && !seen.insert(secret_id.clone())
        {
            wrong.push(Violation::field(path("secret_id"), "stands in the list twice"));
        }
        let value = match value.is_empty() {
            true => Some(None),
            false => wrong.check(Secret::parse_line(&path("value"), value, 2_048)).map(Some),
        };
        if let (Some(secret_id), Some(value)) = (secret_id, value) {
            patches.push(ClientSecretPatch { secret_id, value });
        }
    }
    ClientSecretsPatch::Set(patches)
}

fn parse_redirect_uris(wrong: &mut Violations, uris: &[String]) -> Option<Vec<RedirectUri>> {
    if uris.len() > MAX_REDIRECT_URIS {
        let description = format!("must have at most {MAX_REDIRECT_URIS} entries");
        wrong.push(Violation::field("connection.redirect_uris", description));
        return None;
    }
    let uris = uris.iter().enumerate().map(|(index, uri)| {
        wrong.check(RedirectUri::parse(&format!("connection.redirect_uris[{index}]"), uri, MAX_URL))
    });
    let uris: Vec<Option<RedirectUri>> = uris.collect();
    uris.into_iter().collect()
}

/// A certificate is PEM, which has line breaks. Empty takes it away.
fn certificate(pem: String) -> Result<String, Violation> {
    let wrong = |description: String| Err(Violation::field("connection.provider_certificate", description));
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    if pem.chars().count() > MAX_CERTIFICATE || !pem.chars().all(printable) {
        return wrong(format!("must be PEM of at most {MAX_CERTIFICATE} characters"));
    }
    require_no_private_key("connection.provider_certificate", &pem)?;
    let text = match Pem::new(pem.as_bytes()).and_then(|text| text.only(CERTIFICATE_LABELS).map(|()| text)) {
        Ok(text) => text,
        Err(fault) => return wrong(format!("cannot be read: {fault}")),
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.text().as_bytes()).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() && !pem.is_empty() => {
            wrong("holds no certificate in PEM".to_owned())
        }
        Err(_) => wrong("holds no certificate in PEM".to_owned()),
        Ok(certificates) => match text.all_read(certificates.len()) {
            Ok(()) => Ok(text.text().to_owned()),
            Err(fault) => wrong(format!("cannot be read: {fault}")),
        },
    }
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

fn field(path: &str) -> String {
    format!("connection.{path}")
}
