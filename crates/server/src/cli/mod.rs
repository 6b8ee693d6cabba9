//! The commands.

mod backup;
mod check_config;
mod client;
mod client_cert;
mod descriptors;
mod digest;
mod health;
mod keys;
mod serve;

use std::fmt::Display;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Sources};
use crate::startup::{driver_log, hardening, open};
use jackfield_transport::call::code::code_name;
use jackfield_transport::log_writer::without_waiting_for_readers;
use jackfield_transport::telemetry::Tracing;
use jackfield_transport::tls;

/// After this many turns of tasks a thread checks whether sockets have become ready, while there are tasks to run.
/// Connections that send data which is expensive to decode always have work. With tokio's default of 61, all others would
/// wait for as many of their turns.
const EVENT_INTERVAL: u32 = 16;

/// Any error that ends a command.
type CommandError = Box<dyn std::error::Error + Send + Sync>;

/// Jackfield keeps connectors, connections and credentials, and hands out tokens.
#[derive(Debug, Parser)]
#[command(name = "jackfield", version, about, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    layers: LayerArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct LayerArguments {
    /// Configuration file [default: jackfield.toml, if there is one].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets one key of the configuration; may be repeated.
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Short for --set data_dir=….
    #[arg(long, global = true, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Short for --set listen.address=….
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    Serve,
    /// Bring the schema of the database up to date.
    Migrate,
    /// Copy the SQLite database to a file while it is in use, and check the copy.
    Backup(backup::Backup),
    /// Check a file that `backup` made: that it is sound and that the keyring opens all that is in it.
    CheckBackup(backup::CheckBackup),
    /// Manage key-encryption keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Check the configuration and the certificates that it names, and print the effective configuration, without
    /// passwords.
    CheckConfig(check_config::CheckConfig),
    /// Ask a running server whether it serves; fails if not.
    Health(health::Health),
    /// Write the contract as a google.protobuf.FileDescriptorSet, complete with google.rpc and health, for proxies and
    /// clients.
    Descriptors(descriptors::Descriptors),
    /// Make a client certificate with the development authority.
    ClientCert(client_cert::ClientCert),
}

/// Parses the arguments and runs the command.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error);
            ExitCode::FAILURE
        }
    }
}

fn execute(Arguments { layers, command }: Arguments) -> Result<(), CommandError> {
    hardening::harden()?;
    // Before anything makes TLS: a dependency that brings a second provider must not leave the choice open.
    let _ = tls::provider().as_ref().clone().install_default();
    let config = layers.load()?;
    match command {
        Command::Serve => runtime()?.block_on(serve::run(config)),
        Command::Migrate => {
            // Rows that are left as they are, are logged.
            let newest = runtime()?.block_on(async {
                let _tracing = Tracing::init(&config.telemetry, driver_log::replacement)?;
                Ok::<_, CommandError>(open::migrate(&config).await?)
            })?;
            say(format_args!("schema is at {newest}"))
        }
        Command::Backup(command) => runtime()?.block_on(backup::backup(&config, &command)),
        Command::CheckBackup(command) => runtime()?.block_on(backup::check(&config, &command)),
        Command::Keys(command) => keys::run(&config, command),
        Command::CheckConfig(command) => check_config::run(&config, &command),
        Command::Health(command) => runtime()?.block_on(health::run(&config, command)),
        Command::Descriptors(command) => descriptors::run(&command),
        Command::ClientCert(command) => client_cert::run(&config, &command),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().event_interval(EVENT_INTERVAL).build()
}

/// One line to standard output.
fn say(line: impl Display) -> Result<(), CommandError> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// The message that a development authority was created.
fn made_authority(directory: &Path) -> String {
    format!(
        "Made {}: an authority, a server certificate for localhost, and the client certificate of the principal \
         \"operator\".",
        directory.display()
    )
}

/// Writes an error with its causes to standard error. The command ends even if that is a full pipe without a reader.
fn complain(error: &(dyn std::error::Error + 'static)) {
    let text = described(error);
    without_waiting_for_readers(move || {
        let _ = writeln!(std::io::stderr(), "jackfield: {text}");
    });
}

fn described(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(status) = error.downcast_ref::<tonic::Status>() {
        return format!("{}: {}", code_name(status.code()), status.message());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Errors that are passed on as they are show the same text twice.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

// === impl LayerArguments ===

impl LayerArguments {
    fn load(self) -> Result<Config, CommandError> {
        let LayerArguments { config, set, data_dir, listen } = self;
        let mut flags = set;
        if let Some(path) = data_dir {
            let path = path.into_os_string().into_string().map_err(|_| "--data-dir is not UTF-8")?;
            flags.push(format!("data_dir={path}"));
        }
        if let Some(address) = listen {
            flags.push(format!("listen.address={address}"));
        }
        Ok(Config::load(&Sources::from_process(config, flags))?)
    }
}
