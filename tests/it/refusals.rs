//! Refusals of `serve` at the start: at once, with the exact reason, and without writing anything.

mod certificates;
mod files;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_testkit::fixture::a_connector;
use jackfield_testkit::store::{Database, PoolSettings, Store};
use jackfield_testkit::{Backend, Canary, Program, Site};

/// The time limit of a refusal.
const AT_ONCE: Duration = Duration::from_secs(2);
/// The most tries until a refusal is fast enough. It changes nothing, so each try is equivalent, and the fastest is the
/// one that the machine delayed least.
const TRIES: usize = 3;

/// The content of a directory: the mode, modification time and bytes of each path.
type Snapshot = BTreeMap<String, (u32, i64, i64, Vec<u8>)>;

/// The end of the previous server, which determines the state of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Stopped,
    Killed,
}

/// Reads a directory. Leaves out the index of SQLite's log: it contains nothing that is not in the log, and any reader
/// recreates it after a crash.
fn snapshot(directory: &Path) -> Snapshot {
    fn read(path: &Path, into: &mut Snapshot) {
        let metadata = path.symlink_metadata().unwrap();
        if path.to_string_lossy().ends_with("-shm") {
            return;
        }
        let content = if metadata.is_file() { std::fs::read(path).unwrap() } else { Vec::new() };
        let facts = (metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), content);
        into.insert(path.to_string_lossy().into_owned(), facts);
        if metadata.is_dir() {
            std::fs::read_dir(path).unwrap().for_each(|entry| read(&entry.unwrap().path(), into));
        }
    }
    let mut snapshot = Snapshot::new();
    if directory.exists() {
        read(directory, &mut snapshot);
    }
    snapshot
}

/// A site on which a server has run.
async fn served(before: Before) -> Site {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    // Makes a change, so that a killed server leaves a log behind.
    let request = v1::CreateConnectorRequest { connector: Some(a_connector("mark")), ..Default::default() };
    process.client("alpha").connectors().create_connector(request).await.unwrap();
    match before {
        Before::Stopped => process.stop(),
        Before::Killed => process.kill(),
    };
    site
}

/// Runs a command that has to be refused at once, with this reason and without changes.
#[track_caller]
fn refuses(site: &Site, arguments: &[&str], reason: &str) {
    refuses_with(site, arguments, &[], reason);
}

#[track_caller]
fn refuses_with(site: &Site, arguments: &[&str], environment: &[(&str, &str)], reason: &str) {
    let mut times = Vec::new();
    while times.len() < TRIES {
        let took = refused_once(site, arguments, environment, reason);
        if took < AT_ONCE {
            return;
        }
        times.push(took);
    }
    panic!("{arguments:?} took {times:?} to be refused");
}

/// Makes one try, and returns its duration.
#[track_caller]
fn refused_once(site: &Site, arguments: &[&str], environment: &[(&str, &str)], reason: &str) -> Duration {
    let before = snapshot(site.data_dir());
    let mut command = site.command(arguments);
    command.envs(environment.iter().copied());
    let begin = Instant::now();
    let output = command.output().unwrap();
    let took = begin.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    // The log may have further lines, for each data key that did not open.
    let last_words: String =
        said.lines().filter(|line| !line.starts_with('{')).map(|line| format!("{line}\n")).collect();
    assert_eq!(last_words, format!("jackfield: {reason}\n"), "{arguments:?}");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    let after = snapshot(site.data_dir());
    let changed: Vec<_> =
        before.iter().filter(|(path, facts)| after.get(*path) != Some(facts)).map(|(path, _)| path).collect();
    let made: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(changed.is_empty() && made.is_empty(), "{reason}: changed {changed:?}, made {made:?}");
    took
}

fn keyring(site: &Site) -> std::path::PathBuf {
    site.data_dir().join("keyring.toml")
}

/// The id and the secret of the one key in a keyring.
fn key(text: &str) -> [String; 2] {
    ["id = \"", "secret = \""].map(|field| text.split(field).nth(1).unwrap().split('"').next().unwrap().to_owned())
}

/// A keyring with a fresh key.
async fn other_keyring() -> String {
    std::fs::read_to_string(keyring(&served(Before::Stopped).await)).unwrap()
}

