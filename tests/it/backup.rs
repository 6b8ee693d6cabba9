//! Backup and restore as the operator's guide describes them, with the real binary and while callers write.

mod damaged;

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
use jackfield_testkit::{Backend, Client, Process, Program, Site};
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

/// Before an upgrade, the new program finds a database that it has not migrated yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_an_older_schema_can_be_backed_up() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    let client = process.client("alpha");
    let link = steps::linked(&client, "ada", "Gmail").await;
    let facts = v1::Credential { labels: strings([("team", "a")]), ..a_credential("ada", &link.connector) };
    let (credential, material) = (Some(facts), Some(api_key_material("token")));
    let request_id = uuid::Uuid::now_v7().to_string();
    let request = v1::CreateCredentialRequest { credential, material, request_id, ..Default::default() };
    client.credentials().create_credential(request).await.unwrap();
    process.stop();
    let settings = PoolSettings { max_connections: 1, acquire_timeout: Duration::from_secs(5) };
    let store = Store::connect(&Database::Sqlite(site.sqlite_file()), settings).await.unwrap();
    for statement in [
        "ALTER TABLE credential RENAME COLUMN state TO status",
        "UPDATE credential SET doc = replace(doc, '\"state\":', '\"status\":')",
        "UPDATE idempotency SET answer = replace(answer, '\"state\":', '\"status\":')",
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
    for (statement, reason) in [
        ("UPDATE secret SET sealed = zeroblob(length(sealed))", "does not open"),
        ("UPDATE credential SET doc = substr(doc, 2)", "its document cannot be read"),
        ("UPDATE credential SET doc = CAST(x'7bff7d' AS TEXT)", "a row of credential cannot be read"),
        ("UPDATE label SET owner_id = randomblob(16)", "labels that belong to no resource: 1"),
        ("UPDATE idempotency SET answer = substr(answer, 2)", "(CreateCredential) is not JSON"),
    ] {
        let damaged = altered(&backup, "damaged", statement).await;
        fails(&site.run(&["check-backup", text(&damaged)]), reason);
    }
    // A table that the older schema does not have yet.
    succeeds(&site.run(&["check-backup", text(&altered(&backup, "without", "DROP TABLE idempotency").await)]));
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
