//! Systems that do not answer as the protocol says: one outcome for the caller, the exact reason in the log.

use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_testkit::{Client, Identity, Reply, System, TestServer, expect_status, fixture, logs, on_both};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tonic::Code;

use super::{USER_ID, a_login, a_system, connector, create, log_in};

/// The reason that the log has for the last fault of a connector.
pub(crate) fn logged(connector: &str) -> String {
    let log = logs::text();
    let line =
        log.lines().rev().find(|line| line.contains("a log-in could not be checked") && line.contains(connector));
    let line: Value =
        serde_json::from_str(line.unwrap_or_else(|| panic!("no fault of {connector} is logged"))).unwrap();
    line["fields"]["error.type"].as_str().unwrap().to_owned()
}

/// The reason for which a log-in could not be checked.
pub(super) async fn fault(client: &Client, connector: v1::Connector) -> String {
    let connector = create(client, connector).await;
    let response = log_in(client, a_login(&connector.id, "ada", "right")).await;
    assert_eq!(response.outcome(), v1::LoginOutcome::UpstreamFault);
    assert_eq!((response.user, response.registrations), (None, Vec::new()));
    logged(&connector.id)
}

/// A server that accepts connections and hands them to a function.
#[expect(clippy::disallowed_methods, reason = "the task ends with the test")]
pub(super) async fn raw<F: Future<Output = ()> + Send + 'static>(
    handle: impl Fn(TcpStream) -> F + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/login", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    url
}

pub(super) fn plain(url: &str, timeouts: [i64; 3]) -> v1::Connector {
    let [connect, read, total] = timeouts.map(|timeout| Some(fixture::milliseconds(timeout)));
    let generic = v1::GenericConnector { authentication_url: url.to_owned(), ..Default::default() };
    v1::Connector {
        kind: Some(v1::connector::Kind::Generic(generic)),
        connect_timeout: connect,
        read_timeout: read,
        total_timeout: total,
        ..fixture::a_connector(url)
    }
}

pub(super) async fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"}}") {
        let mut bytes = [0; 1024];
        match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&bytes[..read]),
        }
    }
}

fn user(members: Value) -> String {
    json!({ "user": members }).to_string()
}