async fn write_sql(site: &Site, statement: &str) {
    let settings = PoolSettings { max_connections: 1, acquire_timeout: Duration::from_secs(5) };
    let store = Store::connect(&Database::Sqlite(site.sqlite_file()), settings).await.unwrap();
    store.raw_write(statement).await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_keyring() {
    let mut site = served(Before::Stopped).await;
    std::fs::remove_file(keyring(&site)).unwrap();
    let (keys, database) = (keyring(&site), site.sqlite_file());
    let lost = format!(
        "there is no keyring {}, but a database {}: restore the keyring, or, if the database holds nothing, make one with \
         `jackfield keys new`",
        keys.display(),
        database.display()
    );
    refuses(&site, &["serve"], &lost);
    refuses(&site, &["serve", "--set", "mode=production"], &lost);
    // Without a database there is nothing that a fresh key could fail to open, but production does not create one.
    site.config_mut().data_dir = site.directory().join("elsewhere");
    let missing = format!(
        "there is no keyring {}: restore it, or make a new one with `jackfield keys new` if the database is empty",
        keyring(&site).display()
    );
    refuses(&site, &["serve", "--set", "mode=production"], &missing);
    let environment = ["serve", "--set", "vault.provider=environment"];
    refuses(&site, &environment, "the environment variable JACKFIELD_KEYRING of vault.variable is not set");
    assert!(!site.data_dir().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_keyring() {
    for before in [Before::Stopped, Before::Killed] {
        let site = served(before).await;
        let own = std::fs::read_to_string(keyring(&site)).unwrap();
        let other = other_keyring().await;
        let ([id, _], [other_id, _]) = (key(&own), key(&other));
        let missing = format!("data keys are wrapped with key-encryption keys that are not available: {id}");
        std::fs::write(keyring(&site), &other).unwrap();
        refuses(&site, &["serve"], &missing);
        let environment = ["serve", "--set", "vault.provider=environment"];
        refuses_with(&site, &environment, &[("JACKFIELD_KEYRING", &other)], &missing);

        std::fs::write(keyring(&site), other.replace(&other_id, &id)).unwrap();
        let wrong = format!(
            "the key-encryption key \"{id}\" of the keyring does not open the data keys that were wrapped with it"
        );
        refuses(&site, &["serve"], &wrong);

        std::fs::write(keyring(&site), &own).unwrap();
        std::fs::set_permissions(keyring(&site), PermissionsExt::from_mode(0o644)).unwrap();
        let open = format!(
            "keyring file {} has mode 0644, so that others than its owner can use it; set it to 0600",
            keyring(&site).display()
        );
        refuses(&site, &["serve"], &open);
        std::fs::set_permissions(keyring(&site), PermissionsExt::from_mode(0o600)).unwrap();
        site.start().stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_file() {
    let site = served(Before::Stopped).await;
    let (database, lock) = (site.sqlite_file(), site.data_dir().join("jackfield.sqlite3.lock"));
    let in_use = format!(
        "the database {} is in use by another process, which holds {}: stop that one first (`fuser {}` says which it is)",
        database.display(),
        lock.display(),
        lock.display()
    );
    let first = site.start();
    // It empties its log soon after the last write, so later changes come from elsewhere.
    let log = site.data_dir().join("jackfield.sqlite3-wal");
    let begin = Instant::now();
    while log.metadata().unwrap().len() > 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "its log is not emptied");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    refuses(&site, &["serve"], &in_use);
    refuses(&site, &["migrate"], &in_use);
    assert!(site.run(&["keys", "list"]).status.success(), "a command that does not touch the file is not refused");
    // The lock ends with the process, however that ends.
    first.kill();
    assert!(site.run(&["migrate"]).status.success());
    site.start().stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_use() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for before in [Before::Stopped, Before::Killed] {
        let site = served(before).await;
        let in_use = format!("cannot listen on {address}: Address already in use (os error 98)");
        refuses(&site, &["serve", "--set", &format!("listen.address={address}")], &in_use);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema() {
    for before in [Before::Stopped, Before::Killed] {
        let site = served(before).await;
        let process = site.start();
        write_sql(&site, "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_later', 0)").await;
        match before {
            Before::Stopped => process.stop(),
            Before::Killed => process.kill(),
        };
        let newer = "the schema is newer than this program: it has the migration m9999_later, which is unknown here";
        refuses(&site, &["serve"], newer);
        if before == Before::Stopped {
            refuses(&site, &["serve", "--set", "database.migrate=false"], newer);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_configuration() {
    let site = served(Before::Stopped).await;
    let said = site.run(&["serve", "--set", "limits.max_callz=1"]);
    for part in ["jackfield: flag --set limits.max_callz: ", "unknown field `max_callz`, expected"] {
        assert!(String::from_utf8_lossy(&said.stderr).contains(part), "{said:?}");
    }
    let unknown = String::from_utf8_lossy(&said.stderr).trim_start_matches("jackfield: ").trim_end().to_owned();
    refuses(&site, &["serve", "--set", "limits.max_callz=1"], &unknown);
    let from_environment =
        unknown.replace("flag --set limits.max_callz", "environment variable JACKFIELD__LIMITS__MAX_CALLZ");
    refuses_with(&site, &["serve"], &[("JACKFIELD__LIMITS__MAX_CALLZ", "1")], &from_environment);
    let public = "the configuration is not valid:\n  - listen.plaintext: 0.0.0.0:0 is not loopback; set \
                  listen.allow_plaintext_public to serve it without TLS";
    refuses(&site, &["serve", "--set", "listen.plaintext=true", "--listen", "0.0.0.0:0"], public);
}

/// The commands that read the configuration refuse a database URL that they would not fully honour, without showing its
/// values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_url_that_would_not_be_honoured() {
    let site = served(Before::Stopped).await;
    let secret = Canary::new("database.url").secret;
    let list = "dbname, host, hostaddr, options, password, port, sslcert, sslkey, sslmode, sslrootcert, user";
    let encode = "in user name, password and values, write a blank % ? # / @ & as %20 %25 %3F %23 %2F %40 %26";
    for (url, reason) in [
        (format!("postgres://me:12?{secret}@db/j"), format!("holds a second @ where none is allowed: {encode}")),
        (format!("postgres://me:12#{secret}@db/j"), format!("holds a # where none is allowed: {encode}")),
        (format!("postgres://me:a@{secret}@db/j"), format!("holds a second @ where none is allowed: {encode}")),
        (
            format!("postgres://db/j?sslpassword={secret}"),
            "the parameter sslpassword has no effect here: keys of clients are read unencrypted".to_owned(),
        ),
        (
            format!("postgres://db/j?target_session_attrs={secret}"),
            "the parameter target_session_attrs has no effect here: the address has to lead to the primary, and sessions that \
             cannot write are not used"
                .to_owned(),
        ),
        (format!("postgres://db/j?sslmod={secret}"), format!("the parameter sslmod is unknown; there are {list}")),
        (
            format!("postgres://db/j?sslmode={secret}"),
            "sslmode is not one of disable, allow, prefer, require, verify-ca, verify-full".to_owned(),
        ),
        (format!("postgres://db/j?password={secret}&password=b"), "password is given twice".to_owned()),
        (format!("postgres://a,{secret}/j"), "it names several hosts: give the one address that leads to the primary".to_owned()),
        (format!("sqlite:{secret}?mode=ro"), "sqlite:<path> takes no parameters".to_owned()),
        ("sqlite::memory:".to_owned(), "must be \"\", sqlite:<path> or postgres://…".to_owned()),
        (format!("sqlite:file:{secret}"), "must be \"\", sqlite:<path> or postgres://…".to_owned()),
    ] {
        let whole = format!("the configuration is not valid:\n  - database.url: {reason}");
        for command in ["serve", "check-config", "migrate"] {
            // Exactly this is said, so the secret is not.
            refuses_with(&site, &[command], &[("JACKFIELD__DATABASE__URL", &url)], &whole);
        }
    }
    for (name, value, reason) in [
        ("PGSSLMODE", "verify-ful", "is not one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("PGPORT", "five", "is not a number from 1 to 65535"),
        ("PGHOST", "a,b", "names several hosts: give the one address that leads to the primary"),
        ("PGSSLCRL", "list.pem", "has no effect here: set it in database.url, or not at all"),
        ("PGTARGETSESSIONATTRS", "any", "has no effect here: set it in database.url, or not at all"),
    ] {
        let reason = format!("environment variable {name}: {reason}");
        refuses_with(&site, &["serve"], &[("JACKFIELD__DATABASE__URL", "postgres:///j"), (name, value)], &reason);
    }
}

/// Databases on PostgreSQL are refused in the same way.
mod postgres {
    use super::*;

    /// The driver shows lines of the password file that it cannot parse, including their content.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_unreadable_password_file_is_not_shown() {
        let site = Site::new(Backend::Postgres, Program::Jackfield);
        let canary = Canary::new("pgpass");
        let file = site.directory().join("pgpass");
        std::fs::write(&file, format!("*:*:{}\n", canary.secret)).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        let process = site.start_by(|command| {
            command.env("PGPASSFILE", &file).args(["--set", "telemetry.log_filter=trace"]);
        });
        let log = process.kill();
        canary.assert_not_in("the log", log.as_bytes());
        let line = "a line of the password file (PGPASSFILE or ~/.pgpass) is not host:port:database:user:password and is \
                    skipped";
        assert!(log.contains(line), "{log}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_wrong_keyring_and_a_newer_schema() {
        let site = Site::new(Backend::Postgres, Program::Jackfield);
        site.prepare().await;
        let own = std::fs::read_to_string(keyring(&site)).unwrap();
        let other = other_keyring().await;
        let ([id, _], [other_id, _]) = (key(&own), key(&other));
        // If it were migrated before the refusal, this row would come back.
        site.postgres().run("delete from seaql_migrations where version like 'm0003%'");
        let before = site.postgres().dump();
        std::fs::write(keyring(&site), &other).unwrap();
        let missing = format!("data keys are wrapped with key-encryption keys that are not available: {id}");
        refuses(&site, &["serve"], &missing);
        std::fs::write(keyring(&site), other.replace(&other_id, &id)).unwrap();
        let wrong = format!(
            "the key-encryption key \"{id}\" of the keyring does not open the data keys that were wrapped with it"
        );
        refuses(&site, &["serve"], &wrong);
        assert_eq!(site.postgres().dump(), before);

        std::fs::write(keyring(&site), &own).unwrap();
        site.postgres().run("insert into seaql_migrations (version, applied_at) values ('m9999_later', 0)");
        let before = site.postgres().dump();
        let newer = "the schema is newer than this program: it has the migration m9999_later, which is unknown here";
        refuses(&site, &["serve"], newer);
        assert_eq!(site.postgres().dump(), before);
    }
}
