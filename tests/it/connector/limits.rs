//! The limits of a connector, and values that it may not contain at all.

use std::collections::BTreeMap;

use jackfield_api::v1;
use jackfield_api::v1::connector::Kind;
use jackfield_testkit::{Client, TestServer, expect_status, fixture, on_both};
use prost::Message;
use prost_types::{Duration, ListValue, Struct, Value, value};
use tonic::{Code, Response, Status};

use super::{create, get, list};
use crate::key;

type Change = fn(&mut v1::Connector);

/// Changes that are just within the limits.
const WITHIN: &[Change] = &[
    |it| it.name = "n".repeat(191),
    |it| it.name = "ж".repeat(191),
    |it| it.name = format!("  {}  ", "n".repeat(191)),
    |it| it.description = Some("ä".repeat(1_024)),
    |it| it.description = Some("one\ntwo\r\nthree".to_owned()),
    |it| generic(it).authentication_url = url(2_048),
    |it| generic(it).authentication_url = "HTTP://localhost:3000".to_owned(),
    |it| generic(it).http_authentication_username = Some("ü".repeat(256)),
    |it| generic(it).http_authentication_password = "p".repeat(1_024),
    |it| generic(it).http_authentication_password = "ü: *".repeat(256),
    |it| it.kind = Some(license(url(2_048), "a".repeat(128))),
    |it| it.kind = Some(Kind::Oauth2(v1::OAuth2Connector::default())),
    |it| oauth2(it).issuer_url = Some(url(2_048)),
    |it| oauth2(it).issuer_url = Some("http://localhost:8080/realm".to_owned()),
    |it| oauth2(it).issuer_url = Some("http://127.0.0.1".to_owned()),
    |it| oauth2(it).issuer_url = Some("http://[::1]:8080".to_owned()),
    |it| oauth2(it).authorization_url = Some("http://provider.example".to_owned()),
    |it| it.kind = Some(Kind::ApiKey(v1::ApiKeyConnector::default())),
    |it| api_key(it).base_url = Some(url(2_048)),
    |it| api_key(it).header_name = Some("h".repeat(128)),
    |it| api_key(it).value_prefix = Some("p".repeat(64)),
    |it| api_key(it).query_parameter = Some("q".repeat(128)),
    |it| it.kind = Some(Kind::HttpBasic(v1::HttpBasicConnector::default())),
    |it| it.kind = Some(Kind::HttpBasic(v1::HttpBasicConnector { base_url: Some(url(2_048)) })),
    |it| certificate(it, "name:identity").base_url = Some(url(2_048)),
    |it| certificate(it, "name:identity").base_url = Some(String::new()),
    |it| it.headers = numbered(64),
    |it| it.headers = fixture::strings([(&*"h".repeat(128), &*"v".repeat(4_096))]),
    |it| it.headers = fixture::strings([("!#$%&'*+-.^_`|~09aZ", "! ~")]),
    |it| it.headers = fixture::strings([("Authorization", "Bearer a"), ("User-Agent", "b"), ("traceparent", "c")]),
    |it| {
        it.kind = Some(Kind::ApiKey(v1::ApiKeyConnector::default()));
        it.headers = fixture::strings([("Accept", "application/json"), ("X-License-Module", "m")]);
    },
    |it| it.secret_headers = numbered(64),
    |it| it.secret_headers = fixture::strings([(&*"h".repeat(128), &*"v".repeat(4_096))]),
    |it| it.connect_timeout = Some(Duration { seconds: 0, nanos: 1 }),
    |it| it.read_timeout = Some(Duration { seconds: 0, nanos: 1 }),
    |it| it.connect_timeout = Some(fixture::milliseconds(60_000)),
    |it| it.read_timeout = Some(fixture::milliseconds(300_000)),
    |it| it.total_timeout = Some(fixture::milliseconds(600_000)),
    |it| it.total_timeout = Some(fixture::milliseconds(5_000)),
    |it| it.client_identity_key = Some("name:identity".to_owned()),
    |it| it.trust_bundle_key = Some("name:bundle".to_owned()),
    |it| _ = proxied(it),
    |it| proxied(it).egress_proxy_username = Some("ü".repeat(256)),
    |it| proxied(it).egress_proxy_password = "p".repeat(1_024),
    |it| it.max_concurrent_requests = Some(1),
    |it| it.max_concurrent_requests = Some(1_000),
    |it| it.max_response_bytes = Some(1_024),
    |it| it.max_response_bytes = Some(16 * 1024 * 1024),
    |it| it.labels = numbered(64),
    |it| it.labels = fixture::strings([(&*"k".repeat(63), &*"ж".repeat(128))]),
    |it| it.labels = fixture::strings([("aZ09-_./", "")]),
    |it| it.data = Some(text_of_size(64 * 1024)),
    |it| it.data = Some(nested(16)),
    |it| it.data = Some(list_of(1_999)),
    |it| it.data = Some(Struct { fields: numbered(64).into_keys().map(|key| (key, number(1.0))).collect() }),
];

