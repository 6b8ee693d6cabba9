//! Connector messages as patches.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::time::Duration;

use jackfield_api::v1 as pb;
use jackfield_api::v1::connector::Kind;
use jackfield_domain::connector::{
    ApiKeyPatch, BaseUrlPatch, ConnectorPatch, GenericPatch, KindPatch, LicensePatch, MAX_CONNECT_TIMEOUT,
    MAX_READ_TIMEOUT, MAX_TOTAL_TIMEOUT, OAuth2Patch, SecretHeadersPatch,
};
use jackfield_domain::request::map_patch::Entries;
use jackfield_domain::request::mask::Mask;
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::maps::{header_name, same_header, secret_headers};
use jackfield_domain::value::text::{MAX_NAME, Name, bounded_text, description};
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{Secret, SecretPatch, Violation, Violations};

use crate::grpc::parse::{self, MAX_URL};
use crate::grpc::update;

/// The paths that an update mask may name.
pub(super) const PATHS: &[&str] = &[
    "name",
    "description",
    "enabled",
    "generic.authentication_url",
    "generic.http_authentication_username",
    "generic.http_authentication_password",
    "license.base_url",
    "license.application_id",
    "oauth2.issuer_url",
    "oauth2.authorization_url",
    "oauth2.token_url",
    "oauth2.profile_url",
    "oauth2.revocation_url",
    "oauth2.jwks_url",
    "oauth2.device_authorization_url",
    "api_key.base_url",
    "api_key.header_name",
    "api_key.value_prefix",
    "api_key.query_parameter",
    "http_basic.base_url",
    "client_certificate.base_url",
    "headers",
    "headers.*",
    "secret_headers",
    "secret_headers.*",
    "connect_timeout",
    "read_timeout",
    "total_timeout",
    "client_identity_key",
    "trust_bundle_key",
    "data",
    "debug",
    "labels",
    "labels.*",
];

/// The paths that may be named without effect.
pub(super) const OUTPUT_ONLY: &[&str] =
    &["id", "generic.http_authentication_password_set", "secret_header_names", "create_time", "update_time", "etag"];

/// The patch that a message and a mask ask for.
pub(super) fn parse(wrong: &mut Violations, connector: pb::Connector, mask: &Mask) -> ConnectorPatch {
    let pb::Connector {
        name,
        description: text,
        enabled,
        kind,
        headers,
        secret_headers: secrets,
        connect_timeout,
        read_timeout,
        total_timeout,
        client_identity_key,
        trust_bundle_key,
        data,
        debug,
        labels,
        id: _,
        secret_header_names: _,
        create_time: _,
        update_time: _,
        etag: _,
    } = connector;
    let mut patch = ConnectorPatch::default();
    if mask.covers("name", !name.is_empty()) {
        patch.name = wrong.check(Name::parse("connector.name", &name, MAX_NAME));
    }
    if mask.covers("description", text.is_some()) {
        patch.description = wrong.check(description("connector.description", &text.unwrap_or_default()));
    }
    if mask.covers("enabled", enabled.is_some()) {
        patch.enabled = Some(enabled.unwrap_or(true));
    }
    patch.kind = parse_kind(wrong, kind, mask);
    patch.headers = update::map(wrong, ("connector", "headers"), headers, mask);
    patch.secret_headers = parse_secret_headers(wrong, secrets, mask);
    let mut timeout = |path: &str, value: Option<prost_types::Duration>, max: Duration| {
        if !mask.covers(path, value.is_some()) {
            return None;
        }
        match value {
            None => Some(None),
            Some(value) => wrong.check(parse::timeout(&format!("connector.{path}"), value, max)).map(Some),
        }
    };
    patch.connect_timeout = timeout("connect_timeout", connect_timeout, MAX_CONNECT_TIMEOUT);
    patch.read_timeout = timeout("read_timeout", read_timeout, MAX_READ_TIMEOUT);
    patch.total_timeout = timeout("total_timeout", total_timeout, MAX_TOTAL_TIMEOUT);
    let mut key = |path: &str, text: Option<String>| {
        let covered = mask.covers(path, text.is_some());
        let parsed = || Ref::parse_optional(&field(path), &text.unwrap_or_default(), ReferenceForms::ID_NAME);
        covered.then(|| wrong.check(parsed())).flatten()
    };
    patch.client_identity_key = key("client_identity_key", client_identity_key);
    patch.trust_bundle_key = key("trust_bundle_key", trust_bundle_key);
    if mask.covers("data", data.is_some()) {
        patch.data = wrong.check(parse::json("connector.data", data));
    }
    if mask.covers("debug", debug.is_some()) {
        patch.debug = Some(debug.unwrap_or_default());
    }
    patch.labels = update::map(wrong, ("connector", "labels"), labels, mask);
    wrong.extend(patch.contradictions());
    patch
}

