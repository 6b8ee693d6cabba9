//! The surroundings of the searched process: its callers, its metrics page, its database.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::time::Duration;

use jackfield_testkit::pki::Leaf;
use jackfield_testkit::store::{Database, PoolSettings, Store};
use jackfield_testkit::{Backend, Callers, Client, Pki, Process, Site};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The time limit for the process to become idle.
const PATIENCE: Duration = Duration::from_secs(20);
/// The time without calls after which the process counts as idle.
const IDLE: Duration = Duration::from_secs(2);

/// The callers of a process, with a connection each.
pub(super) struct Door<'a> {
    process: &'a Process,
    clients: Mutex<HashMap<String, Client>>,
}

// === impl Door ===

impl<'a> Door<'a> {
    pub(super) fn new(process: &'a Process) -> Self {
        Door { process, clients: Mutex::default() }
    }
}

impl Callers for Door<'_> {
    fn client(&self, principal: &str) -> Client {
        let mut clients = self.clients.lock().unwrap();
        clients.entry(principal.to_owned()).or_insert_with(|| self.process.client(principal)).clone()
    }

    fn client_with(&self, leaf: &Leaf) -> Client {
        Callers::client_with(self.process, leaf)
    }

    fn pki(&self) -> &Pki {
        self.process.pki()
    }
}

/// An address that was free a moment ago.
pub(super) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap()
}

/// The metrics page, byte for byte.
pub(super) async fn metrics_page(address: SocketAddr) -> Vec<u8> {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut page = Vec::new();
    socket.read_to_end(&mut page).await.unwrap();
    page
}

/// Waits until no client is connected, and then a while longer. Returns the metrics page.
pub(super) async fn idle(metrics: SocketAddr) -> Vec<u8> {
    let begin = tokio::time::Instant::now();
    loop {
        let page = metrics_page(metrics).await;
        let text = String::from_utf8_lossy(&page);
        let open = text.lines().find(|line| line.starts_with("jackfield_server_connections_open"));
        let none = open.is_some_and(|line| line.ends_with(" 0"));
        if none {
            tokio::time::sleep(IDLE).await;
            return page;
        }
        assert!(begin.elapsed() < PATIENCE, "clients are still connected: {open:?}\n{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Opens the store alongside the process.
pub(super) async fn store(site: &Site) -> Store {
    let settings = PoolSettings { max_connections: 2, acquire_timeout: Duration::from_secs(5) };
    Store::connect(&Database::Sqlite(site.sqlite_file()), settings).await.unwrap()
}

/// Makes the database log errors with the statement and its bound values.
pub(super) fn let_postgres_talk(site: &Site) {
    let settings = [
        ("log_min_messages", "error"),
        ("log_min_error_statement", "error"),
        ("log_parameter_max_length_on_error", "-1"),
    ];
    for (name, value) in settings {
        let statement = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {name} = %L', current_database(), '{value}'); END $$"
        );
        site.postgres().run(&statement);
    }
}

/// Makes every write of a secret fail, as a defect would.
pub(super) async fn break_secrets(site: &Site) {
    match backend(site) {
        Backend::Sqlite => {
            let store = store(site).await;
            for operation in ["INSERT", "UPDATE"] {
                let trigger = format!(
                    "CREATE TRIGGER broken_{operation} BEFORE {operation} ON secret \
                     BEGIN SELECT RAISE(ABORT, 'broken on purpose'); END"
                );
                store.raw_write(&trigger).await.unwrap();
            }
            store.close().await;
        }
        // The detail of the error shows the whole row.
        Backend::Postgres => {
            site.postgres().run("ALTER TABLE secret ADD CONSTRAINT broken CHECK (length(sealed) < 0) NOT VALID");
        }
    }
}

pub(super) async fn mend_secrets(site: &Site) {
    match backend(site) {
        Backend::Sqlite => {
            let store = store(site).await;
            for trigger in ["DROP TRIGGER broken_INSERT", "DROP TRIGGER broken_UPDATE"] {
                store.raw_write(trigger).await.unwrap();
            }
            store.close().await;
        }
        Backend::Postgres => drop(site.postgres().run("ALTER TABLE secret DROP CONSTRAINT broken")),
    }
}

fn backend(site: &Site) -> Backend {
    if site.sqlite_file().exists() { Backend::Sqlite } else { Backend::Postgres }
}
