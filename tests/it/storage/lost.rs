//! The database becomes unavailable and recovers, or the server crashes: acknowledged changes are there, failed ones
//! are not, and no restart is needed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::fixture::{a_connector, strings};
use jackfield_testkit::{Backend, Refusal, TestServer, on_both};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use uuid::Uuid;

use super::outcome::expect_unknown;
use super::{
    counts, create_connector, create_connector_by, eventually, expect_unavailable, get_connector, names_of_connectors,
    wait_for_readiness,
};

/// A connector with four rows, itself, a secret and two labels, and with a fifth for its request id.
fn request(name: &str) -> v1::CreateConnectorRequest {
    let mut connector = a_connector(name);
    connector.secret_headers = strings([("x-secret", "the header")]);
    connector.labels = strings([("a", "1"), ("b", "2")]);
    let request_id = Uuid::now_v7().to_string();
    v1::CreateConnectorRequest { connector: Some(connector), request_id, ..Default::default() }
}

/// Checks that every connector is there with all its rows, and that no row lacks its connector.
async fn expect_whole(server: &TestServer, connectors: u64) {
    let counts = counts(server).await;
    let rows = ["connector", "secret", "label", "idempotency"].map(|table| counts[table]);
    assert_eq!(rows, [connectors, connectors, 2 * connectors, connectors]);
}

/// Failures that are specific to PostgreSQL. The path must contain "postgres" where it is needed.
mod postgres {
    use super::*;

    /// A change waits in the database while its server stops, so its outcome is not known yet.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_change_that_outlasts_its_server_has_an_unknown_outcome() {
        let mut server = TestServer::start_with(Backend::Postgres, |config| {
            config.drain.delay = Duration::ZERO;
            config.drain.grace = Duration::from_secs(1);
        })
        .await;
        let client = server.client("alpha");
        // Another client of the database locks the table until it is asked to release it.
        let url = server.postgres().url();
        let hold = "BEGIN; LOCK TABLE connector IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)";
        let mut holder = std::process::Command::new("psql");
        let holder = holder.args(["--quiet", "--command", hold, &url]).stderr(std::process::Stdio::null());
        let mut holder = holder.spawn().unwrap();
        let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                    AND relation = 'connector'::regclass";
        eventually("the table is locked", async || server.postgres().run(held).trim() == "1").await;

        let late = request("late");
        let nameless = v1::CreateConnectorRequest { request_id: String::new(), ..request("nameless") };
        let tried = v1::CreateConnectorRequest { validate_only: true, ..request("tried") };
        let create = |request: &v1::CreateConnectorRequest| {
            let (client, request) = (client.clone(), request.clone());
            tokio::spawn(async move { client.connectors().create_connector(request).await })
        };
        let [changed, changed_nameless, tried] = [&late, &nameless, &tried].map(create);
        let read = v1::GetConnectorRequest { reference: "name:late".to_owned() };
        let reading = client.clone();
        let read = tokio::spawn(async move { reading.connectors().get_connector(read).await });
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'connector'::regclass";
        eventually("all wait", async || server.postgres().run(waits).trim() == "4").await;
        assert!(!server.stop().await, "calls were cut");
        expect_unknown(changed.await.unwrap().unwrap_err(), true);
        expect_unknown(changed_nameless.await.unwrap().unwrap_err(), false);
        for cut in [tried.await.unwrap().map(drop), read.await.unwrap().map(drop)] {
            Refusal::check(cut.unwrap_err(), Code::Unavailable, "SERVER_UNAVAILABLE");
        }
        server.postgres().run(&held.replace("count(*)", "pg_terminate_backend(pid)"));
        holder.wait().unwrap();
        // A repeat as RetryInfo suggests: whatever happened to the first, there is exactly one.
        server.restart().await;
        let made = create_connector_by(&server, "alpha", late.clone()).await.unwrap();
        assert_eq!(create_connector_by(&server, "alpha", late).await.unwrap(), made);
        assert_eq!(get_connector(&server, "alpha", "late").await.unwrap(), made);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_lost_database_is_unavailable_until_it_recovers() {
        let server = TestServer::start(Backend::Postgres).await;
        let kept = create_connector(&server, "alpha", "kept").await.unwrap();
        wait_for_readiness(&server, ServingStatus::Serving).await;
        let before = counts(&server).await;
        let repeated = request("repeated");

        server.postgres().set_reachable(false);
        for _ in 0..3 {
            expect_unavailable(create_connector_by(&server, "alpha", repeated.clone()).await.unwrap_err());
            expect_unavailable(get_connector(&server, "alpha", "kept").await.unwrap_err());
        }
        let list = server.client("alpha").connectors().list_connectors(v1::ListConnectorsRequest::default()).await;
        expect_unavailable(jackfield_testkit::collect::items(list).await.unwrap_err());
        let update = v1::UpdateConnectorRequest {
            reference: kept.id.clone(),
            connector: Some(a_connector("renamed")),
            ..Default::default()
        };
        expect_unavailable(server.client("alpha").connectors().update_connector(update).await.unwrap_err());
        let delete = v1::DeleteConnectorRequest { reference: kept.id.clone(), ..Default::default() };
        expect_unavailable(server.client("alpha").connectors().delete_connector(delete).await.unwrap_err());
        let info = server.client("operator").admin().get_server_info(v1::GetServerInfoRequest {}).await;
        expect_unavailable(info.unwrap_err());
        wait_for_readiness(&server, ServingStatus::NotServing).await;

        server.postgres().set_reachable(true);
        wait_for_readiness(&server, ServingStatus::Serving).await;
        assert_eq!(counts(&server).await, before, "nothing was partly written");
        assert_eq!(get_connector(&server, "alpha", "kept").await.unwrap(), kept);
        // The request id was not used up.
        create_connector_by(&server, "alpha", repeated).await.unwrap();
    }

