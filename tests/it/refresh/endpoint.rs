//! Answers of a token endpoint to refreshes: what they say about the refresh token, and tokens that are not those that were expected.

use std::time::Duration;

use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::provider::Rotation;
use jackfield_testkit::{ProviderFault, ProviderOptions, Reply, TestServer, fixture, on_both};
use tonic::Code;

use super::world::{World, refused};

on_both! {
    /// Over a connection that was kept, the second one would be lost.
    async fn a_refresh_has_a_connection_of_its_own(server) {
        let world = World::on(&server, ProviderOptions { drops_idle: true, ..ProviderOptions::default() }).await;
        let grant = world.expired("ada").await;
        for count in 1..=3 {
            let facts = world.refresh(&grant.credential).await.unwrap();
            assert_eq!((facts.state(), facts.version), (v1::CredentialState::Valid, count + 1));
        }
        assert_eq!((world.provider.requests().len(), world.provider.connections()), (3, 3));
        assert_eq!((world.provider.exchanges(grant.family), world.provider.reuses(grant.family)), (3, 0));
    }

    /// A server that sends the client elsewhere with one of these has done its work. With the others it has done nothing.
    async fn a_redirect_says_what_became_of_the_refresh_token(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let location = || vec![("location", "https://elsewhere.example.com/".to_owned())];
        for (number, (status, state, class)) in [
            (302, v1::CredentialState::Indeterminate, v1::FailureClass::Indeterminate),
            (303, v1::CredentialState::Indeterminate, v1::FailureClass::Indeterminate),
            (301, v1::CredentialState::Expired, v1::FailureClass::Connection),
            (307, v1::CredentialState::Expired, v1::FailureClass::Connection),
            (308, v1::CredentialState::Expired, v1::FailureClass::Connection),
        ].into_iter().enumerate() {
            let grant = world.expired(&format!("ada-{number}")).await;
            world.provider.fail([ProviderFault::refused(Reply { headers: location(), ..Reply::new(status, "") })]);
            world.issue(&grant.credential).await.unwrap_err();
            let facts = world.facts(&grant.credential).await;
            assert_eq!((facts.state(), facts.failure_class()), (state, class), "{status}");
            assert_eq!(facts.failure_reason, "STATUS_UNEXPECTED", "{status}");
        }
    }

    /// The time is that which the server gives the endpoint, however long the caller waits.
    async fn an_endpoint_that_takes_too_long_has_the_reason_of_the_server(backend: Backend) {
        let server = TestServer::start_with(backend, |config| config.refresh.timeout = Duration::from_secs(1)).await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        world.provider.fail([ProviderFault::none().answering_after(Duration::from_secs(3))]);
        refused(world.issue(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        let facts = world.facts(&grant.credential).await;
        assert_eq!((facts.failure_class(), &*facts.failure_reason), (v1::FailureClass::Indeterminate, "TOTAL_TIMEOUT"));
    }

    /// Any bearer could use it. The refresh token is kept.
    async fn a_token_that_is_not_bound_to_its_client_any_more_is_not_issued(backend: Backend) {
        for (rotation, stored, sent) in [
            (Rotation::Always, "DPoP", "Bearer"),
            (Rotation::Never, "dpop", "Bearer"),
            (Rotation::Never, "mac", "bot"),
        ] {
            let what = format!("{rotation:?}: {stored}, {sent}");
            let server = TestServer::start(backend).await;
            let world = World::on(&server, ProviderOptions { rotation, ..ProviderOptions::default() }).await;
            let issued = world.provider.grant("ada", &["read"]);
            let material = v1::OAuth2Material {
                access_token: issued.access_token.clone(),
                refresh_token: issued.refresh_token.clone(),
                token_type: stored.to_owned(),
                expire_time: Some(fixture::seconds_from_now(20)),
                ..Default::default()
            };
            let id = world.store_material("ada", Material::Oauth2(material)).await;
            world.provider.fail([ProviderFault::members([("token_type", sent.into())])]);
            // The token that there was is still good.
            let token = world.issue(&id).await.unwrap();
            assert_eq!((&*token.access_token, &*token.token_type), (&*issued.access_token, stored), "{what}");
            let facts = world.facts(&id).await;
            let found = (facts.state(), facts.failure_class(), &*facts.failure_reason, facts.next_refresh_time);
            let expected = (v1::CredentialState::NeedsReauth, v1::FailureClass::Permanent, "TOKEN_TYPE_DOWNGRADED", None);
            assert_eq!(found, expected, "{what}");
            let live = world.provider.live(issued.family).unwrap();
            let kept = world.reveal(&id).await;
            assert_eq!((&*kept.refresh_token, &*kept.token_type), (&*live.refresh_token, stored), "{what}");
            let refusal = refused(world.refresh(&id).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
            assert!(refusal.status.message().contains("TOKEN_TYPE_DOWNGRADED"), "{refusal:?}");
            assert_eq!(world.provider.requests().len(), 1, "it is not asked again");
            let explained = world.explain(&id).await;
            assert_eq!(explained.next_step(), v1::NextStep::Reauthorize, "{what}");
            assert!(explained.explanation.contains("a token of a weaker type (TOKEN_TYPE_DOWNGRADED)"), "{explained:?}");
        }
    }

    async fn letter_case_and_other_names_of_bearers_are_no_downgrade(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        for (user, access_token, stored, sent) in [
            ("ada", "a", "dpop", "DPoP"),
            ("bob", "", "", "DPoP"),
            ("carl", "c", "Bearer", "bot"),
        ] {
            let issued = world.provider.grant(user, &["read"]);
            let material = v1::OAuth2Material {
                access_token: access_token.to_owned(),
                refresh_token: issued.refresh_token.clone(),
                token_type: stored.to_owned(),
                expire_time: (!access_token.is_empty()).then(|| fixture::seconds_from_now(-60)),
                ..Default::default()
            };
            // A refresh token alone is exchanged at once, and its first token may have any type.
            world.provider.fail([ProviderFault::members([("token_type", sent.into())])]);
            let id = world.store_material(user, Material::Oauth2(material)).await;
            let token = world.issue(&id).await.unwrap();
            assert_eq!((&*token.token_type, token.access_token), (sent, world.provider.live(issued.family).unwrap().access_token));
            assert_eq!(world.facts(&id).await.state(), v1::CredentialState::Valid);
        }
    }
}