/// Changes just beyond the limits or of a wrong form, with the field that is reported.
const BEYOND: &[(&str, Change)] = &[
    ("connector.name", |it| it.name = String::new()),
    ("connector.name", |it| it.name = " \u{a0}\u{3000}".to_owned()),
    ("connector.name", |it| it.name = "n".repeat(192)),
    ("connector.name", |it| it.name = "a\u{0}b".to_owned()),
    ("connector.name", |it| it.name = "a\nb".to_owned()),
    ("connector.name", |it| it.name = "a\u{7f}".to_owned()),
    ("connector.name", |it| it.name = "a\u{85}b".to_owned()),
    ("connector.description", |it| it.description = Some("d".repeat(1_025))),
    ("connector.description", |it| it.description = Some("bell \u{7}".to_owned())),
    ("connector.kind", |it| it.kind = None),
    ("connector.generic.authentication_url", |it| generic(it).authentication_url = String::new()),
    ("connector.generic.authentication_url", |it| generic(it).authentication_url = url(2_049)),
    ("connector.generic.authentication_url", |it| generic(it).authentication_url = "/api/authenticate".to_owned()),
    ("connector.generic.authentication_url", |it| generic(it).authentication_url = "ftp://example.com".to_owned()),
    ("connector.generic.authentication_url", |it| generic(it).authentication_url = "https://".to_owned()),
    ("connector.generic.authentication_url", |it| generic(it).authentication_url = "https:example.com".to_owned()),
    ("connector.generic.authentication_url", |it| {
        generic(it).authentication_url = "https://u:p@example.com".to_owned()
    }),
    ("connector.generic.authentication_url", |it| generic(it).authentication_url = "https://example.com/#a".to_owned()),
    ("connector.generic.authentication_url", |it| {
        generic(it).authentication_url = "https://example.com/a b".to_owned()
    }),
    ("connector.generic.http_authentication_username", |it| {
        generic(it).http_authentication_username = Some("u".repeat(257));
    }),
    ("connector.generic.http_authentication_username", |it| {
        generic(it).http_authentication_username = Some("a:b".to_owned())
    }),
    ("connector.generic.http_authentication_username", |it| {
        generic(it).http_authentication_username = Some("a\tb".to_owned())
    }),
    ("connector.generic.http_authentication_password", |it| {
        generic(it).http_authentication_password = "p".repeat(1_025);
    }),
    ("connector.license.base_url", |it| it.kind = Some(license(String::new(), "a".to_owned()))),
    ("connector.license.base_url", |it| it.kind = Some(license(url(2_049), "a".to_owned()))),
    ("connector.license.base_url", |it| it.kind = Some(license("https://a.example/v1?b=c".to_owned(), "a".to_owned()))),
    ("connector.license.base_url", |it| it.kind = Some(license("https://a.example/v1?".to_owned(), "a".to_owned()))),
    ("connector.license.base_url", |it| it.kind = Some(license("https://a.example/#b".to_owned(), "a".to_owned()))),
    ("connector.license.application_id", |it| it.kind = Some(license(url(99), String::new()))),
    ("connector.license.application_id", |it| it.kind = Some(license(url(99), " ".to_owned()))),
    ("connector.license.application_id", |it| it.kind = Some(license(url(99), "a".repeat(129)))),
    ("connector.license.application_id", |it| it.kind = Some(license(url(99), "module ".to_owned()))),
    ("connector.oauth2.issuer_url", |it| oauth2(it).issuer_url = Some(url(2_049))),
    ("connector.oauth2.issuer_url", |it| oauth2(it).issuer_url = Some("http://login.example.com".to_owned())),
    ("connector.oauth2.token_url", |it| oauth2(it).token_url = Some("http://provider.example".to_owned())),
    ("connector.egress_proxy", |it| it.egress_proxy = Some("https://proxy.example".to_owned())),
    ("connector.egress_proxy", |it| it.egress_proxy = Some("http://proxy.example/path".to_owned())),
    ("connector.egress_proxy", |it| it.egress_proxy = Some("http://proxy.example/?query".to_owned())),
    ("connector.egress_proxy", |it| proxied(it).egress_proxy = Some("http://10.0.0.1:3128".to_owned())),
    ("connector.generic.authentication_url", |it| it.egress_proxy = Some("http://proxy.example:3128".to_owned())),
    ("connector.egress_proxy_username", |it| it.egress_proxy_username = Some("without a proxy".to_owned())),
    ("connector.egress_proxy_username", |it| proxied(it).egress_proxy_username = Some("u".repeat(257))),
    ("connector.egress_proxy_username", |it| proxied(it).egress_proxy_username = Some("a:b".to_owned())),
    ("connector.egress_proxy_password", |it| proxied(it).egress_proxy_password = "p".repeat(1_025)),
    ("connector.egress_proxy_password", |it| proxied(it).egress_proxy_password = "a\nb".to_owned()),
    ("connector.max_concurrent_requests", |it| it.max_concurrent_requests = Some(-1)),
    ("connector.max_concurrent_requests", |it| it.max_concurrent_requests = Some(1_001)),
    ("connector.max_response_bytes", |it| it.max_response_bytes = Some(1_023)),
    ("connector.max_response_bytes", |it| it.max_response_bytes = Some(-1)),
    ("connector.oauth2.issuer_url", |it| oauth2(it).issuer_url = Some("http://localhost.example.com".to_owned())),
    ("connector.oauth2.authorization_url", |it| oauth2(it).authorization_url = Some("not a URL".to_owned())),
    ("connector.oauth2.token_url", |it| oauth2(it).token_url = Some("not a URL".to_owned())),
    ("connector.oauth2.profile_url", |it| oauth2(it).profile_url = Some("not a URL".to_owned())),
    ("connector.oauth2.revocation_url", |it| oauth2(it).revocation_url = Some("not a URL".to_owned())),
    ("connector.oauth2.jwks_url", |it| oauth2(it).jwks_url = Some("not a URL".to_owned())),
    ("connector.oauth2.device_authorization_url", |it| {
        oauth2(it).device_authorization_url = Some("not a URL".to_owned())
    }),
    ("connector.api_key.base_url", |it| api_key(it).base_url = Some(url(2_049))),
    ("connector.api_key.header_name", |it| api_key(it).header_name = Some("h".repeat(129))),
    ("connector.api_key.header_name", |it| api_key(it).header_name = Some("X Key".to_owned())),
    ("connector.api_key.header_name", |it| api_key(it).header_name = Some("HOST".to_owned())),
    ("connector.api_key.value_prefix", |it| api_key(it).value_prefix = Some("p".repeat(65))),
    ("connector.api_key.query_parameter", |it| api_key(it).query_parameter = Some("q".repeat(129))),
    ("connector.api_key.query_parameter", |it| {
        let settings = api_key(it);
        (settings.header_name, settings.query_parameter) = (Some("X-Key".to_owned()), Some("key".to_owned()));
    }),
    ("connector.http_basic.base_url", |it| {
        it.kind = Some(Kind::HttpBasic(v1::HttpBasicConnector { base_url: Some(url(2_049)) }));
    }),
    ("connector.client_certificate.base_url", |it| certificate(it, "name:identity").base_url = Some(url(2_049))),
    ("connector.client_certificate.base_url", |it| {
        certificate(it, "name:identity").base_url = Some("http://localhost".to_owned());
    }),
    ("connector.client_identity_key", |it| certificate(it, "").base_url = Some(String::new())),
    ("connector.headers", |it| it.headers = numbered(65)),
    ("connector.headers", |it| it.headers = fixture::strings([(&*"h".repeat(129), "v")])),
    ("connector.headers", |it| it.headers = fixture::strings([("", "v")])),
    ("connector.headers", |it| it.headers = fixture::strings([("Ü", "v")])),
    ("connector.headers", |it| it.headers = fixture::strings([("a:b", "v")])),
    ("connector.headers", |it| it.headers = fixture::strings([("Accept", "a"), ("accept", "b")])),
    // Requests have these anyway, and those of the connector would be dropped.
    ("connector.headers", |it| it.headers = fixture::strings([("content-type", "text/plain")])),
    ("connector.secret_headers", |it| it.secret_headers = fixture::strings([("ACCEPT", "*/*")])),
    ("connector.headers", |it| {
        generic(it).http_authentication_username = Some("user".to_owned());
        it.headers = fixture::strings([("authorization", "Bearer a")]);
    }),
    ("connector.secret_headers", |it| {
        generic(it).http_authentication_username = Some("user".to_owned());
        it.secret_headers = fixture::strings([("Authorization", "Bearer a")]);
    }),
    ("connector.headers", |it| {
        it.kind = Some(license(url(99), "a".to_owned()));
        it.headers = fixture::strings([("X-License-Module", "b")]);
    }),
    ("connector.headers", |it| {
        it.propagate_trace_context = Some(true);
        it.headers = fixture::strings([("TraceParent", "00-1-2-01")]);
    }),
    ("connector.headers.header", |it| it.headers = fixture::strings([("header", &*"v".repeat(4_097))])),
    ("connector.headers.header", |it| it.headers = fixture::strings([("header", "a\r\nInjected: b")])),
    ("connector.headers.header", |it| it.headers = fixture::strings([("header", "ä")])),
    ("connector.secret_headers", |it| it.secret_headers = numbered(65)),
    ("connector.secret_headers", |it| it.secret_headers = fixture::strings([("a b", "v")])),
    ("connector.secret_headers", |it| it.secret_headers = fixture::strings([("Accept", "a"), ("accept", "b")])),
    ("connector.secret_headers.header", |it| it.secret_headers = fixture::strings([("header", &*"v".repeat(4_097))])),
    ("connector.secret_headers.header", |it| it.secret_headers = fixture::strings([("header", "a\nb")])),
    ("connector.secret_headers.header", |it| it.secret_headers = fixture::strings([("header", "")])),
    ("connector.secret_headers", |it| {
        (it.headers, it.secret_headers) = (fixture::strings([("X-A", "v")]), fixture::strings([("x-a", "v")]));
    }),
    ("connector.connect_timeout", |it| it.connect_timeout = Some(fixture::milliseconds(0))),
    ("connector.connect_timeout", |it| it.connect_timeout = Some(fixture::milliseconds(-1))),
    ("connector.connect_timeout", |it| it.connect_timeout = Some(fixture::milliseconds(-1_000))),
    ("connector.connect_timeout", |it| it.connect_timeout = Some(Duration { seconds: 60, nanos: 1 })),
    ("connector.connect_timeout", |it| it.connect_timeout = Some(Duration { seconds: 1, nanos: 1_000_000_000 })),
    ("connector.connect_timeout", |it| it.connect_timeout = Some(Duration { seconds: 1, nanos: -1 })),
    ("connector.connect_timeout", |it| it.connect_timeout = Some(Duration { seconds: i64::MIN, nanos: 0 })),
    ("connector.read_timeout", |it| it.read_timeout = Some(fixture::milliseconds(0))),
    ("connector.read_timeout", |it| it.read_timeout = Some(fixture::milliseconds(-1))),
    ("connector.read_timeout", |it| it.read_timeout = Some(Duration { seconds: 300, nanos: 1 })),
    ("connector.read_timeout", |it| it.read_timeout = Some(Duration { seconds: i64::MAX, nanos: 999_999_999 })),
    ("connector.total_timeout", |it| it.total_timeout = Some(fixture::milliseconds(0))),
    ("connector.total_timeout", |it| it.total_timeout = Some(fixture::milliseconds(-1))),
    ("connector.total_timeout", |it| it.total_timeout = Some(Duration { seconds: 600, nanos: 1 })),
    ("connector.total_timeout", |it| it.total_timeout = Some(fixture::milliseconds(4_999))),
    ("connector.labels", |it| it.labels = numbered(65)),
    ("connector.labels", |it| it.labels = fixture::strings([("", "v")])),
    ("connector.labels", |it| it.labels = fixture::strings([(&*"k".repeat(64), "v")])),
    ("connector.labels", |it| it.labels = fixture::strings([("a b", "v")])),
    ("connector.labels", |it| it.labels = fixture::strings([("ä", "v")])),
    ("connector.labels.env", |it| it.labels = fixture::strings([("env", &*"v".repeat(129))])),
    ("connector.labels.env", |it| it.labels = fixture::strings([("env", "a\nb")])),
    ("connector.data", |it| it.data = Some(of(number(f64::NAN)))),
    ("connector.data", |it| it.data = Some(of(number(f64::INFINITY)))),
    ("connector.data", |it| it.data = Some(of(Value { kind: None }))),
];

