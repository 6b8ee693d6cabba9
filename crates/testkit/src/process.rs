//! The real binary as a process that can be started on its own data, measured, stopped, killed and started again.
//!
//! A harness starts like this:
//!
//! ```ignore
//! let mut site = Site::new(Backend::Sqlite, Program::Jackfield);
//! site.config_mut().limits.max_calls = 500;
//! let process = site.start();
//! process.client("alpha").connectors().create_connector(request).await?;
//! process.kill();
//! let process = site.start(); // on the same data
//! ```
//!
//! The program is next to the test in `target/<profile>`. It is built first if it is missing or older than its source.

mod program;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_server::config::{Config, SecretUrl};
use rustix::process::{Pid, Signal, kill_process};

use crate::backend::Backend;
use crate::client::{Callers, Client};
use crate::data::Data;
use crate::fixture;
use crate::pki::{Identity, Leaf, Pki};
use crate::postgres::Database;

/// The time limit for a process to listen.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit for a process to end after it was asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// The number of lines of the log that are kept, counted from its end.
const LOG_LINES: usize = 2_000;

/// A program to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The server itself.
    Jackfield,
    /// The server with a planted fault, which harnesses have to detect: [`crate::fault`].
    Faulty(crate::fault::Fault),
}

/// The environment of processes, which outlives them: data, certificates, configuration. The directory is deleted when
/// this value is dropped.
///
/// The principals are those of [`crate::data::PRINCIPALS`].
pub struct Site {
    data: Arc<Data>,
    config: Config,
    program: Program,
    log_file: Option<PathBuf>,
}

/// A server process that listens. It is killed when this value is dropped.
pub struct Process {
    data: Arc<Data>,
    child: Child,
    address: SocketAddr,
    started: Duration,
    log: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// The memory of a process according to `/proc`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Current resident memory.
    pub resident: u64,
    /// Peak resident memory since it started.
    pub peak: u64,
}

// === impl Site ===

impl Site {
    /// Creates an environment, as yet without a database file.
    ///
    /// # Panics
    /// Panics if it cannot be created.
    pub fn new(backend: Backend, program: Program) -> Self {
        Self::on(Data::create(backend), program)
    }

    /// As [`Site::new`], on a database of a separate PostgreSQL server, which may be killed.
    ///
    /// # Panics
    /// Panics if it cannot be created.
    pub fn on_own_postgres(database: Database, program: Program) -> Self {
        Self::on(Data::on(database), program)
    }

    fn on(data: Data, program: Program) -> Self {
        let mut config = data.config();
        config.drain.delay = Duration::ZERO;
        Self { data: Arc::new(data), config, program, log_file: None }
    }

    /// The configuration of programs started from now on.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Sets the program to start from now on.
    pub fn set_program(&mut self, program: Program) {
        self.program = program;
    }

    /// Also writes the whole log of programs started from now on to a file.
    pub fn keep_log(&mut self, file: PathBuf) {
        self.log_file = Some(file);
    }

    /// The database it runs on.
    pub fn backend(&self) -> Backend {
        self.data.backend()
    }

    /// The authority of its certificates.
    pub fn pki(&self) -> &Pki {
        self.data.pki()
    }

    /// The directory that contains all files.
    pub fn directory(&self) -> &Path {
        self.data.directory()
    }

    /// The data directory of the server.
    pub fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    /// The SQLite file.
    pub fn sqlite_file(&self) -> PathBuf {
        self.data_dir().join("jackfield.sqlite3")
    }

    /// The PostgreSQL database.
    ///
    /// # Panics
    /// Panics if it runs on SQLite.
    pub fn postgres(&self) -> &Database {
        self.data.database().expect("it runs on SQLite")
    }

    /// A command of the program with this configuration. Its environment contains only what belongs to the
    /// configuration.
    ///
    /// # Panics
    /// Panics if the configuration cannot be written.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let file = self.directory().join("jackfield.toml");
        // The file omits the URL, because it is printed without its password.
        let config = Config {
            database: jackfield_server::config::Database { url: SecretUrl::default(), ..self.config.database.clone() },
            ..self.config.clone()
        };
        std::fs::write(&file, config.to_toml()).expect("the configuration cannot be written");
        let mut command = Command::new(self.program.path());
        command.env_clear().current_dir(self.directory()).arg("--config").arg(&file).args(arguments);
        if let Program::Faulty(fault) = self.program {
            command.env(crate::fault::VARIABLE, fault.as_str());
        }
        match self.config.database.url.expose() {
            "" => {}
            url => {
                command.env("JACKFIELD__DATABASE__URL", url);
            }
        }
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// Panics if it cannot be run.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("the program cannot be run")
    }

    /// Starts the server and waits until it listens.
    ///
    /// # Panics
    /// Panics if it does not.
    pub fn start(&self) -> Process {
        self.start_by(|_| {})
    }

    /// As [`Site::start`], with changes to the command.
    ///
    /// # Panics
    /// Panics if it does not listen in time.
    pub fn start_by(&self, change: impl FnOnce(&mut Command)) -> Process {
        let mut command = self.command(&["serve"]);
        change(&mut command);
        let log_file = self
            .log_file
            .as_ref()
            .map(|path| std::fs::OpenOptions::new().append(true).create(true).open(path).expect("a file for the log"));
        Process::start(command, Arc::clone(&self.data), log_file)
            .unwrap_or_else(|error| panic!("the server does not start: {error}"))
    }

    /// Prepares a harness: starts the server, creates the tenants of the principals, and stops it.
    ///
    /// # Panics
    /// Panics if any of these steps fails.
    pub async fn prepare(&self) {
        let process = self.start();
        for name in ["alpha", "beta"] {
            let request = v1::CreateTenantRequest { tenant: Some(fixture::a_tenant(name)), ..Default::default() };
            process.client("operator").admin().create_tenant(request).await.expect("a tenant");
        }
        tokio::task::spawn_blocking(move || process.stop()).await.expect("the end of the server");
    }
}

