//! TestConnector: the verdicts of stored connectors and of definitions that are not stored.

mod license;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use jackfield_api::v1;
use jackfield_api::v1::test_connector_request::Definition;
use jackfield_api::v1::{ConnectorTestReason as Reason, ConnectorTestResult as Outcome, ConnectorTestStep as Step};
use jackfield_testkit::{Client, Config, Reply, System, TestServer, expect_status, fixture, logs, on_both};
use tokio::net::TcpListener;
use tonic::{Code, Request};

use crate::login::faults::logged;
use crate::login::{a_login, a_system, a_user, behind, behind_a_proxy, connector, create, log_in};

fn stored(reference: &str) -> v1::TestConnectorRequest {
    let definition = Some(Definition::Reference(reference.to_owned()));
    v1::TestConnectorRequest { definition, ..Default::default() }
}

pub(crate) fn inline(connector: v1::Connector) -> v1::TestConnectorRequest {
    v1::TestConnectorRequest { definition: Some(Definition::Connector(connector)), ..Default::default() }
}

fn with_login(request: v1::TestConnectorRequest, login_id: &str, password: &str) -> v1::TestConnectorRequest {
    v1::TestConnectorRequest { login_id: login_id.to_owned(), password: password.to_owned(), ..request }
}

/// The verdicts of a test, one for each step in order.
pub(crate) async fn verdicts(
    client: &Client,
    request: impl tonic::IntoRequest<v1::TestConnectorRequest>,
) -> Vec<v1::TestConnectorResponse> {
    let stream = client.connectors().test_connector(request).await.unwrap().into_inner();
    let verdicts: Vec<_> = stream.map(Result::unwrap).collect().await;
    let steps: Vec<i32> = verdicts.iter().map(|verdict| verdict.step).collect();
    assert_eq!(steps, (1..=11).collect::<Vec<i32>>());
    verdicts
}

fn found(verdicts: &[v1::TestConnectorResponse], step: Step) -> (Outcome, Reason) {
    let verdict = verdicts.iter().find(|verdict| verdict.step() == step).unwrap();
    (verdict.result(), verdict.reason())
}

fn fact<'a>(verdicts: &'a [v1::TestConnectorResponse], step: Step, name: &str) -> &'a str {
    let verdict = verdicts.iter().find(|verdict| verdict.step() == step).unwrap();
    &verdict.facts.iter().find(|fact| fact.name == name).unwrap_or_else(|| panic!("no {name} in {verdict:?}")).value
}

/// The verdicts for a system that follows the protocol.
fn expect_good(verdicts: &[v1::TestConnectorResponse]) {
    let expected = [
        (Outcome::Ok, Reason::Passed),
        (Outcome::Ok, Reason::Passed),
        (Outcome::Ok, Reason::Passed),
        (Outcome::Ok, Reason::Passed),
        (Outcome::Ok, Reason::Passed),
        (Outcome::Skipped, Reason::NoProxy),
        (Outcome::Ok, Reason::Passed),
        (Outcome::Ok, Reason::ClientCertificateAccepted),
        (Outcome::Ok, Reason::CredentialsNotRequired),
        (Outcome::Ok, Reason::LoginRejected),
        (Outcome::Skipped, Reason::BodyNotExpected),
    ];
    let found: Vec<_> = verdicts.iter().map(|verdict| (verdict.result(), verdict.reason())).collect();
    assert_eq!(found, expected, "{verdicts:#?}");
}

