//! Omitted fields of a document read as their defaults, and older documents, which omit nothing, read the same.

mod application;
mod connector_event;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::configuration::{Configuration, WorkflowSettings};
use crate::connection::{
    ClientAuthentication, ClientSecretFacts, Connection, ConnectionGrant, ConnectionKind, ConnectionSettings, Linking,
    TokenContentType,
};
use crate::connector::{
    ApiKey, ClientCertificate, Connector, ConnectorKind, Generic, HttpBasic, License, OAuth2Endpoints, Timeouts,
};
use crate::credential::{
    ApiAnswer, Credential, CredentialKind, CredentialState, EmailDigest, FailureClass, TokenRejection,
};
use crate::key::{CertificateFacts, Key, KeyKind, KeyMaterial, NextMaterial};
use crate::value::json::JsonObject;
use crate::value::maps::{AuthorizationParameters, Headers, Labels, RefreshParameters, TokenParameters};
use crate::value::meta::Meta;
use crate::value::text::{CountryCode, ExternalId, Name, Slug, UserId};
use crate::value::time::Timestamp;
use crate::value::url::{HttpUrl, RedirectUri};

const URL: &str = "https://a.example/b";

fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn url() -> HttpUrl {
    HttpUrl::parse("url", URL, URL.len()).unwrap()
}

fn texts() -> BTreeMap<String, String> {
    BTreeMap::from([("a".to_owned(), "b".to_owned())])
}

fn object() -> JsonObject {
    JsonObject::stored(Map::from_iter([("a".to_owned(), json!([1, null, { "b": "" }]))]))
}

fn meta() -> Meta {
    Meta { create_time: Timestamp(1), update_time: Timestamp(2), version: 3 }
}

fn meta_doc() -> Value {
    json!({ "create_time": 1, "update_time": 2, "version": 3 })
}

fn read<T: DeserializeOwned>(doc: &Value) -> T {
    serde_json::from_str(&doc.to_string()).unwrap_or_else(|error| panic!("{doc}: {error}"))
}

fn written(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

/// Merges the members of both, including those of inner objects.
fn merged(one: &Value, other: &Value) -> Value {
    let (Value::Object(one), Value::Object(other)) = (one, other) else { return other.clone() };
    let mut all = one.clone();
    for (name, value) in other {
        let value = one.get(name).map_or_else(|| value.clone(), |inner| merged(inner, value));
        all.insert(name.clone(), value);
    }
    Value::Object(all)
}

/// Asserts that a document has the members of another, none of them empty. Members that callers fill are not inspected.
fn assert_says_all(doc: &Value, members: &Value, path: &str) {
    let defaults = [json!(null), json!(false), json!(""), json!([]), json!({}), json!(0)];
    assert!(!defaults.contains(doc), "{path} says nothing");
    if let (Value::Object(doc), Value::Object(members)) = (doc, members)
        && !members.is_empty()
    {
        let names = |object: &Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(doc), names(members), "{path}");
        doc.iter().for_each(|(name, value)| assert_says_all(value, &members[name], &format!("{path}.{name}")));
    }
}

/// Checks a document type: `sparse` has the members that are always written, `defaults` those that are omitted at their
/// defaults, and `full` has a value in every field.
fn check<T>(sparse: &Value, defaults: &Value, full: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let spelled_out = merged(sparse, defaults);
    let plain: T = read(sparse);
    assert_eq!(plain, read(&spelled_out));
    assert_eq!(written(&plain), *sparse);

    let doc = written(full);
    assert_says_all(&doc, &spelled_out, "");
    assert_eq!(read::<T>(&doc), *full);
}

