//! Connector messages as patches.

use std::collections::BTreeMap;
use std::mem::discriminant;

use jackfield_api::message::ResourceMessage;
use jackfield_api::v1 as pb;
use jackfield_api::v1::connector::Kind;
use jackfield_domain::connector::{
    ApiKeyPatch, ClientCertificatePatch, ConnectorPatch, GenericPatch, HttpBasicPatch, KIND_REQUIRED, KindPatch,
    LicensePatch, MAX_CONNECT_TIMEOUT, MAX_READ_TIMEOUT, MAX_TOTAL_TIMEOUT, OAuth2Patch, SecretHeadersPatch,
    TimeoutsPatch,
};
use jackfield_domain::request::map_patch::Entries;
use jackfield_domain::request::mask::Mask;
use jackfield_domain::request::reference::ReferenceForms;
use jackfield_domain::value::maps::{header_name, same_header, secret_headers};
use jackfield_domain::value::text::{MAX_NAME, Name, bounded_text, description, identifier};
use jackfield_domain::{Result, Violation};

use crate::grpc::fields::{Fields, url};
use crate::grpc::parse;

/// The patch that a message asks for.
pub(super) fn parse(fields: &mut Fields<'_>, connector: pb::Connector) -> ConnectorPatch {
    let pb::Connector {
        name,
        description: text,
        enabled,
        kind,
        headers,
        secret_headers,
        connect_timeout,
        read_timeout,
        total_timeout,
        client_identity_key,
        trust_bundle_key,
        data,
        debug,
        debug_until,
        egress_proxy,
        egress_proxy_username,
        egress_proxy_password,
        max_concurrent_requests,
        max_response_bytes,
        propagate_trace_context,
        labels,
        id: _,
        egress_proxy_password_set: _,
        secret_header_names: _,
        create_time: _,
        update_time: _,
        etag: _,
    } = connector;
    let patch = ConnectorPatch {
        name: fields.required("name", &name, |field, name| Name::parse(field, name, MAX_NAME)),
        description: fields.value("description", text, |field, text| description(field, &text.unwrap_or_default())),
        enabled: fields.switch("enabled", enabled, true),
        kind: parse_kind(fields, kind),
        headers: fields.map("headers", headers),
        secret_headers: parse_secret_headers(fields, secret_headers),
        timeouts: TimeoutsPatch {
            connect: fields.timeout("connect_timeout", connect_timeout, MAX_CONNECT_TIMEOUT),
            read: fields.timeout("read_timeout", read_timeout, MAX_READ_TIMEOUT),
            total: fields.timeout("total_timeout", total_timeout, MAX_TOTAL_TIMEOUT),
        },
        client_identity_key: fields.reference("client_identity_key", client_identity_key, ReferenceForms::ID_NAME),
        trust_bundle_key: fields.reference("trust_bundle_key", trust_bundle_key, ReferenceForms::ID_NAME),
        data: fields.json("data", data),
        debug: fields.switch("debug", debug, false),
        debug_until: fields.value("debug_until", debug_until, |field, time| {
            time.map(|time| parse::timestamp(field, time)).transpose()
        }),
        egress_proxy: fields
            .optional("egress_proxy", egress_proxy, |field, text| url(field, text)?.require_proxy(field)),
        egress_proxy_username: fields.optional("egress_proxy_username", egress_proxy_username, basic_username),
        egress_proxy_password: fields.secret("egress_proxy_password", egress_proxy_password, 1_024),
        max_concurrent_requests: fields.within("max_concurrent_requests", max_concurrent_requests, 1..=1_000),
        max_response_bytes: fields.within("max_response_bytes", max_response_bytes, 1_024..=16 * 1024 * 1024),
        propagate_trace_context: fields.switch("propagate_trace_context", propagate_trace_context, false),
        labels: fields.map("labels", labels),
    };
    fields.violations.extend(patch.contradictions());
    patch
}