fn parse_kind(wrong: &mut Violations, kind: Option<Kind>, mask: &Mask) -> Option<KindPatch> {
    let kind = match mask {
        Mask::All if kind.is_none() => {
            wrong.push(Violation::field("connector.kind", KIND_REQUIRED));
            None
        }
        Mask::All | Mask::Populated => kind,
        Mask::Paths(_) => named_kind(wrong, kind, mask),
    };
    let mut settings = Settings { wrong, mask };
    Some(match kind? {
        Kind::Generic(generic) => KindPatch::Generic(settings.generic(generic)),
        Kind::License(license) => KindPatch::License(LicensePatch {
            base_url: settings.required_url("license.base_url", &license.base_url),
            application_id: settings.required_text("license.application_id", &license.application_id, 128),
        }),
        Kind::Oauth2(oauth2) => KindPatch::OAuth2(OAuth2Patch {
            issuer_url: settings.issuer("oauth2.issuer_url", oauth2.issuer_url),
            authorization_url: settings.url("oauth2.authorization_url", oauth2.authorization_url),
            token_url: settings.url("oauth2.token_url", oauth2.token_url),
            profile_url: settings.url("oauth2.profile_url", oauth2.profile_url),
            revocation_url: settings.url("oauth2.revocation_url", oauth2.revocation_url),
            jwks_url: settings.url("oauth2.jwks_url", oauth2.jwks_url),
            device_authorization_url: settings.url("oauth2.device_authorization_url", oauth2.device_authorization_url),
        }),
        Kind::ApiKey(api_key) => KindPatch::ApiKey(ApiKeyPatch {
            base_url: settings.url("api_key.base_url", api_key.base_url),
            header_name: settings.header_name("api_key.header_name", api_key.header_name),
            value_prefix: settings.text("api_key.value_prefix", api_key.value_prefix, 64),
            query_parameter: settings.text("api_key.query_parameter", api_key.query_parameter, 128),
        }),
        Kind::HttpBasic(basic) => {
            KindPatch::HttpBasic(BaseUrlPatch { base_url: settings.url("http_basic.base_url", basic.base_url) })
        }
        Kind::ClientCertificate(certificate) => KindPatch::ClientCertificate(BaseUrlPatch {
            base_url: settings.https_url("client_certificate.base_url", certificate.base_url),
        }),
    })
}

/// The settings that a mask names some of. The message may lack them, or hold those of another kind, which the mask does
/// not name: then what is named has no value.
fn named_kind(wrong: &mut Violations, given: Option<Kind>, mask: &Mask) -> Option<Kind> {
    let blank = [
        ("generic.", Kind::Generic(Default::default())),
        ("license.", Kind::License(Default::default())),
        ("oauth2.", Kind::Oauth2(Default::default())),
        ("api_key.", Kind::ApiKey(Default::default())),
        ("http_basic.", Kind::HttpBasic(Default::default())),
        ("client_certificate.", Kind::ClientCertificate(Default::default())),
    ];
    let is_named = |prefix: &str| PATHS.iter().any(|path| path.starts_with(prefix) && mask.covers(path, false));
    let mut named = blank.into_iter().filter(|(prefix, _)| is_named(prefix)).map(|(_, kind)| kind);
    let kind = named.next()?;
    if named.next().is_some() {
        wrong.push(Violation::field("update_mask", "names settings of several kinds; a connector has one"));
        return None;
    }
    given.filter(|given| discriminant(given) == discriminant(&kind)).or(Some(kind))
}

/// Reads the settings of a kind: a value where the mask covers it.
struct Settings<'a> {
    wrong: &'a mut Violations,
    mask: &'a Mask,
}

