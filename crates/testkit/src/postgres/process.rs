//! The process of a PostgreSQL server, and the programs of PostgreSQL.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tempfile::TempDir;

/// The superuser of a server that this module starts.
const USER: &str = "jackfield";

/// The longest time that a server may take to start.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server.
pub(super) struct Postgres {
    pub(super) binaries: PathBuf,
    /// The URL without the database: everything before the last "/".
    pub(super) base: String,
    /// The part after the database in the URL: a query string, or nothing.
    pub(super) query: String,
    /// The database in which maintenance statements run.
    pub(super) maintenance: String,
    /// The data directory, if this process started the server.
    pub(super) data: Option<PathBuf>,
    /// Holds the pipe that keeps the server alive.
    pub(super) keeper: Mutex<Option<Child>>,
}

/// The account that a server of a root process runs under, because PostgreSQL refuses to run as root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

// === impl Postgres ===

impl Postgres {
    #[expect(clippy::disallowed_methods, reason = "a variable of the tests, not of the server")]
    pub(super) fn start_or_given() -> Self {
        let find = |programs: &[&str]| {
            find_binaries(programs).unwrap_or_else(|| panic!("no PostgreSQL: put {} on PATH", programs.join(", ")))
        };
        match std::env::var("TEST_DATABASE_URL") {
            Ok(url) if !url.is_empty() => Self::given(find(&["psql", "pg_dump", "pg_restore"]), &url),
            _ => Self::start_own(),
        }
    }

    pub(super) fn start_own() -> Self {
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

    /// Starts a separate server; `None` if it did not start, for instance because another process took the port
    /// meanwhile.
    fn start(binaries: &Path) -> Option<Self> {
        // The shell that keeps the server alive deletes the directory, because it survives if this process is killed.
        let directory = TempDir::with_prefix("jackfield-postgres-").expect("no temporary directory").keep();
        let account = Account::for_owner_of(&directory);
        if let Some(account) = account {
            chown(&directory, Some(account.uid), Some(account.gid)).expect("cannot change the owner of the directory");
        }
        let data = directory.join("data");
        initdb(binaries, &data, account);
        Self::run_on(binaries, &directory, account)
    }

    /// Runs a server on existing data, in the subdirectory `data` of a directory.
    pub(super) fn run_on(binaries: &Path, directory: &Path, account: Option<Account>) -> Option<Self> {
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
            // A Ctrl-C at the terminal ends this process only, and the pipe does the rest.
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

    pub(super) fn url(&self, database: &str) -> String {
        format!("{}/{database}{}", self.base, self.query)
    }

    pub(super) fn psql(&self, database: &str, statement: &str) -> String {
        let url = self.url(database);
        let arguments = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"];
        let output = self.output("psql", &[&arguments[..], &["--dbname", &url, "--command", statement]].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(super) fn output(&self, program: &str, arguments: &[&str]) -> Output {
        let output = Command::new(self.binaries.join(program))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("cannot run it");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

/// The programs of PostgreSQL that a separate server needs.
pub(super) const PROGRAMS: [&str; 6] = ["initdb", "postgres", "psql", "pg_basebackup", "pg_dump", "pg_restore"];

/// Runs the server, and restarts it whenever it goes down, until the pipe on standard input closes; then stops it and
/// deletes its directory. Arguments: the server's binary, its data, the directory to delete, the port.
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

/// The first process of a server and whether it accepts connections, according to its pid file.
pub(super) fn pid_file(data: &Path) -> Option<(Pid, bool)> {
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
    // ICU is available since version 15, and may be left out of a build.
    if attempt(&["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"]).status.success() {
        return;
    }
    let output = attempt(&["--locale=C.UTF-8"]);
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns whether the server accepts connections in time, according to the last line of its pid file.
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

/// The directory on PATH that has all these programs, or else the directory of the newest PostgreSQL of the
/// distribution.
#[expect(clippy::disallowed_methods, reason = "PATH is where programs are found")]
pub(super) fn find_binaries(programs: &[&str]) -> Option<PathBuf> {
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

/// The Unix accounts that can run PostgreSQL, in order of preference: that of its package, and `nobody`, the account without
/// rights that every Unix has.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

// === impl Account ===

impl Account {
    /// The account to run the server under; `None` unless this process, which owns the directory, runs as root.
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
        Some(ACCOUNTS.into_iter().find_map(find).expect("no account of this machine can run PostgreSQL"))
    }
}
