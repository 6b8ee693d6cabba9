//! A standby that takes over from its server, and the address of a server.

use std::os::unix::fs::chown;
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::Database;
use super::process::{Account, Postgres, START_TIMEOUT, become_account, pid_file};

// === impl Database ===

impl Database {
    /// Starts a standby of the server of this database, which must come from [`fresh_server`], and returns this
    /// database on the standby. Commits on the primary wait for it from now on.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub fn standby(&self) -> Database {
        let standby = (0..5).find_map(|_| self.server.start_standby()).expect("the standby did not come up");
        self.run("alter system set synchronous_standby_names = '*'");
        self.run("select pg_reload_conf()");
        await_row(|| self.run("select count(*) from pg_stat_replication where sync_state in ('sync', 'quorum')"), "1");
        Database { server: Box::leak(Box::new(standby)), name: self.name.clone() }
    }

    /// Promotes the server of this database, a standby, to primary. Its commits wait for no other server.
    ///
    /// # Panics
    /// Panics if it is not a standby, or does not become a primary.
    pub fn promote(&self) {
        self.run("select pg_promote()");
        await_row(|| self.run("select pg_is_in_recovery()"), "f");
        self.run("alter system reset synchronous_standby_names");
        self.run("select pg_reload_conf()");
        await_row(|| self.run("show synchronous_standby_names"), "");
    }

    /// Stops the server of this database at once and for good. Only for servers of [`fresh_server`] and their standbys.
    ///
    /// # Panics
    /// Panics if it is not ours.
    pub fn stop(&self) {
        let data = self.server.data.as_deref().expect("a server of this process");
        let keeper = self.server.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut keeper = keeper.expect("the server runs");
        // In this order the shell does not start it again.
        drop(keeper.stdin.take());
        if let Some((first, _)) = pid_file(data) {
            let _ = kill_process(first, Signal::QUIT);
        }
        keeper.wait().expect("the end of the server");
    }

    /// The port that its server listens on.
    ///
    /// # Panics
    /// Panics if the server is not reached over TCP.
    pub(crate) fn port(&self) -> u16 {
        self.server.base.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a URL with a port")
    }

    /// The URL of this database through another port.
    pub(crate) fn url_at(&self, port: u16) -> String {
        let base = self.server.base.rsplit_once(':').expect("a URL with a port").0;
        format!("{base}:{port}/{}{}", self.name, self.server.query)
    }
}

// === impl Postgres ===

impl Postgres {
    /// Starts a streaming standby of this server; `None` if it did not start.
    fn start_standby(&self) -> Option<Self> {
        let directory = TempDir::with_prefix("jackfield-postgres-").expect("no temporary directory").keep();
        let account = Account::for_owner_of(&directory);
        if let Some(account) = account {
            chown(&directory, Some(account.uid), Some(account.gid)).expect("cannot hand the directory over");
        }
        let mut backup = Command::new(self.binaries.join("pg_basebackup"));
        backup.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]);
        backup.args(["--dbname", &self.url("postgres"), "--pgdata"]).arg(directory.join("data"));
        backup.stdin(Stdio::null()).current_dir("/");
        become_account(&mut backup, account);
        let output = backup.output().expect("cannot run pg_basebackup");
        assert!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        Self::run_on(&self.binaries, &directory, account)
    }
}

/// Waits until a statement returns the expected row.
fn await_row(ask: impl Fn() -> String, expected: &str) {
    let begin = Instant::now();
    while ask().trim() != expected {
        assert!(begin.elapsed() < START_TIMEOUT, "it does not become {expected}");
        thread::sleep(Duration::from_millis(10));
    }
}
