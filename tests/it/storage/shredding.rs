//! Destroyed values on SQLite soon disappear from the files of the database: from the file and from its write-ahead
//! log.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_domain::application::MAX_SESSIONS;
use jackfield_testkit::store::{Database, PoolSettings, Store};
use jackfield_testkit::{Backend, Client, Process, Program, Site, canary, fixture};

use crate::application::licensed::{LicenseSystem, TOKEN, error};
use crate::application::login::log_in;
use crate::application::{self as applications, sessions};
use crate::steps;

/// The time limit for something that takes a second or two on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// The size of a frame of the log: 24 bytes and a page.
const FRAME: usize = 24 + 4096;

async fn store(file: &Path) -> Store {
    let settings = PoolSettings { max_connections: 1, acquire_timeout: Duration::from_secs(30) };
    Store::connect(&Database::Sqlite(file.to_owned()), settings).await.unwrap()
}

/// The values of a statement's rows, as bytes to search for.
async fn bytes(site: &Site, statement: &str) -> Vec<Vec<u8>> {
    let store = store(&site.sqlite_file()).await;
    let rows = store.raw_read(statement).await.unwrap();
    store.close().await;
    let byte = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
    rows.iter().map(|row| row.as_bytes().chunks(2).map(byte).collect()).collect()
}

/// The sealed values that belong to a resource.
async fn sealed(site: &Site, id: &str) -> Vec<Vec<u8>> {
    let id = id.replace('-', "");
    bytes(site, &format!("SELECT hex(sealed) FROM secret WHERE owner_id = x'{id}'")).await
}

/// All wrapped data keys of tenants. The system's data key is never destroyed.
async fn wrapped(site: &Site) -> Vec<Vec<u8>> {
    bytes(site, "SELECT hex(wrapped) FROM data_key WHERE tenant_id IN (SELECT id FROM tenant WHERE name_key = 'alpha')")
        .await
}

/// The number of these values in the files of the database. Another process reads the files, because closing a file
/// releases all locks of the process on it, including those of a reader of the test.
fn found(site: &Site, needles: &[Vec<u8>]) -> usize {
    let names = ["", "-wal", "-shm", "-journal"].map(|suffix| format!("{}{suffix}", site.sqlite_file().display()));
    let files = Command::new("cat").args(names).output().unwrap().stdout;
    needles.iter().filter(|needle| canary::contains(&files, needle)).count()
}

