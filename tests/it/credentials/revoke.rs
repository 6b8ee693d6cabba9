//! Revocations: nothing is issued any more, and the provider is asked to accept the tokens no more.

use std::time::Duration;

use futures::future::join_all;
use jackfield_api::v1::{self, RevocationOutcome as Outcome, RevokedTokenKind as Kind, credential_material::Material};
use jackfield_testkit::provider::{End, Endpoint, Gate, ProviderRequest};
use jackfield_testkit::{Provider, ProviderFault, ProviderOptions, Reply, TestServer, expect_status, fixture, on_both};
use tokio::time::timeout;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::refresh::world::{World, eventually, refused};
use crate::steps;

/// A world whose connection has the revocation endpoint of the provider.
async fn world(server: &TestServer) -> World {
    World::with(server, ProviderOptions::default(), |connection| {
        connection.revocation_url = connection.token_url.as_ref().map(|url| url.replace("/token", "/revoke"));
    })
    .await
}

fn request(credential: &str) -> v1::RevokeCredentialRequest {
    v1::RevokeCredentialRequest { reference: credential.to_owned(), ..Default::default() }
}

async fn try_revoke(
    world: &World,
    request: v1::RevokeCredentialRequest,
) -> Result<v1::RevokeCredentialResponse, Status> {
    world.client.credentials().revoke_credential(request).await.map(Response::into_inner)
}

/// Revokes a credential that was not revoked before, and returns what became of its tokens.
async fn revoke(world: &World, credential: &str) -> Vec<(Kind, Outcome, String)> {
    let revoked = try_revoke(world, request(credential)).await.unwrap();
    assert!(revoked.revoked);
    assert_eq!(world.facts(credential).await.state(), v1::CredentialState::Revoked);
    revoked.revocations.into_iter().map(|it| (it.kind(), it.outcome(), it.reason)).collect()
}

/// The same for both tokens of a credential.
fn both(outcome: Outcome, reason: &str) -> Vec<(Kind, Outcome, String)> {
    [Kind::RefreshToken, Kind::AccessToken].map(|kind| (kind, outcome, reason.to_owned())).to_vec()
}

/// The requests to the revocation endpoint.
fn asked(world: &World) -> Vec<ProviderRequest> {
    world.provider.requests().into_iter().filter(|request| request.endpoint == Endpoint::Revocation).collect()
}

/// Has all requests to the revocation endpoint fail in one way.
fn fail(world: &World, fault: ProviderFault) {
    world.provider.fail_by(move |endpoint, _| match endpoint {
        Endpoint::Revocation => fault.clone(),
        Endpoint::Token => ProviderFault::none(),
    });
}

async fn set_connector_enabled(world: &World, enabled: bool) {
    let connector = Some(v1::Connector { enabled: Some(enabled), ..Default::default() });
    let request = v1::UpdateConnectorRequest { reference: world.connector.clone(), connector, ..Default::default() };
    world.client.connectors().update_connector(request).await.unwrap();
}

