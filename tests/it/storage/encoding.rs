//! The encoding of the database: one that cannot hold every name is refused at the start.

mod postgres {
    use jackfield_testkit::postgres::fresh_database_in;
    use jackfield_testkit::store::{Database, PoolSettings, Store};
    use jackfield_testkit::{Program, Site};
    use std::time::Duration;

    const REFUSAL: &str = "the encoding of the database is LATIN1 and not UTF8, so that it cannot hold every name: give Jackfield \
                           a database made with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn another_encoding_is_refused_by_name() {
        let database = tokio::task::spawn_blocking(|| fresh_database_in("LATIN1")).await.unwrap();
        let settings = PoolSettings { max_connections: 1, acquire_timeout: Duration::from_secs(30) };
        let refused = Store::connect(&Database::Postgres(database.url()), settings).await.err();
        assert_eq!(refused.map(|error| error.to_string()).as_deref(), Some(REFUSAL));

        let site = Site::on_own_postgres(database, Program::Jackfield);
        let output = site.run(&["serve"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(REFUSAL), "{said}");
    }
}