// === impl Process ===

impl Process {
    fn start(mut command: Command, data: Arc<Data>, log_file: Option<File>) -> Result<Self, String> {
        let begin = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (listens, listening) = mpsc::channel();
        let stderr = child.stderr.take().expect("it is piped");
        let reader = Some(std::thread::spawn({
            let log = Arc::clone(&log);
            move || read_log(stderr, &log, log_file, &listens)
        }));
        let mut process = Self { data, child, address: ([0, 0, 0, 0], 0).into(), started: Duration::ZERO, log, reader };
        match listening.recv_timeout(START_TIMEOUT) {
            Ok(address) => {
                process.address = address;
                process.started = begin.elapsed();
                Ok(process)
            }
            Err(RecvTimeoutError::Timeout) => Err(format!("it does not listen in time\n{}", process.log())),
            Err(RecvTimeoutError::Disconnected) => {
                let status = process.child.wait().map_err(|error| error.to_string())?;
                Err(format!("{status}\n{}", process.log()))
            }
        }
    }

    /// The address at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The time from its start until it listened.
    pub fn start_time(&self) -> Duration {
        self.started
    }

    /// The caller of that name among [`crate::data::PRINCIPALS`], on a separate connection.
    pub fn client(&self, principal: &str) -> Client {
        let pki = self.data.pki();
        Client::new(self.address, &pki.ca_pem(), Some(&pki.client(Identity::of(principal))))
    }

    /// As [`Process::client`], with a certificate that the test chooses, or none.
    pub fn client_with(&self, leaf: Option<&Leaf>) -> Client {
        Client::new(self.address, &self.data.pki().ca_pem(), leaf)
    }

    /// The last lines of its log so far.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Returns whether it is still running.
    ///
    /// # Panics
    /// Panics if the system does not report its state.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the state of the process").is_none()
    }

    /// Kills it (SIGKILL), waits until it is gone, and returns its log.
    ///
    /// # Panics
    /// Panics if it had already ended: a test that kills it expects it to run.
    pub fn kill(mut self) -> String {
        assert!(self.is_running(), "the server had ended already:\n{}", self.log());
        self.child.kill().expect("cannot kill the server");
        self.child.wait().expect("the end of the server");
        self.end_of_log()
    }

    /// Asks it to stop (SIGTERM), waits until it has, and returns its log. This blocks, and clients have to run on to
    /// close their connections, so their runtime needs other threads than this one.
    ///
    /// # Panics
    /// Panics if it does not end in time, or ends with an error.
    pub fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.wait(STOP_TIMEOUT);
        let log = self.end_of_log();
        assert!(status.is_some_and(|status| status.success()), "the server ended with {status:?}:\n{log}");
        log
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// Panics if the system refuses.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("cannot send a signal");
    }

    /// Waits until it ends; `None` if it does not within this time.
    ///
    /// # Panics
    /// Panics if the system does not report its state.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the state of the process") {
                return Some(status);
            }
            if begin.elapsed() > patience {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its memory.
    ///
    /// # Panics
    /// Panics if it has ended.
    pub fn memory(&self) -> Memory {
        let status = self.proc("status");
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>();
            kib.expect("a number of kB") * 1024
        };
        Memory { resident: bytes("VmRSS"), peak: bytes("VmHWM") }
    }

    /// The number of its open files and sockets. Only root may see them, because the process is not dumpable.
    ///
    /// # Panics
    /// Panics if it has ended, or if this process lacks permission.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).expect("the open files of the server").count()
    }

    /// The number of its threads.
    ///
    /// # Panics
    /// Panics if it has ended.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("the threads of the server").count()
    }

    /// Its CPU time so far, in system ticks of a hundredth of a second each on Linux.
    ///
    /// # Panics
    /// Panics if it has ended.
    pub fn ticks(&self) -> u64 {
        let stat = self.proc("stat");
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number of ticks")).sum()
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.id())).expect("what the system says of the server")
    }

    fn end_of_log(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.log()
    }
}

impl Callers for Process {
    fn client(&self, principal: &str) -> Client {
        Process::client(self, principal)
    }

    fn client_with(&self, leaf: &Leaf) -> Client {
        Process::client_with(self, Some(leaf))
    }

    fn pki(&self) -> &Pki {
        self.data.pki()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log to its end, because a full pipe would block the server, and reports the address at which it listens.
fn read_log(
    stderr: ChildStderr,
    log: &Mutex<VecDeque<String>>,
    mut file: Option<File>,
    listens: &mpsc::Sender<SocketAddr>,
) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if line.contains("\"message\":\"listening\"")
            && line.contains("\"listener\":\"tcp\"")
            && let Some((_, rest)) = line.split_once("\"address\":\"")
            && let Some(address) = rest.split('"').next().and_then(|address| address.parse().ok())
        {
            // There is no receiver any more if it listens on a second address.
            let _ = listens.send(address);
        }
        if let Some(file) = &mut file {
            writeln!(file, "{line}").expect("room for the log");
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_LINES {
            log.pop_front();
        }
        log.push_back(line);
    }
}
