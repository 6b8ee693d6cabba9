//! A PostgreSQL server for one test process, and fresh databases on it.
//!
//! The server is started on first use from the binaries on PATH or where distributions put them, in a temporary
//! directory, durable like a real one (fsync on), with ICU collation, so that code which relies on the byte order of
//! text shows. `TEST_DATABASE_URL` names a running server instead; its user must be allowed to create databases.
//!
//! The server dies with the test process however that ends: a shell holds a pipe of which the process has the other end.

mod standby;

use std::{
    fmt,
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use uuid::Uuid;

/// The superuser of a server that this module starts.
const USER: &str = "jackfield";

/// How long a server may take to come up.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A database of its own for one test. On a server of `TEST_DATABASE_URL` it is dropped with this value; a server of this
/// process goes as a whole.
pub struct Database {
    server: &'static Postgres,
    name: String,
}

/// How a server goes down without having tidied up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Its first process is killed (SIGKILL); the others notice.
    Kill,
    /// It is told to drop everything (SIGQUIT), as `pg_ctl stop -m immediate` does.
    Immediate,
}

/// A running server.
struct Postgres {
    binaries: PathBuf,
    /// URL without the database: everything before the last "/".
    base: String,
    /// What follows the database in the URL: a query string, or nothing.
    query: String,
    /// The database that maintenance statements run in.
    maintenance: String,
    /// The data directory, where this process started the server itself.
    data: Option<PathBuf>,
    /// Holds the pipe that keeps the server alive.
    keeper: Mutex<Option<Child>>,
}

/// The account that a server of a root process runs under, because PostgreSQL refuses to run as root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Whether there is a PostgreSQL, of `TEST_DATABASE_URL` or in binaries.
#[expect(clippy::disallowed_methods, reason = "a variable of the tests, not of the server")]
pub fn is_available() -> bool {
    let given = std::env::var("TEST_DATABASE_URL").is_ok_and(|url| !url.is_empty());
    given || find_binaries(&["initdb", "postgres", "psql", "pg_dump"]).is_some()
}

/// Makes a new, empty database, starting the server if this is the first one.
///
/// # Panics
/// When there is no PostgreSQL, or it does not come up.
pub fn fresh_database() -> Database {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    let server = SERVER.get_or_init(Postgres::start_or_given);
    let name = format!("jackfield_{}", Uuid::now_v7().simple());
    server.psql(&server.maintenance, &format!("create database {name}"));
    Database { server, name }
}

/// Makes a database as [`fresh_database`] does, of another encoding.
///
/// # Panics
/// As [`fresh_database`].
pub fn fresh_database_in(encoding: &str) -> Database {
    let Database { server, name } = &fresh_database();
    let name = format!("{name}_other");
    let encoded = format!(
        "create database {name} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C' locale_provider libc"
    );
    server.psql(&server.maintenance, &encoded);
    Database { server, name }
}

/// Makes a database on a server of its own, which a test may crash. Where `TEST_DATABASE_URL` names a server and there are
/// no programs to start another, it is on that one.
///
/// # Panics
/// As [`fresh_database`].
pub fn fresh_server() -> Database {
    if find_binaries(&PROGRAMS).is_none() {
        return fresh_database();
    }
    // It lives as long as the process, as the other one does.
    let server: &'static Postgres = Box::leak(Box::new(Postgres::start_own()));
    let name = "jackfield".to_owned();
    server.psql(&server.maintenance, &format!("create database {name}"));
    Database { server, name }
}

// === impl Database ===

impl Database {
    /// The URL to connect with, over TCP.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// Its server as PgBouncer names one, `host=… port=… user=…`, and its name there.
    ///
    /// # Panics
    /// When the server is not reached over TCP.
    pub(crate) fn address(&self) -> (String, &str) {
        let rest = self.server.base.split_once("://").expect("a URL").1;
        let (user, address) = rest.rsplit_once('@').expect("a URL with a user");
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let (host, port) = address.split_once(':').unwrap_or((address, "5432"));
        let password = if password.is_empty() { String::new() } else { format!(" password={password}") };
        (format!("host={host} port={port} user={user}{password}"), &self.name)
    }

    /// Runs one statement as superuser and returns what it prints: a line for each row, columns separated by "|".
    pub fn run(&self, statement: &str) -> String {
        self.server.psql(&self.name, statement)
    }

