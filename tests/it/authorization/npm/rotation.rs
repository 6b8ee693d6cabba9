//! Refreshes at `oidc-provider`, which ends a grant whose refresh token comes a second time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_testkit::{Backend, Client, ManualClock, NpmPackage, TestServer};
use serde_json::json;
use tonic::{Code, Status};

use super::{CLIENT, World, registration};
use crate::refresh::world::refused;

on_sqlite! {
    async fn each_refresh_replaces_the_refresh_token(server) {
        let world = World::rotating(&server).await;
        let credential = world.authorized("ada").await.id;
        let mut sent = BTreeSet::from([world.tokens(&credential).await.refresh_token]);
        for version in 2..=6 {
            assert_eq!(world.refresh(&credential).await.unwrap().version, version);
            let tokens = world.tokens(&credential).await;
            assert_eq!(world.issue(&credential).await.unwrap().access_token, tokens.access_token);
            assert!(!world.find(&tokens.access_token).await.is_null());
            assert!(sent.insert(tokens.refresh_token), "it is another one each time");
        }
        assert_eq!(world.outcomes("refresh_token").await, (5, Vec::new()));
    }

    /// Another program has a refresh token that Jackfield has spent, or will spend.
    async fn a_grant_that_another_has_ended_needs_the_user(server) {
        let world = World::rotating(&server).await;
        let credential = world.authorized("ada").await.id;
        let spent = world.tokens(&credential).await.refresh_token;
        world.refresh(&credential).await.unwrap();
        let live = world.tokens(&credential).await;
        assert_eq!(world.spend(CLIENT, &spent).await, "invalid_grant");
        assert!(world.find(&live.access_token).await.is_null(), "the whole grant is over");
        let refusal = refused(world.refresh(&credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        assert!(refusal.status.message().contains("invalid_grant"), "{refusal:?}");
        let facts = world.facts(&credential).await;
        assert_eq!((facts.state(), &*facts.failure_reason), (v1::CredentialState::NeedsReauth, "invalid_grant"));
        assert_eq!(world.explain(&credential).await.next_step(), v1::NextStep::Reauthorize);
        let errors = world.outcomes("refresh_token").await.1;
        assert_eq!(errors.len(), 2, "it is asked once: {errors:?}");
        assert_eq!(errors[0]["detail"], "refresh token already used");
        // The same credential works again once its user has authorised it.
        let again = world.again(&facts).await;
        assert_eq!((again.state(), &again.credential), (v1::AuthorizationState::Completed, &credential), "{again:?}");
        assert_eq!(world.refresh(&credential).await.unwrap().state(), v1::CredentialState::Valid);
    }

    /// The rule of the package: the refresh token of a client that has a secret stays for most of its life.
    async fn a_refresh_token_that_stays_is_sent_again(server) {
        let settings = json!({ "clients": [registration()] });
        let world = World::on(&server, NpmPackage::OidcProvider, &settings, |_| {}).await;
        let credential = world.authorized("ada").await.id;
        let first = world.tokens(&credential).await;
        for version in 2..=5 {
            assert_eq!(world.refresh(&credential).await.unwrap().version, version);
        }
        let last = world.tokens(&credential).await;
        assert_eq!(last.refresh_token, first.refresh_token);
        assert_ne!(last.access_token, first.access_token);
        assert_eq!(world.find(&last.refresh_token).await["spent"], false);
        assert_eq!(world.outcomes("refresh_token").await, (4, Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_at_once_spend_no_refresh_token_twice() {
    jackfield_testkit::backend::in_time(async {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(Backend::Sqlite, Arc::clone(&clock) as _, |_| {}).await;
        let world = World::rotating(&server).await;
        all_at_once(&world, &clock, std::slice::from_ref(&world.client)).await;
    })
    .await;
}

mod postgres {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn replicas_spend_no_refresh_token_twice() {
        jackfield_testkit::backend::in_time(async {
            let clock = ManualClock::at_present();
            let server = TestServer::start_at(Backend::Postgres, Arc::clone(&clock) as _, |_| {}).await;
            let others = [server.replica().await.unwrap(), server.replica().await.unwrap()];
            let world = World::rotating(&server).await;
            let clients = [world.client.clone(), others[0].client("alpha"), others[1].client("alpha")];
            all_at_once(&world, &clock, &clients).await;
        })
        .await;
    }
}

/// Has many callers want a new token at once, several times. Each time, most of them report the same token.
async fn all_at_once(world: &World, clock: &ManualClock, clients: &[Client]) {
    let credential = world.authorized("ada").await.id;
    for _ in 0..10 {
        // A token that was replaced a short time ago is not replaced for a report.
        clock.advance(Duration::from_secs(2 * 3_600));
        let version = world.facts(&credential).await.version;
        let calls = clients.iter().flat_map(|client| (0..8).map(move |number| (client, number)));
        let calls = calls.map(|(client, number)| renew(client, &credential, version, number == 0));
        for answer in join_all(calls).await.into_iter().filter(Result::is_err) {
            refused(answer, Code::Unavailable, "REFRESH_IN_PROGRESS");
        }
        assert!(world.facts(&credential).await.version > version);
    }
    let (exchanges, errors) = world.outcomes("refresh_token").await;
    assert!(errors.is_empty(), "no refresh token came twice: {errors:?}");
    let facts = world.facts(&credential).await;
    assert_eq!((facts.version, facts.state()), (1 + i64::try_from(exchanges).unwrap(), v1::CredentialState::Valid));
    let tokens = world.tokens(&credential).await;
    for token in [&tokens.access_token, &tokens.refresh_token] {
        assert!(!world.find(token).await.is_null(), "the grant lives");
    }
}

/// Refreshes a credential, or reports that a token is rejected.
async fn renew(client: &Client, credential: &str, credential_version: i64, refreshes: bool) -> Result<(), Status> {
    let reference = credential.to_owned();
    if refreshes {
        let request = v1::RefreshCredentialRequest { reference };
        return client.credentials().refresh_credential(request).await.map(|_| ());
    }
    let request = v1::ReportTokenRejectedRequest { reference, credential_version, ..Default::default() };
    client.credentials().report_token_rejected(request).await.map(|_| ())
}
