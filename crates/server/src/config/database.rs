//! `[database]`: where the data is.

use std::time::Duration;

use jackfield_service::postgres_url;
use serde::{Deserialize, Serialize};

use super::secret_url::SecretUrl;
use jackfield_transport::config::duration;

/// The database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite:<path>` or `postgres://…`. Empty: the embedded SQLite file `jackfield.sqlite3` in the data directory.
    pub url: SecretUrl,
    /// Connections in the pool.
    pub max_connections: u32,
    /// The time that a call may wait for a connection.
    #[serde(with = "duration")]
    pub acquire_timeout: Duration,
    /// Applies migrations when the server starts. If false, `jackfield migrate` must run first.
    pub migrate: bool,
}

/// The reason why a database URL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseUrlError {
    #[error("database.url: must be \"\", sqlite:<path> or postgres://…")]
    Unknown,
    #[error("database.url: sqlite:<path> takes no parameters")]
    SqliteParameters,
    #[error("database.url: {0}")]
    Postgres(#[from] postgres_url::UrlError),
}

impl Default for Database {
    fn default() -> Self {
        Database {
            url: SecretUrl::default(),
            max_connections: 8,
            acquire_timeout: Duration::from_secs(2),
            migrate: true,
        }
    }
}

impl Database {
    /// Returns the database that a URL names: that of the section, with the embedded default spelt out.
    ///
    /// # Errors
    /// The URL names none, or has parameters that are not supported.
    pub(super) fn target(&self, url: &SecretUrl) -> Result<jackfield_service::Database, DatabaseUrlError> {
        match url.expose().split_once(':') {
            Some(("sqlite", path)) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                // To SQLite these are not names of files.
                let special = path.starts_with(':') || path.starts_with("file:");
                if path.is_empty() || special { Err(DatabaseUrlError::Unknown) } else { self.sqlite_file(path) }
            }
            Some(("postgres" | "postgresql", _)) => {
                postgres_url::check(url.expose())?;
                Ok(jackfield_service::Database::Postgres(url.expose().to_owned()))
            }
            _ => Err(DatabaseUrlError::Unknown),
        }
    }

    fn sqlite_file(&self, path: &str) -> Result<jackfield_service::Database, DatabaseUrlError> {
        // A directory may have any name; a URL has parameters after its question mark, and none are supported here.
        let is_url = !self.url.expose().is_empty();
        match is_url && path.contains('?') {
            true => Err(DatabaseUrlError::SqliteParameters),
            false => Ok(jackfield_service::Database::Sqlite(path.into())),
        }
    }
}
