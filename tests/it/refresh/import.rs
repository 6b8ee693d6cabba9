//! Tokens that callers store. A refresh token alone is exchanged at once: another program that has it may spend it.

use std::sync::Arc;
use std::time::Duration;

use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::provider::Gate;
use jackfield_testkit::{ManualClock, ProviderFault, ProviderOptions, TestServer, fixture, on_both};
use tonic::{Code, Status};
use uuid::Uuid;

use super::world::{World, refused};
use crate::steps;

/// A request that stores material of a user who is linked.
async fn create(world: &World, user: &str, oauth2: v1::OAuth2Material) -> v1::CreateCredentialRequest {
    steps::link(&world.client, user, &world.connector).await;
    let connection = world.connection.id.clone();
    let facts = v1::Credential { connection, ..fixture::a_credential(user, &world.connector) };
    v1::CreateCredentialRequest { credential: Some(facts), material: Some(material(oauth2)), ..Default::default() }
}

async fn created(
    world: &World,
    request: impl tonic::IntoRequest<v1::CreateCredentialRequest>,
) -> Result<v1::Credential, Status> {
    let created = world.client.credentials().create_credential(request).await?;
    Ok(created.into_inner().credential.unwrap())
}

fn alone(refresh_token: &str) -> v1::OAuth2Material {
    v1::OAuth2Material { refresh_token: refresh_token.to_owned(), ..Default::default() }
}

fn material(oauth2: v1::OAuth2Material) -> v1::CredentialMaterial {
    v1::CredentialMaterial { material: Some(Material::Oauth2(oauth2)) }
}