#[test]
fn a_connection() {
    let sparse = json!({
        "id": uuid(1),
        "connector": uuid(2),
        "settings": {
            "name": "a", "kind": "OAUTH2", "content_type": "JSON", "linking": "DISABLED", "active": false,
        },
        "client_secrets": [],
        "meta": meta_doc(),
    });
    let defaults = json!({
        "settings": {
            "external_id": null,
            "authentication_url": null,
            "token_url": null,
            "issuer_url": "",
            "provider_certificate": "",
            "client_id": "",
            "user_data_location": null,
            "provider_tenant_id": "",
            "developer_account_id": "",
            "oidc_user_endpoint_url": null,
            "user_id_expression": "",
            "trust_identity_user_id": false,
            "scope": "",
            "parameters": {},
            "require_business_account": false,
            "tags": {},
            "redirect_uris": [],
            "revocation_url": null,
            "jwks_url": null,
            "device_authorization_url": null,
            "client_authentication": "CLIENT_SECRET_BASIC",
            "token_parameters": {},
            "refresh_parameters": {},
            "refresh_token_grace_period": null,
            "return_uris": [],
            "iss_parameter_supported": false,
            "grant": "AUTHORIZATION_CODE",
        },
        "client_key": null,
    });
    let full = Connection {
        id: uuid(1).into(),
        connector: uuid(2).into(),
        settings: ConnectionSettings {
            name: Name::stored("a".to_owned()),
            external_id: Some(Slug::stored("b".to_owned())),
            kind: ConnectionKind::OpenIdLegacy,
            authentication_url: Some(url()),
            token_url: Some(url()),
            issuer_url: "c".to_owned(),
            provider_certificate: "d".to_owned(),
            client_id: "e".to_owned(),
            user_data_location: Some(CountryCode::stored("CH".to_owned())),
            provider_tenant_id: "f".to_owned(),
            developer_account_id: "g".to_owned(),
            content_type: TokenContentType::Form,
            oidc_user_endpoint_url: Some(url()),
            user_id_expression: "{sub}".to_owned(),
            trust_identity_user_id: true,
            scope: "h".to_owned(),
            parameters: AuthorizationParameters::stored(texts()),
            require_business_account: true,
            linking: Linking::Automatic,
            active: true,
            tags: Labels::stored(texts()),
            redirect_uris: vec![RedirectUri::parse("uri", URL, URL.len()).unwrap()],
            revocation_url: Some(url()),
            jwks_url: Some(url()),
            device_authorization_url: Some(url()),
            client_authentication: ClientAuthentication::SelfSignedTlsClientAuth,
            token_parameters: TokenParameters::stored(texts()),
            refresh_parameters: RefreshParameters::stored(texts()),
            refresh_token_grace_period: Some(Duration::from_secs(12)),
            return_uris: vec![RedirectUri::parse("uri", URL, URL.len()).unwrap()],
            iss_parameter_supported: true,
            grant: ConnectionGrant::ClientCredentials,
        },
        client_secrets: vec![ClientSecretFacts { secret_id: String::new(), create_time: Timestamp(4) }],
        client_key: Some(uuid(3).into()),
        meta: meta(),
    };
    check(&sparse, &defaults, &full);
}

/// For each kind: the members always written, those that may be omitted, and a full value.
fn kinds() -> [(Value, Value, ConnectorKind); 6] {
    let text = || Some("c".to_owned());
    [
        (
            json!({ "api_key": {} }),
            json!({ "api_key": {
                "base_url": null, "header_name": null, "value_prefix": null, "query_parameter": null,
            } }),
            ConnectorKind::ApiKey(ApiKey {
                base_url: Some(url()),
                header_name: text(),
                value_prefix: text(),
                query_parameter: text(),
            }),
        ),
        (
            json!({ "client_certificate": {} }),
            json!({ "client_certificate": { "base_url": null } }),
            ConnectorKind::ClientCertificate(ClientCertificate { base_url: Some(url()) }),
        ),
        (
            json!({ "generic": { "authentication_url": URL } }),
            json!({ "generic": { "username": null, "password_set": false, "migrate_users": false } }),
            ConnectorKind::Generic(Generic {
                authentication_url: url(),
                username: text(),
                password_set: true,
                migrate_users: true,
            }),
        ),
        (
            json!({ "http_basic": {} }),
            json!({ "http_basic": { "base_url": null } }),
            ConnectorKind::HttpBasic(HttpBasic { base_url: Some(url()) }),
        ),
        (
            json!({ "license": { "base_url": URL, "application_id": "c" } }),
            json!({}),
            ConnectorKind::License(License { base_url: url(), application_id: "c".to_owned() }),
        ),
        (
            json!({ "o_auth2": {} }),
            json!({ "o_auth2": {
                "issuer_url": null,
                "authorization_url": null,
                "token_url": null,
                "profile_url": null,
                "revocation_url": null,
                "jwks_url": null,
                "device_authorization_url": null,
            } }),
            ConnectorKind::OAuth2(OAuth2Endpoints {
                issuer_url: Some(url()),
                authorization_url: Some(url()),
                token_url: Some(url()),
                profile_url: Some(url()),
                revocation_url: Some(url()),
                jwks_url: Some(url()),
                device_authorization_url: Some(url()),
            }),
        ),
    ]
}

