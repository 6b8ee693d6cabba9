//! URLs that the egress policy can never permit: no connector that is called is stored with one, and no change brings one in.

use jackfield_api::v1;
use jackfield_api::v1::connector::Kind;
use jackfield_testkit::{expect_status, fixture, on_both};
use serde_json::{Value, json};
use tonic::{Code, Response, Status};

use super::patch::merge_json;
use super::{create, get, try_create, update};
use crate::key;

type Of = fn(Option<String>) -> Kind;

/// The URLs that Jackfield calls.
const CALLED: &[(&str, Of)] = &[
    ("generic.authentication_url", |url| {
        Kind::Generic(v1::GenericConnector { authentication_url: url.unwrap_or_default(), ..Default::default() })
    }),
    ("license.base_url", |url| {
        let application_id = "a".to_owned();
        Kind::License(v1::LicenseConnector { base_url: url.unwrap_or_default(), application_id })
    }),
    ("oauth2.issuer_url", |issuer_url| oauth2(v1::OAuth2Connector { issuer_url, ..Default::default() })),
    ("oauth2.token_url", |token_url| oauth2(v1::OAuth2Connector { token_url, ..Default::default() })),
    ("oauth2.profile_url", |profile_url| oauth2(v1::OAuth2Connector { profile_url, ..Default::default() })),
    ("oauth2.revocation_url", |revocation_url| oauth2(v1::OAuth2Connector { revocation_url, ..Default::default() })),
    ("oauth2.jwks_url", |jwks_url| oauth2(v1::OAuth2Connector { jwks_url, ..Default::default() })),
    ("oauth2.device_authorization_url", |device_authorization_url| {
        oauth2(v1::OAuth2Connector { device_authorization_url, ..Default::default() })
    }),
];

/// The URLs of APIs. Users of credentials call them, and Jackfield only to test a connector.
const APIS: &[(&str, Of)] = &[
    ("api_key.base_url", |base_url| Kind::ApiKey(v1::ApiKeyConnector { base_url, ..Default::default() })),
    ("http_basic.base_url", |base_url| Kind::HttpBasic(v1::HttpBasicConnector { base_url })),
    ("client_certificate.base_url", |base_url| Kind::ClientCertificate(v1::ClientCertificateConnector { base_url })),
];

/// URLs with the reason of their refusal.
const REFUSED: [(&str, &str); 2] = [
    ("https://10.0.0.1/", "the address is refused by the rule private: the operator has to allow it"),
    ("https://example.com:0/", "port 0 is not permitted: use 443, or 1024 and above"),
];
const PROXY: &str = "http://10.0.0.1:3128";

on_both! {
    async fn no_kind_is_created_or_changed_with_a_url_that_cannot_be_called(server) {
        let alpha = server.client("alpha");
        let identity = key::import(&alpha, key::an_identity(&server, "identity")).await.id;
        for (field, kind) in CALLED {
            let of = |url: &str| v1::Connector {
                client_identity_key: Some(identity.clone()),
                kind: Some(kind(Some(url.to_owned()))),
                ..fixture::a_connector(field)
            };
            let before = create(&alpha, of("https://example.com/")).await;
            for (url, reason) in REFUSED {
                let other = v1::Connector { name: "other".to_owned(), ..of(url) };
                refused(try_create(&alpha, other).await.map(Response::into_inner), field, reason);
                refused(update(&alpha, &before.id, [field], of(url)).await, field, reason);
                refused(merge_json(&alpha, &before.id, member(field, url)).await, field, reason);
            }
            let reason = REFUSED[0].1;
            let proxied = v1::Connector { egress_proxy: Some(PROXY.to_owned()), ..of("https://example.com/") };
            refused(update(&alpha, &before.id, ["egress_proxy"], proxied).await, "egress_proxy", reason);
            refused(merge_json(&alpha, &before.id, member("egress_proxy", PROXY)).await, "egress_proxy", reason);
            assert_eq!(get(&alpha, &before.id).await.unwrap(), before);
        }
        // Browsers and services may be where Jackfield is not.
        let authorization_url = Some(REFUSED[0].0.to_owned());
        let kind = oauth2(v1::OAuth2Connector { authorization_url, ..Default::default() });
        create(&alpha, v1::Connector { kind: Some(kind), ..fixture::a_connector("of browsers") }).await;
        for (name, kind) in APIS {
            let connector = v1::Connector {
                client_identity_key: Some(identity.clone()),
                kind: Some(kind(Some(REFUSED[0].0.to_owned()))),
                ..fixture::a_connector(name)
            };
            create(&alpha, connector).await;
        }
    }
}

fn oauth2(oauth2: v1::OAuth2Connector) -> Kind {
    Kind::Oauth2(oauth2)
}

/// The JSON form of a connector with this field alone.
fn member(field: &str, value: &str) -> Value {
    let camel = |name: &str| {
        let mut parts = name.split('_');
        let first = parts.next().unwrap().to_owned();
        parts.fold(first, |name, part| format!("{name}{}{}", part[..1].to_uppercase(), &part[1..]))
    };
    field.rsplit('.').fold(json!(value), |inner, name| json!({ camel(name): inner }))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, field: &str, reason: &str) {
    let field = format!("connector.{field}");
    let refusal = expect_status(result.map(Response::new), Code::InvalidArgument, "FIELD_INVALID");
    refusal.expect_fields(&[&field]);
    assert_eq!(refusal.description(&field), format!("cannot be called: {reason}"));
}
