//! The limits of the Authress model, and our own where it has none: at each limit and over it.

use jackfield_api::v1;
use jackfield_testkit::{Client, TestServer, expect_status, fixture, on_both};
use tonic::{Code, Response, Status};

use super::{a_small_one, create, get, list, numbered};
use crate::connector;

type Change = fn(&mut v1::Connection);

/// Changes that are just within the limits.
const WITHIN: &[Change] = &[
    |it| it.name = "n".repeat(64),
    |it| it.name = format!(" {} ", "ж".repeat(64)),
    |it| it.external_id = Some("e".repeat(64)),
    |it| it.external_id = Some("aZ09-_.:".to_owned()),
    |it| it.authentication_url = Some(url(2_048)),
    |it| it.authentication_url = Some("http://localhost:3000/login".to_owned()),
    |it| it.token_url = Some(url(2_048)),
    |it| it.issuer_url = Some("i".repeat(2_048)),
    |it| it.issuer_url = Some("ж".repeat(2_048)),
    |it| it.provider_certificate = Some(certificate(65_536)),
    |it| it.client_id = Some("ж".repeat(2_048)),
    |it| it.client_secrets = secrets(8),
    |it| it.client_secrets = vec![secret(&"ж".repeat(32), &"ж".repeat(2_048))],
    |it| it.client_secrets = vec![secret("", "v")],
    |it| it.user_data_location = Some("CH".to_owned()),
    |it| it.user_data_location = Some("US".to_owned()),
    |it| it.provider_tenant_id = Some("t".repeat(256)),
    |it| it.developer_account_id = Some("d".repeat(128)),
    |it| it.oidc_user_endpoint_url = Some(url(2_048)),
    |it| it.user_id_expression = Some("{sub}".repeat(102) + "ab"),
    |it| it.scope = Some("s".repeat(4_096)),
    // Nine scopes of one provider can be long.
    |it| {
        it.scope = Some(
            (0..9)
                .map(|index| format!("https://www.googleapis.com/auth/some.api.{index}"))
                .collect::<Vec<_>>()
                .join(" "),
        )
    },
    |it| it.scope = Some((0..256).map(|index| format!("s{index:014}")).collect::<Vec<_>>().join(" ")),
    |it| it.scope = Some((0..77).map(|index| format!("s{index:03}")).collect::<Vec<_>>().join(" ")),
    |it| {
        it.scope = Some(('!'..='~').filter(|it| !"\"\\".contains(*it)).map(String::from).collect::<Vec<_>>().join(" "))
    },
    |it| it.parameters = numbered(64),
    |it| it.parameters = fixture::strings([(&*"ж".repeat(128), &*"ж".repeat(2_048))]),
    |it| it.tags = numbered(64),
    |it| it.tags = fixture::strings([(&*"k".repeat(63), &*"ж".repeat(128))]),
    |it| it.redirect_uris = (0..32).map(|index| format!("https://{index}.example.com")).collect(),
    |it| it.redirect_uris = vec![url(2_048)],
    |it| it.redirect_uris = vec!["com.example.app:/callback".to_owned(), "http://127.0.0.1:1234/".to_owned()],
    |it| it.revocation_url = Some(url(2_048)),
    |it| it.jwks_url = Some(url(2_048)),
    |it| it.device_authorization_url = Some(url(2_048)),
    |it| it.token_parameters = numbered(64),
    |it| it.refresh_parameters = numbered(64),
    |it| it.refresh_token_grace_period = Some(fixture::milliseconds(30 * 24 * 3_600_000)),
    |it| it.return_uris = vec![url(2_048); 32],
];

