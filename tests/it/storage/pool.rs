//! Metrics of the connections to the database.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::{Backend, TestServer, on_both};
use tokio::time::{Instant, sleep};

/// The number of connections of a pool in a state.
fn count(page: &str, pool: &str, state: &str) -> f64 {
    let labels = [("db_client_connection_pool_name", pool), ("db_client_connection_state", state)];
    TestServer::metric_on(page, "db_client_connection_count", &labels).expect("a series")
}

fn max(server: &TestServer, pool: &str) -> Option<f64> {
    server.metric("db_client_connection_max", &[("db_client_connection_pool_name", pool)])
}

/// Waits for a metrics page that satisfies a condition. Between two pages the probe may use a connection.
async fn eventually(server: &TestServer, what: &str, holds: impl Fn(&str) -> bool) -> String {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let page = server.metrics_page();
        if holds(&page) {
            return page;
        }
        assert!(Instant::now() < patience, "timed out: {what}\n{page}");
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
        let at_rest = |page: &str| {
            [reader, writer].iter().all(|pool| count(page, pool, "used") == 0.0 && count(page, pool, "idle") >= 1.0)
        };
        eventually(&server, "at rest", at_rest).await;

        // A change waits for a lock, and holds a connection meanwhile.
        let store = server.store().await;
        let txn = store.write().await.unwrap();
        txn.lock_deployment().await.unwrap();
        let operator = server.client("operator");
        let waiting = tokio::spawn(async move {
            operator.admin().rewrap_secrets(v1::RewrapSecretsRequest::default()).await
        });
        eventually(&server, "in use", |page| count(page, writer, "used") >= 1.0).await;
        txn.rollback().await.unwrap();
        waiting.await.unwrap().unwrap();
        let page = eventually(&server, "idle again", at_rest).await;
        let open = count(&page, reader, "idle") + count(&page, reader, "used");
        assert!((1.0..=3.0).contains(&open), "{open}");
        store.close().await;
    }
}
