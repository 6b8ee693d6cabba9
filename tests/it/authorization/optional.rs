//! Profiles that only tell an e-mail address: whatever becomes of them, no authorisation and no refresh fails, or waits for long.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_api::v1::{AuthorizationState as State, LinkingType as Linking};
use jackfield_testkit::{Client, OAuthProvider, TestServer, fixture, on_both};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::{BACK, World, complete};

/// Well above the time for a profile that can be done without, and well below that for one that cannot.
const SOON: Duration = Duration::from_secs(7);

fn links(connection: &mut v1::Connection, linking: Linking) {
    connection.scope = Some("openid read".to_owned());
    connection.linking = linking.into();
}

/// A world whose ID tokens have no address, so that the profile at this URL is asked for.
async fn world(server: &TestServer, profile_url: impl FnOnce(&OAuthProvider) -> String) -> World {
    let endpoints = |provider: &OAuthProvider| v1::OAuth2Connector {
        jwks_url: Some(provider.system.url("/jwks")),
        profile_url: Some(profile_url(provider)),
        ..Default::default()
    };
    World::on(server, endpoints, |_, connection| links(connection, Linking::Automatic)).await
}

/// Another connection of the connector.
async fn another(world: &World, linking: Linking) -> v1::Connection {
    let mut connection = v1::Connection {
        redirect_uris: vec![BACK.to_owned()],
        ..world.provider.connection("another", &world.connection.connector)
    };
    links(&mut connection, linking);
    let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
    world.client.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap()
}

/// Authorises a user at a connection. Returns the time that the completion took.
async fn authorized(world: &World, connection: &v1::Connection, user_id: &str) -> Duration {
    let request = v1::StartAuthorizationRequest { connection: connection.id.clone(), ..world.request(user_id) };
    let brought = world.provider.visit(&world.start(request).await.1).await;
    let start = Instant::now();
    let session = complete(&world.client, brought.completion(user_id)).await.unwrap();
    assert_eq!(session.state(), State::Completed, "{session:?}");
    start.elapsed()
}

/// Has a connector make one call at a time, and wait for a long time for a place and for a connection.
async fn narrow(client: &Client, connector: &str) {
    let connector_after = v1::Connector {
        max_concurrent_requests: Some(1),
        connect_timeout: Some(fixture::milliseconds(30_000)),
        ..Default::default()
    };
    let request = v1::UpdateConnectorRequest {
        reference: connector.to_owned(),
        connector: Some(connector_after),
        update_mask: fixture::mask(["max_concurrent_requests", "connect_timeout"]),
        ..Default::default()
    };
    client.connectors().update_connector(request).await.unwrap();
}

on_both! {
    async fn profiles_that_fail_hold_back_no_authorisation(server) {
        let world = world(&server, |provider| provider.system.url("/profile")).await;
        world.provider.openid.publish("/profile", 503, &json!({}));
        for number in 0..7 {
            authorized(&world, &world.connection, &format!("user-{number}")).await;
        }
        assert_eq!(world.provider.fetched("/profile"), 5, "from then on its circuit is open");
        // The keys are fetched again, for another connection: their circuit is closed.
        let other = another(&world, Linking::Automatic).await;
        let before = world.provider.fetched("/jwks");
        authorized(&world, &other, "last").await;
        assert_eq!(world.provider.fetched("/jwks"), before + 1);
    }

    async fn a_profile_that_hangs_delays_no_other_call(server) {
        let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/profile", hanging.local_addr().unwrap().port());
        let world = world(&server, |_| url).await;
        narrow(&world.client, &world.connection.connector).await;
        let other = another(&world, Linking::Disabled).await;
        // It is waited for, but not for as long as for one that is needed.
        let alone = authorized(&world, &world.connection, "alone").await;
        assert!(alone < SOON, "{alone:?}");
        let _first = hanging.accept().await.unwrap();
        // While it has the only place, another connection gets that.
        let second = async {
            let stream = hanging.accept().await.unwrap();
            (authorized(&world, &other, "quick").await, stream)
        };
        let (slow, (quick, _stream)) = tokio::join!(authorized(&world, &world.connection, "slow"), second);
        assert!(slow < SOON && quick < SOON, "{slow:?}, {quick:?}");
    }
}
