//! The database grants fewer connections than configured: the open ones serve.

use std::time::Duration;

use jackfield_testkit::data::SecretUrl;
use jackfield_testkit::postgres::{self, Database};
use jackfield_testkit::store::{Database as Address, PoolSettings, Store};
use jackfield_testkit::{TestServer, logs};

use super::{create_connector, get_connector};

/// A role with this connection limit; returns its name, and a URL with it.
fn limited(database: &Database, limit: u32) -> (String, String) {
    let name = database.run("select current_database()").trim().to_owned();
    let role = format!("limited_{name}");
    database.run(&format!("create role {role} login connection limit {limit}"));
    database.run(&format!("alter database {name} owner to {role}"));
    database.run(&format!("alter schema public owner to {role}"));
    let url = database.url();
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let host = rest.split_once('@').expect("a user").1;
    (role.clone(), format!("{scheme}://{role}@{host}"))
}

mod fewer {
    mod postgres {
        use super::super::*;

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn all_calls_share_the_open_connections() {
            let database = postgres::fresh_database();
            let (role, url) = limited(&database, 3);
            let server = TestServer::start_on(database, |config| {
                config.database.url = SecretUrl::new(url);
                config.database.max_connections = 8;
            });
            let server = server.await;
            create_connector(&server, "alpha", "kept").await.unwrap();
            let clients = (0..8).map(|client| {
                let server = &server;
                async move {
                    for number in 0..20 {
                        create_connector(server, "alpha", &format!("c{client}-{number}")).await.unwrap();
                        get_connector(server, "alpha", "kept").await.unwrap();
                    }
                }
            });
            futures::future::join_all(clients).await;
            for _ in 0..20 {
                get_connector(&server, "alpha", "kept").await.unwrap();
            }

            // The cause is logged at most once a minute, but counted each time.
            let cause = format!("too many connections for role \\\"{role}\\\"");
            let logged = logs::text().lines().filter(|line| line.contains(&cause)).count();
            assert_eq!(logged, 1, "{cause}");
            let failures = server.metric("jackfield_database_connect_failures_total", &[]);
            assert!(failures.is_some_and(|failures| failures >= 1.0), "{failures:?}");
            let open = server.metric("db_client_connection_max", &[("db_client_connection_pool_name", "postgres")]);
            assert_eq!(open, Some(8.0));
        }

        /// A caller without a connection gets the reason in time: after the length of one attempt, not of several.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_call_without_a_connection_gets_the_reason() {
            let database = postgres::fresh_database();
            let (role, url) = limited(&database, 2);
            let patience = Duration::from_secs(3);
            let settings = PoolSettings { max_connections: 8, acquire_timeout: patience };
            let store = Store::connect(&Address::Postgres(url.clone()), settings).await.unwrap();
            store.migrate().await.unwrap();
            let (_one, _other) = (store.write().await.unwrap(), store.write().await.unwrap());
            let failed = tokio::time::timeout(Duration::from_secs(30), store.write()).await.expect("an end");
            let failed = failed.err().expect("a third connection");
            assert_eq!(failed.reason(), "STORE_UNAVAILABLE");
            let cause = std::error::Error::source(&failed).expect("a cause").to_string();
            let reason = "no connection to the database within 3s: 2 of 8 (database.max_connections) are in use; no more \
                        can be opened: ";
            assert!(
                cause.contains(reason) && cause.contains(&format!("too many connections for role \"{role}\"")),
                "{cause}"
            );
            drop(_one);
            // A returned connection goes to a waiting caller.
            store.write().await.unwrap().rollback().await.unwrap();
            drop(_other);
            store.close().await;

            let settings = PoolSettings { max_connections: 2, acquire_timeout: patience };
            let store = Store::connect(&Address::Postgres(url), settings).await.unwrap();
            let (_one, _other) = (store.write().await.unwrap(), store.write().await.unwrap());
            let failed = store.write().await.err().expect("a third connection");
            let cause = std::error::Error::source(&failed).expect("a cause").to_string();
            assert!(cause.ends_with("within 3s: 2 of 2 (database.max_connections) are in use"), "{cause}");
        }
    }
}
