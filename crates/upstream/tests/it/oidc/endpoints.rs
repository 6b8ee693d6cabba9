//! The endpoints that an issuer publishes: where they are looked for, and how long they are used.

use std::sync::Arc;

use jackfield_domain::Secret;
use jackfield_domain::value::url::HttpUrl;
use jackfield_upstream::clients::ClientId;
use jackfield_upstream::oidc::{DocumentFault, ProfileNeed, ProviderEndpoints, fetch_profile};
use jackfield_upstream::probe::{Owner, Probe, published_endpoints};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::signer::Signer;
use super::{CONFIGURATION, Issuer, JWKS};
use crate::pki::Authority;
use crate::server::Server;
use crate::support::{definition, development, url};

const METADATA: &str = "/.well-known/oauth-authorization-server";
const ALIAS: &str = "https://mtls.example/token";

// === impl Issuer ===

impl Issuer {
    async fn endpoints_at(&self, seconds: f64) -> Result<Arc<ProviderEndpoints>, DocumentFault> {
        self.discovery.endpoints(&self.fetcher(seconds), &self.url("")).await
    }

    fn last_at(&self, id: ClientId, seconds: f64) -> Option<Arc<ProviderEndpoints>> {
        self.discovery.last_endpoints(id, &self.url(""), self.fetcher(seconds).now)
    }

    fn token_url(&self) -> HttpUrl {
        url(&self.url("/token"))
    }

    /// The metadata of an issuer that has nothing but a token endpoint.
    fn metadata(&self) -> Value {
        json!({
            "issuer": self.url(""),
            "token_endpoint": self.url("/token"),
            "mtls_endpoint_aliases": { "token_endpoint": ALIAS },
        })
    }
}

fn token_of(endpoints: &ProviderEndpoints, issuer: &Issuer) -> String {
    endpoints.token.for_certificate(&issuer.token_url()).as_str().to_owned()
}

#[tokio::test]
async fn metadata_count_where_there_is_no_discovery_document() {
    let issuer = Issuer::start(&[]).await;
    issuer.site.put(METADATA, 200, "", issuer.metadata());
    for (seconds, (status, body)) in
        [(404, ""), (403, "{}"), (302, ""), (200, "<!doctype html>"), (200, "[]")].into_iter().enumerate()
    {
        issuer.site.put(CONFIGURATION, status, "location: /elsewhere\r\n", body);
        issuer.discovery.remove(issuer.id);
        let endpoints = issuer.endpoints_at(seconds as f64).await.unwrap();
        assert_eq!(token_of(&endpoints, &issuer), ALIAS, "{status} {body}");
        assert_eq!(issuer.site.asked(METADATA), seconds + 1);
    }
    // A discovery document that is there counts, although ID tokens need more of it.
    let mut document = issuer.metadata();
    document["mtls_endpoint_aliases"] = Value::Null;
    issuer.site.put(CONFIGURATION, 200, "", document);
    issuer.discovery.remove(issuer.id);
    let endpoints = issuer.endpoints_at(10.0).await.unwrap();
    assert_eq!(token_of(&endpoints, &issuer), issuer.url("/token"));
    assert_eq!(issuer.site.asked(METADATA), 5);
    assert!(issuer.discover_at(10.0).await.is_err());
}