/// Changes just beyond the limits or of a wrong form, with the field that is reported.
const BEYOND: &[(&str, Change)] = &[
    ("connection.name", |it| it.name = String::new()),
    ("connection.name", |it| it.name = "\u{a0} \t".to_owned()),
    ("connection.name", |it| it.name = "n".repeat(65)),
    ("connection.name", |it| it.name = "a\u{0}b".to_owned()),
    ("connection.name", |it| it.name = "a\nb".to_owned()),
    ("connection.name", |it| it.name = "a\u{9f}b".to_owned()),
    ("connection.external_id", |it| it.external_id = Some("e".repeat(65))),
    ("connection.external_id", |it| it.external_id = Some(" ".to_owned())),
    ("connection.external_id", |it| it.external_id = Some("a b".to_owned())),
    ("connection.external_id", |it| it.external_id = Some("a/b".to_owned())),
    ("connection.external_id", |it| it.external_id = Some("ä".to_owned())),
    ("connection.external_id", |it| it.external_id = Some("a\n".to_owned())),
    ("connection.type", |it| it.r#type = 6),
    ("connection.type", |it| it.r#type = -1),
    ("connection.type", |it| it.r#type = i32::MAX),
    ("connection.authentication_url", |it| it.authentication_url = Some(url(2_049))),
    ("connection.authentication_url", |it| it.authentication_url = Some("login.example.com".to_owned())),
    ("connection.authentication_url", |it| it.authentication_url = Some("javascript:alert(1)".to_owned())),
    ("connection.authentication_url", |it| it.authentication_url = Some("https://a:b@example.com".to_owned())),
    ("connection.token_url", |it| it.token_url = Some(url(2_049))),
    ("connection.token_url", |it| it.token_url = Some("/token".to_owned())),
    ("connection.issuer_url", |it| it.issuer_url = Some("i".repeat(2_049))),
    ("connection.issuer_url", |it| it.issuer_url = Some("a\nb".to_owned())),
    ("connection.provider_certificate", |it| it.provider_certificate = Some(certificate(65_537))),
    ("connection.provider_certificate", |it| it.provider_certificate = Some("MAA=".to_owned())),
    // A private key is not a certificate, whatever its label says.
    ("connection.provider_certificate", |it| {
        let key = "MC4CAQAwBQYDK2VwBCIEI".to_owned() + &"A".repeat(43);
        it.provider_certificate = Some(CERTIFICATE.replace("MAYwADAAAwA=", &key));
    }),
    ("connection.provider_certificate", |it| {
        it.provider_certificate = Some("-----BEGIN CERTIFICATE-----\nMAYwADAAAwA=\n".to_owned());
    }),
    ("connection.provider_certificate", |it| {
        it.provider_certificate = Some("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n".to_owned());
    }),
    ("connection.provider_certificate", |it| it.provider_certificate = Some("a\u{0}".to_owned())),
    // A private key does not belong there: every reader would get it.
    ("connection.provider_certificate", |it| {
        it.provider_certificate = Some("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n".to_owned());
    }),
    ("connection.provider_certificate", |it| {
        it.provider_certificate = Some("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=".to_owned());
    }),
    ("connection.client_id", |it| it.client_id = Some("c".repeat(2_049))),
    ("connection.client_id", |it| it.client_id = Some("a\u{1b}b".to_owned())),
    ("connection.client_id", |it| it.client_id = Some("client ".to_owned())),
    ("connection.client_id", |it| it.client_id = Some("cli\u{ad}ent".to_owned())),
    ("connection.client_secrets[0].value", |it| it.client_secrets = vec![secret("a", "secret ")]),
    ("connection.client_secrets[0].value", |it| it.client_secrets = vec![secret("a", "secret\u{200b}")]),
    ("connection.provider_tenant_id", |it| it.provider_tenant_id = Some(" tenant".to_owned())),
    ("connection.developer_account_id", |it| it.developer_account_id = Some("team\u{200d}".to_owned())),
    ("connection.client_secrets", |it| it.client_secrets = secrets(9)),
    ("connection.client_secrets[1].secret_id", |it| it.client_secrets = vec![secret("a", "v"), secret("a", "w")]),
    ("connection.client_secrets[2].secret_id", |it| {
        it.client_secrets = vec![secret("", "v"), secret("a", "w"), secret("", "x")];
    }),
    ("connection.client_secrets[0].secret_id", |it| it.client_secrets = vec![secret(&"i".repeat(33), "v")]),
    ("connection.client_secrets[0].secret_id", |it| it.client_secrets = vec![secret("a\n", "v")]),
    ("connection.client_secrets[0].value", |it| it.client_secrets = vec![secret("a", &"v".repeat(2_049))]),
    ("connection.client_secrets[1].value", |it| it.client_secrets = vec![secret("a", "v"), secret("b", "")]),
    ("connection.user_data_location", |it| it.user_data_location = Some("ch".to_owned())),
    ("connection.user_data_location", |it| it.user_data_location = Some("CHE".to_owned())),
    ("connection.user_data_location", |it| it.user_data_location = Some("XX".to_owned())),
    ("connection.user_data_location", |it| it.user_data_location = Some(" ".to_owned())),
    ("connection.provider_tenant_id", |it| it.provider_tenant_id = Some("t".repeat(257))),
    ("connection.developer_account_id", |it| it.developer_account_id = Some("d".repeat(129))),
    ("connection.supported_content_type", |it| it.supported_content_type = 3),
    ("connection.supported_content_type", |it| it.supported_content_type = -1),
    ("connection.oidc_user_endpoint_url", |it| it.oidc_user_endpoint_url = Some(url(2_049))),
    ("connection.oidc_user_endpoint_url", |it| it.oidc_user_endpoint_url = Some("me".to_owned())),
    ("connection.user_id_expression", |it| it.user_id_expression = Some("{sub}".to_owned() + &"e".repeat(508))),
    ("connection.user_id_expression", |it| it.user_id_expression = Some("{sub}\n".to_owned())),
    ("connection.user_id_expression", |it| it.user_id_expression = Some("sub".to_owned())),
    ("connection.user_id_expression", |it| it.user_id_expression = Some("{sub".to_owned())),
    ("connection.user_id_expression", |it| it.user_id_expression = Some("sub}".to_owned())),
    ("connection.user_id_expression", |it| it.user_id_expression = Some("{sub}{}".to_owned())),
    ("connection.user_id_expression", |it| it.user_id_expression = Some("{a{b}}".to_owned())),
    ("connection.external_id", |it| it.external_id = Some("ext:ext:a".to_owned())),
    ("connection.scope", |it| it.scope = Some("s".repeat(4_097))),
    ("connection.scope", |it| it.scope = Some("s ".repeat(2_048) + "s")),
    ("connection.scope", |it| it.scope = Some("a\tb".to_owned())),
    ("connection.scope", |it| it.scope = Some("read ж".to_owned())),
    ("connection.scope", |it| it.scope = Some("re\"ad".to_owned())),
    ("connection.parameters", |it| it.parameters = numbered(65)),
    ("connection.parameters", |it| it.parameters = fixture::strings([("", "v")])),
    ("connection.parameters", |it| it.parameters = fixture::strings([(&*"p".repeat(129), "v")])),
    ("connection.parameters.p", |it| it.parameters = fixture::strings([("p", &*"v".repeat(2_049))])),
    ("connection.parameters.p", |it| it.parameters = fixture::strings([("p", "a\r\nb")])),
    ("connection.parameters.client_id", |it| it.parameters = fixture::strings([("client_id", "v")])),
    ("connection.parameters.scope", |it| it.parameters = fixture::strings([("scope", "v")])),
    ("connection.token_parameters", |it| it.token_parameters = numbered(65)),
    ("connection.token_parameters.code", |it| it.token_parameters = fixture::strings([("code", "v")])),
    ("connection.refresh_parameters.p", |it| it.refresh_parameters = fixture::strings([("p", "\n")])),
    ("connection.refresh_parameters.grant_type", |it| {
        it.refresh_parameters = fixture::strings([("grant_type", "v")]);
    }),
    ("connection.refresh_token_grace_period", |it| it.refresh_token_grace_period = Some(fixture::milliseconds(0))),
    ("connection.refresh_token_grace_period", |it| {
        it.refresh_token_grace_period = Some(fixture::milliseconds(30 * 24 * 3_600_000 + 1));
    }),
    ("connection.client_authentication", |it| it.client_authentication = 7),
    ("connection.grant_type", |it| it.grant_type = 3),
    ("connection.return_uris", |it| it.return_uris = vec![url(30); 33]),
    ("connection.return_uris[1]", |it| it.return_uris = vec![url(30), "/back".to_owned()]),
    ("connection.linking", |it| it.linking = 4),
    ("connection.linking", |it| it.linking = i32::MIN),
    ("connection.tags", |it| it.tags = numbered(65)),
    ("connection.tags", |it| it.tags = fixture::strings([(&*"k".repeat(64), "v")])),
    ("connection.tags", |it| it.tags = fixture::strings([("a b", "v")])),
    ("connection.tags.k", |it| it.tags = fixture::strings([("k", &*"v".repeat(129))])),
    ("connection.redirect_uris", |it| it.redirect_uris = vec![url(30); 33]),
    ("connection.redirect_uris[0]", |it| it.redirect_uris = vec![url(2_049)]),
    ("connection.redirect_uris[1]", |it| it.redirect_uris = vec![url(30), "https://example.com/#a".to_owned()]),
    ("connection.redirect_uris[0]", |it| it.redirect_uris = vec!["/callback".to_owned()]),
    ("connection.redirect_uris[0]", |it| it.redirect_uris = vec![String::new()]),
    ("connection.redirect_uris[0]", |it| it.redirect_uris = vec!["javascript:alert(1)".to_owned()]),
    ("connection.revocation_url", |it| it.revocation_url = Some(url(2_049))),
    ("connection.jwks_url", |it| it.jwks_url = Some(url(2_049))),
    ("connection.device_authorization_url", |it| it.device_authorization_url = Some(url(2_049))),
];

on_both! {
    async fn limits_hold_exactly(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        for change in WITHIN {
            let connection = changed(*change);
            if let Err(status) = check(&alpha, connection.clone()).await {
                panic!("refused, {status:?}: {connection:?}");
            }
        }
        for (field, change) in BEYOND {
            let refused = check(&alpha, changed(*change)).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);
        }
        assert_eq!(list(&alpha).await, []);
    }

    async fn everything_at_its_limit_is_stored_and_comes_back(backend: Backend) {
        // Together they exceed the default size limit of requests.
        let server = TestServer::start_with(backend, |config| config.limits.max_request_message.0 = 2 << 20).await;
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let long = |length: usize| "ж".repeat(length);
        let given = v1::Connection {
            name: long(64),
            external_id: Some("e".repeat(64)),
            authentication_url: Some(url(2_048)),
            token_url: Some(url(2_048)),
            issuer_url: Some(long(2_048)),
            provider_certificate: Some(certificate(65_536)),
            client_id: Some(long(2_048)),
            client_secrets: (0..8).map(|index| secret(&format!("{index:ж>32}"), &long(2_048))).collect(),
            provider_tenant_id: Some(long(256)),
            developer_account_id: Some(long(128)),
            oidc_user_endpoint_url: Some(url(2_048)),
            user_id_expression: Some(format!("{{sub}}{}", long(507))),
            scope: Some((0..16).map(|index| format!("{index:s>255}")).collect::<Vec<_>>().join(" ")),
            parameters: (0..64).map(|index| (format!("{index:ж>128}"), long(2_048))).collect(),
            tags: (0..64).map(|index| (format!("{index:t>63}"), long(128))).collect(),
            redirect_uris: vec![url(2_048); 32],
            revocation_url: Some(url(2_048)),
            jwks_url: Some(url(2_048)),
            device_authorization_url: Some(url(2_048)),
            return_uris: vec![url(2_048); 32],
            ..a_small_one("")
        };
        let created = create(&alpha, given.clone()).await;
        let mut expected = v1::Connection {
            id: created.id.clone(),
            connector: created.connector.clone(),
            r#type: created.r#type,
            supported_content_type: created.supported_content_type,
            trust_identity_user_id: Some(false),
            require_business_account: Some(false),
            linking: v1::LinkingType::Disabled.into(),
            client_authentication: v1::ClientAuthentication::ClientSecretBasic.into(),
            iss_parameter_supported: Some(false),
            grant_type: v1::ConnectionGrantType::AuthorizationCode.into(),
            active: Some(true),
            create_time: created.create_time,
            update_time: created.update_time,
            etag: created.etag.clone(),
            // The text around it is not kept.
            provider_certificate: Some(CERTIFICATE.to_owned()),
            ..given
        };
        for secret in &mut expected.client_secrets {
            secret.value.clear();
            secret.create_time = created.create_time;
        }
        assert_eq!(get(&alpha, &format!("name:{}", long(64))).await.unwrap(), expected);
        assert_eq!(get(&alpha, &format!("ext:{}", "e".repeat(64))).await.unwrap(), expected);
        assert_eq!(list(&alpha).await, [expected]);
    }

    async fn all_violations_are_reported_at_once(server) {
        let alpha = server.client("alpha");
        let wrong = v1::Connection {
            name: "\u{7}".to_owned(),
            external_id: Some("a b".to_owned()),
            connector: "Gmail".to_owned(),
            r#type: 99,
            authentication_url: Some("x".to_owned()),
            token_url: Some("x".to_owned()),
            issuer_url: Some("\n".to_owned()),
            provider_certificate: Some("\u{0}".to_owned()),
            client_id: Some("\n".to_owned()),
            client_secrets: vec![secret("a", "****"), secret("a", "ok"), secret("\n", "ok")],
            user_data_location: Some("Mars".to_owned()),
            provider_tenant_id: Some("\n".to_owned()),
            developer_account_id: Some("\n".to_owned()),
            supported_content_type: 99,
            oidc_user_endpoint_url: Some("x".to_owned()),
            user_id_expression: Some("\n".to_owned()),
            scope: Some("\n".to_owned()),
            parameters: fixture::strings([("", ""), ("p", "\n")]),
            linking: 99,
            tags: fixture::strings([("", ""), ("t", "\n")]),
            redirect_uris: vec!["x".to_owned(), url(30), "y".to_owned()],
            revocation_url: Some("x".to_owned()),
            jwks_url: Some("x".to_owned()),
            device_authorization_url: Some("x".to_owned()),
            client_authentication: 99,
            token_parameters: fixture::strings([("state", ""), ("p", "\n")]),
            refresh_parameters: fixture::strings([("", "")]),
            return_uris: vec!["x".to_owned()],
            refresh_token_grace_period: Some(fixture::milliseconds(-1)),
            ..Default::default()
        };
        let fields: Vec<String> = [
            "name",
            "external_id",
            "connector",
            "type",
            "authentication_url",
            "token_url",
            "issuer_url",
            "provider_certificate",
            "client_id",
            "client_secrets[0].value",
            "client_secrets[1].secret_id",
            "client_secrets[2].secret_id",
            "user_data_location",
            "provider_tenant_id",
            "developer_account_id",
            "supported_content_type",
            "oidc_user_endpoint_url",
            "user_id_expression",
            "scope",
            "parameters",
            "parameters.p",
            "linking",
            "tags",
            "tags.t",
            "redirect_uris[0]",
            "redirect_uris[2]",
            "revocation_url",
            "jwks_url",
            "device_authorization_url",
            "client_authentication",
            "token_parameters.p",
            "token_parameters.state",
            "refresh_parameters",
            "return_uris[0]",
            "refresh_token_grace_period",
        ]
        .map(|field| format!("connection.{field}"))
        .to_vec();
        let with = |more: &[&'static str]| fields.iter().map(|it| &**it).chain(more.to_vec()).collect::<Vec<&str>>();
        let request = v1::CreateConnectionRequest {
            connection: Some(wrong.clone()),
            id: "1".to_owned(),
            request_id: "2".to_owned(),
            ..Default::default()
        };
        let refused = alpha.connections().create_connection(request).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&with(&["id", "request_id"]));
        let request = v1::UpdateConnectionRequest {
            reference: "nothing".to_owned(),
            connection: Some(wrong),
            request_id: "2".to_owned(),
            ..Default::default()
        };
        let refused = alpha.connections().update_connection(request).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&with(&["reference", "request_id"]));
        let refused = alpha.connections().create_connection(v1::CreateConnectionRequest::default()).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connection"]);
        let refused = alpha.connections().update_connection(v1::UpdateConnectionRequest::default()).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connection", "reference"]);
        let refused = check(&alpha, v1::Connection::default()).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&["connection.name", "connection.connector"]);
    }
}

