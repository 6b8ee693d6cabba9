//! Credentials that are deleted while they are refreshed, and created again with the same id: the refresh says nothing about the new ones.

use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::provider::Gate;
use jackfield_testkit::{ProviderFault, ProviderOptions, TestServer, fixture, on_both};
use tonic::Code;

use super::world::{Grant, World, refused};

/// Deletes a credential and creates another one with its id, with tokens of another grant whose access token has expired.
async fn recreate(world: &World, credential: &str) -> Grant {
    world.delete(credential).await;
    let issued = world.provider.grant("ada", &["read", "write"]);
    let material = v1::OAuth2Material {
        access_token: issued.access_token.clone(),
        refresh_token: issued.refresh_token,
        expire_time: Some(fixture::seconds_from_now(-60)),
        scopes: vec!["read".to_owned(), "write".to_owned()],
        ..Default::default()
    };
    let facts =
        v1::Credential { connection: world.connection.id.clone(), ..fixture::a_credential("ada", &world.connector) };
    let request = v1::CreateCredentialRequest {
        credential: Some(facts),
        material: Some(v1::CredentialMaterial { material: Some(Material::Oauth2(material)) }),
        id: credential.to_owned(),
        ..Default::default()
    };
    world.client.credentials().create_credential(request).await.unwrap();
    Grant { family: issued.family, access_token: issued.access_token, credential: credential.to_owned() }
}

/// A credential whose refresh the provider refuses, once the gate is open.
async fn held(server: &TestServer) -> (World, Grant, Gate) {
    let world = World::on(server, ProviderOptions::default()).await;
    let grant = world.expired("ada").await;
    let gate = Gate::closed();
    world.provider.fail([ProviderFault::error(400, "invalid_grant").held(&gate)]);
    (world, grant, gate)
}

on_both! {
    /// The refresh of the deleted one is still under way when a caller asks for the other one.
    async fn a_caller_does_not_wait_for_the_refresh_of_the_one_that_was_deleted(server) {
        let (world, grant, gate) = held(&server).await;
        let issue = async {
            world.sent(1).await;
            let other = recreate(&world, &grant.credential).await;
            let issued = world.issue(&other.credential).await;
            gate.open();
            (other, issued)
        };
        let (of_deleted, (other, issued)) = tokio::join!(world.issue(&grant.credential), issue);
        refused(of_deleted, Code::NotFound, "CREDENTIAL_NOT_FOUND");
        assert_eq!(issued.unwrap().access_token, world.provider.live(other.family).unwrap().access_token);
        let facts = world.facts(&other.credential).await;
        assert_eq!((facts.version, facts.failure_class()), (2, v1::FailureClass::Unspecified));
    }

    /// It is due, and has the version of the one that was deleted.
    async fn the_failure_of_the_one_that_was_deleted_is_not_noted(server) {
        let (world, grant, gate) = held(&server).await;
        let others = async {
            world.sent(1).await;
            let other = recreate(&world, &grant.credential).await;
            gate.open();
            other
        };
        let (of_deleted, other) = tokio::join!(world.issue(&grant.credential), others);
        refused(of_deleted, Code::NotFound, "CREDENTIAL_NOT_FOUND");
        let facts = world.facts(&other.credential).await;
        let noted = (facts.version, facts.failure_class(), facts.failure_reason.as_str(), facts.refresh_failure_count);
        assert_eq!(noted, (1, v1::FailureClass::Unspecified, "", 0));
        let live = world.issue(&other.credential).await.unwrap().access_token;
        assert_eq!(live, world.provider.live(other.family).unwrap().access_token);
    }

    /// The provider refused the request for the deleted one, and is asked for the other one all the same.
    async fn a_refused_request_of_the_one_that_was_deleted_holds_nothing_back(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        world.provider.fail([ProviderFault::error(400, "invalid_scope")]);
        refused(world.issue(&grant.credential).await, Code::FailedPrecondition, "CONNECTION_REFUSED");
        let other = recreate(&world, &grant.credential).await;
        let issued = world.issue(&other.credential).await.unwrap();
        assert_eq!(issued.access_token, world.provider.live(other.family).unwrap().access_token);
    }
}
