//! Expired tokens that a caller stores while others wait for a refresh: they are replaced in their turn, and none of those who wait hears that
//! the provider issues no better ones.

use std::time::Duration;

use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::provider::Gate;
use jackfield_testkit::{ProviderFault, ProviderOptions, fixture, on_both};
use tonic::{Code, Response};

use super::world::{World, refused};

/// Stores tokens of which the access token has expired. Without a refresh token, the one that is stored stays.
async fn store_expired(world: &World, credential: &str, access_token: &str, refresh_token: &str) {
    let oauth2 = v1::OAuth2Material {
        access_token: access_token.to_owned(),
        refresh_token: refresh_token.to_owned(),
        expire_time: Some(fixture::seconds_from_now(-60)),
        scopes: vec!["read".to_owned(), "write".to_owned()],
        ..Default::default()
    };
    let request = v1::UpdateCredentialRequest {
        reference: credential.to_owned(),
        credential: Some(v1::Credential::default()),
        material: Some(v1::CredentialMaterial { material: Some(Material::Oauth2(oauth2)) }),
        ..Default::default()
    };
    world.client.credentials().update_credential(request).await.unwrap();
}

on_both! {
    async fn one_of_another_grant_is_replaced(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        let other = world.provider.grant("ada", &["read", "write"]);
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::none().held(&gate)]);
        let store = async {
            world.sent(1).await;
            store_expired(&world, &grant.credential, &other.access_token, &other.refresh_token).await;
            gate.open();
        };
        let (issued, ()) = tokio::join!(world.issue(&grant.credential), store);
        let live = world.provider.live(other.family).unwrap();
        assert_eq!(issued.unwrap().access_token, live.access_token);
        assert_eq!((world.provider.exchanges(grant.family), world.provider.exchanges(other.family)), (1, 1));
        assert_eq!(world.provider.totals().reuses, 0);
    }

    /// The attempt with the tokens before fails, and says nothing about those that are stored.
    async fn one_of_another_grant_is_replaced_after_a_failure(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        let other = world.provider.grant("ada", &["read", "write"]);
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::error(400, "invalid_grant").held(&gate)]);
        let store = async {
            world.sent(1).await;
            store_expired(&world, &grant.credential, &other.access_token, &other.refresh_token).await;
            gate.open();
        };
        let (issued, ()) = tokio::join!(world.issue(&grant.credential), store);
        let live = world.provider.live(other.family).unwrap();
        assert_eq!(issued.unwrap().access_token, live.access_token);
        assert_eq!((world.provider.exchanges(grant.family), world.provider.exchanges(other.family)), (0, 1));
    }

    /// The refresh token that came for the one that was sent replaces it.
    async fn one_of_the_same_grant_is_replaced(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::none().held(&gate)]);
        let store = async {
            world.sent(1).await;
            store_expired(&world, &grant.credential, "stored meanwhile", "").await;
            gate.open();
        };
        let (issued, ()) = tokio::join!(world.issue(&grant.credential), store);
        let live = world.provider.live(grant.family).unwrap();
        assert_eq!(issued.unwrap().access_token, live.access_token);
        assert_eq!((world.provider.exchanges(grant.family), world.provider.reuses(grant.family)), (2, 0));
    }

    async fn one_is_replaced_for_those_who_report_a_token(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.good("ada").await;
        let other = world.provider.grant("ada", &["read", "write"]);
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::none().held(&gate)]);
        let store = async {
            world.sent(1).await;
            store_expired(&world, &grant.credential, &other.access_token, &other.refresh_token).await;
            gate.open();
        };
        let (report, ()) = tokio::join!(world.report(&grant.credential, 1), store);
        let live = world.provider.live(other.family).unwrap();
        assert_eq!(report.unwrap().issued.unwrap().access_token, live.access_token);
        assert_eq!(world.provider.totals().reuses, 0);
    }

    /// A caller who comes again gets no better one.
    async fn one_that_has_expired_when_the_answer_is_there_is_named_as_such(server) {
        let options = ProviderOptions { lifetime: Duration::from_secs(1), ..ProviderOptions::default() };
        let world = World::on(&server, options).await;
        let grant = world.expired("ada").await;
        let late = || ProviderFault::none().answering_after(Duration::from_millis(1_500));
        world.provider.fail([late(), late()]);
        let refusal = refused(world.issue(&grant.credential).await, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
        assert!(refusal.status.message().contains("have expired when its answers are there"), "{refusal:?}");
        assert_eq!(world.provider.exchanges(grant.family), 2);
    }

    /// A provider whose tokens are good for less than the caller demands is not asked again.
    async fn one_that_the_provider_issues_is_not(server) {
        let options = ProviderOptions { lifetime: Duration::from_secs(40), ..ProviderOptions::default() };
        let world = World::on(&server, options).await;
        let grant = world.expired("ada").await;
        let min_validity = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let request =
            v1::IssueAccessTokenRequest { reference: grant.credential.clone(), min_validity, ..Default::default() };
        let answer = world.client.credentials().issue_access_token(request).await.map(Response::into_inner);
        refused(answer, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
        assert_eq!(world.provider.exchanges(grant.family), 1);
    }
}
