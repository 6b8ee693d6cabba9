//! The end of an authorisation, as the provider tells it with refresh tokens.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::provider::Rotation;
use jackfield_testkit::{ProviderFault, ProviderOptions, collect, on_both};
use serde_json::Value;

use super::world::World;

const DAY: i64 = 86_400;

/// The seconds from the last refresh of a credential to the end of its authorisation.
async fn rest(world: &World, credential: &str) -> Option<i64> {
    let facts = world.facts(credential).await;
    let end = facts.authorization_expire_time?;
    Some(end.seconds - facts.last_refresh_time.expect("a refresh").seconds)
}

fn told(member: &'static str, value: impl Into<Value>) -> [ProviderFault; 1] {
    [ProviderFault::members([(member, value.into())])]
}

on_both! {
    async fn the_end_of_an_authorisation_moves_with_its_refresh_token(server) {
        let refresh_lifetime = Some(Duration::from_secs(DAY.unsigned_abs()));
        let world = World::on(&server, ProviderOptions { refresh_lifetime, ..ProviderOptions::default() }).await;
        let grant = world.good("ada").await;
        assert_eq!(world.facts(&grant.credential).await.authorization_expire_time, None, "a caller stored it");
        for _ in 0..2 {
            world.refresh(&grant.credential).await.unwrap();
            let rest = rest(&world, &grant.credential).await.unwrap();
            assert!((DAY - 60..=DAY).contains(&rest), "{rest}");
        }
        let explained = world.explain(&grant.credential).await;
        assert!(explained.explanation.contains("the provider ends the authorisation at "), "{explained:?}");
        let filter = "authorization_expire_time > 2001-01-01T00:00:00Z".to_owned();
        let request = v1::ListCredentialsRequest { filter, ..Default::default() };
        let listed = collect::items(world.client.credentials().list_credentials(request).await).await.unwrap();
        assert_eq!(listed.iter().map(|it| &*it.id).collect::<Vec<_>>(), [&*grant.credential]);

        // The end of the authorisation itself does not move.
        world.provider.fail(told("authorization_expires_in", 600));
        world.refresh(&grant.credential).await.unwrap();
        let left = rest(&world, &grant.credential).await.unwrap();
        assert!((540..=600).contains(&left), "{left}");

        // Another access token of a caller changes nothing, another refresh token does.
        world.replace(&grant.credential, "of a caller").await;
        assert_eq!(rest(&world, &grant.credential).await, Some(left));
        let another = world.provider.grant("ada", &["read"]);
        world.replace_all(&grant.credential, &another.access_token, &another.refresh_token).await;
        assert_eq!(rest(&world, &grant.credential).await, None);

        world.refresh(&grant.credential).await.unwrap();
        assert!(rest(&world, &grant.credential).await.is_some());
        world.provider.fail(told("refresh_token_expires_in", Value::Null));
        world.refresh(&grant.credential).await.unwrap();
        assert_eq!(rest(&world, &grant.credential).await, None, "nothing is known of the new refresh token");
    }

    async fn a_refresh_token_that_stays_ends_when_it_was_said_to(server) {
        let world = World::on(&server, ProviderOptions { rotation: Rotation::Never, ..ProviderOptions::default() }).await;
        let grant = world.good("ada").await;
        world.provider.fail(told("refresh_expires_in", DAY));
        world.refresh(&grant.credential).await.unwrap();
        let end = world.facts(&grant.credential).await.authorization_expire_time;
        assert!(end.is_some());
        world.refresh(&grant.credential).await.unwrap();
        assert_eq!(world.facts(&grant.credential).await.authorization_expire_time, end);
    }
}
