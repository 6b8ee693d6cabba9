//! The address of the database changes: to a standby, to a promoted standby, to a read-only server. Connections from
//! before must not get in the way.

use std::time::Duration;

use jackfield_testkit::data::SecretUrl;
use jackfield_testkit::postgres::{self, Database};
use jackfield_testkit::{Backend, HaProxy, TestServer};
use tonic_health::pb::health_check_response::ServingStatus;

use super::{
    create_connector, eventually, expect_unavailable, get_connector, names_of_connectors, readiness, wait_for_readiness,
};

/// A primary, its standby, and a server that reaches both through one address.
async fn start() -> (TestServer, Database, HaProxy) {
    let servers = tokio::task::spawn_blocking(|| {
        let primary = postgres::fresh_server();
        assert!(primary.is_ours(), "the programs of PostgreSQL are missing, or one of them");
        let standby = primary.standby();
        let proxy = HaProxy::before(&primary);
        (primary, standby, proxy)
    });
    let (primary, standby, proxy) = servers.await.expect("servers");
    let server = TestServer::start_on(primary, |config| {
        config.database.url = SecretUrl::new(proxy.url().to_owned());
        config.database.acquire_timeout = Duration::from_secs(3);
        config.database.max_connections = 4;
    });
    (server.await, standby, proxy)
}

mod switched {
    mod postgres {
        mod haproxy {
            use super::super::super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_detour_to_a_standby_leaves_nothing_behind() {
                let (server, standby, proxy) = start().await;
                create_connector(&server, "alpha", "before").await.unwrap();
                wait_for_readiness(&server, ServingStatus::Serving).await;

                proxy.lead_to(1, &standby);
                proxy.cut(0);
                // The data of a standby may be stale, so it is not read either.
                for _ in 0..3 {
                    expect_unavailable(get_connector(&server, "alpha", "before").await.unwrap_err());
                    expect_unavailable(create_connector(&server, "alpha", "lost").await.unwrap_err());
                }
                wait_for_readiness(&server, ServingStatus::NotServing).await;

                proxy.lead_to(0, server.postgres());
                wait_for_readiness(&server, ServingStatus::Serving).await;
                for number in 0..20 {
                    create_connector(&server, "alpha", &format!("c{number}")).await.unwrap();
                }
                assert_eq!(names_of_connectors(&server, "alpha").await.len(), 21);
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_standby_that_took_over_serves() {
                let (server, standby, proxy) = start().await;
                for number in 0..5 {
                    create_connector(&server, "alpha", &format!("before{number}")).await.unwrap();
                }
                tokio::task::block_in_place(|| {
                    server.postgres().stop();
                    standby.promote();
                });
                proxy.lead_to(1, &standby);
                eventually("a create", async || create_connector(&server, "alpha", "first").await.is_ok()).await;
                for number in 0..20 {
                    create_connector(&server, "alpha", &format!("after{number}")).await.unwrap();
                }
                wait_for_readiness(&server, ServingStatus::Serving).await;
                assert_eq!(names_of_connectors(&server, "alpha").await.len(), 26);
            }
        }
    }
}

mod changed {
    mod postgres {
        use super::super::*;

        /// Existing sessions stay open but can no longer write.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn readiness_follows_whether_the_database_can_be_written() {
            let server = TestServer::start_on(postgres::fresh_database(), |config| {
                config.database.acquire_timeout = Duration::from_secs(3);
            });
            let server = server.await;
            create_connector(&server, "alpha", "before").await.unwrap();
            wait_for_readiness(&server, ServingStatus::Serving).await;
            let name = server.sql("SELECT current_database()").await.remove(0);
            server.sql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
            server.postgres().cut_connections();
            wait_for_readiness(&server, ServingStatus::NotServing).await;
            expect_unavailable(create_connector(&server, "alpha", "lost").await.unwrap_err());
            get_connector(&server, "alpha", "before").await.unwrap();

            server
                .sql(&format!("BEGIN READ WRITE; ALTER DATABASE {name} RESET default_transaction_read_only; COMMIT"))
                .await;
            // Sessions from before stay read-only: each is closed by the write that fails on it.
            eventually("a create", async || create_connector(&server, "alpha", "after").await.is_ok()).await;
            wait_for_readiness(&server, ServingStatus::Serving).await;
            assert_eq!(readiness(&server).await, ServingStatus::Serving);
        }

        /// A newer program migrates the schema while this one still serves.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_changed_column_type_fails_at_most_one_change() {
            let server = TestServer::start(Backend::Postgres).await;
            create_connector(&server, "alpha", "kept").await.unwrap();
            for kind in ["varchar", "text", "varchar", "text"] {
                for altered in [false, true] {
                    if altered {
                        server.sql(&format!("ALTER TABLE connector ALTER COLUMN doc TYPE {kind}")).await;
                    }
                    let many = (0..32).map(|_| get_connector(&server, "alpha", "kept"));
                    futures::future::join_all(many).await.into_iter().for_each(|got| {
                        got.unwrap();
                    });
                }
            }
            server.sql("ALTER TABLE connector ALTER COLUMN doc TYPE varchar").await;
            // A statement inside a transaction cannot be retried.
            if let Err(status) = create_connector(&server, "alpha", "first").await {
                expect_unavailable(status);
            }
            create_connector(&server, "alpha", "second").await.unwrap();
        }

        /// At most one call finds a connection gone; the pool then checks the others.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn cut_connections_fail_at_most_one_call() {
            let server = TestServer::start(Backend::Postgres).await;
            create_connector(&server, "alpha", "kept").await.unwrap();
            for _ in 0..3 {
                let many = (0..32).map(|_| get_connector(&server, "alpha", "kept"));
                futures::future::join_all(many).await.into_iter().for_each(|got| {
                    got.unwrap();
                });
                tokio::task::block_in_place(|| server.postgres().cut_connections());
                let mut failed = 0;
                for _ in 0..32 {
                    if let Err(status) = get_connector(&server, "alpha", "kept").await {
                        expect_unavailable(status);
                        failed += 1;
                    }
                }
                assert!(failed <= 1, "{failed} calls failed");
            }
        }
    }
}
