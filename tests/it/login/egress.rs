//! The way to a system: the egress policy, proxies, name servers, and how much of a response is read.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::{Program, Reply, Site, System, TestServer, expect_status, on_both};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tonic::Code;

use super::events::{even, events, faulty};
use super::faults::{fault, logged, plain, raw, read_request};
use super::{a_login, a_system, a_user, behind, behind_a_proxy, connector, create, log_in};
use crate::connector::try_create;

const URL: &str = "connector.generic.authentication_url";
const PROXY: &str = "connector.egress_proxy";

on_both! {
    async fn urls_that_cannot_be_called_are_refused_when_they_are_stored(server) {
        let alpha = server.client("alpha");
        let rule = |rule: &str| format!("cannot be called: the address is refused by the rule {rule}: the operator has to allow it");
        let form = |host: &str| {
            format!("cannot be called: the host must be written as {host:?}, because that is what would be called")
        };
        let port = |port: u16| {
            format!("cannot be called: port {port} is not permitted: use 443, or 1024 and above")
        };
        for (url, description) in [
            ("https://user:password@example.com/", "must not contain user information".to_owned()),
            ("https://example.com/#fragment", "must not have a fragment".to_owned()),
            ("ftp://example.com/", "must be an absolute http or https URL".to_owned()),
            ("http://example.com/", "cannot be called: http is for loopback in development mode only: use https".to_owned()),
            ("https://exämple.com/", form("xn--exmple-cua.com")),
            // Its first letter is Cyrillic.
            ("https://\u{430}pple.com/", form("xn--pple-43d.com")),
            ("https://xn--pple-43d.com\u{200b}/", "must not contain blanks, backslashes or control characters".to_owned()),
            ("https://example.com:0/", port(0)),
            ("https://example.com:22/", port(22)),
            ("https://example.com./", "cannot be called: the host must not end with a dot".to_owned()),
            ("https://0x7f.1/", form("127.0.0.1")),
            ("https://017700000001/", form("127.0.0.1")),
            ("https://10.0.0.1/", rule("private")),
            ("https://169.254.169.254/latest/meta-data", rule("metadata")),
            ("https://169.254.1.1/", rule("link_local")),
            ("https://100.64.0.1/", rule("shared")),
            ("https://[::ffff:10.0.0.1]/", form("[::ffff:a00:1]")),
            ("https://[::ffff:a00:1]/", rule("private")),
            ("https://[64:ff9b::a00:1]/", rule("nat64")),
            ("https://[2a00::5efe:a00:1]/", rule("embedded_ipv4")),
            ("https://[fd00:ec2::254]/", rule("metadata")),
            ("https://[fd00::1]/", rule("unique_local")),
        ] {
            let definition = v1::Connector { name: "refused".to_owned(), ..plain(url, [1_000, 1_000, 1_000]) };
            let refused = expect_status(try_create(&alpha, definition).await, Code::InvalidArgument, "FIELD_INVALID");
            refused.expect_fields(&[URL]);
            assert_eq!(refused.description(URL), description, "{url}");
        }
        // The proxy has to be allowed as well, and it would resolve the name.
        let name = "cannot be called: the name is refused by the rule local_name; the proxy resolves names, so only the name was checked";
        for (proxy, url, expected) in [
            ("http://10.0.0.1:3128", "https://example.com/", vec![(PROXY, rule("private"))]),
            ("http://proxy.example:22", "https://example.com/", vec![(PROXY, port(22).replace("443", "80"))]),
            ("http://proxy.example:3128", "https://vault/", vec![(URL, name.to_owned())]),
            ("http://proxy.example:3128", "https://10.0.0.1/", vec![(URL, rule("private"))]),
            ("http://proxy.example:3128", "http://localhost/", vec![(URL, "cannot be called: only https goes through a proxy".to_owned())]),
            ("http://10.0.0.1:3128", "https://vault/", vec![(URL, name.to_owned()), (PROXY, rule("private"))]),
        ] {
            let definition = v1::Connector { egress_proxy: Some(proxy.to_owned()), ..plain(url, [1_000, 1_000, 1_000]) };
            let refused = expect_status(try_create(&alpha, definition).await, Code::InvalidArgument, "FIELD_INVALID");
            refused.expect_fields(&expected.iter().map(|(field, _)| *field).collect::<Vec<_>>());
            for (field, description) in &expected {
                assert_eq!(refused.description(field), description, "{proxy} {url}");
            }
        }
    }

    async fn the_policy_counts_when_a_stored_url_is_called(backend: Backend) {
        let allow = vec!["10.0.0.0/8".to_owned()];
        let mut server = TestServer::start_with(backend, |config| config.egress.allow = allow).await;
        let alpha = server.client("alpha");
        let definition = v1::Connector {
            debug: Some(true),
            ..plain("https://10.255.255.1:8443/login", [200, 200, 1_000])
        };
        let connector = create(&alpha, definition).await;
        log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
        assert_ne!(logged(&connector.id), "EGRESS_REFUSED");
        server.config_mut().egress.allow.clear();
        server.restart().await;
        let alpha = server.client("alpha");
        let response = log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
        assert_eq!(response.outcome(), v1::LoginOutcome::UpstreamFault);
        assert_eq!(logged(&connector.id), "EGRESS_REFUSED");
        let events = events(&alpha, &connector.id, 2).await;
        let cause = "the address is refused by the rule private: the operator has to allow it";
        assert_eq!(even(&events[1]), faulty(&connector.id, "ada", "EGRESS_REFUSED", None, cause));
        // A change of something else does not ask for another URL.
        let request = v1::UpdateConnectorRequest {
            reference: connector.id,
            connector: Some(v1::Connector { description: Some("moves soon".to_owned()), ..Default::default() }),
            ..Default::default()
        };
        alpha.connectors().update_connector(request).await.unwrap();
    }

    async fn the_configured_name_servers_are_asked(backend: Backend) {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![socket.local_addr().unwrap().to_string()];
        let server = TestServer::start_with(backend, |config| config.egress.dns_servers = servers).await;
        let refuse = async {
            let mut query = [0; 512];
            loop {
                let (length, client) = socket.recv_from(&mut query).await.unwrap();
                assert!(query.windows(5).any(|label| label == b"login"), "{:?}", &query[..length]);
                // A response with the code REFUSED (RFC 1035 4.1.1).
                query[2] |= 0x80;
                query[3] = 0x85;
                socket.send_to(&query[..length], client).await.unwrap();
            }
        };
        let alpha = server.client("alpha");
        let reason = fault(&alpha, plain("https://login.example/", [5_000, 1_000, 10_000]));
        tokio::select! {
            reason = reason => assert_eq!(reason, "NAME_SERVERS_FAILED"),
            () = refuse => {}
        }
    }
}

