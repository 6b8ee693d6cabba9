//! Backup and restore, as the README tells an operator to do it, with the real binary and while callers write.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::fixture::{a_credential, api_key_material};
use jackfield_testkit::store::{Database, PoolSettings, Store};
use jackfield_testkit::{Backend, Client, Process, Program, Site};
use tokio::task::JoinSet;

use crate::steps;

/// How many write while the backup is made.
const WRITERS: usize = 8;

/// The tokens of credentials by their id, as acknowledged.
type Tokens = BTreeMap<String, String>;

/// Callers that write until they are stopped.
struct Writing {
    acknowledged: Arc<Mutex<Tokens>>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

// === impl Writing ===

impl Writing {
    /// Begins, and waits until something is there.
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

/// Checks that a server gives out these tokens, and that all else that it has opens, too.
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

/// Checks that a command failed and said so, and returns what it said.
#[track_caller]
fn fails(output: &Output, reason: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(reason), "{reason} was to be: {said}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A keyring that has nothing to do with this site.
async fn strange_keyring() -> Vec<u8> {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    std::fs::read(site.data_dir().join("keyring.toml")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_backed_up_while_it_is_written_and_restored() {
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
    assert!(after.len() > before.len(), "callers go on writing meanwhile");
    writing.grow_by(1).await;

    // One whole file for the owner only, and nothing else.
    assert_eq!(backup.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    let left: Vec<_> = std::fs::read_dir(site.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains(".tmp")), "{left:?}");
    let bytes = std::fs::read(&backup).unwrap();
    let again = tokio::task::spawn_blocking(command).await.unwrap();
    fails(&again, "is there already");
    assert_eq!(std::fs::read(&backup).unwrap(), bytes);

    // The disaster.
    writing.end().await;
    process.kill();
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", site.sqlite_file().display()));
    }

    // The restoration.
    let said = succeeds(&site.run(&["check-backup", text(&backup)]));
    let secrets = said.split(" secrets open").next().unwrap().rsplit(' ').next().unwrap().parse::<usize>().unwrap();
    assert!((before.len()..=after.len() + WRITERS).contains(&secrets), "{said}");
    std::fs::copy(&backup, site.sqlite_file()).unwrap();
    let process = site.start();
    has(&process.client("alpha"), &before).await;
    process.stop();
    assert_eq!(std::fs::read(&backup).unwrap(), bytes, "looking at it changes nothing of it");

    // With the keyring of another it is of no use, and says so.
    std::fs::write(site.data_dir().join("keyring.toml"), strange_keyring().await).unwrap();
    let missing = "data keys are wrapped with key-encryption keys that are not available";
    fails(&site.run(&["check-backup", text(&backup)]), missing);
    fails(&site.run(&["serve"]), missing);
    let elsewhere = site.directory().join("elsewhere.sqlite3");
    fails(&site.run(&["backup", "--to", text(&elsewhere)]), missing);
    assert!(!elsewhere.exists(), "what cannot be opened is no backup");
}

/// A copy of a good backup, with a change.
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
async fn a_backup_that_is_damaged_is_noticed() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    let writing = Writing::start(&process).await;
    writing.end().await;
    process.stop();
    // A server need not run for it.
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
    fails(&check(&site.directory().join("nowhere")), "is no backup to rely on");

    let bytes = std::fs::read(&backup).unwrap();
    let cut = site.directory().join("cut");
    std::fs::write(&cut, &bytes[..bytes.len() / 8192 * 4096]).unwrap();
    fails(&check(&cut), "is no backup to rely on");
    // Every eighth page, so that some of them hold rows or an index.
    let mut scribbled = bytes.clone();
    for page in (1..bytes.len() / 4096).step_by(8) {
        scribbled[page * 4096..page * 4096 + 64].fill(0xa5);
    }
    let path = site.directory().join("scribbled");
    std::fs::write(&path, scribbled).unwrap();
    fails(&check(&path), "is no backup to rely on");
    let empty = site.directory().join("empty");
    std::fs::write(&empty, "").unwrap();
    fails(&check(&empty), "it holds no data of Jackfield");
}

mod postgres {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_is_backed_up_while_it_is_written_and_restored() {
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