/// Tries to create a connection with `validate_only`.
async fn check(client: &Client, connection: v1::Connection) -> Result<Response<v1::CreateConnectionResponse>, Status> {
    let request =
        v1::CreateConnectionRequest { connection: Some(connection), validate_only: true, ..Default::default() };
    client.connections().create_connection(request).await
}

fn changed(change: Change) -> v1::Connection {
    let mut connection = a_small_one("x");
    change(&mut connection);
    connection
}

fn secret(secret_id: &str, value: &str) -> v1::ClientSecret {
    v1::ClientSecret { secret_id: secret_id.to_owned(), value: value.to_owned(), create_time: None }
}

fn secrets(count: usize) -> Vec<v1::ClientSecret> {
    (0..count).map(|index| secret(&index.to_string(), "v")).collect()
}

/// A URL of this many characters.
fn url(length: usize) -> String {
    const START: &str = "https://example.com/";
    format!("{START}{}", "u".repeat(length - START.len()))
}

/// A PEM certificate after enough explanatory text to make this many characters.
/// The smallest text of the form of a certificate.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAYwADAAAwA=\n-----END CERTIFICATE-----\n";

/// A certificate with text before it.
fn certificate(length: usize) -> String {
    format!("{}\n{CERTIFICATE}", "ж".repeat(length - CERTIFICATE.len() - 1))
}