impl Settings<'_> {
    fn generic(&mut self, generic: pb::GenericConnector) -> GenericPatch {
        let pb::GenericConnector {
            authentication_url,
            http_authentication_username: username,
            http_authentication_password: password,
            http_authentication_password_set: _,
        } = generic;
        let path = "generic.http_authentication_username";
        let username = self.text(path, username, 256);
        if matches!(&username, Some(Some(username)) if username.contains(':')) {
            self.wrong.push(Violation::field(field(path), "must not contain \":\" (RFC 7617)"));
        }
        GenericPatch {
            authentication_url: self.required_url("generic.authentication_url", &authentication_url),
            username,
            password: self.secret("generic.http_authentication_password", password, 1_024),
        }
    }

    fn secret(&mut self, path: &str, value: String, max: usize) -> SecretPatch {
        if !value.is_empty() {
            if !self.mask.covers(path, true) {
                return SecretPatch::Keep;
            }
            let secret = self.wrong.check(Secret::parse_line(&field(path), value, max));
            return secret.map_or(SecretPatch::Keep, SecretPatch::Set);
        }
        if self.mask.names(path) { SecretPatch::Clear } else { SecretPatch::Keep }
    }

    fn required_url(&mut self, path: &str, text: &str) -> Option<HttpUrl> {
        let covered = self.mask.covers(path, !text.is_empty());
        covered.then(|| self.wrong.check(HttpUrl::parse(&field(path), text, MAX_URL))).flatten()
    }

    fn required_text(&mut self, path: &str, text: &str, max: usize) -> Option<String> {
        let covered = self.mask.covers(path, !text.is_empty());
        covered.then(|| self.wrong.check(bounded_text(&field(path), text, max, false))).flatten()
    }

    fn url(&mut self, path: &str, text: Option<String>) -> Option<Option<HttpUrl>> {
        let covered = self.mask.covers(path, text.is_some());
        covered.then(|| parse::url(self.wrong, &field(path), &text.unwrap_or_default(), MAX_URL)).flatten()
    }

    fn https_url(&mut self, path: &str, text: Option<String>) -> Option<Option<HttpUrl>> {
        match self.url(path, text)? {
            Some(url) => self.wrong.check(url.require_https(&field(path))).map(Some),
            None => Some(None),
        }
    }

    fn issuer(&mut self, path: &str, text: Option<String>) -> Option<Option<HttpUrl>> {
        match self.url(path, text)? {
            Some(url) => self.wrong.check(url.require_https_unless_loopback(&field(path))).map(Some),
            None => Some(None),
        }
    }

    fn text(&mut self, path: &str, text: Option<String>, max: usize) -> Option<Option<String>> {
        self.optional(path, text, |field, text| bounded_text(field, text, max, true))
    }

    fn header_name(&mut self, path: &str, text: Option<String>) -> Option<Option<String>> {
        self.optional(path, text, header_name)
    }

    /// A text that may be absent: empty = none.
    fn optional(
        &mut self,
        path: &str,
        text: Option<String>,
        read: impl FnOnce(&str, &str) -> Result<String, Violation>,
    ) -> Option<Option<String>> {
        if !self.mask.covers(path, text.is_some()) {
            return None;
        }
        match text.as_deref().and_then(parse::non_empty) {
            Some(text) => self.wrong.check(read(&field(path), text)).map(Some),
            None => Some(None),
        }
    }
}

fn parse_secret_headers(wrong: &mut Violations, headers: BTreeMap<String, String>, mask: &Mask) -> SecretHeadersPatch {
    const PATH: &str = "secret_headers";
    let mut read = |headers| parse::check_all(wrong, secret_headers(&field(PATH), headers));
    if mask.covers(PATH, !headers.is_empty()) {
        return match headers.is_empty() {
            true if mask.names(PATH) => SecretHeadersPatch::Clear,
            true => SecretHeadersPatch::Keep,
            false => read(headers).map_or(SecretHeadersPatch::Keep, SecretHeadersPatch::Set),
        };
    }
    let Some(Entries { set, gone }) = Entries::named(PATH, headers, mask, same_header) else {
        return SecretHeadersPatch::Keep;
    };
    read(set).map_or(SecretHeadersPatch::Keep, |set| SecretHeadersPatch::Entries(Entries { set, gone }))
}

fn field(path: &str) -> String {
    format!("connector.{path}")
}

const KIND_REQUIRED: &str = "one of generic, license, oauth2, api_key, http_basic and client_certificate is required";
