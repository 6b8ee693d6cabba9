//! The policy in the connector: what it refuses receives no packet.

use jackfield_upstream::client::Definition;
use jackfield_upstream::egress::{Policy, Refusal, Rule};
use jackfield_upstream::error::Fault;

use crate::pki::Authority;
use crate::server::Server;
use crate::support::{Answers, client, definition, development, fail, get, network};

async fn canary() -> Server {
    Server::plain(|peer| peer.serve("reached")).await
}

fn rule(fault: &Fault) -> Option<Rule> {
    match fault {
        Fault::Refused(Refusal::Address { rule, .. }) => Some(*rule),
        _ => None,
    }
}

#[tokio::test]
async fn names_that_resolve_to_forbidden_addresses_are_not_dialled() {
    let server = canary().await;
    let url = format!("https://login.example:{}/", server.port());
    for answer in [&["127.0.0.1"][..], &["::ffff:127.0.0.1"], &["8.8.8.8", "127.0.0.1"], &["127.0.0.1", "8.8.8.8"]] {
        let answers = Answers::of(answer);
        let client = client(network(Policy::default(), answers.clone()), definition(&url));
        let error = fail(&client, &url).await;
        assert_eq!((rule(&error.fault), error.sent), (Some(Rule::Loopback), false), "{answer:?}");
        assert_eq!((error.fault.reason(), answers.asked()), ("EGRESS_REFUSED", 1));
    }
    for (answer, expected) in [("169.254.169.254", Rule::Metadata), ("10.0.0.1", Rule::Private)] {
        let client = client(network(Policy::default(), Answers::of(&[answer])), definition(&url));
        assert_eq!(rule(&fail(&client, &url).await.fault), Some(expected));
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn literal_addresses_are_refused_without_a_resolver() {
    let server = canary().await;
    let answers = Answers::of(&["8.8.8.8"]);
    let client = client(network(Policy::default(), answers.clone()), definition("https://login.example/"));
    for host in ["127.0.0.1", "[::1]", "[::ffff:7f00:1]", "10.0.0.1", "169.254.169.254", "[64:ff9b::7f00:1]", "0.0.0.0"]
    {
        let error = fail(&client, &format!("https://{host}:{}/", server.port())).await;
        assert!(rule(&error.fault).is_some(), "{host}: {error:?}");
    }
    for host in ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "１２７.0.0.1"] {
        let error = fail(&client, &format!("https://{host}:{}/", server.port())).await;
        assert!(matches!(error.fault, Fault::Refused(Refusal::Url(_))), "{host}: {error:?}");
    }
    assert_eq!((server.accepted(), answers.asked()), (0, 0));
}

#[tokio::test]
async fn redirects_are_responses_and_not_followed() {
    let canary = canary().await;
    let location = format!("http://127.0.0.1:{}/latest/meta-data", canary.port());
    let text = format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    let server = Server::plain(move |mut peer| {
        let text = text.clone();
        async move {
            peer.request().await;
            peer.send(text).await;
        }
    })
    .await;
    let url = format!("http://localhost:{}/", server.port());
    let client = client(development(), definition(&url));
    let response = get(&client, &url).await;
    assert_eq!((response.status.as_u16(), response.headers["location"].to_str().unwrap()), (302, &*location));
    assert_eq!((server.accepted(), canary.accepted()), (1, 0));
}

#[tokio::test]
async fn http_names_that_leave_this_machine_are_not_dialled() {
    let policy = Policy::default().with_development().allow("10.0.0.0/8").unwrap();
    let client = client(network(policy, Answers::of(&["127.0.0.1", "10.0.0.1"])), definition("http://localhost:3000/"));
    let error = fail(&client, "http://localhost:3000/").await;
    assert!(matches!(error.fault, Fault::Refused(Refusal::PlainHttpAddress { .. })), "{error:?}");
}

#[tokio::test]
async fn what_the_operator_allows_is_dialled() {
    let authority = Authority::new("authority");
    let server = Server::tls(authority.server("login.example", None), |peer| peer.serve("hello")).await;
    let url = format!("https://login.example:{}/", server.port());
    for entry in ["login.example", "127.0.0.0/8", "127.0.0.1"] {
        let policy = Policy::default().allow(entry).unwrap();
        let definition = Definition { trust: authority.trust(), ..definition(&url) };
        let client = client(network(policy, Answers::of(&["127.0.0.1"])), definition);
        assert_eq!(get(&client, &url).await.body, "hello");
    }
    assert_eq!(server.accepted(), 3);
}
