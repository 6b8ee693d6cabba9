//! Client certificates, trust and TLS sessions.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use jackfield_domain::Secret;
use jackfield_upstream::client::{Definition, header_of};
use jackfield_upstream::error::Fault;
use jackfield_upstream::tls::{
    ClientCertificateFault, Identity, IdentityError, ServerCertificateFault, TlsFault, Trust, TrustError,
};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};

use crate::pki::{Authority, Content, HOUR, Leaf};
use crate::server::{Server, header};
use crate::support::{client, definition, development, fail, fault, get};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

pub(crate) fn with_identity(url: &str, authority: &Authority, leaf: &Leaf) -> Definition {
    Definition { identity: Some(leaf.identity()), trust: authority.trust(), ..definition(url) }
}

#[tokio::test]
async fn flaws_of_client_certificates_are_named_in_both_versions_of_tls() {
    use ClientCertificateFault as Refused;
    let authority = Authority::new("authority");
    let content = Content::client("caller.example");
    let expired = authority.issue(&Content { validity: (-2 * HOUR, -HOUR), ..content.clone() });
    let not_yet = authority.issue(&Content { validity: (HOUR, 2 * HOUR), ..content.clone() });
    let for_servers = authority.issue(&Content { usage: ExtendedKeyUsagePurpose::ServerAuth, ..content.clone() });
    let foreign = Authority::new("another authority").issue(&content);
    for version in VERSIONS {
        let config = authority.server_of(&Content::server("localhost"), Some(&authority), &[version]);
        let server = Server::tls(config, |peer| peer.serve("welcome")).await;
        let url = format!("https://localhost:{}/", server.port());
        let right = client(development(), with_identity(&url, &authority, &authority.issue(&content)));
        assert_eq!(get(&right, &url).await.body, "welcome");
        let none = Definition { trust: authority.trust(), ..definition(&url) };
        for (definition, expected) in [
            (with_identity(&url, &authority, &expired), Refused::Expired),
            (with_identity(&url, &authority, &not_yet), Refused::NotYetValid), // the server has one alert for both
            (with_identity(&url, &authority, &foreign), Refused::UnknownAuthority),
            (with_identity(&url, &authority, &for_servers), Refused::WrongUsage),
            (none, Refused::Required),
        ] {
            let mut definition = definition;
            definition.limits.failures = 1000;
            let client = client(development(), definition);
            // In TLS 1.3 the client has finished the handshake when the server refuses: the alert may come at any time.
            for _ in 0..20 {
                let error = fail(&client, &url).await;
                assert_eq!(error.fault, Fault::Tls(TlsFault::ClientCertificate(expected)), "{version:?}");
                assert!(!error.sent || *version == TLS13, "nothing is sent before the end of the handshake");
            }
        }
    }
}

#[tokio::test]
async fn flaws_of_server_certificates_are_named() {
    use ServerCertificateFault as Flaw;
    let (authority, other) = (Authority::new("authority"), Authority::new("another authority"));
    let right = Content::server("localhost");
    for (content, trust, expected) in [
        (Content::server("login.example"), authority.trust(), Flaw::OtherHost),
        (Content { validity: (-2 * HOUR, -HOUR), ..right.clone() }, authority.trust(), Flaw::Expired),
        (Content { validity: (HOUR, 2 * HOUR), ..right.clone() }, authority.trust(), Flaw::NotYetValid),
        (Content::client("localhost"), authority.trust(), Flaw::WrongUsage),
        (right.clone(), other.trust(), Flaw::UnknownAuthority),
        (right.clone(), Trust::public(), Flaw::UnknownAuthority),
    ] {
        let config = authority.server_of(&content, None, rustls::ALL_VERSIONS);
        let server = Server::tls(config, |peer| peer.serve("never")).await;
        let url = format!("https://localhost:{}/", server.port());
        let client = client(development(), Definition { trust, ..definition(&url) });
        let error = fail(&client, &url).await;
        assert_eq!((error.fault, error.sent), (Fault::Tls(TlsFault::ServerCertificate(expected)), false));
    }
}

