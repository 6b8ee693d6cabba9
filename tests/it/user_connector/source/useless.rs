//! Answers of sources that are of no use: they replace nothing, and hold back no other user. And the time that a source has.

use std::time::Duration;

use jackfield_testkit::reason_of;
use tokio::time::sleep;

use super::*;

/// OAuth material whose access token ends so many seconds from now.
fn ending(seconds: i64, refresh_token: &str) -> v1::CredentialMaterial {
    let tokens = v1::OAuth2Material {
        access_token: "of the source".to_owned(),
        refresh_token: refresh_token.to_owned(),
        expire_time: Some(fixture::seconds_from_now(seconds)),
        ..Default::default()
    };
    v1::CredentialMaterial { material: Some(Material::Oauth2(tokens)) }
}

/// The questions of each user whose answers are of no use: more than the failures that open a circuit.
const TIMES: usize = 6;
/// The most calls to a source at a time.
const PLACES: usize = 32;
/// The time for which a call waits for a place.
const WAIT: Duration = Duration::from_millis(1_500);

/// Asks a source for each of these users several times, and then for `ada`.
async fn ada_after(client: &Client, others: &[&str]) {
    for user_id in others {
        for _ in 0..TIMES {
            let refused = authenticate(client, by_source(user_id)).await.unwrap_err();
            assert_ne!(reason_of(&refused), "CREDENTIAL_SOURCE_UNREACHABLE", "{user_id}");
        }
    }
    authenticate(client, by_source("ada")).await.unwrap();
}

/// The user of a question, and the seconds of the time at which it ends.
fn end_of(question: &[u8]) -> (String, f64) {
    let question: Value = serde_json::from_slice(question).unwrap();
    let end: prost_types::Timestamp = question["expireTime"].as_str().unwrap().parse().unwrap();
    (question["userId"].as_str().unwrap().to_owned(), end.seconds as f64 + f64::from(end.nanos) / 1e9)
}

on_both! {
    async fn a_token_that_has_expired_replaces_nothing(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        set(&client, fixture::a_stream_source("")).await;
        let mut stream = serve(&client).await;
        let good = ending(3_600, "");
        let (stored, _) = tokio::join!(authenticate(&client, by_source("ada")), answer(&mut stream, Some(good)));
        let stored = stored.unwrap().into_inner().credential.unwrap();
        let material = steps::revealed(&client, &stored.id).await;
        for seconds in [-1, -3_600] {
            let answering = answer(&mut stream, Some(ending(seconds, "")));
            let (refused, _) = tokio::join!(authenticate(&client, by_source("ada")), answering);
            let refused = expect_status(refused, Code::FailedPrecondition, "CREDENTIAL_SOURCE_INCOMPLETE");
            let message = refused.status.message();
            assert!(message.contains("the access token that it gave has already expired"), "{message}");
            assert_eq!(steps::credential_now(&client, &stored.id).await, stored);
            assert_eq!(steps::revealed(&client, &stored.id).await, material);
        }
        // A refresh token may bring another one.
        let answering = answer(&mut stream, Some(ending(-1, "refresh")));
        let (replaced, _) = tokio::join!(authenticate(&client, by_source("ada")), answering);
        assert_eq!(replaced.unwrap().into_inner().credential.unwrap().id, stored.id);
        assert_ne!(steps::revealed(&client, &stored.id).await, material);
    }

    async fn useless_answers_for_others_do_not_open_the_circuit_of_an_endpoint(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let others = ["none", "empty", "half", "other", "large", "crash", "busy"];
        for user_id in others {
            steps::link(&client, user_id, &link.connector).await;
        }
        let system = a_system().await;
        let keys = connector(&client, &system, "keys").await;
        set(&client, https(system.url("/credentials"), &keys)).await;
        ada_after(&client, &others).await;
        assert_eq!(system.received().len(), others.len() * TIMES + 1, "all were asked for");
    }

    async fn useless_answers_for_others_do_not_open_the_circuit_of_a_grpc_endpoint(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let others = ["none", "half", "expired", "late", "unavailable", "crash"];
        for user_id in others {
            steps::link(&client, user_id, &link.connector).await;
        }
        let system = a_system().await;
        let keys = connector(&client, &system, "keys").await;
        let source = GrpcSource::start(system.pki(), |question| match question.user_id.as_str() {
            "ada" => Ok(Some(fixture::oauth2_material("token", "refresh"))),
            "none" => Ok(None),
            "half" => Ok(Some(fixture::api_key_material(""))),
            "expired" => Ok(Some(ending(-1, ""))),
            "late" => Err((Code::DeadlineExceeded, "late".to_owned())),
            "unavailable" => Err((Code::Unavailable, "for this user".to_owned())),
            _ => Err((Code::Internal, "a crash".to_owned())),
        })
        .await;
        let Some(Endpoint::Https(remote)) = https(source.url(), &keys).endpoint else { panic!("another endpoint") };
        let endpoint = Some(Endpoint::Grpc(remote));
        set(&client, v1::CredentialSource { tenant_wide: true, endpoint, ..Default::default() }).await;
        ada_after(&client, &others).await;
        assert_eq!(source.asked().len(), others.len() * TIMES + 1, "all were asked for");
    }

    /// The wait for a place is that of this server.
    async fn the_time_of_an_endpoint_begins_when_there_is_a_place(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let others: Vec<String> = (0..PLACES).map(|number| format!("user-{number}")).collect();
        for user_id in &others {
            steps::link(&client, user_id, &link.connector).await;
        }
        let system = System::start(|_| Reply::new(204, "")).await;
        let keys = connector(&client, &system, "keys").await;
        set(&client, https(system.url("/credentials"), &keys)).await;
        system.hold();
        let first = join_all(others.iter().map(|user_id| authenticate(&client, by_source(user_id))));
        let last = async {
            system.requests(PLACES).await;
            let releasing = async {
                sleep(WAIT).await;
                system.release();
            };
            tokio::join!(authenticate(&client, by_source("ada")), releasing).0
        };
        let (answered, last) = tokio::join!(first, last);
        for answer in answered.into_iter().chain([last]) {
            expect_status(answer, Code::FailedPrecondition, "CREDENTIAL_SOURCE_EMPTY");
        }
        let ends: Vec<_> = system.received().iter().map(|asked| end_of(&asked.body)).collect();
        assert_eq!(ends.len(), PLACES + 1);
        let of_ada = ends.iter().find(|(user_id, _)| user_id == "ada").unwrap().1;
        let before = ends.iter().filter(|(user_id, _)| user_id != "ada").map(|(_, end)| *end).fold(0.0, f64::max);
        assert!(of_ada - before > WAIT.as_secs_f64() - 0.1, "{before} and {of_ada}");
    }
}
