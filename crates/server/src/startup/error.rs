//! Errors of a start that fails.

use std::path::PathBuf;

use jackfield_service::{KeyringError, KeyringReplaceError, StoreError};

use super::database_file::DatabaseFileError;
use crate::config::DatabaseUrlError;

/// The reason why the service does not open.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    #[error(transparent)]
    DatabaseUrl(#[from] DatabaseUrlError),
    #[error("bootstrap.tenant: {0}")]
    BootstrapTenant(String),
    #[error("{}", .0.join("; "))]
    Egress(Vec<String>),
    #[error("the environment variable {0} of vault.variable is not set")]
    KeyringVariable(String),
    #[error("there is no keyring {}: restore it, or make a new one with `jackfield keys new` if the database is empty", .0.display())]
    KeyringMissing(PathBuf),
    #[error("there is no keyring {}, but a database {}: restore the keyring, or, if the database holds nothing, make one with `jackfield keys new`", keyring.display(), database.display())]
    KeyringLost { keyring: PathBuf, database: PathBuf },
    #[error("cannot make the database {}: {source}", path.display())]
    DatabaseFile { path: PathBuf, source: std::io::Error },
    #[error("cannot make the data directory {}: {source}", path.display())]
    DataDirectory { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    DatabaseLocation(#[from] DatabaseFileError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    KeyringReplace(#[from] KeyringReplaceError),
    #[error(transparent)]
    Service(#[from] jackfield_service::OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
}
