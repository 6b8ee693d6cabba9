//! The keyring of the configuration: how it is read, made in development, and watched for changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jackfield_service::{Database, Keyring, KeyringError, KeyringReplaceError, Preflight, Services, keyring_provider};
use tokio_util::sync::CancellationToken;

use super::error::StartupError;
use super::metrics::KeyringReloads;
use crate::config::{self, Config, VaultProvider};

/// The mark of a file, which changes when it is replaced: its inode and the time of its last write. `None`: it is not there.
pub(super) type Stamp = Option<(u64, i64, i64)>;

/// The keyring of a start as it was read. It may have been checked against an SQLite file.
pub struct ReadKeyring {
    pub(super) preflight: Preflight,
    /// The state of its file before it was read: a change in between is noticed later, and not missed.
    pub(super) stamp: Stamp,
}

// === impl ReadKeyring ===

impl ReadKeyring {
    pub(super) fn read(config: &Config) -> Result<Self, StartupError> {
        let stamp = match config.vault.provider {
            VaultProvider::File => stamp(&config.keyring_file()),
            VaultProvider::Environment => None,
        };
        Ok(ReadKeyring { preflight: Preflight::new(load_keyring(config)?), stamp })
    }
}

/// Reads the keyring from where the configuration says.
///
/// # Errors
/// It is missing or wrong.
pub fn load_keyring(config: &Config) -> Result<Keyring, StartupError> {
    match config.vault.provider {
        VaultProvider::File => Ok(keyring_provider::file::load(&config.keyring_file())?),
        VaultProvider::Environment => {
            let name = &config.vault.variable;
            let value = config::variable(name).ok_or_else(|| StartupError::KeyringVariable(name.clone()))?;
            Ok(keyring_provider::env::load(&value)?)
        }
    }
}

/// Refuses to make a keyring beside a database whose keyring is gone: the fresh key could not open it.
///
/// # Errors
/// [`StartupError::KeyringLost`], or a database URL that cannot be read.
pub(crate) fn refuse_second_keyring(config: &Config, keyring: &Path) -> Result<(), StartupError> {
    // In this order, because another process that starts at the same time creates the keyring before the database.
    match config.database()? {
        Database::Sqlite(database) if database.exists() && !keyring.exists() => {
            Err(StartupError::KeyringLost { keyring: keyring.to_owned(), database })
        }
        _ => Ok(()),
    }
}

/// Makes a keyring if there is none; returns whether it did.
pub(super) fn ensure_keyring(config: &Config, path: &Path) -> Result<bool, StartupError> {
    refuse_second_keyring(config, path)?;
    if path.exists() {
        return Ok(false);
    }
    if !config.development() {
        return Err(StartupError::KeyringMissing(path.to_owned()));
    }
    match keyring_provider::file::create_new(path) {
        Ok(_) => Ok(true),
        // Another process was faster, and its keys count.
        Err(KeyringError::FileExists { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Puts changes of the keyring file into force until `stop`. A file that cannot be used leaves the keys as they are.
pub(super) async fn watch_keyring(
    services: Services,
    reloads: KeyringReloads,
    path: PathBuf,
    mut seen: Stamp,
    interval: Duration,
    stop: CancellationToken,
) {
    while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        let now = stamp(&path);
        if now == seen {
            continue;
        }
        let result = match keyring_provider::file::load(&path) {
            Ok(keyring) => services.keyring_replace(keyring).await.map_err(StartupError::from),
            Err(error) => Err(error.into()),
        };
        // The database knows the keys in use. While it cannot be reached, the change is tried again.
        if !matches!(result, Err(StartupError::KeyringReplace(KeyringReplaceError::Database(_)))) {
            seen = now;
        }
        reloads.count(result.is_ok());
        match result {
            Ok(_) => tracing::info!(keyring.path = %path.display(), "keyring reloaded"),
            Err(error) => tracing::error!(
                keyring.path = %path.display(),
                error.message = %error,
                "keyring not reloaded, the one in force stays"
            ),
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}