#[tokio::test]
async fn an_issuer_that_publishes_nothing_is_known_by_its_first_place() {
    let issuer = Issuer::start(&[]).await;
    for (first, second, is_absence, reason) in [
        (404, (404, ""), true, "STATUS_UNEXPECTED"),
        (410, (403, ""), true, "STATUS_UNEXPECTED"),
        (404, (200, "<html>"), true, "STATUS_UNEXPECTED"),
        (403, (404, ""), false, "STATUS_UNEXPECTED"),
        (404, (503, ""), false, "STATUS_UNEXPECTED"),
        (404, (200, r#"{"issuer": "https://evil.example"}"#), false, "ISSUER_MISMATCH"),
    ] {
        issuer.site.put(CONFIGURATION, first, "", "");
        issuer.site.put(METADATA, second.0, "", second.1);
        issuer.discovery.remove(issuer.id);
        let fault = issuer.endpoints_at(0.0).await.unwrap_err();
        assert_eq!((fault.is_absence(), fault.reason()), (is_absence, reason), "{first} {second:?}");
    }
}

#[tokio::test]
async fn the_last_endpoints_are_used_while_the_issuer_is_silent() {
    let issuer = Issuer::start(&[]).await;
    let good = issuer.metadata();
    issuer.site.put(CONFIGURATION, 200, "", &good);
    let first = issuer.endpoints_at(0.0).await.unwrap();
    let mut seconds = 7_200.0;
    for status in [500, 503, 429] {
        issuer.site.put(CONFIGURATION, status, "", "");
        for later in [0.0, 4.0] {
            let last = issuer.endpoints_at(seconds + later).await.unwrap();
            assert!(Arc::ptr_eq(&first, &last), "{status}");
        }
        seconds += 10.0;
    }
    assert_eq!(issuer.site.asked(CONFIGURATION), 4, "it is not asked again at once");
    let slash = format!("{}/", issuer.url(""));
    let other = issuer.discovery.endpoints(&issuer.fetcher(seconds), &slash).await;
    assert_eq!(other.err(), Some(DocumentFault::IssuerMismatch), "they are those of this issuer alone");
    let another: ClientId = crate::support::client_id();
    assert_eq!(issuer.last_at(another, seconds), None);

    // What the issuer replaces is not used again.
    issuer.site.put(CONFIGURATION, 200, "", &good);
    seconds += 10_000.0;
    assert!(issuer.endpoints_at(seconds).await.is_ok());
    issuer.site.put(CONFIGURATION, 200, "", json!({ "issuer": "https://evil.example" }));
    seconds += 10_000.0;
    assert!(issuer.endpoints_at(seconds).await.is_err());
    issuer.site.put(CONFIGURATION, 503, "", "");
    seconds += 10.0;
    assert!(issuer.endpoints_at(seconds).await.is_err());
    assert_eq!(issuer.last_at(issuer.id, seconds), None);
}

/// A deployment of the issuer, or a proxy in front of it, may be at fault.
#[tokio::test]
async fn the_last_endpoints_are_used_for_a_day_while_there_is_no_document() {
    let day = 86_400.0;
    let issuer = Issuer::start(&[]).await;
    let mut seconds = 0.0;
    for (status, body) in [(404, ""), (410, ""), (403, "{}"), (302, ""), (200, "<!doctype html>")] {
        issuer.site.put(CONFIGURATION, 200, "", issuer.metadata());
        let first = issuer.endpoints_at(seconds).await.unwrap();
        seconds += 7_200.0;
        // The day begins when it is seen that there is none. A moment of another fault does not make it longer.
        for (later, status, body) in [(0.0, status, body), (day / 2.0, 503, ""), (day - 1.0, status, body)] {
            issuer.site.put(CONFIGURATION, status, "location: /elsewhere\r\n", body);
            let last = issuer.endpoints_at(seconds + later).await.unwrap();
            assert!(Arc::ptr_eq(&first, &last), "{status} {later}");
        }
        for (later, status, body) in [(day + 10.0, status, body), (day + 20.0, 503, "")] {
            issuer.site.put(CONFIGURATION, status, "location: /elsewhere\r\n", body);
            assert!(issuer.endpoints_at(seconds + later).await.is_err(), "{status} {later}");
            assert_eq!(issuer.last_at(issuer.id, seconds + later), None);
        }
        seconds += 2.0 * day;
    }
}

/// A probe reads the same, over connections of its own.
#[tokio::test]
async fn a_probe_reads_the_endpoints_and_keeps_nothing() {
    let issuer = Issuer::start(&[]).await;
    let probe = |trust| {
        let mut definition = definition(&issuer.url(""));
        definition.trust = trust;
        let owner = Owner { tenant: issuer.id.0, connector: None };
        Probe { owner, client: None, definition: Ok(definition), plan: None, now: super::NOW, deadline: None }
    };
    let network = development();
    issuer.site.put(METADATA, 200, "", issuer.metadata());
    let good = probe(issuer.authority.trust());
    let endpoints = published_endpoints(&network, &good, &issuer.url("")).await.unwrap().unwrap();
    assert_eq!(token_of(&endpoints, &issuer), ALIAS);
    assert_eq!((issuer.site.asked(CONFIGURATION), issuer.server.accepted()), (1, 2));
    assert_eq!(issuer.client.idle(), 0);
    issuer.site.put(CONFIGURATION, 503, "", "");
    let fault = published_endpoints(&network, &good, &issuer.url("")).await.unwrap().unwrap_err();
    assert!(fault.is_silence(), "{fault:?}");
    assert_eq!(issuer.site.asked(METADATA), 1);
    // Another server in the place of the issuer is no outage.
    let other = probe(Authority::new("other").trust());
    let fault = published_endpoints(&network, &other, &issuer.url("")).await.unwrap().unwrap_err();
    assert_eq!((fault.reason(), fault.is_silence()), ("SERVER_CERTIFICATE_INVALID", false));
    let gone = Server::plain(|_| async {}).await;
    let issuer = format!("http://127.0.0.1:{}", gone.port());
    drop(gone);
    let fault = published_endpoints(&network, &good, &issuer).await.unwrap().unwrap_err();
    assert!(fault.is_silence(), "{fault:?}");
}

/// Some editors put one at the beginning of a file (RFC 8259 8.1).
#[tokio::test]
async fn a_byte_order_mark_in_a_document_is_skipped() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let issuer = Issuer::start(&[&signer]).await;
    let marked = |document: Value| format!("\u{feff}{document}");
    issuer.site.put(CONFIGURATION, 200, "", marked(issuer.document()));
    issuer.site.put(JWKS, 200, "", marked(json!({ "keys": [signer.jwk()] })));
    issuer.site.put("/me", 200, "", marked(json!({ "sub": "u1" })));
    assert_eq!(issuer.discover_at(0.0).await.as_deref(), Ok(&*issuer.url(JWKS)));
    assert_eq!(token_of(&issuer.endpoints_at(0.0).await.unwrap(), &issuer), issuer.url("/token"));
    assert!(issuer.validate(&issuer.sign(&signer)).await.is_ok());
    let (me, token) = (url(&issuer.url("/me")), Secret::new("access-1".to_owned()));
    let profile = fetch_profile(&issuer.fetcher(0.0), (&me, ProfileNeed::Optional), &token, Some("u1")).await;
    assert_eq!(profile.unwrap().0["sub"], "u1");
}
