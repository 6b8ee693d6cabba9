//! The state of a link in a get, in a list, and in a filter on the state.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::{Client, ManualClock, TestServer, fixture, on_both};

use super::{found, get, listed};
use crate::steps;

const STATES: [&str; 4] = ["ATTACHED", "AUTHENTICATED", "NEEDS_REAUTH", "DISABLED"];

async fn filtered(client: &Client, filter: &str) -> Vec<String> {
    let request = v1::ListUserConnectorsRequest { filter: filter.to_owned(), ..Default::default() };
    let links = listed(client, request).await.unwrap_or_else(|status| panic!("{filter}: {status:?}"));
    links.into_iter().map(|link| link.user_id).collect()
}

/// Checks that every call reports these states for these users' links; the users are in the order of linking.
async fn expect_states(client: &Client, expected: &[(&str, &str)]) {
    let all = listed(client, v1::ListUserConnectorsRequest::default()).await.unwrap();
    let name = |link: &v1::UserConnector| link.state().as_str_name().replace("USER_CONNECTOR_STATE_", "");
    let states: Vec<_> = all.iter().map(|link| (link.user_id.clone(), name(link))).collect();
    let expected: Vec<_> = expected.iter().map(|(user, state)| ((*user).to_owned(), (*state).to_owned())).collect();
    assert_eq!(states, expected, "as listed");
    for link in all {
        assert_eq!(found(client, get(&link.id, "", "")).await, link, "as got");
    }
    let users = |wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
        expected.iter().filter(|(_, state)| wanted(state)).map(|(user, _)| user.clone()).collect()
    };
    for state in STATES {
        assert_eq!(filtered(client, &format!("state = {state}")).await, users(&|it| it == state), "{state}");
        assert_eq!(filtered(client, &format!("state != {state}")).await, users(&|it| it != state), "not {state}");
        assert_eq!(
            filtered(client, &format!("NOT state = \"{state}\"")).await,
            users(&|it| it != state),
            "NOT {state}"
        );
    }
    let either = |it: &str| it == "ATTACHED" || it == "NEEDS_REAUTH";
    assert_eq!(filtered(client, "state = ATTACHED OR state = NEEDS_REAUTH").await, users(&either));
}

on_both! {
    async fn the_state_follows_credentials_connector_and_time(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let client = server.client("alpha");
        let connector = steps::connector(&client, fixture::a_connector("Gmail")).await.id;
        let other = steps::connector(&client, fixture::a_connector("Slack")).await.id;
        for user in ["none", "key", "short", "mixed", "lapsed"] {
            steps::link(&client, user, &connector).await;
        }
        steps::link(&client, "elsewhere", &other).await;
        steps::credential(&client, fixture::a_credential("elsewhere", &other), fixture::api_key_material("key")).await;
        let tokens = |seconds| steps::tokens_for(&clock, seconds, "token", "");
        let give = |user: &'static str, material| {
            let (client, facts) = (client.clone(), fixture::a_credential(user, &connector));
            async move { steps::credential(&client, facts, material).await }
        };
        give("key", fixture::api_key_material("key")).await;
        give("short", tokens(60)).await;
        give("mixed", tokens(-60)).await;
        let spare = give("mixed", tokens(3600)).await;
        give("lapsed", tokens(-60)).await;
        expect_states(&client, &[
            ("none", "ATTACHED"),
            ("key", "AUTHENTICATED"),
            ("short", "AUTHENTICATED"),
            ("mixed", "AUTHENTICATED"),
            ("lapsed", "NEEDS_REAUTH"),
            ("elsewhere", "AUTHENTICATED"),
        ]).await;

        // A token expires over time, and one of two credentials is deleted.
        clock.advance(Duration::from_secs(61));
        let request = v1::DeleteCredentialRequest { reference: spare.id, ..Default::default() };
        client.credentials().delete_credential(request).await.unwrap();
        steps::enable(&client, &other, false).await;
        expect_states(&client, &[
            ("none", "ATTACHED"),
            ("key", "AUTHENTICATED"),
            ("short", "NEEDS_REAUTH"),
            ("mixed", "NEEDS_REAUTH"),
            ("lapsed", "NEEDS_REAUTH"),
            ("elsewhere", "DISABLED"),
        ]).await;

        // New material brings a link back; a disabled connector hides every other state.
        let lapsed = found(&client, get("", "lapsed", &connector)).await;
        give("lapsed", fixture::basic_material("user", "password")).await;
        assert_eq!(found(&client, get(&lapsed.id, "", "")).await.etag, lapsed.etag, "the link itself did not change");
        steps::enable(&client, &connector, false).await;
        steps::enable(&client, &other, true).await;
        expect_states(&client, &[
            ("none", "DISABLED"),
            ("key", "DISABLED"),
            ("short", "DISABLED"),
            ("mixed", "DISABLED"),
            ("lapsed", "DISABLED"),
            ("elsewhere", "AUTHENTICATED"),
        ]).await;
        steps::enable(&client, &connector, true).await;
        expect_states(&client, &[
            ("none", "ATTACHED"),
            ("key", "AUTHENTICATED"),
            ("short", "NEEDS_REAUTH"),
            ("mixed", "NEEDS_REAUTH"),
            ("lapsed", "AUTHENTICATED"),
            ("elsewhere", "AUTHENTICATED"),
        ]).await;
    }

    /// Credentials of another tenant with the same user ids and connector names do not count.
    async fn the_state_depends_only_on_the_tenant(server) {
        let (alpha, beta) = (server.client("alpha"), server.client("beta"));
        let link = steps::linked(&alpha, "ada", "Gmail").await;
        let theirs = steps::linked(&beta, "ada", "Gmail").await;
        steps::api_key(&beta, &theirs, "key").await;
        expect_states(&alpha, &[("ada", "ATTACHED")]).await;
        expect_states(&beta, &[("ada", "AUTHENTICATED")]).await;
        assert_eq!(found(&alpha, get(&link.id, "", "")).await.credential_count, 0);
    }
}