    /// Connections are cut repeatedly in the middle of writes. A repeat with the same request id takes effect once.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn cut_connections_never_leave_half_a_write_and_repeats_are_safe() {
        let server = TestServer::start(Backend::Postgres).await;
        let (server, done) = (&server, &AtomicBool::new(false));
        let cutting = async {
            let mut cuts = 0;
            while !done.load(Ordering::Relaxed) {
                tokio::task::block_in_place(|| server.postgres().cut_connections());
                cuts += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            cuts
        };
        let writing = async {
            let mut failures = 0;
            for batch in 0..20 {
                let writers = (0..6).map(|number| async move {
                    let request = request(&format!("c{batch}-{number}"));
                    let mut failures = 0;
                    loop {
                        match create_connector_by(server, "alpha", request.clone()).await {
                            Ok(connector) => {
                                assert_eq!(connector.labels.len(), 2);
                                return failures;
                            }
                            Err(status) => {
                                expect_unavailable(status);
                                failures += 1;
                            }
                        }
                    }
                });
                failures += futures::future::join_all(writers).await.into_iter().sum::<u32>();
            }
            done.store(true, Ordering::Relaxed);
            failures
        };
        let (cuts, failures) = tokio::join!(cutting, writing);
        assert!(cuts > 0 && failures > 0, "{cuts} cuts, {failures} failures: nothing was tried");
        expect_whole(server, 120).await;
    }

    /// The PostgreSQL codes for temporary failures.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn temporary_failures_are_never_internal_errors() {
        let server = TestServer::start(Backend::Postgres).await;
        let store = server.store().await;
        let raise = |code: &str| format!("DO $$ BEGIN RAISE EXCEPTION 'raised' USING ERRCODE = '{code}'; END $$");
        let passing = [
            "08000", "08003", "08006", // connection
            "25006", // read-only: a standby after a failover
            "25P03", "25P04", // a transaction that took too long
            "40000", "40001", "40003", "40P01", // rolled back: serialisation, deadlock
            "53000", "53100", "53200", "53300", "53400", // out of disk, memory, connections
            "55P03", // lock not available
            "57000", "57014", "57P01", "57P02", "57P03", "57P05", // stopped, cancelled, shutting down
            "58000", "58030", // the operating system, input and output
        ];
        for code in passing {
            let error = store.raw_write(&raise(code)).await.unwrap_err();
            assert!(error.retryable() && error.reason() == "STORE_UNAVAILABLE", "{code}: {error:?}");
        }
        for code in ["22000", "42601", "42P01", "XX000", "XX001", "P0001"] {
            let error = store.raw_write(&raise(code)).await.unwrap_err();
            assert!(!error.retryable() && error.reason() == "INTERNAL", "{code}: {error:?}");
        }
    }
}

/// Another process holds the write lock of the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_sqlite_file_is_unavailable_for_writes_until_it_is_released() {
    // Writers fail after this wait, before SQLite itself gives up.
    let patience = Duration::from_secs(2);
    let server = TestServer::start_with(Backend::Sqlite, |config| config.database.acquire_timeout = patience).await;
    create_connector(&server, "alpha", "kept").await.unwrap();
    let before = counts(&server).await;
    let repeated = request("repeated");
    let store = server.store().await;
    let lock = store.write().await.unwrap();

    let writes = (0..4).map(|_| create_connector_by(&server, "alpha", repeated.clone()));
    let (writes, read) = tokio::join!(futures::future::join_all(writes), get_connector(&server, "alpha", "kept"));
    read.expect("readers do not wait for a writer");
    for write in writes {
        expect_unavailable(write.unwrap_err());
    }
    lock.rollback().await.unwrap();
    assert_eq!(counts(&server).await, before);
    create_connector_by(&server, "alpha", repeated).await.unwrap();
    wait_for_readiness(&server, ServingStatus::Serving).await;
}

on_both! {
    async fn acknowledged_changes_survive_a_crash_and_the_rest_is_whole_or_absent(server) {
        let mut server = server;
        let clients: Vec<_> = (0..6).map(|_| server.client("alpha")).collect();
        let count = &AtomicUsize::new(0);
        let writers = clients.into_iter().enumerate().map(|(number, client)| {
            async move {
                let mut answered = Vec::new();
                for round in 0.. {
                    let name = format!("c{number}-{round}");
                    match client.connectors().create_connector(request(&name)).await {
                        Ok(_) => {
                            answered.push(name);
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(status) => {
                            assert!(matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled), "{status:?}");
                            return answered;
                        }
                    }
                }
                unreachable!("it ends with an error")
            }
        });
        let writing = futures::future::join_all(writers);
        let crash = async {
            // Crashes in the middle of many changes, on a slow machine only once there is something to lose.
            tokio::time::sleep(Duration::from_millis(500)).await;
            eventually("more than ten answers", async || count.load(Ordering::Relaxed) > 10).await;
            server.crash();
        };
        let (answered, ()) = tokio::join!(writing, crash);
        let answered: BTreeSet<String> = answered.into_iter().flatten().collect();
        assert!(answered.len() > 10, "{answered:?}");

        server.restart().await;
        let names: BTreeSet<String> = names_of_connectors(&server, "alpha").await.into_iter().collect();
        assert!(names.is_superset(&answered), "lost: {:?}", answered.difference(&names));
        expect_whole(&server, names.len() as u64).await;
    }
}
