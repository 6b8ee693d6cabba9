//! A PostgreSQL server for one test process, and fresh databases on it.
//!
//! The server starts on first use, from the binaries on PATH or where distributions put them, in a temporary directory.
//! It is as durable as a real one (fsync on), and has ICU collation, which exposes code that relies on the byte order
//! of text. `TEST_DATABASE_URL` names a running server instead; its user must be allowed to create databases.
//!
//! The server dies with the test process, however that ends: a shell holds one end of a pipe and the process the other.

mod process;
mod standby;

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{fmt, thread};

use rustix::process::{Signal, kill_process};
use uuid::Uuid;

pub(crate) use self::process::{Account, become_account};
use self::process::{PROGRAMS, Postgres, START_TIMEOUT, find_binaries, pid_file};

/// A separate database for one test. On the server of `TEST_DATABASE_URL` it is deleted when this value is dropped; a
/// server of this process is deleted as a whole.
pub struct Database {
    server: &'static Postgres,
    name: String,
}

/// A way in which a server goes down without cleaning up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Its first process is killed (SIGKILL); the others notice.
    Kill,
    /// It is asked to stop at once (SIGQUIT), as `pg_ctl stop -m immediate` does.
    Immediate,
}

/// Returns whether there is a PostgreSQL, either at `TEST_DATABASE_URL` or as binaries.
#[expect(clippy::disallowed_methods, reason = "a variable of the tests, not of the server")]
pub fn is_available() -> bool {
    let given = std::env::var("TEST_DATABASE_URL").is_ok_and(|url| !url.is_empty());
    given || find_binaries(&["initdb", "postgres", "psql", "pg_dump"]).is_some()
}

/// Creates a new, empty database. The first call starts the server.
///
/// # Panics
/// Panics if there is no PostgreSQL, or it does not start.
pub fn fresh_database() -> Database {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    let server = SERVER.get_or_init(Postgres::start_or_given);
    let name = format!("jackfield_{}", Uuid::now_v7().simple());
    server.psql(&server.maintenance, &format!("create database {name}"));
    Database { server, name }
}

/// Creates a database as [`fresh_database`] does, with another encoding.
///
/// # Panics
/// Panics as [`fresh_database`] does.
pub fn fresh_database_in(encoding: &str) -> Database {
    let Database { server, name } = &fresh_database();
    let name = format!("{name}_other");
    let encoded = format!(
        "create database {name} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C' locale_provider libc"
    );
    server.psql(&server.maintenance, &encoded);
    Database { server, name }
}

/// Creates a database on a separate server, which a test may crash. If `TEST_DATABASE_URL` names a server and there are
/// no programs to start another, the database is on that server.
///
/// # Panics
/// Panics as [`fresh_database`] does.
pub fn fresh_server() -> Database {
    if find_binaries(&PROGRAMS).is_none() {
        return fresh_database();
    }
    // It lives as long as the process, like the other one.
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

    /// Its server in the notation of PgBouncer, `host=… port=… user=…`, and its name there.
    ///
    /// # Panics
    /// Panics if the server is not reached over TCP.
    pub(crate) fn address(&self) -> (String, &str) {
        let rest = self.server.base.split_once("://").expect("a URL").1;
        let (user, address) = rest.rsplit_once('@').expect("a URL with a user");
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let (host, port) = address.split_once(':').unwrap_or((address, "5432"));
        let password = if password.is_empty() { String::new() } else { format!(" password={password}") };
        (format!("host={host} port={port} user={user}{password}"), &self.name)
    }

    /// Runs one statement as superuser and returns its output: a line for each row, columns separated by "|".
    pub fn run(&self, statement: &str) -> String {
        self.server.psql(&self.name, statement)
    }

    /// As [`Database::run`], through another address.
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

    /// The database as text, without anything that differs from dump to dump.
    pub fn dump(&self) -> String {
        let dump = self.server.output("pg_dump", &["--dbname", &self.url()]).stdout;
        let dump = String::from_utf8_lossy(&dump);
        // Newer releases put a random word into each dump.
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
        // The dump also creates the schema that every database already has.
        let arguments = ["--exit-on-error", "--clean", "--if-exists", "--no-owner", "--dbname", &self.url(), file];
        self.server.output("pg_restore", &arguments);
    }

    /// Returns whether this process started the server and so can crash it.
    pub fn is_ours(&self) -> bool {
        self.server.data.is_some()
    }

    /// Crashes the server and waits until it accepts connections again: it restarts at once. Only for servers of
    /// [`fresh_server`], because all databases of the server go down.
    ///
    /// # Panics
    /// Panics if it is not ours, or does not come back.
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

    /// Waits until no Jackfield is connected, so that everything a killed one had sent is finished.
    ///
    /// # Panics
    /// Panics if one stays connected.
    pub fn await_quiet(&self) {
        let begin = Instant::now();
        let connected = "select count(*) from pg_stat_activity \
                         where datname = current_database() and application_name = 'jackfield'";
        while self.run(connected).trim() != "0" {
            assert!(begin.elapsed() < START_TIMEOUT, "connections stay");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything that the server has stored of this database, as bytes to search: a dump and, where they can be read,
    /// the files of tables and of the write-ahead log and the server's own log.
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

fn read_files(directory: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read(entry.path()).ok()).flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn databases_are_separate_and_durable() {
        let (one, other) = (fresh_database(), fresh_database());
        one.run("create table mark (text text); insert into mark values ('needle-in-the-files')");
        assert_eq!(one.run("select text from mark").trim(), "needle-in-the-files");
        assert_eq!(other.run("select count(*) from information_schema.tables where table_name = 'mark'").trim(), "0");
        assert_eq!(one.run("show fsync").trim(), "on");
        let stored = one.stored_bytes();
        assert!(stored.windows(19).any(|window| window == b"needle-in-the-files"));
    }

    #[test]
    fn an_unreachable_database_becomes_reachable_again() {
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
