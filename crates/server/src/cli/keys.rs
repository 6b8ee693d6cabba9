//! `jackfield keys`.

use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use jackfield_api::v1::admin_service_client::AdminServiceClient;
use jackfield_api::v1::{self, GetRewrapRequest, RewrapSecretsRequest, RewrapState};
use jackfield_service::keyring_provider::file;
use tonic::transport::Channel;
use uuid::Uuid;

use super::client::ClientArguments;
use super::{CommandError, runtime, say};
use crate::config::{Config, VaultProvider};
use crate::startup::{keyring, open};

/// The interval at which the progress of a re-wrap is queried.
const POLL: Duration = Duration::from_millis(500);
/// The number of missing answers in a row after which a server is given up.
const PATIENCE: u32 = 20;
/// The number of reload intervals that a server has to reload the keyring file.
const RELOADS: u32 = 5;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Add a fresh key to the keyring file, staged; make the file if there is none.
    New(NewKey),
    /// List the keys of the keyring.
    List,
    /// Make a staged or retired key the active one. Do it once every replica has the key.
    Activate {
        /// Id of the key.
        id: String,
    },
    /// Have a running server wrap all data keys with its active key, and wait.
    Rewrap(Rewrap),
}

#[derive(Debug, Args)]
pub(super) struct NewKey {
    /// Make it the active key at once. With several replicas: activate it when all of them have it.
    #[arg(long)]
    activate: bool,
}

#[derive(Debug, Args)]
pub(super) struct Rewrap {
    /// Also make fresh data keys and seal every secret again.
    #[arg(long)]
    reseal: bool,
    #[command(flatten)]
    client: ClientArguments,
}

pub(super) fn run(config: &Config, command: KeysCommand) -> Result<(), CommandError> {
    match command {
        KeysCommand::New(command) => new(config, &command),
        KeysCommand::List => list(config),
        KeysCommand::Activate { id } => activate(config, &id),
        KeysCommand::Rewrap(command) => runtime()?.block_on(rewrap(config, &command)),
    }
}

fn new(config: &Config, command: &NewKey) -> Result<(), CommandError> {
    let path = keyring_file(config)?;
    open::make_data_directory(&config.data_dir)?;
    keyring::refuse_second_keyring(config, &path)?;
    if !path.exists() {
        let keyring = file::create_new(&path)?;
        return say(format_args!("Made {} with the active key {}.", path.display(), keyring.active_id()));
    }
    let (_, id) = file::update(&path, |keyring| keyring.add_key(command.activate))?;
    if command.activate {
        return say(format_args!("Added the active key {id}. Now run: jackfield keys rewrap"));
    }
    say(format_args!("Added the staged key {id}. When every replica has it, run: jackfield keys activate {id}"))
}

fn list(config: &Config) -> Result<(), CommandError> {
    let keyring = keyring::load_keyring(config)?;
    for key in keyring.keys() {
        say(format_args!("{}  {:<8} {}", key.id, key.state.as_str(), key.created))?;
    }
    Ok(())
}

fn activate(config: &Config, id: &str) -> Result<(), CommandError> {
    file::update(&keyring_file(config)?, |keyring| keyring.activate(id))?;
    say(format_args!("{id} is the active key. Now run: jackfield keys rewrap"))
}

fn keyring_file(config: &Config) -> Result<std::path::PathBuf, CommandError> {
    match config.vault.provider {
        VaultProvider::File => Ok(config.keyring_file()),
        VaultProvider::Environment => {
            Err("the keyring comes from an environment variable: change it where it is kept".into())
        }
    }
}

async fn rewrap(config: &Config, command: &Rewrap) -> Result<(), CommandError> {
    let mut admin = AdminServiceClient::new(command.client.connect(config).await?);
    // Without the file here, as for a server on another machine, the server's key counts.
    let expected = match config.vault.provider {
        VaultProvider::File if config.keyring_file().exists() => {
            Some(keyring::load_keyring(config)?.active_id().to_owned())
        }
        VaultProvider::File | VaultProvider::Environment => None,
    };
    let mut reloads = 0;
    let ended = loop {
        let ended = run_rewrap(&mut admin, command.reseal).await?;
        let Some(expected) = expected.as_ref().filter(|expected| **expected != ended.key_encryption_key) else {
            break ended;
        };
        if reloads == RELOADS {
            return Err(format!(
                "the server wraps with {}, but the active key of {} is {expected}: it does not read this file, or its \
                 log says why it does not take it",
                ended.key_encryption_key,
                config.keyring_file().display()
            )
            .into());
        }
        reloads += 1;
        tokio::time::sleep(config.vault.reload_interval).await;
    };
    say(format_args!(
        "{} data keys are wrapped with {}, {} secrets were sealed again, {} failed.",
        ended.data_keys_done, ended.key_encryption_key, ended.secrets_done, ended.failed
    ))?;
    if ended.state() == RewrapState::Done {
        Ok(())
    } else {
        Err("the re-wrap ended with failures; the log says which".into())
    }
}

/// One re-wrap from its start to its end.
async fn run_rewrap(admin: &mut AdminServiceClient<Channel>, reseal: bool) -> Result<v1::Rewrap, CommandError> {
    let request = RewrapSecretsRequest { reseal, request_id: Uuid::now_v7().to_string(), validate_only: false };
    let started = admin.rewrap_secrets(request).await?.into_inner().rewrap.ok_or("the server sent no re-wrap")?;
    let bar = ProgressBar::new(total(&started));
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {elapsed}")?);
    bar.set_message(started.key_encryption_key.clone());
    let ended = follow(admin, started, &bar).await?;
    bar.finish_and_clear();
    Ok(ended)
}

/// Shows the progress until the end. A server that restarts in between continues by itself.
async fn follow(
    admin: &mut AdminServiceClient<Channel>,
    started: v1::Rewrap,
    bar: &ProgressBar,
) -> Result<v1::Rewrap, CommandError> {
    let mut rewrap = started;
    let mut misses = 0;
    while rewrap.state() == RewrapState::Running {
        bar.set_length(total(&rewrap));
        bar.set_position(done(&rewrap));
        tokio::time::sleep(POLL).await;
        match admin.get_rewrap(GetRewrapRequest {}).await {
            Ok(answer) => {
                misses = 0;
                rewrap = answer.into_inner().rewrap.ok_or("the server sent no re-wrap")?;
            }
            Err(error) if error.code() == tonic::Code::Unavailable && misses < PATIENCE => misses += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rewrap)
}

fn total(rewrap: &v1::Rewrap) -> u64 {
    u64::try_from(rewrap.data_keys_total.saturating_add(rewrap.secrets_total)).unwrap_or_default()
}

fn done(rewrap: &v1::Rewrap) -> u64 {
    u64::try_from(rewrap.data_keys_done.saturating_add(rewrap.secrets_done)).unwrap_or_default()
}