    /// As [`Database::run`], by way of another address.
    pub fn run_at(&self, url: &str, statement: &str) -> String {
        let arguments =
            ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--dbname", url, "--command", statement];
        String::from_utf8_lossy(&self.server.output("psql", &arguments).stdout).into_owned()
    }

    /// Cuts every connection to this database, as a failing server or network does. New ones are accepted.
    pub fn cut_connections(&self) {
        let statement =
            format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}'", self.name);
        self.server.psql(&self.server.maintenance, &statement);
    }

    /// Refuses new connections to this database and cuts the existing ones, or accepts new ones again.
    pub fn set_reachable(&self, reachable: bool) {
        let statement = format!("alter database {} with allow_connections {reachable}", self.name);
        self.server.psql(&self.server.maintenance, &statement);
        if !reachable {
            self.cut_connections();
        }
    }

    /// The database as text, with nothing in it that differs from dump to dump.
    pub fn dump(&self) -> String {
        let dump = self.server.output("pg_dump", &["--dbname", &self.url()]).stdout;
        let dump = String::from_utf8_lossy(&dump);
        // Newer releases put a word into each that nobody can guess.
        dump.lines().filter(|line| !line.contains("restrict ")).map(|line| format!("{line}\n")).collect()
    }

    /// Backs the database up with `pg_dump`.
    pub fn dump_to(&self, file: &Path) {
        let file = file.to_str().expect("a path in UTF-8");
        self.server.output("pg_dump", &["--format=custom", "--file", file, "--dbname", &self.url()]);
    }

    /// Restores an empty database with `pg_restore`.
    pub fn restore_from(&self, file: &Path) {
        let file = file.to_str().expect("a path in UTF-8");
        // The dump makes the schema, too, where it is the one that every database comes with.
        let arguments = ["--exit-on-error", "--clean", "--if-exists", "--no-owner", "--dbname", &self.url(), file];
        self.server.output("pg_restore", &arguments);
    }

    /// Whether the server was started by this process, so that it can be crashed.
    pub fn is_ours(&self) -> bool {
        self.server.data.is_some()
    }

    /// Crashes the server and waits until it accepts connections again: it is started anew at once. Only for servers of
    /// [`fresh_server`], for all databases of the server go down.
    ///
    /// # Panics
    /// When it is not ours, or does not come back.
    pub fn crash(&self, how: Crash) {
        let data = self.server.data.as_deref().expect("a server of this process");
        let (first, _) = pid_file(data).expect("the server runs");
        let signal = if how == Crash::Kill { Signal::KILL } else { Signal::QUIT };
        kill_process(first, signal).expect("the server can be killed");
        let begin = Instant::now();
        while !pid_file(data).is_some_and(|(pid, ready)| pid != first && ready) {
            assert!(begin.elapsed() < START_TIMEOUT, "PostgreSQL does not come back");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until no Jackfield is connected: what a killed one had sent is over then.
    ///
    /// # Panics
    /// When one stays.
    pub fn await_quiet(&self) {
        let begin = Instant::now();
        let connected = "select count(*) from pg_stat_activity \
                         where datname = current_database() and application_name = 'jackfield'";
        while self.run(connected).trim() != "0" {
            assert!(begin.elapsed() < START_TIMEOUT, "connections stay");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// All that the server has stored of this database, as bytes to search in: a dump, and the files of tables and of the
    /// write-ahead log, and the server's own log, where they can be read.
    pub fn stored_bytes(&self) -> Vec<u8> {
        let mut bytes = self.server.output("pg_dump", &["--dbname", &self.url()]).stdout;
        if let Some(data) = &self.server.data {
            self.run("checkpoint");
            let oid = self.run("select oid from pg_database where datname = current_database()");
            for directory in [data.join("base").join(oid.trim()), data.join("pg_wal")] {
                bytes.extend(read_files(&directory));
            }
            bytes.extend(std::fs::read(data.with_file_name("log")).unwrap_or_default());
        }
        bytes
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.server.data.is_none() {
            self.server.psql(&self.server.maintenance, &format!("drop database if exists {} with (force)", self.name));
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.name).finish()
    }
}

// === impl Postgres ===

impl Postgres {
    #[expect(clippy::disallowed_methods, reason = "a variable of the tests, not of the server")]
    fn start_or_given() -> Self {
        let find = |programs: &[&str]| {
            find_binaries(programs).unwrap_or_else(|| panic!("no PostgreSQL: put {} on PATH", programs.join(", ")))
        };
        match std::env::var("TEST_DATABASE_URL") {
            Ok(url) if !url.is_empty() => Self::given(find(&["psql", "pg_dump", "pg_restore"]), &url),
            _ => Self::start_own(),
        }
    }

    fn start_own() -> Self {
        let binaries = find_binaries(&PROGRAMS);
        let binaries = binaries.unwrap_or_else(|| panic!("no PostgreSQL: put {} on PATH", PROGRAMS.join(", ")));
        (0..5).find_map(|_| Self::start(&binaries)).expect("PostgreSQL did not come up in five attempts")
    }

    /// The server that a URL names.
    fn given(binaries: PathBuf, url: &str) -> Self {
        let (address, query) = match url.split_once('?') {
            Some((address, query)) => (address, format!("?{query}")),
            None => (url, String::new()),
        };
        let (base, maintenance) = address.rsplit_once('/').expect("TEST_DATABASE_URL names no database");
        Self {
            binaries,
            base: base.to_owned(),
            query,
            maintenance: maintenance.to_owned(),
            data: None,
            keeper: Mutex::default(),
        }
    }

    /// A server of our own; `None` when it did not come up, as when another process took the port in between.
    fn start(binaries: &Path) -> Option<Self> {
        // The shell that keeps the server alive deletes the directory: it is there also when this process is killed.
        let directory = TempDir::with_prefix("jackfield-postgres-").expect("no temporary directory").keep();
        let account = Account::for_owner_of(&directory);
        if let Some(account) = account {
            chown(&directory, Some(account.uid), Some(account.gid)).expect("cannot hand the directory over");
        }
        let data = directory.join("data");
        initdb(binaries, &data, account);
        Self::run_on(binaries, &directory, account)
    }

    /// A server on the data that is there, in the directory `data` of a directory.
    fn run_on(binaries: &Path, directory: &Path, account: Option<Account>) -> Option<Self> {
        let data = directory.join("data");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("no port").port();
        let mut keeper = Command::new("sh");
        keeper
            .args(["-c", KEEPER, "keeper"])
            .arg(binaries.join("postgres"))
            .args([&*data, directory])
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir(directory)
            // A Ctrl-C at the terminal goes to this process, and the pipe does the rest.
            .process_group(0);
        become_account(&mut keeper, account);
        let mut keeper = keeper.spawn().expect("cannot start a shell");

        if !wait_until_ready(&data, &mut keeper) {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
            return None;
        }
        Some(Self {
            binaries: binaries.to_owned(),
            base: format!("postgres://{USER}@127.0.0.1:{port}"),
            query: String::new(),
            maintenance: "postgres".to_owned(),
            data: Some(data),
            keeper: Mutex::new(Some(keeper)),
        })
    }

    fn url(&self, database: &str) -> String {
        format!("{}/{database}{}", self.base, self.query)
    }

    fn psql(&self, database: &str, statement: &str) -> String {
        let url = self.url(database);
        let arguments = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"];
        let output = self.output("psql", &[&arguments[..], &["--dbname", &url, "--command", statement]].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn output(&self, program: &str, arguments: &[&str]) -> Output {
        let output = Command::new(self.binaries.join(program))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("cannot run it");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

/// Programs of PostgreSQL that a server of our own needs.
const PROGRAMS: [&str; 6] = ["initdb", "postgres", "psql", "pg_basebackup", "pg_dump", "pg_restore"];

/// Runs the server, again whenever it goes down, until the pipe on standard input closes; then stops it and deletes its
/// directory. Arguments: the server's binary, its data, the directory to delete, the port.
const KEEPER: &str = r#"
(
  stop=
  trap 'stop=yes; kill -INT "$server"' TERM
  while [ -z "$stop" ]; do
    "$1" -D "$2" -k "$3" -p "$4" -c listen_addresses=127.0.0.1 -c max_connections=300 -c fsync=on \
      -c max_wal_size=4GB -c log_min_messages=fatal >>"$3/log" 2>&1 </dev/null &
    server=$!
    wait "$server"
    [ -n "$stop" ] || sleep 0.02
  done
  wait "$server"
) &
loop=$!
cat >/dev/null
kill -TERM "$loop"
wait "$loop"
cd / && rm -rf "$3"
"#;

/// The first process of a server and whether it accepts connections, as its pid file says.
fn pid_file(data: &Path) -> Option<(Pid, bool)> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let mut lines = text.lines();
    let pid = Pid::from_raw(lines.next()?.trim().parse().ok()?)?;
    Some((pid, lines.nth(6).is_some_and(|status| status.trim() == "ready")))
}

fn initdb(binaries: &Path, data: &Path, account: Option<Account>) {
    let attempt = |locale: &[&str]| {
        let mut command = Command::new(binaries.join("initdb"));
        command.args(["--username", USER, "--auth=trust", "--encoding=UTF8", "--no-sync"]).args(locale);
        command.arg("--pgdata").arg(data).stdin(Stdio::null()).current_dir("/");
        become_account(&mut command, account);
        command.output().expect("cannot run initdb")
    };
    // ICU came with version 15, and may be left out of a build.
    if attempt(&["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"]).status.success() {
        return;
    }
    let output = attempt(&["--locale=C.UTF-8"]);
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether the server accepts connections in time. The last line of its pid file says so.
fn wait_until_ready(data: &Path, keeper: &mut Child) -> bool {
    let started = Instant::now();
    while started.elapsed() < START_TIMEOUT {
        if pid_file(data).is_some_and(|(_, ready)| ready) {
            return true;
        }
        let over = !matches!(keeper.try_wait(), Ok(None));
        let refused = std::fs::read_to_string(data.with_file_name("log")).is_ok_and(|log| log.contains("FATAL"));
        if over || refused {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

/// The directory on PATH that has all these programs, or that of the newest PostgreSQL where distributions put it.
#[expect(clippy::disallowed_methods, reason = "PATH is where programs are found")]
fn find_binaries(programs: &[&str]) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut installed: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    installed.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let mut candidates = std::env::split_paths(&path).chain(installed.into_iter().map(|(_, directory)| directory));
    candidates.find(|directory| programs.iter().all(|program| directory.join(program).is_file()))
}

pub(crate) fn become_account(command: &mut Command, account: Option<Account>) {
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
}

fn read_files(directory: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read(entry.path()).ok()).flatten().collect()
}

// === impl Account ===

impl Account {
    /// The account to run the server under: none of its own unless the owner of this directory, who is us, is root.
    pub(crate) fn for_owner_of(directory: &Path) -> Option<Self> {
        if std::fs::metadata(directory).is_ok_and(|metadata| metadata.uid() != 0) {
            return None;
        }
        let accounts = std::fs::read_to_string("/etc/passwd").expect("cannot read the accounts");
        let find = |name: &str| {
            let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut ids = line.split(':').skip(2).map(str::parse);
            Some(Self { uid: ids.next()?.ok()?, gid: ids.next()?.ok()? })
        };
        Some(find("postgres").or_else(|| find("nobody")).expect("neither a postgres nor a nobody account"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_database_is_its_own_and_durable() {
        let (one, other) = (fresh_database(), fresh_database());
        one.run("create table mark (text text); insert into mark values ('needle-in-the-files')");
        assert_eq!(one.run("select text from mark").trim(), "needle-in-the-files");
        assert_eq!(other.run("select count(*) from information_schema.tables where table_name = 'mark'").trim(), "0");
        assert_eq!(one.run("show fsync").trim(), "on");
        let stored = one.stored_bytes();
        assert!(stored.windows(19).any(|window| window == b"needle-in-the-files"));
    }

    #[test]
    fn an_unreachable_database_comes_back() {
        let database = fresh_database();
        let answers = |database: &Database| {
            let url = database.url();
            let mut psql = Command::new(database.server.binaries.join("psql"));
            psql.args(["--dbname", &url, "--command", "select 1"]).output().unwrap().status.success()
        };
        assert!(answers(&database));
        database.set_reachable(false);
        assert!(!answers(&database));
        database.set_reachable(true);
        assert!(answers(&database));
    }
}