#[test]
fn a_connector_of_each_kind() {
    let kinds = kinds();
    let names: BTreeSet<&str> = kinds.iter().map(|(_, _, kind)| kind.as_str()).collect();
    assert_eq!(names.len(), ConnectorKind::NAMES.len());
    for (sparse_kind, default_kind, full_kind) in kinds {
        let sparse = json!({
            "id": uuid(1),
            "name": "a",
            "enabled": false,
            "kind": sparse_kind,
            "timeouts": {
                "connect": { "secs": 5, "nanos": 0 }, "read": { "secs": 10, "nanos": 0 }, "total": { "secs": 30, "nanos": 0 },
            },
            "meta": meta_doc(),
        });
        let defaults = json!({
            "description": "",
            "kind": default_kind,
            "headers": {},
            "secret_header_names": [],
            "client_identity_key": null,
            "trust_bundle_key": null,
            "data": {},
            "debug": false,
            "debug_until": null,
            "egress_proxy": null,
            "egress_proxy_username": null,
            "egress_proxy_password_set": false,
            "max_concurrent_requests": null,
            "max_response_bytes": null,
            "propagate_trace_context": false,
            "labels": {},
        });
        let full = Connector {
            id: uuid(1).into(),
            name: Name::stored("a".to_owned()),
            description: "b".to_owned(),
            enabled: true,
            kind: full_kind,
            headers: Headers::stored(texts()),
            secret_header_names: vec!["c".to_owned()],
            timeouts: Timeouts { connect: Duration::new(1, 2), read: Duration::new(3, 4), total: Duration::new(5, 6) },
            client_identity_key: Some(uuid(2).into()),
            trust_bundle_key: Some(uuid(3).into()),
            data: object(),
            debug: true,
            debug_until: Some(Timestamp(7)),
            egress_proxy: Some(url()),
            egress_proxy_username: Some("d".to_owned()),
            egress_proxy_password_set: true,
            max_concurrent_requests: Some(8),
            max_response_bytes: Some(9),
            propagate_trace_context: true,
            labels: Labels::stored(texts()),
            meta: meta(),
        };
        check(&sparse, &defaults, &full);
    }
}

