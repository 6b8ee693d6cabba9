//! What metrics tell of the connections to the database.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::{Backend, TestServer, on_both};
use tokio::time::{Instant, sleep};

/// Connections of a pool in a state.
fn count(server: &TestServer, pool: &str, state: &str) -> f64 {
    let labels = [("db_client_connection_pool_name", pool), ("db_client_connection_state", state)];
    server.metric("db_client_connection_count", &labels).expect("a series")
}

fn max(server: &TestServer, pool: &str) -> Option<f64> {
    server.metric("db_client_connection_max", &[("db_client_connection_pool_name", pool)])
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < patience, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

on_both! {
    async fn connections_are_counted_by_state(backend: Backend) {
        let server = TestServer::start_with(backend, |config| config.database.max_connections = 3).await;
        let (reader, writer) = match backend {
            Backend::Sqlite => ("reader", "writer"),
            Backend::Postgres => ("postgres", "postgres"),
        };
        let most = match backend {
            Backend::Sqlite => [Some(3.0), Some(1.0), None],
            Backend::Postgres => [None, None, Some(3.0)],
        };
        assert_eq!(["reader", "writer", "postgres"].map(|pool| max(&server, pool)), most);
        let at_rest = || [reader, writer].iter().all(|pool| count(&server, pool, "used") == 0.0);
        eventually("at rest", at_rest).await;
        assert!(count(&server, reader, "idle") >= 1.0 && count(&server, writer, "idle") >= 1.0);

        // A change waits for what somebody else has, and has a connection meanwhile.
        let store = server.store().await;
        let txn = store.write().await.unwrap();
        txn.alone().await.unwrap();
        let operator = server.client("operator");
        let waiting = tokio::spawn(async move {
            operator.admin().rewrap_secrets(v1::RewrapSecretsRequest::default()).await
        });
        eventually("in use", || count(&server, writer, "used") >= 1.0).await;
        txn.rollback().await.unwrap();
        waiting.await.unwrap().unwrap();
        eventually("at rest again", at_rest).await;
        let open = count(&server, reader, "idle") + count(&server, reader, "used");
        assert!((1.0..=3.0).contains(&open), "{open}");
        store.close().await;
    }
}
