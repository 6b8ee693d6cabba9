//! The processes that the benchmark starts, Jackfield and the baselines, all with the same number of threads.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tonic::transport::Endpoint;

use crate::stored::Stored;
use crate::wire::Client;
use crate::{Result, bare, direct, machine, system};

/// The time limit for Jackfield to become ready or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// A `HealthCheckResponse` with status SERVING.
const SERVING: &[u8] = &[0x08, 0x01];

/// The job of another process of this program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    Bare(bare::Job),
    Direct(direct::Job),
    System(system::Job),
}

/// A running Jackfield.
pub(crate) struct Jackfield {
    child: Child,
    pub(crate) data: PathBuf,
    pub(crate) address: SocketAddr,
    health: SocketAddr,
    started: Instant,
}

/// A running baseline. It stops when this value is dropped.
pub(crate) struct Baseline {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Its first line.
    pub(crate) said: String,
}

/// The directory with the certificates that the first start makes.
pub(crate) fn pki(data: &Path) -> PathBuf {
    data.join("pki")
}

// === impl Jackfield ===

impl Jackfield {
    /// Starts it with its ordinary configuration on a data directory, and on PostgreSQL if the rows are there, with a
    /// collector for its traces and metrics.
    pub(crate) fn start(binary: &Path, data: &Path, stored: &Stored, collector: Option<SocketAddr>) -> Result<Self> {
        Self::start_with(binary, data, stored, collector, &[])
    }

    /// As [`Jackfield::start`], with settings that differ from the ordinary ones.
    fn start_with(
        binary: &Path,
        data: &Path,
        stored: &Stored,
        collector: Option<SocketAddr>,
        settings: &[&str],
    ) -> Result<Self> {
        std::fs::create_dir_all(data)?;
        let (address, health) = (free_address()?, free_address()?);
        let mut command = Command::new(binary);
        command
            .args(["serve", "--listen", &address.to_string(), "--data-dir"])
            .arg(data)
            .args(["--set", &format!("listen.health_address={health}")])
            // Changes only the wait before it stops.
            .args(["--set", "drain.delay=0s"]);
        if let Some(collector) = collector {
            command.args(["--set", &format!("telemetry.otlp_endpoint=http://{collector}")]);
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        if let Some(url) = &stored.postgres {
            command.args(["--set", &format!("database.url={url}")]);
        }
        let log = File::create(data.join("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        threads(&mut command);
        let started = Instant::now();
        let child = command.spawn()?;
        Ok(Jackfield { child, data: data.to_owned(), address, health, started })
    }

    /// As [`Jackfield::start`], and waits until it is ready.
    pub(crate) async fn start_ready(
        binary: &Path,
        data: &Path,
        stored: &Stored,
        collector: Option<SocketAddr>,
    ) -> Result<Self> {
        Self::start_ready_with(binary, data, stored, collector, &[]).await
    }

    /// As [`Jackfield::start_ready`], with settings that differ from the ordinary ones.
    pub(crate) async fn start_ready_with(
        binary: &Path,
        data: &Path,
        stored: &Stored,
        collector: Option<SocketAddr>,
        settings: &[&str],
    ) -> Result<Self> {
        let mut jackfield = Self::start_with(binary, data, stored, collector, settings)?;
        jackfield.ready().await?;
        Ok(jackfield)
    }

    /// Waits until the health check says SERVING, and returns the time since the start.
    pub(crate) async fn ready(&mut self) -> Result<Duration> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.health))?;
        while self.started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(self.data.join("log")).unwrap_or_default();
                return Err(format!("jackfield ended with {status}: {log}").into());
            }
            if let Ok(channel) = endpoint.connect().await {
                let answer = Client::new(channel).unary("/grpc.health.v1.Health/Check", Bytes::new()).await;
                if answer.is_ok_and(|answer| answer == SERVING) {
                    return Ok(self.started.elapsed());
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err("jackfield does not become ready".into())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn pki(&self) -> PathBuf {
        pki(&self.data)
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM)?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err("jackfield does not stop".into())
    }
}

impl Drop for Jackfield {
    fn drop(&mut self) {
        // It may have stopped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Baseline ===

impl Baseline {
    /// Starts this program once more, and waits for its first line.
    pub(crate) fn start(job: &Job) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("baseline").stdin(Stdio::piped()).stdout(Stdio::piped());
        threads(&mut command);
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().ok_or("no standard input")?;
        writeln!(stdin, "{}", serde_json::to_string(job)?)?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut baseline = Baseline { child, stdin: Some(stdin), stdout, said: String::new() };
        baseline.said = baseline.line()?;
        Ok(baseline)
    }

    /// Sends a line and waits for the answer.
    pub(crate) fn ask(&mut self, question: &str) -> Result<String> {
        let stdin = self.stdin.as_mut().ok_or("no standard input")?;
        writeln!(stdin, "{question}")?;
        stdin.flush()?;
        self.line()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address at which it listens.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.said.parse()?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err("a baseline ended too early".into());
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sets the same number of threads for every server, whatever the environment says.
fn threads(command: &mut Command) {
    command.env("TOKIO_WORKER_THREADS", machine::cores().to_string());
}

/// An address that nothing listens on.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