#[test]
fn a_credential() {
    let sparse = json!({
        "id": uuid(1),
        "user_id": "a",
        "connector": uuid(2),
        "user_connector": uuid(3),
        "kind": "OAUTH2",
        "state": "VALID",
        "material_version": 1,
        "default_configuration": uuid(4),
        "meta": meta_doc(),
    });
    let defaults = json!({
        "external_id": null,
        "connection": null,
        "key": null,
        "scopes": [],
        "requested_scopes": [],
        "token_type": "",
        "expire_time": null,
        "authorization_expire_time": null,
        "provider_account_id": "",
        "email_digest": null,
        "provider_data": {},
        "labels": {},
        "is_default": false,
        "refreshable": false,
        "client_grant": false,
        "last_refresh_time": null,
        "refresh_failure_count": 0,
        "failure_class": null,
        "failure_reason": "",
        "failure_connection_version": null,
        "next_refresh_time": null,
        "refresh_token_kept_count": 0,
        "refresh_token_kept_time": null,
        "rejections": [],
    });
    let full = Credential {
        id: uuid(1).into(),
        external_id: Some(ExternalId::stored("b".to_owned())),
        user_id: UserId::stored("a".to_owned()),
        connector: uuid(2).into(),
        connection: Some(uuid(5).into()),
        user_connector: uuid(3).into(),
        key: Some(uuid(6).into()),
        kind: CredentialKind::ClientCertificate,
        state: CredentialState::NeedsReauth,
        scopes: vec!["c".to_owned()],
        requested_scopes: vec!["c".to_owned(), "g".to_owned()],
        token_type: "d".to_owned(),
        expire_time: Some(Timestamp(7)),
        authorization_expire_time: Some(Timestamp(12)),
        provider_account_id: "e".to_owned(),
        email_digest: Some(EmailDigest::new([14; 32])),
        provider_data: object(),
        labels: Labels::stored(texts()),
        is_default: true,
        material_version: 8,
        refreshable: true,
        client_grant: true,
        last_refresh_time: Some(Timestamp(9)),
        refresh_failure_count: 10,
        failure_class: Some(FailureClass::Indeterminate),
        failure_reason: "f".to_owned(),
        failure_connection_version: Some(15),
        next_refresh_time: Some(Timestamp(11)),
        refresh_token_kept_count: 2,
        refresh_token_kept_time: Some(Timestamp(13)),
        rejections: vec![TokenRejection::of(&ApiAnswer::default(), 8, true, Timestamp(13))],
        default_configuration: uuid(4).into(),
        meta: meta(),
    };
    check(&sparse, &defaults, &full);

    // A time is never a default, not even the epoch.
    let beginning = Credential { expire_time: Some(Timestamp(0)), ..read(&sparse) };
    assert_eq!(written(&beginning)["expire_time"], 0);
}

#[test]
fn a_configuration() {
    let sparse = json!({
        "id": uuid(1), "credential": uuid(2), "user_id": "a", "connector": uuid(3), "meta": meta_doc(),
    });
    let defaults = json!({
        "external_id": null,
        "shared_settings": {},
        "workflow_settings": {},
        "settings_meta": {},
        "is_default": false,
    });
    let workflows = [("b", false, JsonObject::default()), ("c", true, object())];
    let workflows =
        workflows.map(|(name, enabled, settings)| (name.to_owned(), WorkflowSettings { enabled, settings }));
    let full = Configuration {
        id: uuid(1).into(),
        credential: uuid(2).into(),
        external_id: Some(ExternalId::stored("b".to_owned())),
        shared_settings: object(),
        workflow_settings: BTreeMap::from(workflows),
        settings_meta: object(),
        is_default: true,
        user_id: UserId::stored("a".to_owned()),
        connector: uuid(3).into(),
        meta: meta(),
    };
    check(&sparse, &defaults, &full);
}

#[test]
fn a_key() {
    let certificate = CertificateFacts {
        subject: "a".to_owned(),
        issuer: "b".to_owned(),
        serial_number: "1".to_owned(),
        subject_alternative_names: vec!["DNS:a".to_owned()],
        not_before: Timestamp(4),
        not_after: Timestamp(5),
        fingerprint_sha256: "2".to_owned(),
        public_key_algorithm: "c".to_owned(),
        is_ca: true,
    };
    let sparse = json!({
        "id": uuid(1),
        "name": "a",
        "kind": "CLIENT_IDENTITY",
        "certificate_pem": "",
        "certificates": [],
        "used_by": 0,
        "labels": {},
        "meta": meta_doc(),
    });
    let defaults = json!({ "not_after": null, "signing_request_pem": "", "number": 0, "next": null });
    let material =
        KeyMaterial { signing_request_pem: "d".to_owned(), ..KeyMaterial::of(6, "e".to_owned(), vec![certificate]) };
    let full = Key {
        id: uuid(1).into(),
        name: Name::stored("a".to_owned()),
        kind: KeyKind::ClientIdentity,
        current: material.clone(),
        next: Some(NextMaterial { activate_time: Timestamp(7), material }),
        used_by: 8,
        labels: Labels::stored(texts()),
        meta: meta(),
    };
    check(&sparse, &defaults, &full);
}
