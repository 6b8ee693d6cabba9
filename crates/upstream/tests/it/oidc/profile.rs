//! Profiles of users: that they fail, or hang, is no matter for other calls of the same client.

use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::Secret;
use jackfield_upstream::client::{Client, Purpose};
use jackfield_upstream::oidc::{Fetcher, ProfileFault, ProfileNeed, fetch_profile};
use jsonwebtoken::Algorithm;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{CONFIGURATION, Issuer, JWKS, NOW, Signer};
use crate::server::Server;
use crate::support::{client, client_id, definition, development, post, request, url};

/// A system whose profile hangs, and a client that makes one call to it at a time.
struct Narrow {
    server: Server,
    client: Client,
    /// Is notified of each request for the profile.
    asked: Arc<Notify>,
}

/// The time for which a call waits for a place.
const PATIENCE: Duration = Duration::from_secs(2);

// === impl Narrow ===

impl Narrow {
    async fn start() -> Self {
        let asked = Arc::<Notify>::default();
        let noted = asked.clone();
        let server = Server::plain(move |mut peer| {
            let noted = noted.clone();
            async move {
                while let Some(request) = peer.request().await {
                    if request.starts_with("GET /me ") {
                        noted.notify_one();
                        std::future::pending::<()>().await;
                    }
                    peer.respond("{}").await;
                }
            }
        })
        .await;
        let mut definition = definition(&format!("http://localhost:{}/", server.port()));
        (definition.timeouts.connect, definition.timeouts.read) = (PATIENCE, PATIENCE * 4);
        definition.limits.concurrency = 1;
        Narrow { server, client: client(development(), definition), asked }
    }

    fn at(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.server.port())
    }

    async fn optional_profile(&self) -> Result<(), ProfileFault> {
        let fetcher = Fetcher { client: &self.client, id: client_id(), now: NOW, deadline: None };
        let me = (&url(&self.at("/me")), ProfileNeed::Optional);
        fetch_profile(&fetcher, me, &Secret::new("access-1".to_owned()), None).await.map(drop)
    }
}

#[tokio::test]
async fn profiles_that_fail_hold_back_nothing_else() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let issuer = Issuer::start(&[&signer]).await;
    issuer.site.put(CONFIGURATION, 200, "", issuer.document());
    issuer.site.put("/me", 503, "", "");
    let (me, token) = (url(&issuer.url("/me")), Secret::new("access-1".to_owned()));
    let reason = async |need| {
        let outcome = fetch_profile(&issuer.fetcher(0.0), (&me, need), &token, None).await;
        outcome.unwrap_err().reason()
    };
    for need in [ProfileNeed::Optional, ProfileNeed::Required] {
        for _ in 0..5 {
            assert_eq!(reason(need).await, "STATUS_UNEXPECTED", "{need:?}");
        }
        assert_eq!(reason(need).await, "CIRCUIT_OPEN", "{need:?}");
    }
    assert_eq!(issuer.discover_at(0.0).await.as_deref(), Ok(&*issuer.url(JWKS)));
    assert!(issuer.validate(&issuer.sign(&signer)).await.is_ok());
}

#[tokio::test]
async fn a_profile_that_can_be_done_without_gives_its_place_to_a_call_that_waits() {
    let system = Narrow::start().await;
    let start = Instant::now();
    let refresh = async {
        system.asked.notified().await;
        system.client.send_as(Purpose::Exchange, post(&system.at("/token"), "")).await
    };
    let (profile, refreshed) = tokio::join!(system.optional_profile(), refresh);
    assert_eq!(refreshed.unwrap().body, "{}");
    assert_eq!(profile.unwrap_err().reason(), "BUSY");
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_profile_that_can_be_done_without_waits_for_no_place() {
    let system = Narrow::start().await;
    let first = system.at("/me");
    let second = async {
        system.asked.notified().await;
        let start = Instant::now();
        (system.optional_profile().await, start.elapsed())
    };
    tokio::select! {
        outcome = system.client.send(request(&first)) => panic!("it hangs: {:?}", outcome.map(|response| response.status)),
        (skipped, waited) = second => {
            assert_eq!(skipped.unwrap_err().reason(), "BUSY");
            assert!(waited < PATIENCE / 2, "{waited:?}");
        }
    }
}
