//! `[database]`: where the data is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::{SecretUrl, duration};

/// The database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite:<path>` or `postgres://…`. Empty: the embedded SQLite file `jackfield.sqlite3` in the data directory.
    pub url: SecretUrl,
    /// Connections in the pool.
    pub max_connections: u32,
    /// How long a call may wait for a connection.
    #[serde(with = "duration")]
    pub acquire_timeout: Duration,
    /// Apply migrations when the server starts. Off: `jackfield migrate` has to run first.
    pub migrate: bool,
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