/// Waits until none of these values is in the files.
async fn gone(site: &Site, needles: &[Vec<u8>], what: &str) {
    let begin = Instant::now();
    while found(site, needles) > 0 {
        assert!(begin.elapsed() < PATIENCE, "{what}: {} of {} are still there", found(site, needles), needles.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn credential(client: &Client, token: &str) -> v1::Credential {
    let link = steps::linked(client, "ada", token).await;
    steps::api_key(client, &link, token).await
}

async fn delete_tenant(process: &Process) {
    let request = v1::DeleteTenantRequest { reference: "name:alpha".to_owned(), cascade: true, ..Default::default() };
    process.client("operator").admin().delete_tenant(request).await.unwrap();
}

/// Copies the file and its log, the log without its last frame.
fn cut_copy(site: &Site, to: &Path) {
    std::fs::copy(site.sqlite_file(), to).unwrap();
    let log = std::fs::read(format!("{}-wal", site.sqlite_file().display())).unwrap_or_default();
    std::fs::write(format!("{}-wal", to.display()), &log[..log.len().saturating_sub(FRAME)]).unwrap();
}

/// A server with a credential, and a database reader that began while its secret was there.
struct Held {
    site: Site,
    process: Process,
    /// The values that are destroyed with the tenant.
    needles: Vec<Vec<u8>>,
    reader: Store,
}

async fn held() -> Held {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    let credential = credential(&process.client("alpha"), "token").await;
    let needles = [sealed(&site, &credential.id).await, wrapped(&site).await].concat();
    let reader = store(&site.sqlite_file()).await;
    reader.raw_read("BEGIN").await.unwrap();
    assert_eq!(reader.raw_read("SELECT count(*) FROM secret").await.unwrap(), ["1"]);
    Held { site, process, needles, reader }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_and_deleted_values_are_in_no_file() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    let client = process.client("alpha");

    // A token that is replaced.
    let first = credential(&client, "first").await;
    let needles = sealed(&site, &first.id).await;
    assert!(!needles.is_empty() && found(&site, &needles) == needles.len());
    let request = v1::UpdateCredentialRequest {
        reference: first.id.clone(),
        credential: Some(v1::Credential::default()),
        material: Some(fixture::api_key_material("another")),
        ..Default::default()
    };
    client.credentials().update_credential(request).await.unwrap();
    gone(&site, &needles, "a replaced token").await;

    // A secret that is cleared.
    let mut connector = fixture::a_connector("headers");
    connector.secret_headers = fixture::strings([("x-secret", "the header")]);
    let connector = steps::connector(&client, connector).await;
    let needles = sealed(&site, &connector.id).await;
    assert!(!needles.is_empty() && found(&site, &needles) == needles.len());
    let request = v1::UpdateConnectorRequest {
        reference: connector.id.clone(),
        connector: Some(v1::Connector::default()),
        update_mask: fixture::mask(["secret_headers"]),
        ..Default::default()
    };
    client.connectors().update_connector(request).await.unwrap();
    gone(&site, &needles, "a cleared secret").await;

    // A credential that is deleted.
    let needles = sealed(&site, &first.id).await;
    assert!(!needles.is_empty() && found(&site, &needles) == needles.len());
    let request = v1::DeleteCredentialRequest { reference: first.id.clone(), ..Default::default() };
    client.credentials().delete_credential(request).await.unwrap();
    gone(&site, &needles, "a deleted credential").await;

    // Data keys and sealed values that a re-seal replaces.
    let second = credential(&client, "second").await;
    let needles = [sealed(&site, &second.id).await, wrapped(&site).await].concat();
    assert!(needles.len() >= 2 && found(&site, &needles) == needles.len());
    let request = v1::RewrapSecretsRequest { reseal: true, ..Default::default() };
    process.client("operator").admin().rewrap_secrets(request).await.unwrap();
    gone(&site, &needles, "resealed values").await;

    // A tenant with everything in it.
    let needles = [sealed(&site, &second.id).await, wrapped(&site).await].concat();
    assert!(needles.len() >= 2 && found(&site, &needles) == needles.len());
    delete_tenant(&process).await;
    gone(&site, &needles, "a deleted tenant").await;
    let copy = site.directory().join("copy.sqlite3");
    cut_copy(&site, &copy);
    process.kill();
    let store = store(&copy).await;
    let left = "SELECT (SELECT count(*) FROM secret), (SELECT count(*) FROM tenant WHERE name_key = 'alpha')";
    assert_eq!(store.raw_read(left).await.unwrap(), ["0|0"], "the copy contains destroyed values");
    store.close().await;
}

/// An ended session of a licence server leaves neither the token that the server gave nor its sealed form, however the session ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn licence_tokens_of_ended_sessions_are_in_no_file() {
    let mut site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.config_mut().login.attempts_per_user = 0;
    site.prepare().await;
    let mut process = site.start();
    let client = process.client("alpha");
    let (license, other) = (LicenseSystem::start().await, LicenseSystem::start().await);
    let (connector, gallery) = license.application(&client, "gallery", None).await;
    let opened = async |client: &Client| {
        let opened = log_in(client, &gallery, "ada", "right").await;
        let needles = sealed(&site, &opened.session.unwrap().id).await;
        assert!(needles.len() == 1 && found(&site, &needles) == 1);
        (opened.session_token, needles)
    };
    let plain = [TOKEN, "right"].map(|text| text.as_bytes().to_vec());
    let gone = async |needles: &[Vec<u8>], what: &str| {
        gone(&site, needles, what).await;
        assert_eq!(found(&site, &plain), 0, "{what}: it was never there");
    };

    let (session_token, needles) = opened(&client).await;
    let end = v1::EndSessionRequest { application: gallery.clone(), session_token, ..Default::default() };
    assert!(client.applications().end_session(end).await.unwrap().into_inner().ended);
    gone(&needles, "a session that was ended").await;

    let (session_token, needles) = opened(&client).await;
    license.set("GET", error(401, "NOT_AUTHORIZED"));
    sessions::user(&client, &gallery, &session_token).await.unwrap_err();
    license.reset();
    gone(&needles, "a token that the server no longer accepts").await;

    let (session_token, needles) = opened(&client).await;
    let moved = async |system: &LicenseSystem| {
        let base_url = system.system.url("/v1");
        let kind = v1::connector::Kind::License(v1::LicenseConnector { base_url, ..Default::default() });
        let request = v1::UpdateConnectorRequest {
            reference: connector.clone(),
            connector: Some(v1::Connector { kind: Some(kind), ..Default::default() }),
            update_mask: fixture::mask(["license.base_url"]),
            ..Default::default()
        };
        client.connectors().update_connector(request).await.unwrap();
    };
    moved(&other).await;
    sessions::user(&client, &gallery, &session_token).await.unwrap_err();
    moved(&license).await;
    gone(&needles, "a connector of another server").await;

    let (_, needles) = opened(&client).await;
    for connector in [String::new(), connector.clone()] {
        let change = v1::Application { connector: Some(connector), ..Default::default() };
        applications::update(&client, &gallery, change, &["connector"]).await.unwrap();
    }
    gone(&needles, "an application with another connector").await;

    // A user has so many sessions, and the next one ends the oldest.
    let (_, needles) = opened(&client).await;
    for _ in 0..MAX_SESSIONS {
        log_in(&client, &gallery, "ada", "right").await;
    }
    gone(&needles, "the oldest of too many sessions").await;

    // What has expired is removed at the start, and then every 30 s.
    let (_, needles) = opened(&client).await;
    process.kill();
    let expiring = store(&site.sqlite_file()).await;
    expiring.raw_write("UPDATE session SET expire_time = 1").await.unwrap();
    expiring.close().await;
    process = site.start();
    let client = process.client("alpha");
    let (_, kept) = opened(&client).await;
    gone(&needles, "a session that has expired").await;
    assert_eq!(found(&site, &kept), 1, "it has not expired");

    let request = v1::DeleteApplicationRequest { reference: gallery.clone(), ..Default::default() };
    assert!(client.applications().delete_application(request).await.unwrap().into_inner().deleted);
    gone(&kept, "a deleted application").await;
    assert_eq!(bytes(&site, "SELECT hex(sealed) FROM secret WHERE owner = 'session'").await, Vec::<Vec<u8>>::new());
    process.kill();
}

/// A reader delays the removal, but no writers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_a_reader_sees_disappear_after_the_reader_ends() {
    let Held { site, process, needles, reader } = held().await;
    delete_tenant(&process).await;
    let beta = process.client("beta");
    for number in 0..200 {
        steps::connector(&beta, fixture::a_connector(&format!("c{number}"))).await;
    }
    assert!(found(&site, &needles) > 0, "the reader sees it, so it is there");
    reader.raw_read("COMMIT").await.unwrap();
    gone(&site, &needles, "a deleted tenant").await;
    reader.close().await;
    process.kill();
}

/// The next process finishes what a killed one had not yet done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leftovers_of_a_killed_process_disappear_at_the_next_start() {
    let Held { site, process, needles, reader } = held().await;
    delete_tenant(&process).await;
    process.kill();
    assert!(found(&site, &needles) > 0);
    // The last process to close a database empties its log, and that must not be this one.
    let process = site.start();
    reader.raw_read("COMMIT").await.unwrap();
    reader.close().await;
    gone(&site, &needles, "a deleted tenant").await;
    process.kill();
}
