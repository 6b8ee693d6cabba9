//! Explanations say what happens next: the same that the schedule and the next caller find.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::{ProviderFault, ProviderOptions, Reply, TestServer, collect, fixture, on_both};
use tokio::time::sleep;
use tonic::Code;

use super::world::{World, refused};

on_both! {
    /// A server that refreshes nothing by itself says so.
    async fn the_next_attempt_is_that_of_the_schedule(backend: Backend) {
        for ahead in [true, false] {
            let server = TestServer::start_with(backend, |config| config.refresh.ahead = ahead).await;
            let world = World::on(&server, ProviderOptions::default()).await;
            let grant = world.good("ada").await;
            let explained = world.explain(&grant.credential).await;
            let facts = explained.credential.unwrap();
            let expected = facts.next_refresh_time.filter(|_| ahead);
            assert_eq!(explained.next_attempt_time, expected, "{ahead}");
            let issued = world.issue(&grant.credential).await.unwrap();
            assert_eq!(issued.next_refresh_time, expected, "{ahead}");
            let told = if ahead { "it is refreshed at 20" } else { "it is refreshed when it is asked for" };
            assert!(explained.explanation.contains(told), "{}", explained.explanation);

            let headers = vec![("retry-after", "600".to_owned())];
            world.provider.fail([ProviderFault::refused(Reply { headers, ..Reply::new(503, "") })]);
            refused(world.refresh(&grant.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
            let explained = world.explain(&grant.credential).await;
            assert_eq!(explained.next_step(), v1::NextStep::Wait, "{explained:?}");
            // Another credential is due at once, and waits for the same pause.
            let due = world.explain(&world.expired("bob").await.credential).await;
            assert_eq!((due.obstacle(), due.next_step()), (v1::ErrorReason::UpstreamUnavailable, v1::NextStep::Wait));
            match (explained.next_attempt_time, due.next_attempt_time) {
                (Some(first), Some(other)) if ahead => {
                    let facts = explained.credential.unwrap();
                    assert!(first.seconds >= facts.next_refresh_time.unwrap().seconds, "{first:?} {facts:?}");
                    assert!((first.seconds - other.seconds).abs() <= 1, "{first:?} {other:?}");
                }
                (None, None) if !ahead => {}
                times => panic!("{ahead}: {times:?}"),
            }
            assert_eq!(world.provider.requests().len(), 1, "nothing is sent before");
        }
    }

    /// In an outage the user can do nothing. The state of the link says so, and its filter.
    async fn a_link_asks_for_its_user_only_if_the_user_can_help(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        let link = async || {
            let request = v1::GetUserConnectorRequest {
                user_id: "ada".to_owned(),
                connector: world.connector.clone(),
                ..Default::default()
            };
            let link = world.client.user_connectors().get_user_connector(request).await.unwrap().into_inner();
            let state = link.user_connector.unwrap().state();
            let filter = format!("state = {}", state.as_str_name());
            let request = v1::ListUserConnectorsRequest { filter: filter.clone(), ..Default::default() };
            let found = collect::items(world.client.user_connectors().list_user_connectors(request).await).await;
            assert_eq!(found.unwrap().len(), 1, "{filter}");
            state
        };
        assert_eq!(link().await, v1::UserConnectorState::Authenticated, "it is replaced when it is asked for");
        world.provider.fail([ProviderFault::status(503)]);
        refused(world.issue(&grant.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        assert_eq!(world.facts(&grant.credential).await.state(), v1::CredentialState::Expired);
        assert_eq!(link().await, v1::UserConnectorState::Authenticated);

        // Nothing replaces it without a refresh token.
        let material = v1::CredentialMaterial {
            material: Some(v1::credential_material::Material::Oauth2(v1::OAuth2Material {
                access_token: "at".to_owned(),
                expire_time: Some(fixture::seconds_from_now(-60)),
                ..Default::default()
            })),
        };
        let request = v1::UpdateCredentialRequest {
            reference: grant.credential.clone(),
            credential: Some(v1::Credential::default()),
            material: Some(material),
            update_mask: fixture::mask(["material", "material.oauth2.refresh_token"]),
            ..Default::default()
        };
        world.client.credentials().update_credential(request).await.unwrap();
        assert_eq!(world.facts(&grant.credential).await.state(), v1::CredentialState::Expired);
        assert_eq!(link().await, v1::UserConnectorState::NeedsReauth);
    }

    /// A lost response is asked for again as long as the provider accepts the refresh token, and then no more.
    async fn a_repeat_is_told_as_long_as_there_is_time_for_it(backend: Backend) {
        let server = TestServer::start_with(backend, |config| config.refresh.timeout = Duration::from_secs(1)).await;
        let options = ProviderOptions { grace: Duration::from_secs(60), ..ProviderOptions::default() };
        let world = World::with(&server, options, |connection| {
            connection.refresh_token_grace_period = Some(fixture::milliseconds(12_000));
        })
        .await;
        let grant = world.expired("ada").await;
        world.provider.fail([ProviderFault::answer_lost(), ProviderFault::answer_lost()]);
        refused(world.issue(&grant.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        assert_eq!(world.provider.requests().len(), 2);
        let explained = world.explain(&grant.credential).await;
        let expected = (v1::ErrorReason::UpstreamUnavailable, v1::NextStep::Wait);
        assert_eq!((explained.obstacle(), explained.next_step()), expected, "{explained:?}");
        assert!(explained.explanation.contains("accepts the refresh token again until 20"), "{explained:?}");
        sleep(Duration::from_secs(12)).await;
        // No caller has asked, so nothing has happened. It is too late all the same.
        let explained = world.explain(&grant.credential).await;
        let expected = (v1::ErrorReason::ReauthRequired, v1::NextStep::Reauthorize);
        assert_eq!((explained.obstacle(), explained.next_step()), expected, "{explained:?}");
        assert_eq!(explained.credential.unwrap().failure_class(), v1::FailureClass::Transient);
        refused(world.issue(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        assert_eq!(world.provider.requests().len(), 2, "it is not sent");
    }

    /// Before a refresh has failed for it.
    async fn what_a_connection_lacks_is_told_at_once(server) {
        let world = World::with(&server, ProviderOptions::default(), |connection| connection.token_url = None).await;
        let [good, expired] = [world.good("ada").await, world.expired("bob").await];
        let explained = world.explain(&good.credential).await;
        let expected = (v1::ErrorReason::Unspecified, v1::NextStep::CorrectConnection);
        assert_eq!((explained.obstacle(), explained.next_step()), expected, "{explained:?}");
        assert!(explained.explanation.contains("token_url"), "{explained:?}");
        let explained = world.explain(&expired.credential).await;
        let expected = (v1::ErrorReason::ConnectionIncomplete, v1::NextStep::CorrectConnection);
        assert_eq!((explained.obstacle(), explained.next_step()), expected, "{explained:?}");
        refused(world.issue(&expired.credential).await, Code::FailedPrecondition, "CONNECTION_INCOMPLETE");
    }

    /// The next caller is refused without a request, and so it is shown for credentials that have not failed.
    async fn a_refused_client_is_told_for_all_of_its_credentials(server) {
        let world = World::with(&server, ProviderOptions::default(), |connection| {
            connection.client_secrets[0].value = "another secret".to_owned();
        })
        .await;
        let [ada, bob] = [world.expired("ada").await, world.expired("bob").await];
        refused(world.issue(&ada.credential).await, Code::FailedPrecondition, "CONNECTION_REFUSED");
        for grant in [&ada, &bob] {
            let explained = world.explain(&grant.credential).await;
            let expected = (v1::ErrorReason::ConnectionRefused, v1::NextStep::CorrectConnection);
            assert_eq!((explained.obstacle(), explained.next_step()), expected, "{explained:?}");
            assert!(explained.explanation.contains("invalid_client"), "{explained:?}");
        }
        world.set_secrets(&["client-secret-1"]).await;
        for (grant, step) in [(&ada, v1::NextStep::CorrectConnection), (&bob, v1::NextStep::None)] {
            // What the connection is like now is found when it is asked for.
            let explained = world.explain(&grant.credential).await;
            assert_eq!((explained.obstacle(), explained.next_step()), (v1::ErrorReason::Unspecified, step), "{explained:?}");
            world.issue(&grant.credential).await.unwrap();
        }
    }

    /// It is a fault of the request for one credential. It is not sent again at once, however often callers ask.
    async fn a_refused_request_is_held_back_for_its_credential(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let [ada, bob] = [world.expired("ada").await, world.expired("bob").await];
        world.provider.fail([ProviderFault::error(400, "invalid_scope")]);
        for _ in 0..3 {
            let refusal = refused(world.issue(&ada.credential).await, Code::FailedPrecondition, "CONNECTION_REFUSED");
            assert!(refusal.status.message().contains("invalid_scope"), "{refusal:?}");
        }
        assert_eq!(world.provider.requests().len(), 1);
        world.issue(&bob.credential).await.unwrap();
        assert_eq!(world.explain(&bob.credential).await.next_step(), v1::NextStep::None);
        assert_eq!(world.explain(&ada.credential).await.obstacle(), v1::ErrorReason::ConnectionRefused);
        world.set_secrets(&["client-secret-1", "another"]).await;
        world.issue(&ada.credential).await.unwrap();
    }
}
