//! The settings of connections, read back from the databases themselves.

use jackfield_testkit::{Backend, TestServer, on_both};

on_both! {
    async fn every_setting_is_in_force_on_readers_and_writers(server) {
        let settings: &[(&str, &str)] = match server.backend() {
            Backend::Sqlite => &[
                ("PRAGMA journal_mode", "wal"),
                ("PRAGMA synchronous", "2"),
                ("PRAGMA foreign_keys", "1"),
                ("PRAGMA busy_timeout", "5000"),
                ("PRAGMA trusted_schema", "0"),
                ("PRAGMA cell_size_check", "1"),
                ("PRAGMA secure_delete", "1"),
                ("PRAGMA temp_store", "2"),
                ("PRAGMA mmap_size", "0"),
                ("PRAGMA journal_size_limit", "67108864"),
            ],
            Backend::Postgres => &[
                ("SHOW synchronous_commit", "on"),
                ("SHOW statement_timeout", "5s"),
                ("SHOW lock_timeout", "2s"),
                ("SHOW idle_in_transaction_session_timeout", "10s"),
                ("SHOW timezone", "UTC"),
                ("SHOW application_name", "jackfield"),
            ],
        };
        let store = server.store().await;
        for (statement, expected) in settings {
            assert_eq!(store.raw_read(statement).await.unwrap(), [*expected], "{statement}");
            assert_eq!(store.raw_write(statement).await.unwrap(), [*expected], "{statement}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_readers_are_read_only_and_the_version_is_safe() {
    let server = TestServer::start(Backend::Sqlite).await;
    let store = server.store().await;
    assert_eq!(store.raw_read("PRAGMA query_only").await.unwrap(), ["1"]);
    assert_eq!(store.raw_read("PRAGMA cache_size").await.unwrap(), ["-1000"]);
    assert_eq!(store.raw_write("PRAGMA query_only").await.unwrap(), ["0"]);
    store.raw_read("DELETE FROM label").await.unwrap_err();
    store.raw_write("DELETE FROM label").await.unwrap();

    let version = store.backend_version().await.unwrap();
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    assert!(parts >= vec![3, 51, 3], "{version} can corrupt write-ahead logs");
}
