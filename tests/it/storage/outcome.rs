//! The answer to COMMIT is lost: the server determines and reports the outcome, or reports it as unknown.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::data::SecretUrl;
use jackfield_testkit::fixture::{a_connector, a_credential, api_key_material, mask, strings};
use jackfield_testkit::postgres::{self, Crash};
use jackfield_testkit::proxy::Fate;
use jackfield_testkit::{Backend, Proxy, Refusal, TestServer, collect, logs};
use tonic::{Code, Status};
use uuid::Uuid;

use super::{content, create_connector, eventually, expect_unavailable, get_connector, names_of_connectors};

/// A server whose database is behind a lossy network.
async fn start() -> (TestServer, Proxy) {
    let mut proxy = None;
    let server = TestServer::start_with(Backend::Postgres, |config| {
        let before = Proxy::before(config.database.url.expose());
        config.database.url = SecretUrl::new(before.url().to_owned());
        config.database.acquire_timeout = Duration::from_secs(10);
        proxy = Some(before);
    });
    let server = server.await;
    (server, proxy.expect("a proxy"))
}

/// A request id and none.
fn request_ids() -> [String; 2] {
    [String::new(), Uuid::now_v7().to_string()]
}

fn a_request(name: &str, request_id: &str) -> v1::CreateConnectorRequest {
    let connector = v1::Connector { secret_headers: strings([("x-secret", "the header")]), ..a_connector(name) };
    v1::CreateConnectorRequest { connector: Some(connector), request_id: request_id.to_owned(), ..Default::default() }
}

async fn create(server: &TestServer, request: v1::CreateConnectorRequest) -> Result<v1::Connector, Status> {
    let created = server.client("alpha").connectors().create_connector(request).await?;
    Ok(created.into_inner().connector.expect("a connector"))
}

async fn credentials(server: &TestServer) -> Vec<v1::Credential> {
    let list = server.client("alpha").credentials().list_credentials(v1::ListCredentialsRequest::default()).await;
    collect::items(list).await.expect("a list")
}

/// Checks that the outcome is reported as unknown, with a retry delay exactly if a repeat is safe.
#[track_caller]
pub(super) fn expect_unknown(status: Status, is_repeatable: bool) {
    let refusal = Refusal::check(status, Code::Unknown, "OUTCOME_UNKNOWN");
    let message = match is_repeatable {
        true => {
            "the change may or may not have been written; send the same request again: its request_id has it made once"
        }
        false => "the change may or may not have been written; read it before repeating",
    };
    assert_eq!(refusal.status.message(), message);
    let retry = refusal.details.retry_info().and_then(|retry| retry.retry_delay);
    assert_eq!(retry.is_some_and(|delay| delay > Duration::ZERO), is_repeatable, "{:?}", refusal.status);
}

