//! The SQLite file itself: opened without a change, copied while it is in use, checked as a whole.

use std::path::Path;

use jackfield_domain::Result;
use sea_orm::{ConnectionTrait, Statement};

use crate::database::{error, sqlite};
use crate::error::StoreError;
use crate::store::Store;

impl Store {
    /// Opens an SQLite file without changing anything in it.
    ///
    /// # Errors
    /// The file does not exist, or is not a database.
    pub async fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        Ok(Store::read_only(sqlite::open_read_only(path).await?))
    }

    /// Copies an SQLite database, as it is at this moment, into an empty file. The copy may not be durable yet when this
    /// returns. Other connections can read and write meanwhile.
    ///
    /// # Errors
    /// The disk is full, or the file is not empty.
    pub async fn copy_to(path: &Path, to: &Path) -> Result<(), StoreError> {
        sqlite::copy(path, to).await
    }

    /// The faults of a whole SQLite file: faults of its pages and indexes, and rows that refer to rows that do not exist.
    /// Empty if there are none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn faults(&self) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        for (check, sound) in [("PRAGMA integrity_check", Some("ok")), ("PRAGMA foreign_key_check", None)] {
            let statement = Statement::from_string(self.reader.get_database_backend(), check);
            let rows = match self.reader.query_all_raw(statement).await {
                // It is too damaged to be checked.
                Err(damage) if error::is_damage(&damage) => return Ok(vec![format!("{check}: {damage}")]),
                rows => rows.map_err(error::from_db)?,
            };
            for row in rows {
                // The first column is the finding, or the table of the row with the broken reference.
                let finding: String = row.try_get_by_index(0).map_err(error::from_db)?;
                if Some(finding.as_str()) != sound {
                    faults.push(format!("{check}: {finding}"));
                }
            }
        }
        Ok(faults)
    }
}
