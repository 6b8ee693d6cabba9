//! A pooler between Jackfield and PostgreSQL: one with a session per client works like a direct connection; any other
//! is refused.

mod postgres {
    use jackfield_testkit::data::SecretUrl;
    use jackfield_testkit::postgres::fresh_database;
    use jackfield_testkit::{PgBouncer, Program, Site};

    /// A site that reaches its database through a pooler with these settings.
    fn site(lines: &'static [&'static str]) -> (Site, PgBouncer) {
        let database = fresh_database();
        let pooler = PgBouncer::start(&database, lines);
        let mut site = Site::on_own_postgres(database, Program::Jackfield);
        site.config_mut().database.url = SecretUrl::new(pooler.url());
        (site, pooler)
    }

    mod pgbouncer {
        use jackfield_api::v1;
        use jackfield_testkit::fixture::a_connector;
        use jackfield_testkit::store::{Database, PoolSettings, Store};
        use std::time::Duration;

        use super::*;

        /// Start-up options that PgBouncer passes on, and some that it drops.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn dedicated_sessions_have_their_settings() {
            const DROPS: &[&str] = &["pool_mode = session", "ignore_startup_parameters = extra_float_digits,options"];
            for lines in [&["pool_mode = session"] as &'static [_], DROPS] {
                let (site, pooler) = tokio::task::spawn_blocking(move || site(lines)).await.unwrap();
                site.prepare().await;
                let process = site.start();
                let request = v1::CreateConnectorRequest { connector: Some(a_connector("mark")), ..Default::default() };
                process.client("alpha").connectors().create_connector(request).await.unwrap();

                let settings = PoolSettings { max_connections: 3, acquire_timeout: Duration::from_secs(30) };
                let store = Store::connect(&Database::Postgres(pooler.url()), settings).await.unwrap();
                // Concurrently, so that sessions other than the first are used as well.
                let read = || async {
                    store.raw_read("SELECT current_setting('statement_timeout') AS statement, current_setting('lock_timeout') AS lock, pg_sleep(0.2)").await
                };
                for settings in futures::future::join_all((0..3).map(|_| read())).await {
                    assert_eq!(settings.unwrap(), ["5s|2s|"]);
                }
                store.close().await;
                process.stop();
            }
        }

        /// A second session has to wait while the first one is held, so there is nothing to compare. The first one
        /// works all the same.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_single_dedicated_session_serves() {
            const ONE: &[&str] = &["pool_mode = session", "default_pool_size = 1"];
            let (mut site, _pooler) = tokio::task::spawn_blocking(|| site(ONE)).await.unwrap();
            // The time for which the start waits for a second session.
            site.config_mut().database.acquire_timeout = Duration::from_secs(5);
            site.prepare().await;
            let process = site.start();
            let skipped = "could not check whether a pooler shares sessions";
            assert!(process.log().contains(skipped), "{}", process.log());
            let request = v1::CreateConnectorRequest { connector: Some(a_connector("mark")), ..Default::default() };
            let connectors = process.client("alpha").connectors();
            let made = { connectors }.create_connector(request).await.unwrap().into_inner().connector.unwrap();
            assert_eq!(made.name, "mark");
            process.stop();
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn shared_sessions_are_refused_and_left_unchanged() {
            const TRANSACTION: &[&str] = &["pool_mode = transaction"];
            const DROPS: &[&str] =
                &["pool_mode = transaction", "ignore_startup_parameters = extra_float_digits,options"];
            const ONE: &[&str] = &["pool_mode = transaction", "default_pool_size = 1"];
            const STATEMENT: &[&str] = &["pool_mode = statement"];
            for lines in [TRANSACTION, DROPS, ONE, STATEMENT] {
                let (site, pooler) = tokio::task::spawn_blocking(move || site(lines)).await.unwrap();
                let output = site.run(&["serve"]);
                let said = String::from_utf8_lossy(&output.stderr);
                let reason = "jackfield: the database is behind a pooler that shares sessions between transactions or \
                              statements: give Jackfield sessions of its own (PgBouncer: pool_mode = session for this \
                              database or user), or the address of PostgreSQL";
                let (made, refusal) = said.trim_end().split_once('\n').unwrap_or_default();
                assert!(made.contains("a new data directory was made"), "{lines:?}: {said}");
                assert_eq!((refusal, output.status.code()), (reason, Some(1)), "{lines:?}");
                // The next user of a session finds it unchanged, and nothing was created in the database.
                let timeouts = "select coalesce(max(setting), '') from pg_settings where name = 'statement_timeout'";
                assert_eq!(site.postgres().run_at(&pooler.url(), timeouts).trim(), "0", "{lines:?}");
                let tables = "select count(*) from pg_tables where schemaname = 'public'";
                assert_eq!(site.postgres().run(tables).trim(), "0", "{lines:?}");
            }
        }
    }
}