on_both! {
    async fn tokens_are_revoked_at_their_provider_the_refresh_token_first(server) {
        let world = world(&server).await;
        let grant = world.good("ada").await;
        let stored = world.reveal(&grant.credential).await;
        world.issue(&grant.credential).await.unwrap();
        assert_eq!(revoke(&world, &grant.credential).await, both(Outcome::Revoked, ""));
        assert_eq!(world.provider.live(grant.family), Err(End::Revoked));
        let asked = asked(&world);
        let sent = |request: &ProviderRequest| [request.parameters["token"].clone(), request.parameters["token_type_hint"].clone()];
        assert_eq!(asked.iter().map(sent).collect::<Vec<_>>(), [
            [stored.refresh_token.clone(), "refresh_token".to_owned()],
            [stored.access_token.clone(), "access_token".to_owned()],
        ]);
        assert!(asked.iter().all(|request| request.authorization.is_some()), "as at the token endpoint");

        let facts = world.facts(&grant.credential).await;
        assert_eq!((facts.version, facts.refreshable, facts.scopes.len()), (2, false, 0));
        assert_eq!((facts.expire_time, facts.next_refresh_time), (None, None));
        refused(world.issue(&grant.credential).await, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
        refused(world.refresh(&grant.credential).await, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
        refused(world.report(&grant.credential, 1).await, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
        let reveal = v1::RevealCredentialRequest { reference: grant.credential.clone(), purpose: "test of revocations".to_owned() };
        let revealed = world.client.credentials().reveal_credential(reveal).await;
        expect_status(revealed, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
        let explained = world.explain(&grant.credential).await;
        assert_eq!((explained.obstacle(), explained.next_step()), (v1::ErrorReason::CredentialNotValid, v1::NextStep::Reauthorize));
        let material = "SELECT COUNT(*) AS count FROM secret WHERE name IN ('material', 'alternate')";
        assert_eq!(server.sql(material).await, ["0"]);
        let metric = |outcome| server.metric("jackfield_credential_revocations_total", &[("outcome", outcome)]);
        assert_eq!((metric("revoked"), metric("unreachable")), (Some(2.0), Some(0.0)));

        let again = try_revoke(&world, request(&grant.credential)).await.unwrap();
        assert_eq!(again, v1::RevokeCredentialResponse::default(), "it was revoked before");
        assert_eq!(world.provider.requests().len(), 2);
    }

    async fn the_outcome_of_each_token_has_its_reason(server) {
        let world = world(&server).await;
        let wait = Reply { headers: vec![("retry-after", "3600".to_owned())], ..Reply::new(503, "") };
        let unreached = |reason: &str| both(Outcome::Unreachable, reason);
        for (fault, outcomes, requests) in [
            (ProviderFault::error(400, "invalid_token"), both(Outcome::Revoked, ""), 2),
            (ProviderFault::error(400, "unsupported_token_type"), both(Outcome::NotSupported, "unsupported_token_type"), 2),
            (ProviderFault::error(401, "invalid_client"), both(Outcome::Refused, "invalid_client"), 2),
            (ProviderFault::error(400, "of_its_own"), both(Outcome::Refused, "TOKEN_REFUSED"), 2),
            (ProviderFault::error_with_200("invalid_request"), both(Outcome::Refused, "invalid_request"), 2),
            (ProviderFault::status(404), both(Outcome::Refused, "STATUS_UNEXPECTED"), 2),
            (ProviderFault::redirect("http://localhost:1/"), both(Outcome::Refused, "STATUS_UNEXPECTED"), 2),
            (ProviderFault::status(302), both(Outcome::Refused, "STATUS_UNEXPECTED"), 2),
            // It is tried three times. What does not answer for one token is not asked about the next.
            (ProviderFault::status(500), unreached("STATUS_UNEXPECTED"), 3),
            // Longer than the call lasts.
            (ProviderFault::refused(wait), unreached("STATUS_UNEXPECTED"), 1),
        ] {
            let (grant, before) = (world.good("ada").await, asked(&world).len());
            let what = format!("{fault:?}");
            fail(&world, fault);
            assert_eq!(revoke(&world, &grant.credential).await, outcomes, "{what}");
            assert_eq!(asked(&world).len() - before, requests, "{what}");
        }
    }

    async fn attempts_that_may_not_have_reached_the_provider_are_repeated(server) {
        let world = world(&server).await;
        world.provider.fail_by(|_, number| match number {
            0 => ProviderFault::answer_lost(),
            1 => ProviderFault::status(503),
            _ => ProviderFault::none(),
        });
        let grant = world.good("ada").await;
        assert_eq!(revoke(&world, &grant.credential).await, both(Outcome::Revoked, ""));
        assert_eq!(asked(&world).len(), 4);
        assert_eq!(world.provider.live(grant.family), Err(End::Revoked));
    }

    async fn material_is_destroyed_although_nobody_can_be_asked(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.good("ada").await;
        assert_eq!(revoke(&world, &grant.credential).await, both(Outcome::NotSupported, "NO_REVOCATION_URL"));
        steps::link(&world.client, "bob", &world.connector).await;
        let facts = || fixture::a_credential("bob", &world.connector);
        let alone = steps::credential(&world.client, facts(), fixture::oauth2_material("access", "")).await.id;
        let access_token = (Kind::AccessToken, Outcome::NotSupported, "NO_CONNECTION".to_owned());
        assert_eq!(revoke(&world, &alone).await, [access_token]);
        let key = steps::credential(&world.client, facts(), fixture::api_key_material("key")).await.id;
        assert_eq!(revoke(&world, &key).await, []);
        for id in [&grant.credential, &alone, &key] {
            refused(world.issue(id).await, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
        }
        assert_eq!(server.sql("SELECT COUNT(*) AS count FROM secret WHERE name = 'material'").await, ["0"]);
        assert_eq!(world.provider.requests(), []);
        refused(try_revoke(&world, request("ext:unknown")).await, Code::NotFound, "CREDENTIAL_NOT_FOUND");
    }

    async fn a_request_that_is_repeated_or_only_checked_sends_nothing(server) {
        let world = world(&server).await;
        let grant = world.good("ada").await;
        let checked = v1::RevokeCredentialRequest { validate_only: true, ..request(&grant.credential) };
        assert_eq!(try_revoke(&world, checked).await.unwrap(), v1::RevokeCredentialResponse { revoked: true, revocations: vec![] });
        assert_eq!(world.facts(&grant.credential).await.state(), v1::CredentialState::Valid);
        assert_eq!(world.provider.requests(), []);
        let once = v1::RevokeCredentialRequest { request_id: Uuid::now_v7().to_string(), ..request(&grant.credential) };
        let first = try_revoke(&world, once.clone()).await.unwrap();
        assert_eq!((first.revoked, first.revocations.len()), (true, 2));
        let repeat = try_revoke(&world, once).await.unwrap();
        assert_eq!(repeat, v1::RevokeCredentialResponse { revoked: true, revocations: vec![] });
        assert_eq!(asked(&world).len(), 2);
    }

    async fn an_inactive_connection_revokes_and_a_disabled_connector_does_not(server) {
        let world = world(&server).await;
        let [first, second] = [world.good("ada").await, world.good("bob").await];
        let connection = Some(v1::Connection { active: Some(false), ..Default::default() });
        let deactivate =
            v1::UpdateConnectionRequest { reference: world.connection.id.clone(), connection, ..Default::default() };
        world.client.connections().update_connection(deactivate).await.unwrap();
        assert_eq!(revoke(&world, &first.credential).await, both(Outcome::Revoked, ""));
        set_connector_enabled(&world, false).await;
        assert_eq!(revoke(&world, &second.credential).await, both(Outcome::NotSent, "CONNECTOR_DISABLED"));
        assert_eq!(asked(&world).len(), 2);
    }

    async fn a_refresh_under_way_does_not_bring_a_credential_back(server) {
        let world = world(&server).await;
        let grant = world.expired("ada").await;
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::none().held(&gate)]);
        let revoked = async {
            world.sent(1).await;
            let revoked = revoke(&world, &grant.credential).await;
            gate.open();
            revoked
        };
        let (issued, revoked) = tokio::join!(world.issue(&grant.credential), revoked);
        refused(issued, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
        // What came too late is revoked as well.
        world.sent(5).await;
        assert_eq!(revoked, both(Outcome::Revoked, ""));
        assert_eq!(world.provider.live(grant.family), Err(End::Revoked));
        assert_eq!(world.facts(&grant.credential).await.state(), v1::CredentialState::Revoked);
        assert_eq!(server.sql("SELECT COUNT(*) AS count FROM secret WHERE name IN ('material', 'alternate')").await, ["0"]);
    }

    async fn new_material_makes_a_credential_usable_again(server) {
        let world = world(&server).await;
        let grant = world.good("ada").await;
        revoke(&world, &grant.credential).await;
        let part = Material::Oauth2(v1::OAuth2Material { refresh_token: "part".to_owned(), ..Default::default() });
        let update = v1::UpdateCredentialRequest {
            reference: grant.credential.clone(),
            credential: Some(v1::Credential::default()),
            update_mask: Some(prost_types::FieldMask { paths: vec!["material.oauth2.refresh_token".to_owned()] }),
            material: Some(v1::CredentialMaterial { material: Some(part) }),
            ..Default::default()
        };
        let updated = world.client.credentials().update_credential(update).await;
        expect_status(updated, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
        let another = world.provider.grant("ada", &["read"]);
        world.replace_all(&grant.credential, &another.access_token, &another.refresh_token).await;
        assert_eq!(world.issue(&grant.credential).await.unwrap().access_token, another.access_token);
        let facts = world.facts(&grant.credential).await;
        assert_eq!((facts.state(), facts.version), (v1::CredentialState::Valid, 3));
        world.refresh(&grant.credential).await.unwrap();
    }

    async fn what_is_deleted_is_revoked_at_its_provider(server) {
        let world = world(&server).await;
        let [deleted, removed, kept] = [world.good("ada").await, world.good("bob").await, world.good("eve").await];
        let checked = v1::DeleteCredentialRequest { reference: kept.credential.clone(), validate_only: true, ..Default::default() };
        world.client.credentials().delete_credential(checked).await.unwrap();
        world.delete(&deleted.credential).await;
        let (user_id, connector) = ("bob".to_owned(), world.connector.clone());
        let remove = v1::RemoveUserConnectorRequest { user_id, connector, ..Default::default() };
        let removal = world.client.user_connectors().remove_user_connector(remove).await.unwrap().into_inner();
        assert_eq!(removal.credentials_deleted, 1);
        for grant in [&deleted, &removed] {
            let is_revoked = || world.provider.live(grant.family) == Err(End::Revoked);
            eventually("the grant of what was deleted has ended", is_revoked).await;
        }
        eventually("all tokens are sent", || asked(&world).len() == 4).await;
        assert!(world.provider.live(kept.family).is_ok());
    }

    /// The provider answers after a minute.
    async fn a_provider_that_does_not_answer_holds_no_deletion_up(server) {
        let world = world(&server).await;
        fail(&world, ProviderFault::none().delayed(Duration::from_secs(60)));
        let grants = join_all((0..20).map(|number| {
            let world = &world;
            async move { world.good(&format!("user-{number}")).await }
        }));
        let grants = grants.await;
        // If each waited for the provider, all would take minutes.
        let deleted = async {
            for grant in &grants {
                world.delete(&grant.credential).await;
            }
        };
        timeout(Duration::from_secs(60), deleted).await.expect("none waits");
        let grant = world.good("ada").await;
        world.refresh(&grant.credential).await.unwrap();
    }

    /// The endpoints of a provider share a client, whose breaker holds calls back after failures in a row.
    async fn a_revocation_endpoint_that_is_away_does_not_hold_refreshes_back(server) {
        // It stops at once.
        let gone = Provider::start(ProviderOptions::default()).await.revocation_url();
        let world = World::with(&server, ProviderOptions::default(), |connection| {
            connection.revocation_url = Some(gone);
        })
        .await;
        let refreshed = world.good("ada").await;
        let mut circuit_open = false;
        while !circuit_open {
            let grant = world.good("ada").await;
            let outcomes = revoke(&world, &grant.credential).await;
            assert_eq!(outcomes[0].1, Outcome::Unreachable);
            circuit_open = outcomes[0].2 == "CIRCUIT_OPEN";
        }
        world.refresh(&refreshed.credential).await.unwrap();
    }
}
