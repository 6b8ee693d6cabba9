//! A full disk.
//!
//! The operating system limits the size of the process's files (RLIMIT_FSIZE), which needs no privileges and fails
//! writes like a full disk. The limit applies to a whole process, so the test runs itself in another one. There, a
//! write beyond the limit must be an error and not a signal, so a shell ignores SIGXFSZ.

use std::process::Command;

use jackfield_api::v1;
use jackfield_domain::tenant::Tenant;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::TenantName;
use jackfield_domain::{Clock as _, SystemClock, TenantId};
use jackfield_testkit::fixture::{a_connector, object};
use jackfield_testkit::store::Writer;
use jackfield_testkit::{Backend, TestServer, backend};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tonic_health::pb::health_check_response::ServingStatus;
use uuid::Uuid;

use super::{
    content, counts, create_connector_by, expect_unavailable, get_connector, names_of_connectors, wait_for_readiness,
};

/// The variable that marks the inner test.
const INSIDE: &str = "JACKFIELD_TEST_FULL_DISK";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_unavailable_for_writes_until_there_is_space() {
    if std::env::var_os(INSIDE).is_some() {
        return backend::in_time(inside()).await;
    }
    let test = std::env::current_exe().unwrap();
    let name = "storage::full::a_full_disk_is_unavailable_for_writes_until_there_is_space";
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(test)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Limits the size of files from now on; `None` means no limit.
fn limit_files(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

fn request(number: u32) -> v1::CreateConnectorRequest {
    let mut connector = a_connector(&format!("c{number}"));
    connector.data = Some(object([("filler", &"x".repeat(8_000))]));
    let request_id = Uuid::now_v7().to_string();
    v1::CreateConnectorRequest { connector: Some(connector), request_id, ..Default::default() }
}

async fn inside() {
    let server = TestServer::start(Backend::Sqlite).await;
    let wal = server.data_dir().join("jackfield.sqlite3-wal");
    let longest = std::fs::metadata(&wal).unwrap().len().max(std::fs::metadata(server.sqlite_file()).unwrap().len());
    limit_files(Some(longest + 200_000));

    let mut created = 0;
    let (refused, status) = loop {
        let request = request(created);
        match create_connector_by(&server, "alpha", request.clone()).await {
            Ok(_) => created += 1,
            Err(status) => break (request, status),
        }
        assert!(created < 1_000, "the limit does not work");
    };
    expect_unavailable(status);
    assert!(created > 0, "there was space for some");

    // The disk stays full, and reads still work, including token requests.
    let is_writable = async |expected: f64| {
        let begin = std::time::Instant::now();
        while server.metric("jackfield_database_writable", &[]) != Some(expected) {
            assert!(begin.elapsed() < std::time::Duration::from_secs(60), "writable is not {expected}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    is_writable(0.0).await;
    wait_for_readiness(&server, ServingStatus::Serving).await;
    let before = (content(&server).await, counts(&server).await);
    for _ in 0..5 {
        expect_unavailable(create_connector_by(&server, "alpha", refused.clone()).await.unwrap_err());
        get_connector(&server, "alpha", "c0").await.unwrap();
    }
    assert_eq!(names_of_connectors(&server, "alpha").await.len(), created as usize);
    let cascade = v1::DeleteTenantRequest { reference: "name:alpha".to_owned(), cascade: true, ..Default::default() };
    let deleted = server.client("operator").admin().delete_tenant(cascade).await;
    expect_unavailable(deleted.unwrap_err());
    assert!((content(&server).await, counts(&server).await) == before, "something was half written");
    assert_eq!(before.1["connector"], u64::from(created));

    // Once there is space again, everything works without a restart, and the request id is not used up.
    limit_files(None);
    // This needs no call.
    is_writable(1.0).await;
    create_connector_by(&server, "alpha", refused).await.unwrap();
    for number in created + 1..created + 20 {
        create_connector_by(&server, "alpha", request(number)).await.unwrap();
    }
    wait_for_readiness(&server, ServingStatus::Serving).await;
    assert_eq!(server.sql("PRAGMA integrity_check").await, ["ok"]);

    // Acknowledged changes are durable.
    let mut server = server;
    server.crash();
    server.restart().await;
    assert_eq!(names_of_connectors(&server, "alpha").await.len(), created as usize + 20);
}

/// The database itself reports SQLITE_FULL instead of an I/O error, at several places of a transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_on_a_full_database_is_rolled_back_and_the_next_one_works() {
    let server = TestServer::start(Backend::Sqlite).await;
    let before = counts(&server).await;
    let store = server.store().await;
    let insert = async |txn: &Writer, number: u32| {
        let id = TenantId::generate();
        let name = TenantName::parse("name", &format!("t{number}")).unwrap();
        let tenant = Tenant { id, name, display_name: "x".repeat(900), meta: Meta::new(SystemClock.now()) };
        txn.insert(id, &tenant).await
    };
    let pages: u32 = store.raw_write("PRAGMA page_count").await.unwrap()[0].parse().unwrap();
    for room in 0..4 {
        store.raw_write(&format!("PRAGMA max_page_count = {}", pages + room)).await.unwrap();
        let txn = store.write().await.unwrap();
        let mut failed = None;
        for number in 0..50 {
            if let Err(error) = insert(&txn, number).await {
                failed = Some(error);
                break;
            }
        }
        let error = failed.expect("the limit does not work");
        assert!(error.retryable() && error.reason() == "STORE_UNAVAILABLE", "{error:?}");
        drop(txn);
        assert_eq!(counts(&server).await, before);
    }
    store.raw_write("PRAGMA max_page_count = 1000000").await.unwrap();
    let txn = store.write().await.unwrap();
    let other = server.store().await;
    other.raw_write("PRAGMA busy_timeout = 0").await.unwrap();
    let second = other.write().await.err().expect("two write transactions at once: the first one is not immediate");
    assert!(second.retryable(), "{second:?}");
    insert(&txn, 1).await.unwrap();
    assert_eq!(counts(&server).await, before, "uncommitted rows are not visible");
    txn.commit().await.unwrap();
    assert_eq!(counts(&server).await["tenant"], before["tenant"] + 1);
}
