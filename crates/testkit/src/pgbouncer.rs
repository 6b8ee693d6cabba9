//! PgBouncer, the most common pooler, in front of a database.
//!
//! Tests that need it have the path segment `pgbouncer` in their names, so the test command can skip them where it is
//! not installed. It dies with the test process, however that ends, like the server of [`crate::postgres`].

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::postgres::{Account, Database, become_account};

/// The time limit for its start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs PgBouncer until the pipe on standard input closes. Argument: the configuration.
const KEEPER: &str = r#"
pgbouncer --quiet "$1" </dev/null &
pooler=$!
cat >/dev/null
kill -INT "$pooler"
wait "$pooler"
"#;

/// A pooler in front of one database. It stops when this value is dropped.
pub struct PgBouncer {
    url: String,
    keeper: Child,
    _directory: TempDir,
}

// === impl PgBouncer ===

impl PgBouncer {
    /// Starts a pooler with these lines in its section `[pgbouncer]`, in addition to those for its address.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub fn start(database: &Database, lines: &[&str]) -> Self {
        // Another process may take the port in the meantime.
        (0..5).find_map(|_| Self::try_start(database, lines)).expect("PgBouncer did not come up in five attempts")
    }

    /// The URL of the database through the pooler.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    fn try_start(database: &Database, lines: &[&str]) -> Option<Self> {
        let directory = TempDir::with_prefix("jackfield-pgbouncer-").expect("no temporary directory");
        let account = Account::for_owner_of(directory.path());
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("no port").port();
        let (server, name) = database.address();
        let mut text = format!("[databases]\n{name} = {server}\n[pgbouncer]\n");
        text += &format!("listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n");
        lines.iter().for_each(|line| text += &format!("{line}\n"));
        let file = directory.path().join("pgbouncer.ini");
        std::fs::write(&file, text).expect("cannot write the configuration of PgBouncer");
        if let Some(account) = account {
            for path in [directory.path(), &file] {
                chown(path, Some(account.uid), Some(account.gid)).expect("cannot hand the configuration over");
            }
        }
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&file).current_dir(directory.path());
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        become_account(&mut keeper, account);
        let keeper = keeper.spawn().expect("cannot start a shell");
        let url = format!("postgres://anybody@127.0.0.1:{port}/{name}");
        let pooler = Self { url, keeper, _directory: directory };
        let begin = Instant::now();
        while begin.elapsed() < START_TIMEOUT {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(pooler);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
