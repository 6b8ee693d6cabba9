//! `jackfield serve`.

use std::path::Path;
use std::time::Duration;

use jackfield_domain::SystemClock;
use tokio::signal::unix::{SignalKind, signal};

use super::{CommandError, say};
use crate::config::{Config, VaultProvider};
use crate::telemetry::Tracing;
use crate::{Server, hardening, open, pki};

/// After the grace: closing the database, flushing, and being late.
const WATCHDOG_MARGIN: Duration = Duration::from_secs(12);

pub(super) async fn run(config: Config) -> Result<(), CommandError> {
    let tracing = Tracing::init(&config.telemetry)?;
    hardening::quiet_panics();
    let made = make_what_is_missing(&config)?;
    let stop_time = config.drain.delay + config.drain.grace + WATCHDOG_MARGIN;
    let backend = open::open(&config).await?;
    let server = Server::bind(config.clone(), backend).await?;
    made.tell(&config, &server)?;

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let complete = server
        .serve(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            watchdog(stop_time);
        })
        .await;
    tokio::task::spawn_blocking(move || tracing.shutdown()).await?;
    if complete { Ok(()) } else { Err("calls were cut at the end of the grace".into()) }
}

/// Ends the process if stopping takes longer than it can. A thread: it must work when the runtime does not.
fn watchdog(after: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(after);
        tracing::error!("stopping took too long");
        std::process::exit(1);
    });
}

/// What the first start makes.
struct Made {
    pki: bool,
    keyring: bool,
}

fn make_what_is_missing(config: &Config) -> Result<Made, CommandError> {
    open::make_data_directory(&config.data_dir)?;
    // A configuration that names its certificates does not need ours.
    let own = config.listen.plaintext || !config.tls.certificate.as_os_str().is_empty();
    let pki = config.development() && !own && pki::ensure(&config.pki_dir(), &SystemClock)?;
    let keyring = config.vault.provider == VaultProvider::File && !config.keyring_file().exists();
    Ok(Made { pki, keyring })
}

impl Made {
    fn tell(&self, config: &Config, server: &Server) -> Result<(), CommandError> {
        let pki = config.pki_dir();
        let shown = |path: &Path| path.display().to_string();
        if self.keyring {
            say(format_args!(
                "Made {}: the key that everything is sealed with. Without it the database cannot be opened; keep a copy \
                 of it apart from the database.",
                shown(&config.keyring_file())
            ))?;
        }
        if let (true, Some(address)) = (self.pki, server.local_addr()) {
            say(format_args!(
                "Made {}: an authority, a server certificate for localhost, and the client certificate of the principal \
                 \"operator\". Try:\n  grpcurl -cacert {} -cert {} -key {} {address} list",
                shown(&pki),
                shown(&pki.join("ca.pem")),
                shown(&pki.join("client.pem")),
                shown(&pki.join("client-key.pem")),
            ))?;
        }
        Ok(())
    }
}