on_both! {
    async fn a_stored_connector_is_called_through_its_proxy_with_the_sealed_password(backend: Backend) {
        let (server, system, proxy) = behind_a_proxy(backend).await;
        let alpha = server.client("alpha");
        let definition = connector(&alpha, &system, "directory").await;
        let definition = v1::Connector { debug: Some(true), ..behind(&proxy, "password of the proxy", definition) };
        let id = create(&alpha, definition).await.id;
        assert_eq!(log_in(&alpha, a_login(&id, "ada", "right")).await.outcome(), v1::LoginOutcome::Accepted);
        // "jackfield:password of the proxy" in base64.
        let credentials = "proxy-authorization: Basic amFja2ZpZWxkOnBhc3N3b3JkIG9mIHRoZSBwcm94eQ==";
        let tunnel = format!("CONNECT localhost:1025 HTTP/1.1\r\nhost: localhost:1025\r\n{credentials}\r\n\r\n");
        assert_eq!(proxy.requests(), [tunnel]);
        let [received] = &system.received()[..] else { panic!("it is asked once") };
        assert_eq!((&*received.line, &received.headers["host"]), ("POST /login", &"localhost:1025".parse().unwrap()));
        assert!(!received.headers.contains_key("proxy-authorization"), "the system is not the proxy");
        assert!(!received.certificate.is_empty(), "the identity goes through the tunnel");

        let request = v1::UpdateConnectorRequest {
            reference: id.clone(),
            connector: Some(v1::Connector { egress_proxy_password: "another".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        alpha.connectors().update_connector(request).await.unwrap();
        assert_eq!(log_in(&alpha, a_login(&id, "ada", "right")).await.outcome(), v1::LoginOutcome::UpstreamFault);
        let events = events(&alpha, &id, 2).await;
        let cause = "the proxy: it refused with status 407";
        assert_eq!(even(&events[1]), faulty(&id, "ada", "PROXY_FAILED", None, cause));
        assert_eq!((proxy.requests().len(), system.received().len()), (2, 1));
    }

    async fn no_more_of_a_body_is_read_than_the_connector_allows(server) {
        let alpha = server.client("alpha");
        let body = format!("{:1500}", a_user().to_string());
        assert_eq!(body.len(), 1_500);
        let system = System::start(move |_| Reply::new(200, body.clone())).await;
        let definition = connector(&alpha, &system, "directory").await;
        for (most, reason) in [(1_499, "BODY_TOO_LARGE"), (1_500, "SYSTEM_ACCEPTED")] {
            let name = format!("of {most}");
            let definition = v1::Connector {
                name,
                max_response_bytes: Some(most),
                debug: Some(true),
                ..definition.clone()
            };
            let id = create(&alpha, definition).await.id;
            log_in(&alpha, a_login(&id, "ada", "right")).await;
            let [event] = &events(&alpha, &id, 1).await[..] else { panic!("it is one log-in") };
            assert_eq!(event.reason, reason, "{most}: {event:?}");
        }
    }

    /// Programs often take a proxy from these variables. Here only the connector names one.
    async fn no_environment_variable_names_a_proxy(backend: Backend) {
        let mut site = Site::new(backend, Program::Jackfield);
        // A proxy could be asked for this name.
        site.config_mut().egress.allow = vec!["localhost".to_owned()];
        site.prepare().await;
        let lure = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", lure.local_addr().unwrap());
        let server = site.start_by(|command| {
            for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"] {
                command.env(name, &url).env(name.to_lowercase(), &url);
            }
        });
        let alpha = server.client("alpha");
        let system = a_system().await;
        let secure = connector(&alpha, &system, "secure").await;
        let secure = create(&alpha, secure).await.id;
        let in_plaintext = raw(|mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        })
        .await;
        let in_plaintext = create(&alpha, plain(&in_plaintext, [1_000, 1_000, 10_000])).await.id;
        let log_ins = async {
            assert_eq!(log_in(&alpha, a_login(&secure, "ada", "right")).await.outcome(), v1::LoginOutcome::Accepted);
            let rejected = log_in(&alpha, a_login(&in_plaintext, "ada", "right")).await;
            assert_eq!(rejected.outcome(), v1::LoginOutcome::Rejected);
        };
        tokio::select! {
            _ = lure.accept() => panic!("the proxy of the environment is used"),
            () = log_ins => {}
        }
        assert_eq!(system.received().len(), 1);
        tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
        let accepted = tokio::time::timeout(Duration::from_millis(10), lure.accept()).await;
        assert!(accepted.is_err(), "nothing has connected up to the end");
    }
}
