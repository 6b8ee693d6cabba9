//! Backup and restore as the operator's guide describes them, with the real binary and while callers write.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::fixture::{a_credential, api_key_material, strings};
use jackfield_testkit::store::{Database, PoolSettings, Store};
use jackfield_testkit::{Backend, Client, Process, Program, Rng, Site};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;

use crate::steps;

/// The number of writers during the backup.
const WRITERS: usize = 8;

/// The acknowledged tokens of credentials by id.
type Tokens = BTreeMap<String, String>;

/// Callers that write until they are stopped.
struct Writing {
    acknowledged: Arc<Mutex<Tokens>>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

// === impl Writing ===

impl Writing {
    /// Starts the writers, and waits until something is written.
    async fn start(process: &Process) -> Self {
        let client = process.client("alpha");
        let connector = steps::linked(&client, "user", "connector").await.connector;
        let mut writing = Self { acknowledged: Arc::default(), stop: Arc::default(), tasks: JoinSet::new() };
        for writer in 0..WRITERS {
            let (client, connector) = (client.clone(), connector.clone());
            let (acknowledged, stop) = (Arc::clone(&writing.acknowledged), Arc::clone(&writing.stop));
            writing.tasks.spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let token = format!("token {number} of {writer}");
                    let material = api_key_material(&token);
                    let made = steps::credential(&client, a_credential("user", &connector), material).await;
                    acknowledged.lock().unwrap().insert(made.id, token);
                }
            });
        }
        writing.grow_by(100).await;
        writing
    }

    fn acknowledged(&self) -> Tokens {
        self.acknowledged.lock().unwrap().clone()
    }

    async fn grow_by(&self, count: usize) {
        let end = self.acknowledged().len() + count;
        while self.acknowledged().len() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
    }
}