on_both! {
    async fn bodies_that_are_no_user_are_named(server) {
        let alpha = server.client("alpha");
        let nested = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        let wide = format!("{{\"user\": {{\"data\": {{\"a\": [{}1]}}}}}}", "[],".repeat(100_000));
        let one = json!({ "id": USER_ID, "email": "a@example.com" });
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("BODY_MALFORMED", b"<html><body>welcome</body></html>".to_vec()),
            ("BODY_MALFORMED", Vec::new()),
            ("BODY_MALFORMED", nested.into_bytes()),
            ("BODY_MALFORMED", format!("{{\"user\": {one}, \"user\": {one}}}").into_bytes()),
            ("BODY_MALFORMED", json!({ "user": [one, one] }).to_string().into_bytes()),
            ("BODY_NOT_UTF8", b"{\"user\": \"\xff\xfe\"}".to_vec()),
            ("BODY_TOO_LARGE", vec![b' '; 10 * 1024 * 1024]),
            ("USER_MISSING", b"{}".to_vec()),
            ("USER_ID_INVALID", user(json!({ "email": "a@example.com" })).into_bytes()),
            ("USER_ID_INVALID", user(json!({ "id": "7", "email": "a@example.com" })).into_bytes()),
            ("BODY_MALFORMED", wide.into_bytes()),
            ("BODY_MALFORMED", user(json!({ "id": USER_ID, "email": "a@example.com", "active": "false" })).into_bytes()),
            ("BODY_MALFORMED", user(json!({ "id": USER_ID, "email": "a@example.com", "expiry": "2020-01-01" })).into_bytes()),
            ("USER_UNNAMED", user(json!({ "id": USER_ID, "firstName": "Ada" })).into_bytes()),
            ("USER_UNNAMED", user(json!({ "id": USER_ID, "email": "a".repeat(300) })).into_bytes()),
            ("USER_INVALID", user(json!({ "id": USER_ID, "email": "a", "data": { "a": vec![0; 2_500] } })).into_bytes()),
        ];
        for (index, (reason, body)) in cases.into_iter().enumerate() {
            let system = System::start(move |_| Reply::new(200, body.clone())).await;
            let connector = connector(&alpha, &system, &format!("case {index}")).await;
            assert_eq!(fault(&alpha, connector).await, reason, "case {index}");
        }
    }

    async fn a_redirect_is_not_followed(server) {
        let alpha = server.client("alpha");
        let elsewhere = a_system().await;
        let location = elsewhere.url("/login");
        let system = System::start(move |_| Reply {
            headers: vec![("location", location.clone())],
            ..Reply::new(302, "")
        })
        .await;
        let connector = connector(&alpha, &system, "moved").await;
        assert_eq!(fault(&alpha, connector).await, "STATUS_UNEXPECTED");
        assert_eq!(elsewhere.received().len(), 0);
    }

    async fn connections_that_fail_are_named(server) {
        let alpha = server.client("alpha");
        let silent = raw(|mut stream| async move {
            read_request(&mut stream).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
        })
        .await;
        assert_eq!(fault(&alpha, plain(&silent, [1_000, 200, 10_000])).await, "READ_TIMEOUT");

        let trickling = raw(|mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
            while stream.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let start = Instant::now();
        assert_eq!(fault(&alpha, plain(&trickling, [500, 500, 600])).await, "TOTAL_TIMEOUT");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

        let reset = raw(|mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"user\"").await;
        })
        .await;
        assert_eq!(fault(&alpha, plain(&reset, [1_000, 1_000, 10_000])).await, "CONNECTION_LOST");

        let no_http = raw(|mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        })
        .await;
        assert_eq!(fault(&alpha, plain(&no_http, [1_000, 1_000, 10_000])).await, "RESPONSE_MALFORMED");
        assert_eq!(fault(&alpha, plain("http://127.0.0.1:1025/login", [500, 500, 1_000])).await, "CONNECT_FAILED");
    }

    async fn flaws_of_certificates_are_named(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let known = connector(&alpha, &system, "known").await;
        let trust = known.trust_bundle_key.clone();
        let untrusted = v1::Connector {
            name: "untrusted".to_owned(),
            trust_bundle_key: None,
            ..known.clone()
        };
        assert_eq!(fault(&alpha, untrusted).await, "SERVER_CERTIFICATE_INVALID");
        let anonymous = v1::Connector { name: "anonymous".to_owned(), client_identity_key: None, ..known.clone() };
        assert_eq!(fault(&alpha, anonymous).await, "CLIENT_CERTIFICATE_REFUSED");
        let stranger = connector(&alpha, &a_system().await, "of another authority").await;
        let stranger = v1::Connector {
            name: "stranger".to_owned(),
            client_identity_key: stranger.client_identity_key,
            trust_bundle_key: trust,
            ..known
        };
        assert_eq!(fault(&alpha, stranger).await, "CLIENT_CERTIFICATE_REFUSED");
    }

    async fn what_only_checks_a_change_leaves_the_circuit_open(server) {
        let alpha = server.client("alpha");
        let system = System::start(|_| Reply::new(503, "")).await;
        let connector = create(&alpha, super::connector(&alpha, &system, "directory").await).await;
        for _ in 0..5 {
            log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
        }
        let open = async |change: &str| {
            log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
            assert_eq!((logged(&connector.id), system.received().len()), ("CIRCUIT_OPEN".to_owned(), 5), "{change}");
        };
        open("none").await;
        let update = async |debug, validate_only| {
            let connector_with = v1::Connector { debug: Some(debug), ..Default::default() };
            let request = v1::UpdateConnectorRequest {
                reference: connector.id.clone(),
                connector: Some(connector_with),
                validate_only,
                ..Default::default()
            };
            alpha.connectors().update_connector(request).await.unwrap();
        };
        update(true, true).await;
        open("an update that is validated").await;
        update(false, false).await;
        open("an update that changes nothing").await;
        let json = r#"{"debug": true}"#.to_owned();
        let request = v1::PatchConnectorRequest {
            reference: connector.id.clone(),
            patch: Some(v1::patch_connector_request::Patch::MergePatch(v1::JsonMergePatch { json })),
            validate_only: true,
            ..Default::default()
        };
        alpha.connectors().patch_connector(request).await.unwrap();
        open("a patch that is validated").await;
        let reference = connector.id.clone();
        let request = v1::DeleteConnectorRequest { reference, validate_only: true, ..Default::default() };
        alpha.connectors().delete_connector(request).await.unwrap();
        open("a deletion that is validated").await;
        update(true, false).await;
        log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
        assert_eq!(system.received().len(), 6, "another definition has a circuit of its own");
    }

    async fn the_deadline_of_the_caller_ends_the_call(server) {
        let alpha = server.client("alpha");
        let silent = raw(|mut stream| async move {
            read_request(&mut stream).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
        })
        .await;
        let connector = create(&alpha, plain(&silent, [1_000, 20_000, 30_000])).await;
        let mut request = tonic::Request::new(a_login(&connector.id, "ada", "right"));
        // Long enough for a busy machine, and far below the timeouts of the connector.
        request.set_timeout(Duration::from_secs(3));
        // On a busy machine the deadline can pass while the answer is on its way.
        match alpha.connectors().authenticate_user(request).await {
            Ok(response) => assert_eq!(response.into_inner().outcome(), v1::LoginOutcome::UpstreamFault),
            Err(status) => assert_eq!(status.code(), Code::Cancelled),
        }
        assert_eq!(logged(&connector.id), "CALLER_TIMEOUT");
    }

    async fn a_call_that_its_caller_cancels_ends_and_its_attempt_stays_counted(backend: Backend) {
        let server = TestServer::start_with(backend, |config| config.login.attempts_per_user = 1).await;
        let alpha = server.client("alpha");
        let (says, mut said) = mpsc::unbounded_channel();
        let silent = raw(move |mut stream| {
            let says = says.clone();
            async move {
                read_request(&mut stream).await;
                says.send("asked").unwrap();
                // Returns at the end of the connection, and if it is reset.
                let _ = stream.read(&mut [0]).await;
                says.send("left").unwrap();
            }
        })
        .await;
        let connector = create(&alpha, plain(&silent, [1_000, 150_000, 150_000])).await;
        let (caller, login) = (alpha.clone(), a_login(&connector.id, "ada", "right"));
        let call = tokio::spawn(async move { caller.connectors().authenticate_user(login).await });
        assert_eq!(said.recv().await, Some("asked"));
        call.abort();
        // Far below the timeouts of the connector.
        let next = tokio::time::timeout(Duration::from_secs(20), said.recv()).await;
        assert_eq!(next.expect("the connection stays open"), Some("left"));
        let over = alpha.connectors().authenticate_user(a_login(&connector.id, "ada", "right")).await;
        expect_status(over, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
        assert!(said.try_recv().is_err(), "the system is not asked again");
    }

    async fn an_identity_that_expires_is_named_by_the_system(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let leaf = system.pki().client_for(Identity::of("short"), Duration::from_secs(2));
        let imported = v1::KeyImport { certificate_pem: leaf.certificate_pem, private_key_pem: leaf.key_pem };
        let connector = create(&alpha, connector(&alpha, &system, "short").await).await;
        let rotation = v1::RotateKeyRequest {
            reference: connector.client_identity_key.clone().unwrap(),
            material: Some(v1::rotate_key_request::Material::Imported(imported)),
            ..Default::default()
        };
        alpha.keys().rotate_key(rotation).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let response = log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
        assert_eq!(response.outcome(), v1::LoginOutcome::UpstreamFault);
        assert_eq!(logged(&connector.id), "CLIENT_CERTIFICATE_REFUSED");
    }
}
