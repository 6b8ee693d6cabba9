//! The canary sweep. It sends a marked secret through every secret field of every method, on every path that such a
//! call can take, to the real binary at its most verbose. Then it searches everything that the binary has answered,
//! logged, sent, counted, written or kept in memory.

#[path = "../it/canary/attempts.rs"]
mod attempts;
mod door;
mod memory;
#[path = "../it/canary/plant.rs"]
mod plant;
#[path = "../it/canary/raw.rs"]
mod raw;
#[path = "../it/canary/sown.rs"]
mod sown;

use std::path::Path;
use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_testkit::canary::{Sweep, contains};
use jackfield_testkit::fault::Fault;
use jackfield_testkit::{Backend, Callers as _, Canary, Collector, Program, Site, fixture, proof};
use tonic::Code;

use self::door::{Door, break_secrets, mend_secrets};
use self::plant::{SecretField, Targets, secret_fields};
use self::sown::Sown;

/// The number of rounds over all paths and fields: by default enough for 1,000 canaries. The variable sets another
/// number.
const ROUNDS_VARIABLE: &str = "PROOF_CANARY_ROUNDS";
const ROUNDS: usize = 3;
/// The time for which sent data may stay in memory.
const PATIENCE: Duration = Duration::from_secs(30);
/// The least number of canaries and of replies in a round.
const OF_A_ROUND: usize = 450;

/// The searched data and the findings.
struct Swept {
    canaries: usize,
    replies: usize,
    bytes: usize,
    /// The findings with their places.
    hits: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_leave_no_trace() {
    check(Backend::Sqlite).await;
}

mod postgres {
    use jackfield_testkit::Backend;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn secrets_leave_no_trace() {
        super::check(Backend::Postgres).await;
    }
}

async fn check(backend: Backend) {
    let _turn = proof::turn();
    let rounds = proof::setting(ROUNDS_VARIABLE, ROUNDS);
    let Swept { canaries, replies, bytes, hits } = sweep(backend, Program::Jackfield, rounds, |_| true).await;
    let mib = bytes / 1024 / 1024;
    proof::report(&format!(
        "canary sweep on {backend:?}: canaries={canaries} replies={replies} searched={mib}MiB hits={}",
        hits.len()
    ));
    assert!(hits.is_empty(), "{hits:#?}");
    let least = OF_A_ROUND * rounds;
    assert!(canaries >= least && replies >= least, "{canaries} canaries, {replies} replies");
    assert!(canaries >= 1_000 || rounds < ROUNDS, "{canaries} canaries");
}

/// A leak of each kind has to be found in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaks_are_found() {
    let _turn = proof::turn();
    for (fault, place) in [
        (Fault::PrintsRequests, "the log"),
        (Fault::EchoesRequests, "the reply to"),
        (Fault::DefaultAllocator, "the memory"),
    ] {
        let few = |field: &SecretField| field.method.name() == "CreateCredential";
        let Swept { hits, .. } = sweep(Backend::Sqlite, Program::Faulty(fault), 1, few).await;
        let (found, others): (Vec<_>, Vec<_>) = hits.iter().partition(|hit| hit.starts_with(place));
        proof::report(&format!("canary sweep with {fault:?}: hits={} elsewhere={}", found.len(), others.len()));
        assert!(!found.is_empty(), "{fault:?} is not found in {place}: {others:#?}");
    }
}

