//! `jackfield serve`.

use std::fmt::Display;
use std::io::IsTerminal as _;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::{Clock as _, SystemClock};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CommandError, made_authority, say};
use crate::config::{Config, VaultProvider};
use crate::startup::database_file::DatabaseLock;
use crate::startup::keyring::ReadKeyring;
use crate::startup::{certificates, driver_log, hardening, open, permissions, pki};
use jackfield_transport::Server;
use jackfield_transport::backend::Backend;
use jackfield_transport::log_writer::LogThread;
use jackfield_transport::telemetry::Tracing;

/// The time after the grace period and the last refresh for closing the database and flushing, with a margin.
const WATCHDOG_MARGIN: Duration = Duration::from_secs(12);

pub(super) async fn run(config: Config) -> Result<(), CommandError> {
    let tracing = Tracing::init(&config.telemetry, driver_log::replacement)?;
    hardening::quiet_panics();
    // Nothing is written before all of this is checked: a start that is refused leaves everything as it was.
    certificates::check(&config, SystemClock.now()).await?;
    for warning in permissions::check(&config)? {
        tracing::warn!("{warning}");
    }
    let (claim, keyring) = open::claim(&config).await?;
    // Only the end of the process releases it: until then a thread of SQLite may have the file open.
    let mut claim = ManuallyDrop::new(claim);
    Server::check_addresses(&config.transport()).await?;
    open::take(&config, claim.as_mut())?;
    let development_pki = ensure_pki(&config)?;
    let stop_time = config.drain.delay + config.drain.grace + config.refresh.timeout + WATCHDOG_MARGIN;
    let backend = open_and_announce(&config, claim.as_mut(), keyring).await?;
    let server = Server::bind(config.transport(), backend).await?;
    if config.development() {
        tracing::info!("the mode is development: connectors may call this machine (loopback), also by http");
    }
    if let (true, Some(address)) = (development_pki, server.local_addr()) {
        tell_how_to_call(&config, address);
    }

    // There are two, because each sees every signal.
    let (mut first, mut again) = (StopSignals::new()?, StopSignals::new()?);
    let (stop, stopping) = tokio::sync::oneshot::channel();
    let log = tracing.log_thread();
    let serving = server.serve(async move {
        first.next().await;
        let _ = stop.send(());
        watchdog(stop_time, log);
    });
    let complete = tokio::select! {
        complete = serving => complete,
        () = again.second(stopping) => {
            return Err("calls were cut by a second signal".into());
        }
    };
    if let Some(claim) = claim.as_ref() {
        claim.unsign();
    }
    tokio::task::spawn_blocking(move || tracing.shutdown()).await?;
    if complete { Ok(()) } else { Err("calls were cut at the end of the grace period".into()) }
}

/// Ends the process if stopping takes longer than it can. It is a thread, because it must work even when the runtime does
/// not.
fn watchdog(after: Duration, log: LogThread) {
    std::thread::spawn(move || {
        std::thread::sleep(after);
        tracing::error!("stopping took too long");
        log.flush();
        std::process::exit(1);
    });
}

/// Creates the development certificates and says so at once, because they exist even if something fails later. Returns
/// whether gRPC uses them.
fn ensure_pki(config: &Config) -> Result<bool, CommandError> {
    open::make_data_directory(&config.data_dir)?;
    if !config.makes_certificates() {
        return Ok(false);
    }
    let directory = config.pki_dir();
    if pki::ensure(&directory, &SystemClock)? {
        announce(made_authority(&directory));
    }
    Ok(!config.listen.plaintext)
}

/// Opens as [`open::open`] does. It announces a keyring that was created, even if the rest failed.
async fn open_and_announce(
    config: &Config,
    claim: Option<&mut DatabaseLock>,
    read: Option<ReadKeyring>,
) -> Result<Arc<dyn Backend>, CommandError> {
    let keyring = config.keyring_file();
    let missing = config.vault.provider == VaultProvider::File && !keyring.exists();
    let opened = open::open(config, claim, read).await;
    if missing && keyring.exists() {
        announce(format_args!(
            "Made {}: the key that everything is sealed with. Without it the database cannot be opened; keep a copy of \
             it apart from the database.",
            keyring.display()
        ));
    }
    Ok(opened?)
}

/// Prints a line to standard output. The server also serves if it is closed.
fn announce(line: impl Display) {
    if let Err(error) = say(line) {
        tracing::debug!(error.message = %error, "standard output is closed");
    }
}

fn tell_how_to_call(config: &Config, address: SocketAddr) {
    let pki = config.pki_dir();
    announce(format_args!(
        "Try:\n  grpcurl -cacert {} -cert {} -key {} {address} list",
        pki.join("ca.pem").display(),
        pki.join("client.pem").display(),
        pki.join("client-key.pem").display(),
    ));
}

/// The signals that ask for a stop. SIGHUP is one if there is a terminal, because it means that the terminal was closed. A
/// server without a terminal continues: there it asks to read the files again, which the server always does.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    has_terminal: bool,
}

// === impl StopSignals ===

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            has_terminal: std::io::stdin().is_terminal() || std::io::stderr().is_terminal(),
        })
    }

    /// Waits for the first signal.
    async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    if self.has_terminal {
                        return;
                    }
                    tracing::info!("SIGHUP changes nothing: certificates and keyring are read again whenever they change");
                }
            }
        }
    }

    /// Waits for the second signal that asks for a stop. SIGHUP asks for none by itself: a service manager sends it beside
    /// SIGTERM, and a closed terminal sends several.
    async fn second(&mut self, stopping: tokio::sync::oneshot::Receiver<()>) {
        let Ok(()) = stopping.await else { return std::future::pending().await };
        for _ in 0..2 {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
        }
    }
}
