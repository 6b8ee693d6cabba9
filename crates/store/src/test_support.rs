//! SQL as text, for tests that look below the services or play the part of a failing disk, a careless operator, a thief.

use std::fmt::Write as _;

use jackfield_domain::configuration::Configuration;
use jackfield_domain::connection::Connection;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::Credential;
use jackfield_domain::key::Key;
use jackfield_domain::tenant::Tenant;
use jackfield_domain::user_connector::UserConnector;
use jackfield_domain::{Error, Resource, Result};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, QueryResult, Statement};

use crate::page::PageQuery;
use crate::session::Store;
use crate::{error, page};

/// The tables, for rows that are written or read beside the store.
pub mod entity {
    pub use crate::entity::{connection, connector, label, secret};
}

/// The connections of a store, with all its settings.
#[derive(Clone, Debug)]
pub struct Connections {
    pub reader: DatabaseConnection,
    pub writer: DatabaseConnection,
}

impl Store {
    /// What this store runs its statements on.
    pub fn connections(&self) -> Connections {
        Connections { reader: self.reader.clone(), writer: self.writer.clone() }
    }

    /// Runs a statement where reads run and returns a line for each row: columns separated by "|", bytes in hexadecimal,
    /// NULL as nothing.
    pub async fn raw_read(&self, sql: &str) -> Result<Vec<String>> {
        run(&self.reader, sql).await
    }

    /// As [`Store::raw_read`], where writes run.
    pub async fn raw_write(&self, sql: &str) -> Result<Vec<String>> {
        run(&self.writer, sql).await
    }

    /// How the database reads a page of a list, for tests that prove the use of an index.
    pub async fn explain_page(&self, resource: Resource, query: &PageQuery<'_>) -> Result<String> {
        let backend = self.reader.get_database_backend();
        let sql = match resource {
            Resource::Configuration => page::sql::<Configuration>(backend, query),
            Resource::Connection => page::sql::<Connection>(backend, query),
            Resource::Connector => page::sql::<Connector>(backend, query),
            Resource::Credential => page::sql::<Credential>(backend, query),
            Resource::Key => page::sql::<Key>(backend, query),
            Resource::Tenant => page::sql::<Tenant>(backend, query),
            Resource::UserConnector => page::sql::<UserConnector>(backend, query),
            Resource::Rewrap => return Err(Error::internal("re-wraps are not listed")),
        };
        let (explain, column) = match backend {
            DbBackend::Sqlite => (format!("EXPLAIN QUERY PLAN {sql}"), "detail"),
            _ => (format!("EXPLAIN {sql}"), "QUERY PLAN"),
        };
        let rows = self.reader.query_all_raw(Statement::from_string(backend, explain)).await.map_err(error::from_db)?;
        let lines = rows.iter().map(|row| row.try_get::<String>("", column).map_err(error::from_db));
        Ok(lines.collect::<Result<Vec<_>>>()?.join("\n"))
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