/// Data that is refused before it is decoded.
const OVERSIZED: &[Change] = &[
    |it| it.data = Some(text_of_size(64 * 1024 + 1)),
    |it| it.data = Some(nested(17)),
    |it| it.data = Some(nested(60)),
    |it| it.data = Some(list_of(2_000)),
    |it| it.data = Some(Struct { fields: numbered(65).into_keys().map(|key| (key, number(1.0))).collect() }),
];

/// Headers that belong to the connection or the framing, and not to the request (RFC 9110 7.6.1, RFC 9112).
const REFUSED_HEADERS: [&str; 11] = [
    "Connection",
    "CONTENT-LENGTH",
    "host",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "transfer-encoding",
    "Upgrade",
];

on_both! {
    async fn limits_hold_exactly(server) {
        let alpha = server.client("alpha");
        key::import(&alpha, key::an_identity(&server, "identity")).await;
        key::import(&alpha, key::a_bundle(&server, "bundle")).await;
        for change in WITHIN {
            let connector = changed(*change);
            if let Err(status) = check(&alpha, connector.clone()).await {
                panic!("refused, {status:?}: {connector:?}");
            }
        }
        for (field, change) in BEYOND {
            let refused = check(&alpha, changed(*change)).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);
        }
        for change in OVERSIZED {
            let refused = check(&alpha, changed(*change)).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connector.data"]);
        }
        for header in REFUSED_HEADERS {
            let headers = fixture::strings([(header, "v")]);
            let connector = v1::Connector { headers: headers.clone(), ..fixture::a_connector("x") };
            let refused = check(&alpha, connector).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connector.headers"]);
            let connector = v1::Connector { secret_headers: headers, ..fixture::a_connector("x") };
            let refused = check(&alpha, connector).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connector.secret_headers"]);
        }
        let huge = v1::Connector { data: Some(text_of_size(4 << 20)), ..fixture::a_connector("x") };
        let refused = expect_status(check(&alpha, huge).await, Code::ResourceExhausted, "QUOTA_EXCEEDED");
        assert_eq!(refused.metadata("limit"), "262144");
        assert_eq!(list(&alpha).await, []);
    }

    async fn everything_at_its_limit_is_stored_and_comes_back(backend: Backend) {
        // Together they exceed the default size limit of requests.
        let server = TestServer::start_with(backend, |config| config.limits.max_request_message.0 = 2 << 20).await;
        let alpha = server.client("alpha");
        let long = |prefix: &str, length: usize| format!("{prefix}{}", "ж".repeat(length - prefix.len()));
        let mut given = v1::Connector {
            name: long("n", 191),
            description: Some(long("d", 1_024)),
            headers: (0..64).map(|index| (format!("{index:h>128}"), "v".repeat(4_096))).collect(),
            secret_headers: (0..64).map(|index| (format!("{index:s>128}"), "v".repeat(4_096))).collect(),
            data: Some(text_of_size(64 * 1024)),
            labels: (0..64).map(|index| (format!("{index:l>63}"), long("v", 128))).collect(),
            ..fixture::a_connector("")
        };
        *generic(&mut given) = v1::GenericConnector {
            authentication_url: url(2_048),
            http_authentication_username: Some(long("u", 256)),
            http_authentication_password: long("p", 1_024),
            ..Default::default()
        };
        let created = create(&alpha, given.clone()).await;
        let found = get(&alpha, &format!("name:{}", given.name)).await.unwrap();
        assert_eq!(found, created);
        assert_eq!((&found.name, &found.description), (&given.name, &given.description));
        assert_eq!((&found.headers, &found.data, &found.labels), (&given.headers, &given.data, &given.labels));
        assert_eq!(found.secret_header_names, given.secret_headers.into_keys().collect::<Vec<_>>());
        assert_eq!(list(&alpha).await, [found]);
    }

    async fn names_are_trimmed_and_urls_kept_unchanged(server) {
        let alpha = server.client("alpha");
        let mut given = fixture::a_connector(" \u{a0}My Connector\t ");
        generic(&mut given).authentication_url = "HTTPS://Example.COM:443/a/../b?x=%7E".to_owned();
        let mut created = create(&alpha, given).await;
        assert_eq!(created.name, "My Connector");
        assert_eq!(generic(&mut created).authentication_url, "HTTPS://Example.COM:443/a/../b?x=%7E");
    }

    async fn all_violations_are_reported_at_once(server) {
        let alpha = server.client("alpha");
        let mut wrong = v1::Connector {
            name: " ".to_owned(),
            description: Some("\u{1}".to_owned()),
            headers: fixture::strings([("host", "h"), ("header", "\u{1}")]),
            secret_headers: fixture::strings([("a b", "v")]),
            connect_timeout: Some(fixture::milliseconds(0)),
            read_timeout: Some(fixture::milliseconds(-1)),
            total_timeout: Some(fixture::milliseconds(600_001)),
            client_identity_key: Some("mine".to_owned()),
            trust_bundle_key: Some("ext:mine".to_owned()),
            labels: fixture::strings([("", "v"), ("a", "\n")]),
            ..fixture::a_connector("")
        };
        *generic(&mut wrong) = v1::GenericConnector {
            authentication_url: "nowhere".to_owned(),
            http_authentication_username: Some(":".to_owned()),
            http_authentication_password: "****".to_owned(),
            ..Default::default()
        };
        let request = v1::CreateConnectorRequest {
            connector: Some(wrong.clone()),
            id: "1".to_owned(),
            request_id: "2".to_owned(),
            ..Default::default()
        };
        let fields = [
            "connector.client_identity_key",
            "connector.connect_timeout",
            "connector.description",
            "connector.generic.authentication_url",
            "connector.generic.http_authentication_password",
            "connector.generic.http_authentication_username",
            "connector.headers",
            "connector.headers.header",
            "connector.labels",
            "connector.labels.a",
            "connector.name",
            "connector.read_timeout",
            "connector.secret_headers",
            "connector.total_timeout",
            "connector.trust_bundle_key",
        ];
        let refused = alpha.connectors().create_connector(request).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&[&fields[..], &["id", "request_id"]].concat());
        let request = v1::UpdateConnectorRequest {
            reference: "nothing".to_owned(),
            connector: Some(wrong),
            request_id: "2".to_owned(),
            ..Default::default()
        };
        let refused = alpha.connectors().update_connector(request).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&[&fields[..], &["reference", "request_id"]].concat());
        let refused = alpha.connectors().create_connector(v1::CreateConnectorRequest::default()).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connector"]);
        let refused = alpha.connectors().update_connector(v1::UpdateConnectorRequest::default()).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connector", "reference"]);
    }

    async fn contradictions_are_reported_with_the_other_violations(server) {
        let alpha = server.client("alpha");
        let mut wrong = v1::Connector {
            name: " ".to_owned(),
            headers: fixture::strings([("X-A", "v")]),
            secret_headers: fixture::strings([("x-a", "v")]),
            connect_timeout: Some(fixture::milliseconds(2)),
            total_timeout: Some(fixture::milliseconds(1)),
            ..fixture::a_connector("")
        };
        let settings = api_key(&mut wrong);
        (settings.header_name, settings.query_parameter) = (Some("X-Key".to_owned()), Some("key".to_owned()));
        let fields = [
            "connector.api_key.query_parameter",
            "connector.name",
            "connector.secret_headers",
            "connector.total_timeout",
        ];
        let refused = check(&alpha, wrong.clone()).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&fields);
        wrong.kind = Some(Kind::ClientCertificate(v1::ClientCertificateConnector::default()));
        let refused = check(&alpha, wrong).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&[&["connector.client_identity_key"], &fields[1..]].concat());
    }
}

