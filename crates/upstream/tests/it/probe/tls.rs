//! Handshakes, and certificates on both sides.

use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::probe::{ProbeReason as Reason, ProbeResult as Outcome, ProbeStep as Step};
use jackfield_upstream::client::Definition;
use jackfield_upstream::error::Fault;
use jackfield_upstream::tls::{Identity, TlsFault};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::NoClientAuth;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::{Provoked, fact, made, of, verdict};
use crate::pki::{Authority, Content, config};
use crate::server::Server;
use crate::support::{client, definition, development, fault};

/// A verifier whose clients have good certificates and no access.
#[derive(Debug)]
struct Denying(Arc<dyn ClientCertVerifier>);

const REJECTED: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

/// Starts a server that rejects log-ins, and probes it.
async fn probed(
    config: ServerConfig,
    trusted: &Authority,
    identity: Option<Identity>,
    response: &'static str,
) -> Provoked {
    let server = Server::tls(config, move |mut peer| async move {
        while peer.request().await.is_some() {
            peer.send(response).await;
        }
    })
    .await;
    let mut a_probe = of(&format!("https://login.example:{}/login", server.port()));
    let definition = a_probe.definition.as_mut().unwrap();
    (definition.trust, definition.identity) = (trusted.trust(), identity);
    Provoked::new(Step::ClientCertificate, Outcome::Failed, made(development(), a_probe).await)
}

