//! SQL as text, for tests that look below the services or play the part of a failing disk, a careless operator, a thief.

use std::fmt::Write as _;

use jackfield_domain::Result;
use sea_orm::{ConnectionTrait, DatabaseConnection, QueryResult, Statement};

use crate::error;
use crate::session::Store;

impl Store {
    /// Runs a statement where reads run and returns a line for each row: columns separated by "|", bytes in hexadecimal,
    /// NULL as nothing.
    #[doc(hidden)]
    pub async fn raw_read(&self, sql: &str) -> Result<Vec<String>> {
        run(&self.reader, sql).await
    }

    /// As [`Store::raw_read`], where writes run.
    #[doc(hidden)]
    pub async fn raw_write(&self, sql: &str) -> Result<Vec<String>> {
        run(&self.writer, sql).await
    }
}

async fn run(conn: &DatabaseConnection, sql: &str) -> Result<Vec<String>> {
    let statement = Statement::from_string(conn.get_database_backend(), sql);
    let rows = conn.query_all_raw(statement).await.map_err(error::from_db)?;
    Ok(rows.iter().map(line).collect())
}

fn line(row: &QueryResult) -> String {
    let columns: Vec<String> = row.column_names().iter().map(|name| value(row, name)).collect();
    columns.join("|")
}

fn value(row: &QueryResult, column: &str) -> String {
    if let Ok(text) = row.try_get::<Option<String>>("", column) {
        return text.unwrap_or_default();
    }
    if let Ok(number) = row.try_get::<Option<i64>>("", column) {
        return number.map_or_else(String::new, |number| number.to_string());
    }
    if let Ok(truth) = row.try_get::<Option<bool>>("", column) {
        return truth.map_or_else(String::new, |truth| truth.to_string());
    }
    let bytes = row.try_get::<Option<Vec<u8>>>("", column).ok().flatten().unwrap_or_default();
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