#[tokio::test]
async fn a_server_without_tls_is_named() {
    let server = Server::plain(|mut peer| async move { peer.send("HTTP/1.1 400 Bad Request\r\n\r\n").await }).await;
    let url = format!("https://localhost:{}/", server.port());
    assert_eq!(fault(&client(development(), definition(&url)), &url).await, Fault::Tls(TlsFault::NoTls));
}

#[tokio::test]
async fn sessions_are_resumed_by_the_same_client_only() {
    let authority = Authority::new("authority");
    for version in VERSIONS {
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let seen_by_server = seen.clone();
        let config = authority.server_of(&Content::server("localhost"), Some(&authority), &[version]);
        let server = Server::tls(config, move |mut peer| {
            let seen = seen_by_server.clone();
            async move {
                peer.request().await;
                seen.lock().unwrap().push((peer.handshake.unwrap(), peer.certificate.clone().unwrap()));
                peer.send("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
            }
        })
        .await;
        let url = format!("https://localhost:{}/", server.port());
        let (old, new) = (authority.client("old.example"), authority.client("new.example"));
        for leaf in [&old, &new] {
            let client = client(development(), with_identity(&url, &authority, leaf));
            for _ in 0..3 {
                get(&client, &url).await;
            }
        }
        let seen = seen.lock().unwrap();
        let kinds: Vec<_> = seen.iter().map(|(kind, _)| *kind == HandshakeKind::Resumed).collect();
        assert_eq!(kinds, [false, true, true, false, true, true], "{version:?}");
        let is_old = |(_, certificate): &(_, Vec<u8>)| *certificate == old.der().to_vec();
        assert_eq!(seen.iter().map(is_old).collect::<Vec<_>>(), [true, true, true, false, false, false]);
    }
}

#[tokio::test]
async fn other_origins_do_not_learn_who_we_are() {
    let authority = Authority::new("authority");
    let seen: Arc<Mutex<Vec<_>>> = Arc::default();
    let mut servers = Vec::new();
    for _ in 0..2 {
        let seen = seen.clone();
        let config = authority.server_that_asks("localhost");
        let server = Server::tls(config, move |mut peer| {
            let seen = seen.clone();
            async move {
                let request = peer.request().await.unwrap();
                seen.lock().unwrap().push((peer.certificate.is_some(), header(&request, "x-key").is_some()));
                peer.respond("").await;
            }
        });
        servers.push(server.await);
    }
    let [own, other] = [0, 1].map(|index: usize| format!("https://localhost:{}/", servers[index].port()));
    let mut definition = with_identity(&own, &authority, &authority.client("caller.example"));
    definition.headers.extend([header_of("x-key", "canary", true).unwrap()]);
    let client = client(development(), definition);
    get(&client, &own).await;
    get(&client, &other).await;
    assert_eq!(*seen.lock().unwrap(), [(true, true), (false, false)]);
    assert!(!format!("{client:?}").contains("canary"));
}

/// A connection is kept as long as the certificates that it rests on are valid, and so is a session. After that, both sides have to show
/// what they have.
#[tokio::test]
async fn no_connection_and_no_session_is_used_after_the_end_of_a_certificate() {
    let authority = Authority::new("authority");
    let soon = |content: Content| Content { validity: (-HOUR, 3), ..content };
    for version in VERSIONS {
        for (server_ends, client_ends) in [(true, false), (false, true)] {
            let content = Content::server("localhost");
            let content = if server_ends { soon(content) } else { content };
            let config = authority.server_of(&content, Some(&authority), &[version]);
            let kinds: Arc<Mutex<Vec<_>>> = Arc::default();
            let seen = kinds.clone();
            let server = Server::tls(config, move |mut peer| {
                let seen = seen.clone();
                async move {
                    while let Some(request) = peer.request().await {
                        seen.lock().unwrap().push(peer.handshake.unwrap());
                        let close = if request.contains("/close") { "connection: close\r\n" } else { "" };
                        peer.send(format!("HTTP/1.1 200 OK\r\n{close}content-length: 0\r\n\r\n")).await;
                    }
                }
            })
            .await;
            let url = format!("https://localhost:{}/", server.port());
            let leaf = Content::client("caller.example");
            let leaf = authority.issue(&if client_ends { soon(leaf) } else { leaf });
            let client = client(development(), with_identity(&url, &authority, &leaf));
            get(&client, &format!("{url}close")).await;
            for _ in 0..3 {
                get(&client, &url).await;
            }
            assert_eq!((server.accepted(), client.idle()), (2, 1));
            assert_eq!(kinds.lock().unwrap()[1], HandshakeKind::Resumed, "{version:?}");
            tokio::time::sleep(Duration::from_secs(4)).await;
            let fault = fault(&client, &url).await;
            match server_ends {
                true => assert_eq!(fault, Fault::Tls(TlsFault::ServerCertificate(ServerCertificateFault::Expired))),
                false => assert_eq!(fault, Fault::Tls(TlsFault::ClientCertificate(ClientCertificateFault::Expired))),
            }
            assert_eq!((server.accepted(), kinds.lock().unwrap().len()), (3, 4), "{version:?}");
        }
    }
}

#[test]
fn unusable_identities_and_bundles_are_refused_with_the_reason() {
    let authority = Authority::new("authority");
    let (one, two) = (authority.client("one.example"), authority.client("two.example"));
    let identity =
        |certificate: &str, key: &str| Identity::from_pem(certificate, &Secret::new(key.into())).unwrap_err();
    assert_eq!(identity(&one.certificate, &two.key), IdentityError::OtherKey);
    assert_eq!(identity("", &one.key), IdentityError::NoCertificate);
    assert_eq!(identity(&one.certificate, ""), IdentityError::NoPrivateKey);
    assert_eq!(identity(&one.certificate, &(one.key.clone() + &two.key)), IdentityError::SeveralPrivateKeys);
    assert!(matches!(identity(&one.key, &one.key), IdentityError::Certificate(_)));
    assert!(matches!(identity(&one.certificate, &one.certificate), IdentityError::PrivateKey(_)));
    let encrypted = one.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let error = identity(&one.certificate, &encrypted).to_string();
    assert!(error.contains("ENCRYPTED PRIVATE KEY") && !error.contains(one.key.lines().nth(1).unwrap()), "{error}");
    assert_eq!(Trust::from_pem("").unwrap_err(), TrustError::NoCertificate);
    assert!(matches!(Trust::from_pem(&one.key), Err(TrustError::Pem(_))));
    let damaged = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    assert_eq!(Trust::from_pem(&(one.certificate.clone() + damaged)).unwrap_err(), TrustError::NoAuthority(2));
    assert!(!format!("{:?}", one.identity()).contains("KEY"));
}

#[tokio::test]
async fn a_post_quantum_key_exchange_is_preferred() {
    let authority = Authority::new("authority");
    let groups: Arc<Mutex<Vec<_>>> = Arc::default();
    let seen = groups.clone();
    let config = Arc::new(authority.server("localhost", None));
    let server = Server::raw(move |stream| {
        let (seen, acceptor) = (seen.clone(), tokio_rustls::TlsAcceptor::from(config.clone()));
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
            seen.lock().unwrap().push(group);
        }
    })
    .await;
    let url = format!("https://localhost:{}/", server.port());
    fail(&client(development(), Definition { trust: authority.trust(), ..definition(&url) }), &url).await;
    assert_eq!(*groups.lock().unwrap(), [rustls::NamedGroup::X25519MLKEM768]);
}