mod postgres_commit {
    mod postgres {
        use super::super::*;

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn the_outcome_behind_a_lost_answer_is_determined() {
            let (server, proxy) = start().await;
            let client = server.client("alpha");
            for (number, request_id) in request_ids().into_iter().enumerate() {
                let name = format!("c{number}");
                proxy.lose("INSERT INTO \"connector\"", Fate::AnswerLost);
                let created = create(&server, a_request(&name, &request_id)).await.unwrap();
                assert_eq!(get_connector(&server, "alpha", &name).await.unwrap(), created);
                if !request_id.is_empty() {
                    assert_eq!(create(&server, a_request(&name, &request_id)).await.unwrap(), created);
                }

                let (user_id, connector) = (format!("u{number}"), created.id.clone());
                let link = v1::AddUserConnectorRequest { user_id: user_id.clone(), connector, ..Default::default() };
                proxy.lose("INSERT INTO \"user_connector\"", Fate::AnswerLost);
                client.user_connectors().add_user_connector(link).await.unwrap();
                let request = v1::CreateCredentialRequest {
                    credential: Some(a_credential(&user_id, &created.id)),
                    material: Some(api_key_material("the key")),
                    request_id: request_id.clone(),
                    ..Default::default()
                };
                proxy.lose("INSERT INTO \"credential\"", Fate::AnswerLost);
                let credential = client.credentials().create_credential(request).await.unwrap().into_inner();
                let credential = credential.credential.unwrap();
                assert_eq!(credentials(&server).await, std::slice::from_ref(&credential), "it is there once");

                let request = v1::UpdateConnectorRequest {
                    reference: created.id.clone(),
                    connector: Some(v1::Connector { labels: strings([("round", "2")]), ..Default::default() }),
                    update_mask: mask(["labels"]),
                    etag: created.etag.clone(),
                    request_id: request_id.clone(),
                    ..Default::default()
                };
                proxy.lose("UPDATE \"connector\"", Fate::AnswerLost);
                let updated = client.connectors().update_connector(request).await.unwrap().into_inner().connector;
                assert_eq!(get_connector(&server, "alpha", &name).await.ok(), updated);

                // Without cascade one row, with it all its dependents, in a transaction that may take long.
                let request = v1::DeleteCredentialRequest {
                    reference: credential.id,
                    request_id: request_id.clone(),
                    ..Default::default()
                };
                proxy.lose("DELETE FROM \"credential\"", Fate::AnswerLost);
                client.credentials().delete_credential(request).await.unwrap();
                assert_eq!(credentials(&server).await, []);
                let request = v1::DeleteConnectorRequest {
                    reference: created.id,
                    cascade: true,
                    request_id: request_id.clone(),
                    ..Default::default()
                };
                proxy.lose("DELETE FROM \"connector\"", Fate::AnswerLost);
                client.connectors().delete_connector(request.clone()).await.unwrap();
                assert_eq!(names_of_connectors(&server, "alpha").await, Vec::<String>::new());
                if !request_id.is_empty() {
                    client.connectors().delete_connector(request).await.unwrap();
                }
            }
            assert_eq!(proxy.lost(), 12);
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_lost_commit_has_written_nothing() {
            let (server, proxy) = start().await;
            let kept = create_connector(&server, "alpha", "kept").await.unwrap();
            let before = content(&server).await;
            for request_id in request_ids() {
                proxy.lose("INSERT INTO \"connector\"", Fate::Lost);
                expect_unavailable(create(&server, a_request("new", &request_id)).await.unwrap_err());
                proxy.lose("DELETE FROM \"connector\"", Fate::Lost);
                let request = v1::DeleteConnectorRequest {
                    reference: kept.id.clone(),
                    cascade: true,
                    request_id: request_id.clone(),
                    ..Default::default()
                };
                let deleted = server.client("alpha").connectors().delete_connector(request).await;
                expect_unavailable(deleted.unwrap_err());
                assert!(content(&server).await == before, "something was written");
            }
            assert_eq!(proxy.lost(), 4);
            create(&server, a_request("new", "")).await.unwrap();
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn an_outcome_that_cannot_be_determined_is_unknown() {
            let (server, proxy) = start().await;
            for (number, request_id) in request_ids().into_iter().enumerate() {
                let request = a_request(&format!("c{number}"), &request_id);
                proxy.lose("INSERT INTO \"connector\"", Fate::AnswerLostAndAway);
                expect_unknown(create(&server, request.clone()).await.unwrap_err(), !request_id.is_empty());
                expect_unavailable(get_connector(&server, "alpha", &format!("c{number}")).await.unwrap_err());
                proxy.set_reachable(true);
                let made = get_connector(&server, "alpha", &format!("c{number}")).await.unwrap();
                let repeated = create(&server, request).await;
                if request_id.is_empty() {
                    Refusal::check(repeated.unwrap_err(), Code::AlreadyExists, "NAME_TAKEN");
                } else {
                    assert_eq!(repeated.unwrap(), made);
                }
            }
            assert_eq!(names_of_connectors(&server, "alpha").await.len(), 2);
            let unknown = server.metric("jackfield_server_errors_total", &[("reason", "OUTCOME_UNKNOWN")]);
            assert_eq!(unknown, Some(2.0));
        }

        /// An outcome that the database can never report is not queried repeatedly: the caller gets "unknown" at once.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn an_outcome_that_cannot_be_queried_is_queried_once() {
            let (server, proxy) = start().await;
            server.sql("ALTER FUNCTION pg_catalog.pg_xact_status(xid8) RENAME TO is_not_there").await;
            proxy.lose("INSERT INTO \"connector\"", Fate::AnswerLost);
            expect_unknown(create(&server, a_request("made", "")).await.unwrap_err(), false);
            assert_eq!(names_of_connectors(&server, "alpha").await, ["made"]);
            let log = logs::text();
            let logged = log.lines().filter(|line| line.contains("the outcome of a transaction cannot be queried"));
            assert_eq!(logged.count(), 1);
        }

        /// The server has the transaction open, and may still receive the COMMIT.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn the_outcome_of_an_open_transaction_is_unknown() {
            let (server, proxy) = start().await;
            let request = a_request("late", &Uuid::now_v7().to_string());
            proxy.lose("INSERT INTO \"connector\"", Fate::Held);
            expect_unknown(create(&server, request.clone()).await.unwrap_err(), true);
            assert_eq!(names_of_connectors(&server, "alpha").await, Vec::<String>::new());
            proxy.release();
            // The repeat waits for the transaction with its request id, and finds its answer.
            create(&server, request).await.unwrap();
            assert_eq!(names_of_connectors(&server, "alpha").await, ["late"]);
        }

        mod own_server {
            use super::*;

            /// After a crash, the server may report another client's transaction as committed.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn after_a_crash_the_status_of_a_transaction_is_not_trusted() {
                let mut proxy = None;
                let server = TestServer::start_on(postgres::fresh_server(), |config| {
                    let before = Proxy::before(config.database.url.expose());
                    config.database.url = SecretUrl::new(before.url().to_owned());
                    proxy = Some(before);
                });
                let (server, proxy) = (server.await, proxy.unwrap());
                assert!(server.postgres().is_ours(), "the programs of PostgreSQL are missing, or one of them");
                proxy.lose("INSERT INTO \"connector\"", Fate::AnswerLostAndAway);
                let crash = async {
                    eventually("the answer is lost", async || proxy.lost() == 1).await;
                    // The commit is on disk before any client can see the answer.
                    eventually("it is there", async || server.sql("SELECT count(*) FROM connector").await == ["1"])
                        .await;
                    tokio::task::block_in_place(|| server.postgres().crash(Crash::Kill));
                    proxy.set_reachable(true);
                };
                let (created, ()) = tokio::join!(create(&server, a_request("made", "")), crash);
                expect_unknown(created.unwrap_err(), false);
                get_connector(&server, "alpha", "made").await.unwrap();
            }
        }
    }
}