async fn sweep(backend: Backend, program: Program, rounds: usize, wanted: fn(&SecretField) -> bool) -> Swept {
    let collector = Collector::start().await;
    let mut site = Site::new(backend, Program::Jackfield);
    site.prepare().await;
    if backend == Backend::Postgres {
        door::let_postgres_talk(&site);
    }
    let log = site.directory().join("log");
    let metrics = door::free_address();
    let config = site.config_mut();
    config.telemetry.log_filter = "trace".to_owned();
    config.telemetry.trace_ratio = 1.0;
    config.telemetry.otlp_endpoint = collector.endpoint();
    config.telemetry.prometheus_address = metrics.to_string();
    // The token cache keeps secrets intentionally, which would hide unintended copies.
    config.token_cache.max_tokens = 0;
    site.keep_log(log.clone());
    site.set_program(program);
    let process = site.start();
    let door = Door::new(&process);

    let targets = Targets::create(&door).await;
    let mut sown = Sown { targets, canaries: Vec::new(), replies: Vec::new() };
    let fields: Vec<_> = secret_fields().into_iter().filter(wanted).collect();
    for _ in 0..rounds {
        for field in &fields {
            sown.attempts(&door, field).await;
        }
    }
    break_secrets(&site).await;
    let stored = fields.iter().filter(|field| !field.is_login());
    sown.with_failing_database(&door, stored.clone(), "with a defect", (Code::Internal, "INTERNAL")).await;
    mend_secrets(&site).await;
    let away = (Code::Unavailable, "STORE_UNAVAILABLE");
    if backend == Backend::Postgres {
        site.postgres().set_reachable(false);
        sown.with_failing_database(&door, &fields, "without a database", away).await;
        site.postgres().set_reachable(true);
    } else {
        let store = door::store(&site).await;
        let lock = store.write().await.unwrap();
        sown.with_failing_database(&door, stored, "without a database", away).await;
        lock.rollback().await.unwrap();
        store.close().await;
    }
    if program == Program::Jackfield {
        sown.read_everything(&door).await;
        sown.hand_out(&door, &fields).await;
        change_connector(&door, &sown.targets.connector).await;
    }

    if backend == Backend::Sqlite && program == Program::Jackfield {
        let backup = site.data_dir().join("backup.sqlite3");
        let copied = site.run(&["backup", "--to", &backup.to_string_lossy()]);
        assert!(copied.status.success() && backup.exists(), "{copied:?}");
    }
    let mut places: Vec<(String, Vec<u8>)> = Vec::new();
    // All callers disconnect, and the server becomes idle.
    drop(door);
    let page = door::idle(metrics).await;
    places.push(("the metrics page".to_owned(), page));
    places.push(("the memory of the idle process".to_owned(), memory::of(&process)));
    files(site.data_dir(), "running", &mut places);
    let said = process.stop();
    assert!(said.contains("stopped"), "{said}");
    files(site.data_dir(), "at rest", &mut places);
    if backend == Backend::Postgres {
        let postgres = site.postgres();
        let bytes = tokio::task::block_in_place(|| postgres.stored_bytes());
        let logged = postgres.is_ours().then(|| contains(&bytes, b"violates check constraint \"broken\""));
        assert_ne!(logged, Some(false), "the log of the database is not searched");
        places.push(("the database".to_owned(), bytes));
    }
    places.push(("the exported telemetry".to_owned(), collector.bytes()));
    let log = std::fs::read(log).unwrap();
    // Checks that the searched data is what it is meant to be.
    for (what, bytes, part) in [
        ("the log", &log, &b"\"level\":\"TRACE\""[..]),
        ("the log", &log, b"ConnectorService/CreateConnector"),
        ("the memory", &places[1].1, b"SQLite format 3"),
        ("the export", &places.last().unwrap().1, b"CredentialsService/CreateCredential"),
    ] {
        let known = contains(bytes, part) || (backend == Backend::Postgres && what == "the memory");
        assert!(known, "{what} is not what it is meant to be: {} bytes", bytes.len());
    }
    places.push(("the log".to_owned(), log));
    places.extend(sown.replies.iter().map(|(name, reply)| (format!("the reply to {name}"), reply.bytes.clone())));

    let search = Sweep::new(&sown.canaries, &[]);
    let found = |(place, bytes): &(String, Vec<u8>)| -> Vec<String> {
        search.found_in(bytes).into_iter().map(|what| format!("{place}: {what}")).collect()
    };
    Swept {
        canaries: sown.canaries.len(),
        replies: sown.replies.len(),
        bytes: places.iter().map(|(_, bytes)| bytes.len()).sum(),
        hits: places.iter().flat_map(found).collect(),
    }
}

/// Changes a connector. The client that calls its system has its secrets, and is gone with the change.
async fn change_connector(door: &Door<'_>, connector: &str) {
    let changed = v1::Connector { description: Some("changed".to_owned()), ..Default::default() };
    let request = v1::UpdateConnectorRequest {
        reference: connector.to_owned(),
        connector: Some(changed),
        update_mask: fixture::mask(["description"]),
        ..Default::default()
    };
    door.client("alpha").connectors().update_connector(request).await.unwrap();
}

/// Adds all files of a directory, whatever they are.
fn files(directory: &Path, when: &str, places: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, when, places);
        } else {
            places.push((format!("{} {when}", path.display()), std::fs::read(&path).unwrap_or_default()));
        }
    }
}

/// A client may keep its connection for half an hour, but the data it has sent must not stay that long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_leave_no_trace_on_an_open_connection() {
    let _turn = proof::turn();
    let mut site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let metrics = door::free_address();
    site.config_mut().telemetry.prometheus_address = metrics.to_string();
    let process = site.start();
    let mut canaries = Vec::new();
    let mut clients = Vec::new();
    // As the first call of a connection and as a later one, small and large.
    for (calls, padding) in [(1, 0), (1, 5_000), (1, 9_000), (3, 0), (12, 2_000), (40, 100)] {
        let client = process.client("alpha");
        for call in 0..calls {
            let canary = Canary::new(format!("secret header of call {call} with {padding} bytes"));
            let connector = v1::Connector {
                secret_headers: fixture::strings([("x-secret", canary.secret.as_str())]),
                data: Some(fixture::object([("padding", "x".repeat(padding).as_str())])),
                ..fixture::a_connector(&format!("connector {calls} {padding} {call}"))
            };
            let request = v1::CreateConnectorRequest { connector: Some(connector), ..Default::default() };
            client.connectors().create_connector(request).await.unwrap();
            canaries.push(canary);
        }
        clients.push(client);
    }
    let search = Sweep::new(&canaries, &[]);
    let begin = Instant::now();
    loop {
        let hits = search.found_in(&memory::of(&process));
        let open = String::from_utf8(door::metrics_page(metrics).await).unwrap();
        let open =
            open.lines().any(|line| line.starts_with("jackfield_server_connections_open") && line.ends_with(" 6"));
        assert!(open, "all of them are still connected");
        if hits.is_empty() {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{hits:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The connections still work.
    for client in clients {
        client
            .connectors()
            .get_connector(v1::GetConnectorRequest { reference: "name:connector 1 0 0".into() })
            .await
            .unwrap();
    }
}