/// Tries to create a connector with `validate_only`.
async fn check(client: &Client, connector: v1::Connector) -> Result<Response<v1::CreateConnectorResponse>, Status> {
    let request = v1::CreateConnectorRequest { connector: Some(connector), validate_only: true, ..Default::default() };
    client.connectors().create_connector(request).await
}

fn changed(change: Change) -> v1::Connector {
    let mut connector = fixture::a_connector("x");
    change(&mut connector);
    connector
}

fn generic(connector: &mut v1::Connector) -> &mut v1::GenericConnector {
    let Some(Kind::Generic(generic)) = &mut connector.kind else { panic!("not a generic connector") };
    generic
}

fn proxied(connector: &mut v1::Connector) -> &mut v1::Connector {
    generic(connector).authentication_url = url(100);
    connector.egress_proxy = Some("http://proxy.example:3128".to_owned());
    connector
}

fn oauth2(connector: &mut v1::Connector) -> &mut v1::OAuth2Connector {
    connector.kind = Some(Kind::Oauth2(v1::OAuth2Connector::default()));
    let Some(Kind::Oauth2(oauth2)) = &mut connector.kind else { unreachable!("just set") };
    oauth2
}

fn api_key(connector: &mut v1::Connector) -> &mut v1::ApiKeyConnector {
    connector.kind = Some(Kind::ApiKey(v1::ApiKeyConnector::default()));
    let Some(Kind::ApiKey(api_key)) = &mut connector.kind else { unreachable!("just set") };
    api_key
}