/// A server that sends some bytes and no more.
pub(super) async fn of_raw(bytes: &'static [u8], step: Step) -> Provoked {
    let server = Server::plain(move |mut peer| async move {
        peer.send(bytes).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let mut a_probe = of(&format!("https://login.example:{}/", server.port()));
    a_probe.definition.as_mut().unwrap().timeouts.connect = Duration::from_millis(300);
    Provoked::new(step, Outcome::Failed, made(development(), a_probe).await)
}

/// A server that speaks another protocol over TLS.
pub(super) async fn of_other_protocol() -> Provoked {
    let authority = Authority::new("authority");
    let mut config = authority.server("login.example", None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Provoked { step: Step::Tls, ..probed(config, &authority, None, REJECTED).await }
}

/// A server with a certificate of this content.
pub(super) async fn of_server(content: Content, result: Outcome) -> Provoked {
    let authority = Authority::new("authority");
    let config = authority.server_with(&content, Arc::new(NoClientAuth));
    let provoked = probed(config, &authority, None, REJECTED).await;
    let tls = verdict(&provoked.verdicts, Step::Tls);
    assert_eq!(fact(tls, "certificate.1.subject"), format!("CN={}", content.name), "a chain that is refused is shown");
    Provoked { step: Step::Tls, result, ..provoked }
}

/// A server of an authority that is not trusted.
pub(super) async fn of_stranger() -> Provoked {
    let config = Authority::new("stranger").server("login.example", None);
    Provoked { step: Step::Tls, ..probed(config, &Authority::new("authority"), None, REJECTED).await }
}

/// A server whose certificate is one of an authority.
pub(super) async fn of_authority() -> Provoked {
    let authority = Authority::new("authority");
    let leaf = authority.issue_with(&Content::server("login.example"), |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let config = config(&leaf, Arc::new(NoClientAuth), rustls::ALL_VERSIONS);
    Provoked { step: Step::Tls, ..probed(config, &authority, None, REJECTED).await }
}

pub(super) async fn not_requested() -> Provoked {
    let authority = Authority::new("authority");
    let config = || authority.server("login.example", None);
    let Provoked { verdicts, .. } = probed(config(), &authority, None, REJECTED).await;
    let without = verdict(&verdicts, Step::ClientCertificate);
    assert_eq!((without.result, without.reason), (Outcome::Ok, Reason::ClientCertificateNotRequested));
    let identity = authority.client("caller.example").identity();
    Provoked { result: Outcome::Warning, ..probed(config(), &authority, Some(identity), REJECTED).await }
}

pub(super) async fn not_required() -> Provoked {
    let authority = Authority::new("authority");
    let config = authority.server_that_asks("login.example");
    Provoked { result: Outcome::Ok, ..probed(config, &authority, None, REJECTED).await }
}

/// A server that demands a certificate, and a client with one of this content or without, in both versions of TLS.
pub(super) async fn of_client(content: Option<Content>, result: Outcome) -> Provoked {
    let authority = Authority::new("authority");
    let identity = content.map(|content| authority.issue(&content).identity());
    let in_version = async |version| {
        let config = authority.server_of(&Content::server("login.example"), Some(&authority), &[version]);
        let provoked = probed(config, &authority, identity.clone(), REJECTED).await;
        assert_eq!(verdict(&provoked.verdicts, Step::Tls).result, Outcome::Ok, "{:#?}", provoked.verdicts);
        Provoked { result, ..provoked }
    };
    let old = in_version(&rustls::version::TLS12).await;
    let new = in_version(&rustls::version::TLS13).await;
    for (provoked, version) in [(&old, "TLSv1_2"), (&new, "TLSv1_3")] {
        assert_eq!(fact(verdict(&provoked.verdicts, Step::Tls), "version"), version);
    }
    let reason = |provoked: &Provoked| verdict(&provoked.verdicts, Step::ClientCertificate).reason;
    assert_eq!(reason(&old), reason(&new));
    new
}

pub(super) async fn of_revoked() -> Provoked {
    let authority = Authority::new("authority");
    let leaf = authority.client("caller.example");
    let list = CertificateRevocationListDer::from_pem_slice(authority.revokes(&leaf).as_bytes()).unwrap();
    let verifier = authority.clients().with_crls([list]).build().unwrap();
    let config = authority.server_with(&Content::server("login.example"), verifier);
    probed(config, &authority, Some(leaf.identity()), REJECTED).await
}

/// A client of an authority that the server does not trust.
pub(super) async fn of_unknown_client() -> Provoked {
    let authority = Authority::new("authority");
    let identity = Authority::new("stranger").client("caller.example").identity();
    let config = authority.server("login.example", Some(&authority));
    probed(config, &authority, Some(identity), REJECTED).await
}

pub(super) async fn of_denied() -> Provoked {
    let authority = Authority::new("authority");
    let verifier = Arc::new(Denying(authority.clients().build().unwrap()));
    let config = authority.server_with(&Content::server("login.example"), verifier);
    probed(config, &authority, Some(authority.client("caller.example").identity()), REJECTED).await
}

/// A server that refuses the certificate in a page, as nginx does.
pub(super) async fn of_page() -> Provoked {
    let authority = Authority::new("authority");
    let page =
        "HTTP/1.1 400 Bad Request\r\ncontent-length: 46\r\n\r\n<center>The SSL certificate error</center>\r\n\r\n";
    let identity = authority.client("caller.example").identity();
    probed(authority.server_that_asks("login.example"), &authority, Some(identity), page).await
}

/// A server without TLS that sends these bytes.
async fn sender(bytes: Vec<u8>) -> Server {
    Server::plain(move |mut peer| {
        let bytes = bytes.clone();
        async move {
            peer.send(bytes).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_alert_before_the_certificate_of_the_server_is_not_about_that_of_the_client() {
    // Bad certificate, unsupported, revoked, expired, unknown; unknown CA, access denied, decrypt error, certificate required.
    for alert in [42, 43, 44, 45, 46, 48, 49, 51, 116] {
        let server = sender(vec![21, 3, 3, 0, 2, 2, alert]).await;
        let text = format!("https://login.example:{}/", server.port());
        let verdicts = made(development(), of(&text)).await;
        let tls = verdict(&verdicts, Step::Tls);
        assert_eq!((tls.result, tls.reason), (Outcome::Failed, Reason::TlsFailed), "{alert}: {verdicts:#?}");
        let client = client(development(), definition(&text));
        assert_eq!(fault(&client, &text).await, Fault::Tls(TlsFault::Ended), "{alert}");
    }
}

#[tokio::test]
async fn who_begins_with_a_record_of_tls_speaks_tls() {
    for (bytes, fault_of_call, reason) in [
        (&b"220 mail.example ESMTP\r\n"[..], TlsFault::NoTls, Reason::TlsNotSpoken),
        // A server hello without content, and one whose end is of another protocol.
        (&[22, 3, 3, 0, 4, 2, 0, 0, 0], TlsFault::Other, Reason::TlsFailed),
        (&[22, 3, 3, 0, 1, 2, b'H', b'T', b'T', b'P', b'/'], TlsFault::Other, Reason::TlsFailed),
    ] {
        let server = sender(bytes.to_vec()).await;
        let text = format!("https://login.example:{}/", server.port());
        assert_eq!(verdict(&made(development(), of(&text)).await, Step::Tls).reason, reason, "{bytes:?}");
        let client = client(development(), definition(&text));
        assert_eq!(fault(&client, &text).await, Fault::Tls(fault_of_call), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_session_that_breaks_is_not_one_that_was_never_agreed_upon() {
    let head = "HTTP/1.1 404 Not Found\r\ncontent-length: 10\r\n\r\n";
    for (sent, step) in [("", Step::Status), (head, Step::Body)] {
        let authority = Authority::new("authority");
        let acceptor = TlsAcceptor::from(Arc::new(authority.server("login.example", None)));
        let server = Server::raw(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                stream.read_u8().await.unwrap();
                stream.write_all(sent.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                // What is below TLS comes when all before it was read.
                tokio::time::sleep(Duration::from_millis(100)).await;
                stream.get_mut().0.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        })
        .await;
        let text = format!("https://login.example:{}/", server.port());
        let mut a_probe = of(&text);
        a_probe.definition.as_mut().unwrap().trust = authority.trust();
        let verdicts = made(development(), a_probe).await;
        let found = verdict(&verdicts, step);
        assert_eq!((found.result, found.reason), (Outcome::Failed, Reason::TlsFailed), "{verdicts:#?}");
        let client = client(development(), Definition { trust: authority.trust(), ..definition(&text) });
        assert_eq!(fault(&client, &text).await, Fault::Tls(TlsFault::Other));
    }
}

impl ClientCertVerifier for Denying {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
