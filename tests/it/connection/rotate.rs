//! RotateConnectionSecret: another client secret, without an outage.

use jackfield_api::v1;
use jackfield_testkit::{ProviderOptions, TestServer, on_both};
use tonic::{Code, Response, Status};

use crate::refresh::world::{World, refused};

/// The secrets that the provider accepts.
const ACCEPTED: [&str; 2] = ["accepted-1", "accepted-2"];

/// A connection whose only secret, with the id "0", is the first of those that the provider accepts.
async fn world(server: &TestServer) -> World {
    let client_secrets = ACCEPTED.map(str::to_owned).to_vec();
    let world = World::on(server, ProviderOptions { client_secrets, ..Default::default() }).await;
    world.set_secrets(&ACCEPTED[..1]).await;
    world
}

fn request(world: &World, client_secret: &str) -> v1::RotateConnectionSecretRequest {
    let (reference, client_secret) = (world.connection.id.clone(), client_secret.to_owned());
    v1::RotateConnectionSecretRequest { reference, client_secret, ..Default::default() }
}

async fn rotate(world: &World, request: v1::RotateConnectionSecretRequest) -> Result<v1::Connection, Status> {
    let rotated = world.client.connections().rotate_connection_secret(request).await.map(Response::into_inner)?;
    Ok(rotated.connection.unwrap())
}

fn ids(connection: &v1::Connection) -> Vec<&str> {
    connection.client_secrets.iter().map(|secret| &*secret.secret_id).collect()
}

/// The requests of a refresh.
async fn refresh(world: &World, credential: &str) -> usize {
    let before = world.provider.requests().len();
    world.refresh(credential).await.unwrap();
    world.provider.requests().len() - before
}

on_both! {
    async fn a_secret_is_added_before_the_others(server) {
        let world = world(&server).await;
        let named = v1::RotateConnectionSecretRequest { secret_id: "mine".to_owned(), ..request(&world, "new") };
        let checked = v1::RotateConnectionSecretRequest { validate_only: true, ..named.clone() };
        assert_eq!(ids(&rotate(&world, checked).await.unwrap()), ["mine", "0"]);
        let rotated = rotate(&world, named.clone()).await.unwrap();
        assert_eq!(ids(&rotated), ["mine", "0"], "the call before only checked it");
        assert!(rotated.client_secrets.iter().all(|secret| secret.value.is_empty()));
        assert_eq!(rotated.client_secrets[0].create_time, rotated.update_time);
        refused(rotate(&world, named.clone()).await, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["secret_id"]);
        let stale = v1::RotateConnectionSecretRequest { etag: world.connection.etag.clone(), ..request(&world, "new") };
        refused(rotate(&world, stale).await, Code::Aborted, "ETAG_MISMATCH");
        let unknown = v1::RotateConnectionSecretRequest { reference: "name:missing".to_owned(), ..named };
        refused(rotate(&world, unknown).await, Code::NotFound, "CONNECTION_NOT_FOUND");
        for (secret, reason) in [("", "FIELD_INVALID"), (" x", "FIELD_INVALID"), ("****", "PLACEHOLDER_SECRET")] {
            let refusal = refused(rotate(&world, request(&world, secret)).await, Code::InvalidArgument, reason);
            refusal.expect_fields(&["client_secret"]);
        }

        let mut rotated = rotated;
        for count in 3..=8 {
            rotated = rotate(&world, request(&world, "new")).await.unwrap();
            assert_eq!((rotated.client_secrets.len(), ids(&rotated)[0].len()), (count, 32), "an id is made");
        }
        let refusal = refused(rotate(&world, request(&world, "new")).await, Code::InvalidArgument, "FIELD_INVALID");
        refusal.expect_fields(&["client_secret"]);
        assert_eq!(rotated.client_secrets.last().unwrap().secret_id, "0");
    }

    /// A refusal for each call would look like an attack to the provider.
    async fn the_secret_that_was_accepted_last_is_tried_first(server) {
        let world = world(&server).await;
        let credential = world.good("ada").await.credential;
        let rotated = rotate(&world, request(&world, "not known yet")).await.unwrap();
        assert_eq!(refresh(&world, &credential).await, 2, "nothing was accepted yet");
        assert_eq!(refresh(&world, &credential).await, 1);
        rotate(&world, request(&world, ACCEPTED[1])).await.unwrap();
        let sent = |world: &World| world.provider.requests().pop().unwrap().authorization;
        let before = sent(&world);
        assert_eq!(refresh(&world, &credential).await, 1, "the old one is good");
        assert_eq!(sent(&world), before, "and is tried first");

        // The old one is removed, and the newest is the first of the others.
        let mut connection = v1::Connection { client_secrets: rotated.client_secrets.clone(), ..Default::default() };
        connection.client_secrets.retain(|secret| secret.secret_id != "0");
        let newest = v1::ClientSecret { secret_id: "newest".to_owned(), value: ACCEPTED[1].to_owned(), ..Default::default() };
        connection.client_secrets.push(newest);
        let (reference, connection) = (world.connection.id.clone(), Some(connection));
        let update = v1::UpdateConnectionRequest { reference, connection, ..Default::default() };
        world.client.connections().update_connection(update).await.unwrap();
        assert_eq!(refresh(&world, &credential).await, 2);
        assert_eq!(refresh(&world, &credential).await, 1);
    }
}