fn certificate<'a>(connector: &'a mut v1::Connector, key: &str) -> &'a mut v1::ClientCertificateConnector {
    connector.client_identity_key = Some(key.to_owned());
    connector.kind = Some(Kind::ClientCertificate(v1::ClientCertificateConnector::default()));
    let Some(Kind::ClientCertificate(certificate)) = &mut connector.kind else { unreachable!("just set") };
    certificate
}

fn license(base_url: String, application_id: String) -> Kind {
    Kind::License(v1::LicenseConnector { base_url, application_id })
}

/// A URL of this many characters.
fn url(length: usize) -> String {
    const START: &str = "https://example.com/";
    format!("{START}{}", "u".repeat(length - START.len()))
}

/// A map with this many entries.
fn numbered(entries: usize) -> BTreeMap<String, String> {
    (0..entries).map(|index| (format!("k{index}"), "v".to_owned())).collect()
}

fn number(number: f64) -> Value {
    Value { kind: Some(value::Kind::NumberValue(number)) }
}

fn of(value: Value) -> Struct {
    Struct { fields: BTreeMap::from([("a".to_owned(), value)]) }
}

/// An object with one string, of this encoded size.
fn text_of_size(size: usize) -> Struct {
    let object = |length: usize| of(Value { kind: Some(value::Kind::StringValue("x".repeat(length))) });
    let object = object(size - (object(size).encoded_len() - size));
    assert_eq!(object.encoded_len(), size);
    object
}

/// An object with this many levels.
fn nested(levels: usize) -> Struct {
    (1..levels).fold(Struct::default(), |inner, _| of(Value { kind: Some(value::Kind::StructValue(inner)) }))
}

/// An object with a list of this many values.
fn list_of(values: usize) -> Struct {
    let values = (0..values).map(|_| number(1.0)).collect();
    of(Value { kind: Some(value::Kind::ListValue(ListValue { values })) })
}