/// Checks that a server returns these tokens, and that all other secrets open as well.
async fn has(client: &Client, tokens: &Tokens) {
    let issue = |reference: String| async move {
        let request = v1::IssueAccessTokenRequest { reference, ..Default::default() };
        client.credentials().issue_access_token(request).await.unwrap().into_inner().access_token
    };
    for (id, token) in tokens {
        assert_eq!(issue(id.clone()).await, *token, "{id}");
    }
    let listed = client.credentials().list_credentials(v1::ListCredentialsRequest::default()).await;
    for credential in jackfield_testkit::collect::items(listed).await.unwrap() {
        issue(credential.id).await;
    }
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Checks that a command failed with this reason.
#[track_caller]
fn fails(output: &Output, reason: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(reason), "expected {reason}: {said}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The keyring of an unrelated site.
async fn strange_keyring() -> Vec<u8> {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    std::fs::read(site.data_dir().join("keyring.toml")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_backed_up_under_writes_and_restored() {
    let site = Arc::new(Site::new(Backend::Sqlite, Program::Jackfield));
    site.prepare().await;
    let process = site.start();
    let writing = Writing::start(&process).await;
    let backup = site.directory().join("backup.sqlite3");
    let before = writing.acknowledged();
    let command = {
        let (site, backup) = (Arc::clone(&site), backup.clone());
        move || site.run(&["backup", "--to", text(&backup)])
    };
    let output = tokio::task::spawn_blocking(command.clone()).await.unwrap();
    let said = succeeds(&output);
    assert!(said.contains("It is sound.") && said.contains("The keyring is not in it"), "{said}");
    let after = writing.acknowledged();
    assert!(after.len() > before.len(), "callers keep writing meanwhile");
    writing.grow_by(1).await;

    // One complete file for the owner only, its digest, and nothing else.
    let digest = backup.with_file_name("backup.sqlite3.sha256");
    for file in [&backup, &digest] {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    }
    let sum =
        Command::new("sha256sum").args(["--check", "--strict"]).arg(&digest).current_dir(site.directory()).output();
    assert_eq!(succeeds(&sum.unwrap()), "backup.sqlite3: OK\n");
    let left: Vec<_> = std::fs::read_dir(site.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains(".tmp")), "{left:?}");
    let bytes = std::fs::read(&backup).unwrap();
    let again = tokio::task::spawn_blocking(command).await.unwrap();
    fails(&again, "exists already");
    assert_eq!(std::fs::read(&backup).unwrap(), bytes);

    // The disaster.
    writing.end().await;
    process.kill();
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", site.sqlite_file().display()));
    }

    // The restoration.
    let said = succeeds(&site.run(&["check-backup", text(&backup)]));
    assert!(said.ends_with("It is bit for bit what was backed up.\n"), "{said}");
    let secrets = said.split(" secrets open").next().unwrap().rsplit(' ').next().unwrap().parse::<usize>().unwrap();
    assert!((before.len()..=after.len() + WRITERS).contains(&secrets), "{said}");
    std::fs::copy(&backup, site.sqlite_file()).unwrap();
    let process = site.start();
    has(&process.client("alpha"), &before).await;
    process.stop();
    assert_eq!(std::fs::read(&backup).unwrap(), bytes, "checking a backup does not change it");

    // With another keyring it is useless, and the command says so.
    std::fs::write(site.data_dir().join("keyring.toml"), strange_keyring().await).unwrap();
    let missing = "data keys are wrapped with key-encryption keys that are not available";
    fails(&site.run(&["check-backup", text(&backup)]), missing);
    fails(&site.run(&["serve"]), missing);
    let elsewhere = site.directory().join("elsewhere.sqlite3");
    fails(&site.run(&["backup", "--to", text(&elsewhere)]), missing);
    assert!(!elsewhere.exists(), "a backup that cannot be opened is not written");
}

/// A copy of a good backup with a change.
async fn altered(backup: &Path, name: &str, statement: &str) -> PathBuf {
    let path = backup.with_file_name(name);
    std::fs::copy(backup, &path).unwrap();
    let settings = PoolSettings { max_connections: 1, acquire_timeout: Duration::from_secs(5) };
    let store = Store::connect(&Database::Sqlite(path.clone()), settings).await.unwrap();
    store.raw_write(statement).await.unwrap();
    store.close().await;
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_backup_is_detected() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    let writing = Writing::start(&process).await;
    writing.end().await;
    process.stop();
    // No server needs to be running.
    let backup = site.directory().join("backup.sqlite3");
    succeeds(&site.run(&["backup", "--to", text(&backup)]));
    let check = |path: &Path| site.run(&["check-backup", text(path)]);
    succeeds(&check(&backup));

    let one = "(SELECT owner_id FROM secret ORDER BY owner_id LIMIT 1)";
    let secret = format!("UPDATE secret SET sealed = zeroblob(length(sealed)) WHERE owner_id = {one}");
    fails(&check(&altered(&backup, "secret", &secret).await), "does not open");
    let moved = format!(
        "UPDATE secret SET sealed = (SELECT sealed FROM secret ORDER BY owner_id DESC LIMIT 1) WHERE owner_id = {one}"
    );
    fails(&check(&altered(&backup, "moved", &moved).await), "does not open");
    let key =
        "UPDATE data_key SET wrapped = zeroblob(length(wrapped)) WHERE id = (SELECT max(data_key_id) FROM secret)";
    fails(&check(&altered(&backup, "key", key).await), "does not open the data key");
    let newer = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_later', 0)";
    fails(&check(&altered(&backup, "newer", newer).await), "the schema is newer than this program");
    fails(&check(&site.directory().join("nowhere")), "is not a reliable backup");

    let bytes = std::fs::read(&backup).unwrap();
    let cut = site.directory().join("cut");
    std::fs::write(&cut, &bytes[..bytes.len() / 8192 * 4096]).unwrap();
    fails(&check(&cut), "it is damaged: ");
    // Truncates it at lengths that leave the header, also in the middle of a page.
    for length in [16, 99, 100, 1_000, 4_096, 5_000, 3 * 4_096, bytes.len() - 4_096, bytes.len() - 1] {
        std::fs::write(&cut, &bytes[..length]).unwrap();
        fails(&check(&cut), "it is damaged: ");
    }
    // The file of the database itself is damaged.
    std::fs::write(site.sqlite_file(), &bytes[..bytes.len() - 4_096]).unwrap();
    fails(&site.run(&["serve"]), "the database is damaged: ");
    fails(&site.run(&["backup", "--to", "of-damaged"]), "the database is damaged: ");
    std::fs::write(site.sqlite_file(), &bytes).unwrap();
    // Overwrites every eighth page, so that some of them contain rows or an index.
    let mut scribbled = bytes.clone();
    for page in (1..bytes.len() / 4096).step_by(8) {
        scribbled[page * 4096..page * 4096 + 64].fill(0xa5);
    }
    let path = site.directory().join("scribbled");
    std::fs::write(&path, scribbled).unwrap();
    fails(&check(&path), "it is damaged: ");
    let empty = site.directory().join("empty");
    std::fs::write(&empty, "").unwrap();
    fails(&check(&empty), "it holds no data of Jackfield");
    let text_file = site.directory().join("no.sqlite3");
    std::fs::write(&text_file, "a text that is longer than the first words of a database").unwrap();
    fails(&check(&text_file), "it is not an SQLite database");
    let pipe = site.directory().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fails(&check(&pipe), "it is not a regular file");
    // The digest left behind by a moved backup is neither replaced nor used for another backup.
    std::fs::rename(&backup, site.directory().join("moved.sqlite3")).unwrap();
    fails(&site.run(&["backup", "--to", text(&backup)]), "backup.sqlite3.sha256 exists already");
    assert!(!backup.exists());
}

/// SQLite has no checksums, so a flipped bit in a page looks like any other value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flipped_bit_is_detected() {
    const FLIPS: usize = 600;
    let site = Arc::new(Site::new(Backend::Sqlite, Program::Jackfield));
    site.prepare().await;
    let process = site.start();
    Writing::start(&process).await.end().await;
    process.stop();
    let backup = site.directory().join("backup.sqlite3");
    succeeds(&site.run(&["backup", "--to", text(&backup)]));
    let (bytes, digest) =
        (std::fs::read(&backup).unwrap(), std::fs::read(site.directory().join("backup.sqlite3.sha256")).unwrap());
    let mut rng = Rng::new(0x6a61_636b);
    let bits: Vec<u64> = (0..FLIPS).map(|_| rng.below(8 * bytes.len() as u64)).collect();
    let mut work = JoinSet::new();
    for (half, bits) in bits.chunks(FLIPS / 2).map(<[u64]>::to_vec).enumerate() {
        let (site, mut bytes, digest) = (Arc::clone(&site), bytes.clone(), digest.clone());
        work.spawn_blocking(move || {
            let path = site.directory().join(format!("flipped-{half}"));
            std::fs::write(site.directory().join(format!("flipped-{half}.sha256")), digest).unwrap();
            for bit in bits {
                let (byte, mask) = (usize::try_from(bit / 8).unwrap(), 1 << (bit % 8));
                bytes[byte] ^= mask;
                std::fs::write(&path, &bytes).unwrap();
                fails(&site.run(&["check-backup", text(&path)]), "it has changed since it was made");
                bytes[byte] ^= mask;
            }
            std::fs::write(&path, &bytes).unwrap();
            succeeds(&site.run(&["check-backup", text(&path)]));
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
}

/// Without its digest, a file is checked row by row: each row must agree with its document and with related rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_disagrees_with_its_document_is_detected() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    let client = process.client("alpha");
    let mut connector = jackfield_testkit::fixture::a_connector("Ärger");
    connector.description = Some("for the board".to_owned());
    connector.headers = strings([("x-one", "two")]);
    connector.labels = strings([("team", "a")]);
    let request_id = uuid::Uuid::now_v7().to_string();
    let request = v1::CreateConnectorRequest { connector: Some(connector), request_id, ..Default::default() };
    let connector = client.connectors().create_connector(request).await.unwrap().into_inner().connector.unwrap();
    let link = steps::link(&client, "ada", &connector.id).await;
    steps::api_key(&client, &link, "token").await;
    process.stop();
    let backup = site.directory().join("backup.sqlite3");
    succeeds(&site.run(&["backup", "--to", text(&backup)]));
    let check = |path: &Path| site.run(&["check-backup", text(path)]);
    let (id, doc) = (connector.id.as_str(), "UPDATE connector SET doc = replace(doc, ");
    for (statement, reason) in [
        (format!("{doc}'two', 'tvo')"), "its column search_text and its document disagree"),
        (format!("{doc}'board', 'bnard')"), "its column description and its document disagree"),
        (format!("{doc}'\"version\":1', '\"version\":3')"), "its column version and its document disagree"),
        ("UPDATE connector SET doc = '{'".to_owned(), "its document cannot be read"),
        (
            "UPDATE connector SET doc = replace(doc, '\"headers\"', '\"heeders\"')".to_owned(),
            "its column doc and its document disagree",
        ),
        ("UPDATE connector SET name_key = 'erger'".to_owned(), "its column name_key and its document disagree"),
        ("UPDATE connector SET enabled = 0".to_owned(), "its column enabled and its document disagree"),
        (
            "UPDATE connector SET update_time = update_time + 1".to_owned(),
            "its column update_time and its document disagree",
        ),
        ("UPDATE connector SET folded = '{}'".to_owned(), "its column folded and its document disagree"),
        ("UPDATE label SET label_value = 'b'".to_owned(), "its labels and its document disagree"),
        ("DELETE FROM label".to_owned(), "its labels and its document disagree"),
    ] {
        let output = check(&altered(&backup, "altered", &statement).await);
        fails(&output, &format!("connector {id} of tenant "));
        fails(&output, reason);
    }
    for (statement, reason) in [
        (
            "INSERT INTO label SELECT tenant_id, owner, randomblob(16), label_key, label_value FROM label",
            "labels that belong to no resource: 1",
        ),
        ("UPDATE idempotency SET answer = substr(answer, 2)", "is not JSON"),
        (
            "UPDATE idempotency SET answer = replace(answer, '\"name\":', '\"nome\":') WHERE method = 'CreateConnector'",
            "(CreateConnector) is not the resource that the method returns",
        ),
        ("UPDATE idempotency SET answer = CAST(x'7bff7d' AS TEXT)", "it is damaged: "),
        ("UPDATE label SET label_value = CAST(x'ff' AS TEXT)", "it is damaged: "),
        ("UPDATE connector SET doc = CAST(x'7bff7d' AS TEXT)", "of connector cannot be read"),
        (
            "UPDATE data_key SET id = randomblob(16) WHERE id NOT IN (SELECT data_key_id FROM secret)",
            "does not open the data key",
        ),
    ] {
        fails(&check(&altered(&backup, "altered", statement).await), reason);
    }
    // The copies have no other faults, and the command says what it cannot detect.
    let said = succeeds(&check(&altered(&backup, "altered", "UPDATE audit_event SET purpose = ''").await));
    assert!(said.contains("There is no ") && said.contains("altered.sha256"), "{said}");
    let digest = site.directory().join("altered.sha256");
    for text in ["", "no digest\n"] {
        std::fs::write(&digest, text).unwrap();
        fails(
            &check(&site.directory().join("altered")),
            "holds no digest: 64 hexadecimal digits, two blanks and a name",
        );
    }
}

/// Before an upgrade, the new program finds a database that it has not migrated yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_an_older_schema_can_be_backed_up() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    let client = process.client("alpha");
    let link = steps::linked(&client, "ada", "Gmail").await;
    steps::api_key(&client, &link, "token").await;
    process.stop();
    let settings = PoolSettings { max_connections: 1, acquire_timeout: Duration::from_secs(5) };
    let store = Store::connect(&Database::Sqlite(site.sqlite_file()), settings).await.unwrap();
    for statement in [
        "ALTER TABLE credential RENAME COLUMN state TO status",
        "UPDATE credential SET doc = replace(doc, '\"state\":', '\"status\":')",
        "DELETE FROM seaql_migrations WHERE version > 'm0005'",
    ] {
        store.raw_write(statement).await.unwrap();
    }
    store.close().await;
    let backup = site.directory().join("backup.sqlite3");
    for output in [site.run(&["backup", "--to", text(&backup)]), site.run(&["check-backup", text(&backup)])] {
        let said = succeeds(&output);
        assert!(
            said.contains("Schema: m0004_search. That is older than this program, so rows were not compared"),
            "{said}"
        );
        assert!(said.contains(" 1 secrets open"), "{said}");
    }
    let secret = altered(&backup, "secret", "UPDATE secret SET sealed = zeroblob(length(sealed))").await;
    fails(&site.run(&["check-backup", text(&secret)]), "does not open");
}

/// A lock on the whole database file, in the way of SQLite. Readers of the file wait for it for some seconds.
fn locked(site: &Site) -> std::fs::File {
    let file = std::fs::File::options().read(true).write(true).open(site.sqlite_file()).unwrap();
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    file
}

/// A backup that is held in the middle of its work: it has created its file, and cannot continue while the database is
/// locked.
fn held(site: &Site, _lock: &std::fs::File, to: &str) -> std::process::Child {
    let before = temporaries(site).len();
    let mut command = site.command(&["backup", "--to", to]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // Until the file is locked, others take it for a leftover, and the backup creates another one.
    while temporaries(site).len() == before || !has_locked(child.id()) {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it created its file");
        std::thread::sleep(Duration::from_millis(1));
    }
    kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
    let stat = format!("/proc/{}/stat", child.id());
    while !std::fs::read_to_string(&stat).unwrap().rsplit(')').next().unwrap().starts_with(" T") {
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Returns whether a process has locked a temporary file.
fn has_locked(process: u32) -> bool {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let is_temporary =
        |path: &Path| std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("/.backup-"));
    let is_locked = |path: PathBuf| {
        let info = format!("/proc/{process}/fdinfo/{}", path.file_name().unwrap_or_default().to_string_lossy());
        std::fs::read_to_string(info).is_ok_and(|info| info.contains("FLOCK"))
    };
    files.map(|file| file.path()).filter(|path| is_temporary(path)).any(is_locked)
}

fn temporaries(site: &Site) -> Vec<String> {
    let names = std::fs::read_dir(site.directory()).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.starts_with(".backup-")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_backup_leaves_nothing_behind() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    Writing::start(&process).await.end().await;
    process.stop();

    // Signals that it handles.
    for end in [Signal::TERM, Signal::INT, Signal::HUP] {
        let lock = locked(&site);
        let mut child = held(&site, &lock, "ended");
        kill_process(Pid::from_child(&child), end).unwrap();
        kill_process(Pid::from_child(&child), Signal::CONT).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(1), "{end:?}");
        assert_eq!(temporaries(&site), [] as [&str; 0], "{end:?}");
        assert!(!site.directory().join("ended").exists());
    }

    // A kill; a concurrent backup keeps its file.
    let lock = locked(&site);
    let mut killed = held(&site, &lock, "killed");
    let mut at_work = held(&site, &lock, "at-work");
    drop(lock);
    kill_process(Pid::from_child(&killed), Signal::KILL).unwrap();
    killed.wait().unwrap();
    assert!(temporaries(&site).len() >= 2);
    succeeds(&site.run(&["backup", "--to", "next"]));
    assert!(!temporaries(&site).is_empty(), "the running backup keeps its file");
    kill_process(Pid::from_child(&at_work), Signal::CONT).unwrap();
    assert!(at_work.wait().unwrap().success());
    assert_eq!(temporaries(&site), [] as [&str; 0]);
    for file in ["next", "at-work"] {
        succeeds(&site.run(&["check-backup", file]));
    }
    assert!(!site.directory().join("killed").exists());
}

mod postgres {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_is_backed_up_under_writes_and_restored() {
        let site = Arc::new(Site::new(Backend::Postgres, Program::Jackfield));
        site.prepare().await;
        let process = site.start();
        let writing = Writing::start(&process).await;
        let backup = site.directory().join("backup.dump");
        let before = writing.acknowledged();
        let dump = {
            let (site, backup) = (Arc::clone(&site), backup.clone());
            move || site.postgres().dump_to(&backup)
        };
        tokio::task::spawn_blocking(dump).await.unwrap();
        writing.grow_by(1).await;
        fails(&site.run(&["backup", "--to", "x"]), "PostgreSQL, which is backed up by its own tools");

        writing.end().await;
        process.kill();
        site.postgres().run("drop schema public cascade");
        site.postgres().run("create schema public");

        site.postgres().restore_from(&backup);
        let process = site.start();
        has(&process.client("alpha"), &before).await;
        process.stop();
        std::fs::write(site.data_dir().join("keyring.toml"), strange_keyring().await).unwrap();
        fails(&site.run(&["serve"]), "data keys are wrapped with key-encryption keys that are not available");
    }
}
