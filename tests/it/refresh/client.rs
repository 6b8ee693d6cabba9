//! Tokens of a client of its own (RFC 6749 4.4): no user has authorised, and no refresh token is there.

use std::sync::Arc;
use std::time::Duration;

use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::provider::ProviderRequest;
use jackfield_testkit::{ManualClock, ProviderFault, ProviderOptions, TestServer, fixture, on_both};
use tonic::Code;

use super::world::{World, refused};

async fn of_client(server: &TestServer) -> World {
    World::with(server, ProviderOptions::default(), |connection| {
        connection.grant_type = v1::ConnectionGrantType::ClientCredentials.into();
        connection.scope = Some("read".to_owned());
        connection.token_parameters = fixture::strings([("audience", "a")]);
    })
    .await
}

/// A credential of the client, which has nothing yet.
async fn credential(world: &World) -> String {
    world.store_material("ada", Material::Oauth2(v1::OAuth2Material::default())).await
}

fn sent(requests: &[ProviderRequest]) -> Vec<(&str, &str)> {
    requests.iter().map(|request| (&*request.parameters["grant_type"], &*request.parameters["scope"])).collect()
}

on_both! {
    async fn a_client_gets_tokens_of_its_own(server) {
        let world = of_client(&server).await;
        let id = credential(&world).await;
        let first = world.issue(&id).await.unwrap();
        assert_eq!(world.provider.accepts(&first.access_token), Some((None, vec!["read".to_owned()])));
        assert_eq!(first.scopes, ["read"]);
        let facts = world.facts(&id).await;
        assert_eq!((facts.state(), facts.version), (v1::CredentialState::Valid, 2));
        assert!(facts.refreshable && facts.next_refresh_time.is_some(), "{facts:?}");
        let facts = world.refresh(&id).await.unwrap();
        assert_eq!((facts.state(), facts.version), (v1::CredentialState::Valid, 3));
        let second = world.issue(&id).await.unwrap();
        assert_ne!(first.access_token, second.access_token);
        let requests = world.provider.requests();
        assert_eq!(sent(&requests), [("client_credentials", "read"); 2]);
        assert!(requests.iter().all(|request| request.parameters["audience"] == "a"));
    }

    /// The create does so, before its answer.
    async fn tokens_of_a_client_are_got_at_once(server) {
        let world = of_client(&server).await;
        let id = credential(&world).await;
        assert_eq!(world.facts(&id).await.state(), v1::CredentialState::Valid);
        assert_eq!(world.provider.requests().len(), 1);
        assert!(world.provider.accepts(&world.issue(&id).await.unwrap().access_token).is_some());
        assert_eq!(world.provider.requests().len(), 1);
    }

    /// Nothing is spent, so the request can be repeated.
    async fn a_lost_response_is_no_loss(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |_| {}).await;
        let world = of_client(&server).await;
        world.provider.fail([ProviderFault::answer_lost()]);
        let id = credential(&world).await;
        refused(world.issue(&id).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        let facts = world.facts(&id).await;
        assert_eq!((facts.state(), facts.failure_class()), (v1::CredentialState::Expired, v1::FailureClass::Transient));
        clock.advance(Duration::from_secs(60));
        let issued = world.issue(&id).await.unwrap();
        assert!(world.provider.accepts(&issued.access_token).is_some());
    }

    /// There is no user who could authorise again.
    async fn a_refusal_is_one_of_the_client(server) {
        let world = of_client(&server).await;
        let session = v1::StartAuthorizationRequest {
            connection: world.connection.id.clone(),
            user_id: "ada".to_owned(),
            completion_mode: v1::CompletionMode::Device.into(),
            ..Default::default()
        };
        let refusal = refused(
            world.client.connections().start_authorization(session).await,
            Code::InvalidArgument,
            "FIELD_INVALID",
        );
        assert_eq!(refusal.fields(), ["connection"]);
        world.provider.fail([0, 1].map(|_| ProviderFault::error(400, "invalid_grant")));
        let id = credential(&world).await;
        refused(world.issue(&id).await, Code::FailedPrecondition, "CONNECTION_REFUSED");
        assert_eq!(world.facts(&id).await.state(), v1::CredentialState::Expired);
    }

    /// No user can authorise it: the caller who stored it stores it again.
    async fn one_that_was_revoked_is_stored_again(server) {
        let world = of_client(&server).await;
        let id = credential(&world).await;
        let revoke = v1::RevokeCredentialRequest { reference: id.clone(), ..Default::default() };
        world.client.credentials().revoke_credential(revoke).await.unwrap();
        let explained = world.explain(&id).await;
        let expected = (v1::ErrorReason::CredentialNotValid, v1::NextStep::StoreMaterial);
        assert_eq!((explained.obstacle(), explained.next_step()), expected, "{explained:?}");
        assert_eq!(explained.start_authorization, None);
        let material = Some(Material::Oauth2(v1::OAuth2Material::default()));
        let update = v1::UpdateCredentialRequest {
            reference: id.clone(),
            credential: Some(v1::Credential::default()),
            material: Some(v1::CredentialMaterial { material }),
            ..Default::default()
        };
        let updated = world.client.credentials().update_credential(update).await.unwrap().into_inner();
        assert_eq!(updated.credential.unwrap().state(), v1::CredentialState::Valid);
        assert!(world.provider.accepts(&world.issue(&id).await.unwrap().access_token).is_some());
        assert_eq!(world.explain(&id).await.next_step(), v1::NextStep::None);
    }

    /// The next refresh would replace them by tokens with other rights.
    async fn a_client_takes_no_tokens_of_users(server) {
        let world = of_client(&server).await;
        let id = credential(&world).await;
        let tokens = || Some(fixture::oauth2_material("token", "refresh"));
        let create = v1::CreateCredentialRequest {
            credential: Some(v1::Credential {
                connection: world.connection.id.clone(),
                ..fixture::a_credential("ada", &world.connector)
            }),
            material: tokens(),
            ..Default::default()
        };
        let created = world.client.credentials().create_credential(create).await;
        let created = refused(created.map(tonic::Response::into_inner), Code::InvalidArgument, "FIELD_INVALID");
        assert_eq!(created.fields(), ["material.oauth2"]);
        let update = v1::UpdateCredentialRequest {
            reference: id.clone(),
            credential: Some(v1::Credential::default()),
            material: tokens(),
            ..Default::default()
        };
        let changed = world.client.credentials().update_credential(update).await;
        let changed = refused(changed.map(tonic::Response::into_inner), Code::InvalidArgument, "FIELD_INVALID");
        assert_eq!(changed.fields(), ["material.oauth2"]);
        let request = v1::AuthenticateUserConnectorRequest {
            user_id: "ada".to_owned(),
            connector: world.connector.clone(),
            material: tokens(),
            ..Default::default()
        };
        let own = world.client.user_connectors().authenticate_user_connector(request).await.unwrap().into_inner();
        let own = own.credential.unwrap();
        assert!(own.id != id && own.is_default == Some(true), "{own:?}");
    }

    async fn the_grant_of_a_connection_stays(server) {
        let world = of_client(&server).await;
        let change = |grant: v1::ConnectionGrantType, authentication: v1::ClientAuthentication| {
            let connection = v1::Connection {
                grant_type: grant.into(),
                client_authentication: authentication.into(),
                ..Default::default()
            };
            let reference = world.connection.id.clone();
            let request =
                v1::UpdateConnectionRequest { reference, connection: Some(connection), ..Default::default() };
            async { world.client.connections().update_connection(request).await.map(tonic::Response::into_inner) }
        };
        let (code, own) = (v1::ConnectionGrantType::AuthorizationCode, v1::ConnectionGrantType::ClientCredentials);
        let (same, none) = (v1::ClientAuthentication::Unspecified, v1::ClientAuthentication::None);
        let moved = refused(change(code, same).await, Code::InvalidArgument, "FIELD_INVALID");
        assert_eq!(moved.fields(), ["connection.grant_type"]);
        let public = refused(change(own, none).await, Code::InvalidArgument, "FIELD_INVALID");
        assert_eq!(public.fields(), ["connection.client_authentication"]);
    }
}