on_both! {
    async fn a_stored_connector_is_called_with_its_keys_and_secrets(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let mut definition = connector(&alpha, &system, "directory").await;
        definition.secret_headers = fixture::strings([("x-secret", "secret of the header")]);
        definition.enabled = Some(false);
        let connector = create(&alpha, definition).await;
        let verdicts = verdicts(&alpha, stored("name:Directory")).await;
        assert_eq!(found(&verdicts, Step::ClientCertificate), (Outcome::Ok, Reason::ClientCertificateAccepted));
        assert_eq!(found(&verdicts, Step::Authentication), (Outcome::Ok, Reason::CredentialsAccepted));
        assert_eq!(found(&verdicts, Step::Status), (Outcome::Ok, Reason::LoginRejected));
        assert_eq!(fact(&verdicts, Step::Tls, "version"), "TLSv1_3");
        assert_eq!(fact(&verdicts, Step::Tls, "key_exchange_group"), "X25519MLKEM768");
        let names = fact(&verdicts, Step::Definition, "client_identity.names");
        assert_eq!(names, "URI:spiffe://test.jackfield/directory");
        assert!(verdicts.iter().all(|verdict| verdict.duration.is_some() && !verdict.message.is_empty()));
        assert!(!format!("{verdicts:?}").contains("secret of the header"));

        let [received] = &system.received()[..] else { panic!("it is called once") };
        assert_eq!(received.headers["x-secret"], "secret of the header");
        let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
        assert!(body["loginId"].as_str().unwrap().starts_with("jackfield-test-"), "{body}");
        let of_connector = [("connector", &*connector.id), ("http_response_status_code", "404")];
        assert_eq!(server.metric("http_client_request_duration_seconds_count", &of_connector), Some(1.0));
    }

    async fn a_stored_connector_is_called_through_its_proxy(backend: Backend) {
        let (server, system, proxy) = behind_a_proxy(backend).await;
        let alpha = server.client("alpha");
        let definition = connector(&alpha, &system, "directory").await;
        let right = behind(&proxy, "password of the proxy", definition.clone());
        let right = create(&alpha, right).await.id;
        let right = verdicts(&alpha, with_login(stored(&right), "ada", "right")).await;
        assert_eq!(found(&right, Step::Proxy), (Outcome::Ok, Reason::Passed));
        assert_eq!(found(&right, Step::Body), (Outcome::Ok, Reason::Passed));
        assert_eq!((proxy.requests().len(), system.received().len()), (1, 1));

        let wrong = v1::Connector { name: "wrong".to_owned(), ..behind(&proxy, "another", definition) };
        let wrong = create(&alpha, wrong).await.id;
        let wrong = verdicts(&alpha, with_login(stored(&wrong), "ada", "right")).await;
        assert_eq!(found(&wrong, Step::Proxy), (Outcome::Failed, Reason::ProxyAuthenticationFailed));
        assert_eq!(found(&wrong, Step::Body), (Outcome::Skipped, Reason::PreviousStepFailed));
        for verdicts in [right, wrong] {
            let shown = format!("{verdicts:?}");
            assert!(!shown.contains("password of the proxy") && !shown.contains("another"), "{shown}");
        }
        assert_eq!((proxy.requests().len(), system.received().len()), (2, 1));
    }

    async fn no_more_of_a_body_is_read_than_the_connector_allows(server) {
        let alpha = server.client("alpha");
        let body = format!("{:1500}", a_user().to_string());
        let system = System::start(move |_| Reply::new(200, body.clone())).await;
        let definition = connector(&alpha, &system, "directory").await;
        for (most, expected) in [(1_499, (Outcome::Failed, Reason::BodyTooLarge)), (1_500, (Outcome::Ok, Reason::Passed))] {
            let name = format!("of {most}");
            let definition = v1::Connector { name, max_response_bytes: Some(most), ..definition.clone() };
            let id = create(&alpha, definition).await.id;
            let verdicts = verdicts(&alpha, with_login(stored(&id), "ada", "right")).await;
            assert_eq!(found(&verdicts, Step::Body), expected, "{most}");
        }
    }

    async fn a_definition_is_tested_before_it_is_stored(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let definition = connector(&alpha, &system, "directory").await;
        expect_good(&verdicts(&alpha, inline(definition.clone())).await);
        let mut secret = definition.clone();
        if let Some(v1::connector::Kind::Generic(generic)) = &mut secret.kind {
            generic.http_authentication_username = Some("jackfield".to_owned());
            generic.http_authentication_password = "basic password".to_owned();
        }
        let shown = verdicts(&alpha, inline(secret)).await;
        assert_eq!(found(&shown, Step::Authentication), (Outcome::Ok, Reason::CredentialsAccepted));
        assert!(!format!("{shown:?}").contains("basic password"));
        // "jackfield:basic password" in base64.
        assert_eq!(system.received()[1].headers["authorization"], "Basic amFja2ZpZWxkOmJhc2ljIHBhc3N3b3Jk");

        let missing = alpha.connectors().test_connector(stored("name:directory")).await;
        assert_eq!(missing.unwrap_err().code(), Code::NotFound, "nothing is stored");
        create(&alpha, definition).await;
    }

    async fn a_real_login_shows_whether_the_user_can_be_read(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let connector = create(&alpha, connector(&alpha, &system, "directory").await).await;
        let right = verdicts(&alpha, with_login(stored(&connector.id), "ada", "right")).await;
        assert_eq!(found(&right, Step::Status), (Outcome::Ok, Reason::LoginAccepted));
        assert_eq!(found(&right, Step::Body), (Outcome::Ok, Reason::Passed));
        assert_eq!(fact(&right, Step::Body, "registrations"), "1");
        let shown = format!("{right:?}");
        assert!(!shown.contains("Lovelace") && !shown.contains("ada@"), "the user is not shown: {shown}");
        let wrong = verdicts(&alpha, with_login(stored(&connector.id), "ada", "wrong")).await;
        assert_eq!(found(&wrong, Step::Status), (Outcome::Failed, Reason::LoginRejected));
        assert_eq!(found(&wrong, Step::Body), (Outcome::Skipped, Reason::PreviousStepFailed));
    }

    async fn what_is_permitted_in_spite_of_a_rule_has_its_cause_in_the_message(backend: Backend) {
        let allow = |config: &mut Config| config.egress.allow = vec!["10.9.0.0/16".to_owned()];
        let server = TestServer::start_with(backend, allow).await;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let message = |verdicts: &[v1::TestConnectorResponse], step: Step| {
            verdicts.iter().find(|verdict| verdict.step() == step).unwrap().message.clone()
        };
        let of_system = verdicts(&alpha, inline(connector(&alpha, &system, "directory").await)).await;
        expect_good(&of_system);
        assert!(message(&of_system, Step::Dns).contains("because development mode allows loopback"), "{of_system:?}");
        let generic =
            v1::GenericConnector { authentication_url: "https://10.9.8.7/login".to_owned(), ..Default::default() };
        let definition = v1::Connector {
            kind: Some(v1::connector::Kind::Generic(generic)),
            connect_timeout: Some(fixture::milliseconds(100)),
            ..fixture::a_connector("allowed")
        };
        let everything = logs::everything();
        let of_address = verdicts(&alpha, inline(definition)).await;
        let log = logs::text();
        drop(everything);
        let of_policy = message(&of_address, Step::EgressPolicy);
        assert!(of_policy.contains("because egress.allow has \"10.9.0.0/16\""), "{of_policy}");
        let line = log.lines().find(|line| line.contains("what an entry of egress.allow permits") && line.contains("10.9.0.0/16"));
        assert!(line.is_some_and(|line| line.contains("\"tenant.id\"")), "{line:?}");
    }

    async fn what_cannot_be_called_is_a_verdict_and_not_an_error(server) {
        let alpha = server.client("alpha");
        for (url, step, reason) in [
            ("https://10.0.0.1/login", Step::EgressPolicy, Reason::EgressRefused),
            ("https://example.com:22/login", Step::EgressPolicy, Reason::EgressRefused),
            ("https://0x7f.1/login", Step::Url, Reason::UrlInvalid),
        ] {
            let generic = v1::GenericConnector { authentication_url: url.to_owned(), ..Default::default() };
            let kind = Some(v1::connector::Kind::Generic(generic));
            let verdicts = verdicts(&alpha, inline(v1::Connector { kind, ..fixture::a_connector("new") })).await;
            assert_eq!(found(&verdicts, step), (Outcome::Failed, reason), "{url}");
            let verdict = verdicts.iter().find(|verdict| verdict.step() == step).unwrap();
            assert!(!verdict.hint.is_empty() && verdict.facts.is_empty(), "{verdict:?}");
            assert_eq!(found(&verdicts, Step::Body), (Outcome::Skipped, Reason::PreviousStepFailed), "{url}");
        }
        let basic = v1::connector::Kind::HttpBasic(v1::HttpBasicConnector::default());
        let without_url = v1::Connector { kind: Some(basic), ..fixture::a_connector("new") };
        let verdicts = verdicts(&alpha, inline(without_url)).await;
        assert_eq!(found(&verdicts, Step::Definition), (Outcome::Ok, Reason::Passed));
        assert_eq!(found(&verdicts, Step::Url), (Outcome::Skipped, Reason::UrlMissing));
    }

    async fn tests_do_not_open_the_circuit(server) {
        let alpha = server.client("alpha");
        let system = System::start(|_| Reply::new(503, "")).await;
        let connector = create(&alpha, connector(&alpha, &system, "directory").await).await;
        for _ in 0..6 {
            let verdicts = verdicts(&alpha, stored(&connector.id)).await;
            assert_eq!(found(&verdicts, Step::Status), (Outcome::Failed, Reason::StatusUnexpected));
        }
        log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
        assert_eq!(system.received().len(), 7, "the log-in is sent");
    }

    async fn a_test_of_a_stored_connector_takes_a_place_of_its_requests(server) {
        let alpha = server.client("alpha");
        // The system accepts connections and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/", silent.local_addr().unwrap().port());
        let generic = v1::GenericConnector { authentication_url: url, ..Default::default() };
        let [connect_timeout, read_timeout] = [200, 20_000].map(|time| Some(fixture::milliseconds(time)));
        let definition = v1::Connector {
            kind: Some(v1::connector::Kind::Generic(generic)),
            connect_timeout,
            read_timeout,
            max_concurrent_requests: Some(1),
            ..fixture::a_connector("narrow")
        };
        let connector = create(&alpha, definition.clone()).await;
        let tested = |request| {
            let mut request = Request::new(request);
            request.set_timeout(Duration::from_secs(3));
            verdicts(&alpha, request)
        };
        let (one, other) = tokio::join!(tested(stored(&connector.id)), tested(stored(&connector.id)));
        let mut steps = [found(&one, Step::Dns), found(&other, Step::Dns)];
        steps.sort_by_key(|(_, reason)| *reason as i32);
        assert_eq!(steps, [(Outcome::Ok, Reason::Passed), (Outcome::Failed, Reason::Busy)]);
        // What is not stored has no limit to share.
        let (_, inline) = tokio::join!(tested(stored(&connector.id)), tested(inline(definition)));
        assert_eq!(found(&inline, Step::Status), (Outcome::Failed, Reason::CallerTimeout));
    }

    /// A test that its client does not read ends as any answer that is not read, and gives its place back.
    async fn a_test_that_is_not_read_gives_its_place_back(backend: Backend) {
        let server = TestServer::start_with(backend, |config| config.limits.write_stall_timeout = Duration::from_secs(8));
        let server = server.await;
        let alpha = server.client("alpha");
        // The system accepts connections and says nothing, so the test does not get to its end before there is something to read.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", silent.local_addr().unwrap().port());
        let generic = v1::GenericConnector { authentication_url: url, ..Default::default() };
        let definition = v1::Connector {
            kind: Some(v1::connector::Kind::Generic(generic)),
            connect_timeout: Some(fixture::milliseconds(1_000)),
            max_concurrent_requests: Some(1),
            ..fixture::a_connector("narrow")
        };
        let connector = create(&alpha, definition).await;
        let is_busy = async || {
            let response = log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
            assert_eq!(response.outcome(), v1::LoginOutcome::UpstreamFault);
            match logged(&connector.id).as_str() {
                "BUSY" => true,
                "CONNECT_TIMEOUT" => false,
                other => panic!("{other}"),
            }
        };
        let begin = Instant::now();
        // No window is open for the verdicts, so the test stops at the first step that waits.
        let unread = server.http2("alpha", 0).await;
        let unread = unread.call("/jackfield.v1.ConnectorService/TestConnector", &stored(&connector.id)).await.unwrap();
        // The call is answered before the test asks for the place.
        while !is_busy().await {
            assert!(begin.elapsed() < Duration::from_secs(30), "the test has not taken the place");
        }
        while is_busy().await {
            assert!(begin.elapsed() < Duration::from_secs(60), "the test has not given its place back");
        }
        assert!(begin.elapsed() > Duration::from_secs(7), "{:?}", begin.elapsed());
        assert_eq!(server.metric("jackfield_server_streams_stalled_total", &[]), Some(1.0));
        drop(unread);
    }

    async fn an_endpoint_that_the_server_calls_gets_the_identity(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let oauth2 = v1::OAuth2Connector {
            authorization_url: Some("https://login.example.com/authorize".to_owned()),
            token_url: Some(system.url("/token")),
            ..Default::default()
        };
        let definition = v1::Connector {
            kind: Some(v1::connector::Kind::Oauth2(oauth2)),
            ..connector(&alpha, &system, "provider").await
        };
        let verdicts = verdicts(&alpha, inline(definition)).await;
        assert_eq!(found(&verdicts, Step::ClientCertificate), (Outcome::Ok, Reason::ClientCertificateAccepted));
        assert_eq!(system.received()[0].line, "GET /token");
    }

    async fn the_deadline_of_the_call_is_a_verdict(server) {
        let alpha = server.client("alpha");
        // It accepts connections and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", silent.local_addr().unwrap().port());
        let generic = v1::GenericConnector { authentication_url: url, ..Default::default() };
        let kind = Some(v1::connector::Kind::Generic(generic));
        let [connect_timeout, total_timeout] = [30_000, 60_000].map(|time| Some(fixture::milliseconds(time)));
        let connector = v1::Connector { kind, connect_timeout, total_timeout, ..fixture::a_connector("silent") };
        let mut request = Request::new(inline(connector));
        request.set_timeout(Duration::from_secs(2));
        let verdicts = verdicts(&alpha, request).await;
        assert_eq!(found(&verdicts, Step::Tcp), (Outcome::Ok, Reason::Passed));
        assert_eq!(found(&verdicts, Step::Tls), (Outcome::Failed, Reason::CallerTimeout));
    }

    async fn requests_that_are_wrong_are_refused(server) {
        let alpha = server.client("alpha");
        let test = async |request: v1::TestConnectorRequest| {
            let response = alpha.connectors().test_connector(request).await;
            response.map(|response| response.map(drop))
        };
        let refused = test(v1::TestConnectorRequest::default()).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["definition"]);
        let refused = test(stored("")).await;
        expect_status(refused, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["reference"]);
        let refused = test(stored("name:none")).await;
        expect_status(refused, Code::NotFound, "CONNECTOR_NOT_FOUND");
        let of_beta = create(&server.client("beta"), fixture::a_connector("of beta")).await;
        expect_status(test(stored(&of_beta.id)).await, Code::NotFound, "CONNECTOR_NOT_FOUND");

        let refused = test(inline(v1::Connector { name: String::new(), ..fixture::a_connector("new") })).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connector.name"]);
        let key = Some("name:none".to_owned());
        let refused = test(inline(v1::Connector { trust_bundle_key: key, ..fixture::a_connector("new") })).await;
        expect_status(refused, Code::NotFound, "KEY_NOT_FOUND");
        let mut placeholder = fixture::a_connector("new");
        placeholder.secret_headers = fixture::strings([("x-secret", "****")]);
        expect_status(test(inline(placeholder)).await, Code::InvalidArgument, "PLACEHOLDER_SECRET");

        let refused = test(with_login(inline(fixture::a_connector("new")), "", "right")).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["password"]);
        let refused = test(with_login(inline(fixture::a_connector("new")), "ada", "")).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["password"]);
        let refused = test(with_login(inline(fixture::an_oauth2_connector("new")), "ada", "right")).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["login_id"]);
    }
}
