//! AuthenticateUser: what a system is asked, and what its responses become.

mod accounts;
mod attempts;
mod egress;
pub(crate) mod events;
pub(crate) mod faults;
mod known;
mod locked;
mod migrate;
mod swaps;
mod timing;

use jackfield_api::v1;
use jackfield_testkit::{
    Backend, Client, ConnectProxy, Identity, Reply, System, TestServer, expect_status, fixture, on_both,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tonic::Code;

use crate::key;

pub(crate) const USER_ID: &str = "11111111-1111-4111-8111-111111111111";

/// The response of a system that accepts a log-in.
pub(crate) fn a_user() -> Value {
    json!({ "user": {
        "id": USER_ID, "username": "ada", "email": "ada@example.com", "mobilePhone": "+41791234567", "firstName": "Ada",
        "lastName": "Lovelace", "data": { "plan": 7 }, "passwordChangeRequired": false,
        "registrations": [{ "applicationId": "app", "roles": ["admin", "user"], "verified": true }],
    } })
}

/// A system that knows the user "ada" with the password "right", and answers 404 to everything else.
pub(crate) async fn a_system() -> System {
    System::start(|request| {
        let login: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        match (login["loginId"].as_str(), login["password"].as_str()) {
            (Some("ada"), Some("right")) => Reply::new(200, a_user().to_string()),
            _ => Reply::new(404, ""),
        }
    })
    .await
}

/// A connector for a system, with a client identity that the system accepts.
pub(crate) async fn connector(client: &Client, system: &System, name: &str) -> v1::Connector {
    let leaf = system.pki().client(Identity::of(name));
    let identity = v1::ImportKeyRequest {
        key: Some(v1::Key {
            name: format!("{name}: identity"),
            certificate_pem: leaf.certificate_pem,
            ..Default::default()
        }),
        private_key_pem: leaf.key_pem,
        ..Default::default()
    };
    let identity = key::import(client, identity).await;
    with_identity(client, system, name, &identity.id).await
}

/// A connector for a system, with this client identity.
pub(crate) async fn with_identity(client: &Client, system: &System, name: &str, identity: &str) -> v1::Connector {
    let key = v1::Key { name: format!("{name}: trust"), certificate_pem: system.pki().ca_pem(), ..Default::default() };
    let trust = key::import(client, v1::ImportKeyRequest { key: Some(key), ..Default::default() }).await;
    let generic = v1::GenericConnector { authentication_url: system.url("/login?tenant=a"), ..Default::default() };
    v1::Connector {
        client_identity_key: Some(identity.to_owned()),
        trust_bundle_key: Some(trust.id),
        kind: Some(v1::connector::Kind::Generic(generic)),
        ..fixture::a_connector(name)
    }
}

/// Rotates a key to another identity that a system accepts.
async fn rotate(client: &Client, system: &System, key: &str) -> v1::Key {
    let leaf = system.pki().client(Identity::of("another"));
    let imported = v1::KeyImport { certificate_pem: leaf.certificate_pem, private_key_pem: leaf.key_pem };
    let rotation = v1::RotateKeyRequest {
        reference: key.to_owned(),
        material: Some(v1::rotate_key_request::Material::Imported(imported)),
        ..Default::default()
    };
    client.keys().rotate_key(rotation).await.unwrap().into_inner().key.unwrap()
}

/// The certificate of a key, as DER.
pub(crate) fn der(key: &v1::Key) -> Vec<u8> {
    CertificateDer::from_pem_slice(key.certificate_pem.as_bytes()).unwrap().to_vec()
}

/// A server whose policy allows the name "localhost", and a system with a proxy in front.
pub(crate) async fn behind_a_proxy(backend: Backend) -> (TestServer, System, ConnectProxy) {
    let allow = vec!["localhost".to_owned()];
    let server = TestServer::start_with(backend, |config| config.egress.allow = allow).await;
    let system = a_system().await;
    let proxy = ConnectProxy::start(system.address(), "jackfield", "password of the proxy").await;
    (server, system, proxy)
}

/// A connector whose system is behind a proxy, with a password. Nothing listens at the port of its URL: the proxy leads elsewhere.
pub(crate) fn behind(proxy: &ConnectProxy, password: &str, connector: v1::Connector) -> v1::Connector {
    let authentication_url = "https://localhost:1025/login".to_owned();
    let generic = v1::GenericConnector { authentication_url, ..Default::default() };
    v1::Connector {
        kind: Some(v1::connector::Kind::Generic(generic)),
        egress_proxy: Some(proxy.url()),
        egress_proxy_username: Some("jackfield".to_owned()),
        egress_proxy_password: password.to_owned(),
        ..connector
    }
}

pub(crate) async fn create(client: &Client, connector: v1::Connector) -> v1::Connector {
    let request = v1::CreateConnectorRequest { connector: Some(connector), ..Default::default() };
    client.connectors().create_connector(request).await.unwrap().into_inner().connector.unwrap()
}

pub(crate) fn a_login(connector: &str, login_id: &str, password: &str) -> v1::AuthenticateUserRequest {
    v1::AuthenticateUserRequest {
        connector: connector.to_owned(),
        login_id: login_id.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    }
}

pub(crate) async fn log_in(client: &Client, request: v1::AuthenticateUserRequest) -> v1::AuthenticateUserResponse {
    client.connectors().authenticate_user(request).await.unwrap().into_inner()
}

async fn outcome(server: &TestServer, reply: Reply) -> v1::LoginOutcome {
    let alpha = server.client("alpha");
    let system = System::start(move |_| reply.clone()).await;
    let name = format!("system {}", system.url(""));
    let connector = create(&alpha, connector(&alpha, &system, &name).await).await;
    let response = log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
    assert_eq!(system.received().len(), 1, "it is asked once");
    assert_eq!((response.connector.as_str(), response.user.is_some()), (connector.id.as_str(), response.outcome == 1));
    response.outcome()
}

on_both! {
    async fn the_system_is_asked_as_fusionauth_asks_and_its_user_comes_back(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let mut definition = connector(&alpha, &system, "directory").await;
        definition.headers = fixture::strings([("x-plain", "plain")]);
        definition.secret_headers = fixture::strings([("x-secret", "secret of the header")]);
        if let Some(v1::connector::Kind::Generic(generic)) = &mut definition.kind {
            generic.http_authentication_username = Some("jackfield".to_owned());
            generic.http_authentication_password = "basic password".to_owned();
        }
        let connector = create(&alpha, definition).await;
        let event_info = v1::LoginEventInfo {
            ip_address: "2001:db8::1".to_owned(),
            user_agent: "Mozilla/5.0".to_owned(),
            device_name: "phone".to_owned(),
            device_type: "MOBILE".to_owned(),
        };
        let request = v1::AuthenticateUserRequest {
            application_id: "app".to_owned(),
            no_jwt: true,
            new_device: true,
            event_info: Some(event_info),
            ..a_login("name:Directory", "ada", "right")
        };
        let response = log_in(&alpha, request).await;

        let [received] = &system.received()[..] else { panic!("it is asked once") };
        assert_eq!(received.line, "POST /login?tenant=a");
        let header = |name| received.headers[name].to_str().unwrap();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!((header("x-plain"), header("x-secret")), ("plain", "secret of the header"));
        // "jackfield:basic password" in base64.
        assert_eq!(header("authorization"), "Basic amFja2ZpZWxkOmJhc2ljIHBhc3N3b3Jk");
        assert!(!received.certificate.is_empty());
        assert_eq!(serde_json::from_slice::<Value>(&received.body).unwrap(), json!({
            "loginId": "ada", "password": "right", "applicationId": "app", "noJWT": true, "newDevice": true,
            "eventInfo": {
                "ipAddress": "2001:db8::1", "userAgent": "Mozilla/5.0", "deviceName": "phone", "deviceType": "MOBILE",
            },
        }));

        let user = v1::AuthenticatedUser {
            id: USER_ID.to_owned(),
            username: "ada".to_owned(),
            email: "ada@example.com".to_owned(),
            phone_number: "+41791234567".to_owned(),
            first_name: "Ada".to_owned(),
            last_name: "Lovelace".to_owned(),
            data: response.user.as_ref().unwrap().data.clone(),
        };
        assert_eq!(user.data.as_ref().unwrap().fields["plan"].kind, Some(prost_types::value::Kind::NumberValue(7.0)));
        let roles = ["admin", "user"].map(str::to_owned).to_vec();
        let expected = v1::AuthenticateUserResponse {
            outcome: v1::LoginOutcome::Accepted.into(),
            user: Some(user),
            registrations: vec![v1::UserRegistration { application_id: "app".to_owned(), roles }],
            connector: connector.id,
        };
        assert_eq!(response, expected);
    }

    async fn an_unknown_user_and_a_wrong_password_are_one_outcome(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let connector = create(&alpha, connector(&alpha, &system, "directory").await).await;
        let wrong = log_in(&alpha, a_login(&connector.id, "ada", "wrong")).await;
        let unknown = log_in(&alpha, a_login(&connector.id, "stranger", "right")).await;
        assert_eq!(wrong.outcome(), v1::LoginOutcome::Rejected);
        assert_eq!(wrong, unknown);
    }

    async fn log_ins_are_counted_by_connector_and_status(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let connector = create(&alpha, connector(&alpha, &system, "directory").await).await;
        for password in ["right", "wrong", "right"] {
            log_in(&alpha, a_login(&connector.id, "ada", password)).await;
        }
        let of_status = |status| {
            let labels = [("connector", &*connector.id), ("http_response_status_code", status)];
            server.metric("http_client_request_duration_seconds_count", &labels)
        };
        assert_eq!((of_status("200"), of_status("404"), of_status("500")), (Some(2.0), Some(1.0), None));
        for text in ["/login", "tenant=a"] {
            assert!(!server.metrics_page().contains(text), "{text}");
        }
    }

    async fn statuses_reject_or_are_faults(server) {
        assert_eq!(outcome(&server, Reply::new(404, "no")).await, v1::LoginOutcome::Rejected);
        for status in [201, 204, 304, 400, 401, 403, 408, 422, 429, 500, 503] {
            assert_eq!(outcome(&server, Reply::new(status, "")).await, v1::LoginOutcome::UpstreamFault, "{status}");
        }
        let moved = Reply { headers: vec![("location", "http://169.254.169.254/".to_owned())], ..Reply::new(302, "") };
        assert_eq!(outcome(&server, moved).await, v1::LoginOutcome::UpstreamFault);
    }
}

on_both! {
    async fn a_swapped_identity_is_presented_on_the_next_request(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let connector = create(&alpha, connector(&alpha, &system, "directory").await).await;
        log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
        let rotated = rotate(&alpha, &system, connector.client_identity_key()).await;
        log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
        let [before, after] = &system.received()[..] else { panic!("it is asked twice") };
        assert_ne!(before.certificate, after.certificate);
        assert_eq!(after.certificate, der(&rotated));
    }

    async fn a_changed_definition_is_used_at_once(server) {
        let alpha = server.client("alpha");
        let (first, second) = (a_system().await, a_system().await);
        let before = create(&alpha, connector(&alpha, &first, "first").await).await;
        log_in(&alpha, a_login(&before.id, "ada", "right")).await;
        let changed = connector(&alpha, &second, "second").await;
        let request = v1::UpdateConnectorRequest {
            reference: before.id.clone(),
            connector: Some(v1::Connector {
                secret_headers: fixture::strings([("x-secret", "for the second")]),
                ..changed
            }),
            ..Default::default()
        };
        alpha.connectors().update_connector(request).await.unwrap();
        log_in(&alpha, a_login(&before.id, "ada", "right")).await;
        assert_eq!((first.received().len(), second.received().len()), (1, 1));
        assert!(!first.received()[0].headers.contains_key("x-secret"));
        assert_eq!(second.received()[0].headers["x-secret"], "for the second");
    }

    async fn a_connector_that_cannot_check_log_ins_is_refused(server) {
        let alpha = server.client("alpha");
        let oauth2 = create(&alpha, fixture::an_oauth2_connector("oauth2")).await;
        let refused = alpha.connectors().authenticate_user(a_login(&oauth2.id, "ada", "right")).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connector"]);
        let disabled = v1::Connector { enabled: Some(false), ..fixture::a_connector("disabled") };
        let disabled = create(&alpha, disabled).await;
        let refused = alpha.connectors().authenticate_user(a_login(&disabled.id, "ada", "right")).await;
        expect_status(refused, Code::FailedPrecondition, "CONNECTOR_DISABLED");
        let refused = alpha.connectors().authenticate_user(a_login("name:none", "ada", "right")).await;
        expect_status(refused, Code::NotFound, "CONNECTOR_NOT_FOUND");
        let of_beta = create(&server.client("beta"), fixture::a_connector("of beta")).await;
        let refused = alpha.connectors().authenticate_user(a_login(&of_beta.id, "ada", "right")).await;
        expect_status(refused, Code::NotFound, "CONNECTOR_NOT_FOUND");
    }

    async fn a_request_says_all_that_is_wrong_with_it(server) {
        let alpha = server.client("alpha");
        let event_info = v1::LoginEventInfo {
            ip_address: "localhost".to_owned(),
            user_agent: "a".repeat(1_025),
            device_name: "a\nb".to_owned(),
            device_type: "t".repeat(65),
        };
        let request = v1::AuthenticateUserRequest {
            login_id: "l".repeat(257),
            password: "p".repeat(1_025),
            application_id: "a".repeat(129),
            event_info: Some(event_info),
            ..Default::default()
        };
        let fields = [
            "login_id",
            "password",
            "application_id",
            "event_info.ip_address",
            "event_info.user_agent",
            "event_info.device_name",
            "event_info.device_type",
        ];
        let refused = alpha.connectors().authenticate_user(request).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&fields);
        let refused = alpha.connectors().authenticate_user(a_login("name:a", " ", "")).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["login_id", "password"]);
    }
}
