//! The databases as the baselines and the filling see them: opened by Jackfield's store, with its settings.

use std::path::PathBuf;
use std::time::Duration;

use jackfield_testkit::store::test_support::Connections;
use jackfield_testkit::store::{Database, PoolSettings, Store};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Result;

/// The database of the rows, and their tenant.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) sqlite: Option<PathBuf>,
    pub(crate) postgres: Option<String>,
    pub(crate) tenant: Uuid,
}

// === impl Stored ===

impl Stored {
    /// Returns whether there is no database.
    pub(crate) fn is_empty(&self) -> bool {
        self.sqlite.is_none() && self.postgres.is_none()
    }

    /// Opens it.
    pub(crate) async fn open(&self) -> Result<Store> {
        let database = match (&self.sqlite, &self.postgres) {
            (Some(path), _) => Database::Sqlite(path.clone()),
            (None, Some(url)) => Database::Postgres(url.clone()),
            (None, None) => return Err("there is no database".into()),
        };
        // The defaults of `database.max_connections` and `database.acquire_timeout`, except that 64 callers may have to
        // wait longer for the one writer of SQLite.
        let settings = PoolSettings { max_connections: 8, acquire_timeout: Duration::from_secs(30) };
        Ok(Store::connect(&database, settings).await?)
    }
}

/// Its connections.
pub(crate) async fn connect(stored: &Stored) -> Result<Connections> {
    Ok(stored.open().await?.connections().await?)
}
