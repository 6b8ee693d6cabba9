//! HAProxy in front of several PostgreSQL servers, as commonly deployed: one address that leads to the primary.
//!
//! Tests that need it have the path segment `haproxy` in their names, so the test command can skip them where it is not
//! installed. It dies with the test process, however that ends, like the server of [`crate::postgres`].

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::postgres::Database;

/// The time limit for its start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of servers that it can lead to.
const PLACES: usize = 8;

/// Runs HAProxy until the pipe on standard input closes. Argument: the configuration.
const KEEPER: &str = r#"
haproxy -db -q -f "$1" </dev/null &
proxy=$!
cat >/dev/null
kill -TERM "$proxy"
wait "$proxy"
"#;

/// A proxy with one address. It stops when this value is dropped.
pub struct HaProxy {
    url: String,
    socket: PathBuf,
    keeper: Child,
    _directory: TempDir,
}

// === impl HaProxy ===

impl HaProxy {
    /// Starts a proxy that leads to a database.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub fn before(database: &Database) -> Self {
        // Another process may take the port in the meantime.
        let proxy = (0..5).find_map(|_| Self::try_start(database)).expect("HAProxy did not come up in five attempts");
        proxy.lead_to(0, database);
        proxy
    }

    /// The URL of the database through the proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Leads new connections to this database from now on, in one of [`PLACES`] places. Open connections stay.
    ///
    /// # Panics
    /// Panics if the proxy refuses.
    pub fn lead_to(&self, place: usize, database: &Database) {
        for other in (0..PLACES).filter(|other| *other != place) {
            self.command(&format!("set server postgres/s{other} state maint"));
        }
        self.command(&format!("set server postgres/s{place} addr 127.0.0.1 port {}", database.port()));
        self.command(&format!("set server postgres/s{place} state ready"));
    }

    /// Leads new connections nowhere from now on, and cuts the open ones.
    ///
    /// # Panics
    /// Panics if the proxy refuses.
    pub fn lead_nowhere(&self) {
        for place in 0..PLACES {
            self.command(&format!("set server postgres/s{place} state maint"));
            self.cut(place);
        }
    }

    /// Cuts the connections that lead to a place.
    ///
    /// # Panics
    /// Panics if the proxy refuses.
    pub fn cut(&self, place: usize) {
        self.command(&format!("shutdown sessions server postgres/s{place}"));
    }

    fn command(&self, command: &str) {
        let mut socket = UnixStream::connect(&self.socket).expect("the socket of HAProxy");
        socket.write_all(format!("{command}\n").as_bytes()).expect("HAProxy listens");
        let mut said = String::new();
        socket.read_to_string(&mut said).expect("HAProxy answers");
        let refused = ["No such", "Unknown", "Require", "Permission", "Invalid", "Missing", "can't"];
        assert!(!refused.iter().any(|word| said.contains(word)), "{command}: {said}");
    }

    fn try_start(database: &Database) -> Option<Self> {
        let directory = TempDir::with_prefix("jackfield-haproxy-").expect("no temporary directory");
        let socket = directory.path().join("admin.sock");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("no port").port();
        let places: String =
            (0..PLACES).map(|place| format!("  server s{place} 127.0.0.1:{} disabled\n", database.port())).collect();
        let text = format!(
            "global\n  stats socket {} level admin\ndefaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  \
             timeout server 1h\nlisten postgres\n  bind 127.0.0.1:{port}\n{places}",
            socket.display()
        );
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, text).expect("cannot write the configuration of HAProxy");
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&file).current_dir(directory.path());
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let keeper = keeper.spawn().expect("cannot start a shell");
        let proxy = Self { url: database.url_at(port), socket, keeper, _directory: directory };
        let begin = Instant::now();
        while begin.elapsed() < START_TIMEOUT {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() && proxy.socket.exists() {
                return Some(proxy);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