on_both! {
    async fn a_refresh_token_alone_is_exchanged_before_the_answer(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.provider.grant("ada", &["read"]);
        let request = create(&world, "ada", alone(&grant.refresh_token)).await;
        let tried = created(&world, v1::CreateCredentialRequest { validate_only: true, ..request.clone() }).await.unwrap();
        assert_eq!((tried.state(), world.provider.exchanges(grant.family)), (v1::CredentialState::Expired, 0));

        let request = v1::CreateCredentialRequest { request_id: Uuid::now_v7().to_string(), ..request };
        let credential = created(&world, request.clone()).await.unwrap();
        assert_eq!((credential.state(), credential.version), (v1::CredentialState::Valid, 2));
        assert_eq!(credential.scopes, ["read"]);
        assert!(credential.last_refresh_time.is_some() && credential.next_refresh_time.is_some());
        assert_eq!(credential, world.facts(&credential.id).await);
        let live = world.provider.live(grant.family).unwrap();
        let stored = world.reveal(&credential.id).await;
        assert_eq!((stored.access_token, stored.refresh_token), (live.access_token, live.refresh_token));
        assert_eq!(created(&world, request).await.unwrap(), credential, "a repeat");
        assert_eq!((world.provider.exchanges(grant.family), world.provider.reuses(grant.family)), (1, 0));
    }

    async fn so_is_one_that_replaces_what_was_stored(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let first = world.expired("ada").await;
        let another = world.provider.grant("ada", &["read"]);
        let request = v1::UpdateCredentialRequest {
            reference: first.credential.clone(),
            credential: Some(v1::Credential::default()),
            material: Some(material(alone(&another.refresh_token))),
            ..Default::default()
        };
        let updated = world.client.credentials().update_credential(request).await.unwrap().into_inner().credential.unwrap();
        assert_eq!((updated.state(), updated.version), (v1::CredentialState::Valid, 3));
        let third = world.provider.grant("ada", &["read"]);
        let request = v1::AuthenticateUserConnectorRequest {
            user_id: "ada".to_owned(),
            connector: world.connector.clone(),
            material: Some(material(alone(&third.refresh_token))),
            ..Default::default()
        };
        let answer = world.client.user_connectors().authenticate_user_connector(request).await.unwrap().into_inner();
        let (link, credential) = (answer.user_connector.unwrap(), answer.credential.unwrap());
        assert_eq!((credential.state(), credential.version), (v1::CredentialState::Valid, 5));
        assert_eq!((credential.id, answer.created), (first.credential, false));
        assert_eq!(link.state(), v1::UserConnectorState::Authenticated);
        let exchanges = [first.family, another.family, third.family].map(|family| world.provider.exchanges(family));
        assert_eq!(exchanges, [0, 1, 1]);
    }

    /// The credential is stored, and says why it has no token.
    async fn an_exchange_that_fails_is_told(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        for (number, (fault, state, class, reason)) in [
            (ProviderFault::error(400, "invalid_grant"), v1::CredentialState::NeedsReauth, v1::FailureClass::Permanent, "invalid_grant"),
            (ProviderFault::answer_lost(), v1::CredentialState::Indeterminate, v1::FailureClass::Indeterminate, "CONNECTION_LOST"),
            (ProviderFault::status(503), v1::CredentialState::Expired, v1::FailureClass::Transient, "STATUS_UNEXPECTED"),
            // Last, because the provider is not asked again for a while.
            (ProviderFault::error(401, "invalid_client"), v1::CredentialState::Expired, v1::FailureClass::Connection, "invalid_client"),
        ].into_iter().enumerate() {
            let user = format!("ada-{number}");
            let grant = world.provider.grant(&user, &["read"]);
            world.provider.fail([fault]);
            let credential = created(&world, create(&world, &user, alone(&grant.refresh_token)).await).await.unwrap();
            assert_eq!((credential.state(), credential.failure_class()), (state, class), "{credential:?}");
            assert_eq!((&*credential.failure_reason, credential.version), (reason, 1));
            assert_eq!(credential, world.facts(&credential.id).await);
            let explained = world.explain(&credential.id).await;
            let of_user = explained.next_step() == v1::NextStep::Reauthorize;
            assert_eq!(explained.start_authorization.is_some(), of_user, "{explained:?}");
        }
    }

    /// A connection through which nothing can be exchanged.
    async fn what_cannot_be_exchanged_is_stored(server) {
        let world = World::with(&server, ProviderOptions::default(), |connection| connection.token_url = None).await;
        let grant = world.provider.grant("ada", &["read"]);
        let request = create(&world, "ada", alone(&grant.refresh_token)).await;
        let credential = created(&world, request.clone()).await.unwrap();
        assert_eq!((credential.state(), credential.failure_class()), (v1::CredentialState::Expired, v1::FailureClass::Connection));
        assert_eq!(credential.failure_reason, "CONNECTION_INCOMPLETE");
        assert_eq!(world.explain(&credential.id).await.next_step(), v1::NextStep::CorrectConnection);

        let facts = fixture::a_credential("ada", &world.connector);
        let credential = created(&world, v1::CreateCredentialRequest { credential: Some(facts), ..request }).await.unwrap();
        assert_eq!((credential.state(), credential.failure_class()), (v1::CredentialState::NeedsReauth, v1::FailureClass::Unspecified));
        let explained = world.explain(&credential.id).await;
        assert_eq!((explained.next_step(), explained.start_authorization), (v1::NextStep::StoreMaterial, None));
        assert_eq!(world.provider.requests().len(), 0);
    }

    async fn a_slow_exchange_goes_on_after_the_deadline(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.provider.grant("ada", &["read"]);
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::none().held(&gate)]);
        let mut request = tonic::Request::new(create(&world, "ada", alone(&grant.refresh_token)).await);
        request.set_timeout(Duration::from_secs(3));
        let credential = created(&world, request).await.unwrap();
        assert_eq!((credential.state(), credential.version), (v1::CredentialState::Expired, 1));
        gate.open();
        let issued = world.issue(&credential.id).await.unwrap();
        assert_eq!(issued.access_token, world.provider.live(grant.family).unwrap().access_token);
        assert_eq!(world.provider.exchanges(grant.family), 1);
    }

    /// Its scopes are not known before, whatever is asked for.
    async fn the_scopes_of_a_refresh_token_alone_are_checked_once_it_is_exchanged(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |_| {}).await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.provider.grant("ada", &["read"]);
        world.provider.fail([ProviderFault::status(503)]);
        world.store_material("ada", Material::Oauth2(alone(&grant.refresh_token))).await;
        clock.advance(Duration::from_secs(60));
        let missing = world.issue_of("name:Provider", "ada", &["read", "write"]).await;
        refused(missing, Code::FailedPrecondition, "SCOPE_MISSING");
        let issued = world.issue_of("name:Provider", "ada", &["read"]).await.unwrap();
        assert_eq!(issued.access_token, world.provider.live(grant.family).unwrap().access_token);
        assert_eq!(world.provider.exchanges(grant.family), 1);
    }

    async fn a_token_that_nothing_replaces_says_when_it_dies(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.provider.grant("ada", &["read"]);
        let expire_time = fixture::seconds_from_now(3_600);
        let dying = v1::OAuth2Material {
            access_token: grant.access_token.clone(),
            expire_time: Some(expire_time),
            ..Default::default()
        };
        let credential = created(&world, create(&world, "ada", dying).await).await.unwrap();
        assert_eq!((credential.state(), credential.refreshable), (v1::CredentialState::Valid, false));
        assert_eq!(credential.expire_time.unwrap().seconds, expire_time.seconds);
        assert_eq!(world.issue(&credential.id).await.unwrap().access_token, grant.access_token);
        let explained = world.explain(&credential.id).await;
        assert_eq!((explained.obstacle(), explained.next_step()), (v1::ErrorReason::Unspecified, v1::NextStep::Reauthorize));
        assert!(explained.explanation.starts_with("a token is issued until 20"), "{explained:?}");
        let expected = v1::StartAuthorizationRequest {
            connection: world.connection.id.clone(),
            user_id: "ada".to_owned(),
            credential: credential.id,
            ..Default::default()
        };
        assert_eq!(explained.start_authorization, Some(expected));

        let none = created(&world, create(&world, "bob", v1::OAuth2Material::default()).await).await.unwrap();
        assert_eq!(none.state(), v1::CredentialState::NeedsReauth);
        let explained = world.explain(&none.id).await;
        assert_eq!((explained.obstacle(), explained.next_step()), (v1::ErrorReason::ReauthRequired, v1::NextStep::Reauthorize));
        assert_eq!(world.provider.requests().len(), 0);
    }
}