fn parse_kind(fields: &mut Fields<'_>, kind: Option<Kind>) -> KindPatch {
    let kind = match fields.mask() {
        Mask::All if kind.is_none() => {
            fields.refuse("kind", KIND_REQUIRED);
            None
        }
        Mask::All | Mask::Populated => kind,
        Mask::Paths(_) => named_kind(fields, kind),
    };
    match kind {
        None => KindPatch::Keep,
        Some(Kind::Generic(generic)) => {
            let pb::GenericConnector {
                authentication_url,
                http_authentication_username,
                http_authentication_password,
                http_authentication_password_set: _,
                migrate_users,
            } = generic;
            KindPatch::Generic(GenericPatch {
                authentication_url: fields.required("generic.authentication_url", &authentication_url, url),
                username: fields.optional(
                    "generic.http_authentication_username",
                    http_authentication_username,
                    basic_username,
                ),
                password: fields.secret("generic.http_authentication_password", http_authentication_password, 1_024),
                migrate_users: fields.switch("generic.migrate_users", migrate_users, false),
            })
        }
        Some(Kind::License(pb::LicenseConnector { base_url, application_id })) => KindPatch::License(LicensePatch {
            base_url: fields
                .required("license.base_url", &base_url, |field, text| url(field, text)?.require_base(field)),
            application_id: fields
                .required("license.application_id", &application_id, |field, text| identifier(field, text, 128, false)),
        }),
        Some(Kind::Oauth2(oauth2)) => KindPatch::OAuth2(parse_oauth2(fields, oauth2)),
        Some(Kind::ApiKey(api_key)) => {
            let pb::ApiKeyConnector { base_url, header_name: header, value_prefix, query_parameter } = api_key;
            let text = |max| move |field: &str, text: &str| bounded_text(field, text, max, true);
            KindPatch::ApiKey(ApiKeyPatch {
                base_url: fields.url("api_key.base_url", base_url),
                header_name: fields.optional("api_key.header_name", header, header_name),
                value_prefix: fields.optional("api_key.value_prefix", value_prefix, text(64)),
                query_parameter: fields.optional("api_key.query_parameter", query_parameter, text(128)),
            })
        }
        Some(Kind::HttpBasic(pb::HttpBasicConnector { base_url })) => {
            KindPatch::HttpBasic(HttpBasicPatch { base_url: fields.url("http_basic.base_url", base_url) })
        }
        Some(Kind::ClientCertificate(pb::ClientCertificateConnector { base_url })) => {
            let https = |field: &str, text: &str| url(field, text)?.require_https(field);
            let base_url = fields.optional("client_certificate.base_url", base_url, https);
            KindPatch::ClientCertificate(ClientCertificatePatch { base_url })
        }
    }
}

fn parse_oauth2(fields: &mut Fields<'_>, oauth2: pb::OAuth2Connector) -> OAuth2Patch {
    let pb::OAuth2Connector {
        issuer_url,
        authorization_url,
        token_url,
        profile_url,
        revocation_url,
        jwks_url,
        device_authorization_url,
    } = oauth2;
    OAuth2Patch {
        issuer_url: fields.optional("oauth2.issuer_url", issuer_url, |field, text| {
            url(field, text)?.require_https_unless_loopback(field)
        }),
        authorization_url: fields.url("oauth2.authorization_url", authorization_url),
        token_url: fields.url("oauth2.token_url", token_url),
        profile_url: fields.url("oauth2.profile_url", profile_url),
        revocation_url: fields.url("oauth2.revocation_url", revocation_url),
        jwks_url: fields.url("oauth2.jwks_url", jwks_url),
        device_authorization_url: fields.url("oauth2.device_authorization_url", device_authorization_url),
    }
}

/// The settings of which a mask names a part. The message may lack them, or have those of another kind, which the mask does
/// not name: then the named ones have no value.
fn named_kind(fields: &mut Fields<'_>, given: Option<Kind>) -> Option<Kind> {
    let blank = [
        ("generic.", Kind::Generic(Default::default())),
        ("license.", Kind::License(Default::default())),
        ("oauth2.", Kind::Oauth2(Default::default())),
        ("api_key.", Kind::ApiKey(Default::default())),
        ("http_basic.", Kind::HttpBasic(Default::default())),
        ("client_certificate.", Kind::ClientCertificate(Default::default())),
    ];
    let mask = fields.mask();
    let is_named =
        |prefix: &str| pb::Connector::PATHS.iter().any(|path| path.starts_with(prefix) && mask.covers(path, false));
    let mut named = blank.into_iter().filter(|(prefix, _)| is_named(prefix)).map(|(_, kind)| kind);
    let kind = named.next()?;
    if named.next().is_some() {
        fields.violations.push(Violation::field("update_mask", "names settings of several kinds; a connector has one"));
        return None;
    }
    given.filter(|given| discriminant(given) == discriminant(&kind)).or(Some(kind))
}

fn parse_secret_headers(fields: &mut Fields<'_>, headers: BTreeMap<String, String>) -> SecretHeadersPatch {
    const PATH: &str = "secret_headers";
    let mask = fields.mask();
    let mut read = |headers| fields.violations.check_all(secret_headers(&format!("connector.{PATH}"), headers));
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

fn basic_username(field: &str, text: &str) -> Result<String, Violation> {
    let username = bounded_text(field, text, 256, true)?;
    match username.contains(':') {
        true => Err(Violation::field(field, "must not contain \":\" (RFC 7617)")),
        false => Ok(username),
    }
}
