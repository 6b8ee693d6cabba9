//! SQL as text, for tests that look below the services, or that act as a failing disk, a careless operator or a thief.

use std::fmt::Write as _;
use std::time::Duration;

use jackfield_domain::{Error, Resource, Result};
use sea_orm::sea_query::{Expr, Query, SelectStatement};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, QueryResult, Statement};

use crate::database::postgres::transaction::Mode;
use crate::database::{Pooled, error};
use crate::document;
use crate::error::StoreError;
use crate::list::plan::PageStep;
use crate::list::{PageQuery, plan, search, statement};
use crate::store::Store;
use crate::stored::{Stored as _, for_each_resource};
use crate::transaction::Transaction;
use crate::transaction::group_commit::GroupCommit;

/// The kind of a plan: for the values of one statement, or for all values. PostgreSQL makes a plan for all values after some
/// runs, if it does not seem to cost more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    Once,
    ForAll,
}

/// The tables, for rows that tests write or read without the store.
pub mod entity {
    pub use crate::entity::{connection, connector, credential, label, secret};
}

/// The statement that returns the first documents that another statement finds.
///
/// # Errors
/// The other statement is not one of a page.
pub fn page_statement(backend: DbBackend, select: SelectStatement, limit: u32) -> Result<Statement> {
    let joined = Query::select().expr(Expr::cust(document::JOINED)).from_subquery(select, "page").take();
    statement::limited(backend, &joined, limit)
}

/// The connections of a store, with all its settings.
#[derive(Clone, Debug)]
pub struct Connections {
    pub reader: DatabaseConnection,
    pub writer: DatabaseConnection,
}

impl Store {
    /// As many connections with the same settings, in pools of the library.
    ///
    /// # Errors
    /// The database takes no more connections.
    pub async fn connections(&self) -> std::result::Result<Connections, StoreError> {
        if let (Some(readers), Some(writer)) = (self.reader.of_sqlite_readers(), self.writer.of_sqlite_writer()) {
            let reader = readers.library_pool().await.map_err(|error| StoreError::Connect(error.to_string()))?;
            return Ok(Connections { reader, writer: writer.clone() });
        }
        let sessions =
            self.writer.of_postgres().ok_or_else(|| StoreError::Connect("there is no database".to_owned()))?;
        let conn = sessions.library_pool(sessions.count().max).await?;
        Ok(Connections { reader: conn.clone(), writer: conn })
    }

    /// Runs a statement on the connections of reads. Returns a line for each row: columns are separated by "|", bytes are
    /// hexadecimal, NULL is empty.
    pub async fn raw_read(&self, sql: &str) -> Result<Vec<String>> {
        run(&self.reader, sql).await
    }

    /// As [`Store::raw_read`], on the connections of writes.
    pub async fn raw_write(&self, sql: &str) -> Result<Vec<String>> {
        run(&self.writer, sql).await
    }

    /// The number of transactions that were committed on SQLite, and of their writers.
    pub fn group_counts(&self) -> (u64, u64) {
        self.groups.as_ref().map(GroupCommit::counts).unwrap_or_default()
    }

    /// Sets how long a group of writers takes members on SQLite, so that its size does not depend on the speed of the test.
    /// It has to be called before the first write, and only the first call counts.
    pub fn set_longest_group(&self, longest: Duration) {
        if let Some(groups) = &self.groups {
            groups.set_longest(longest);
        }
    }

    /// The number of writers that wait for their turn on SQLite.
    pub fn writers_waiting(&self) -> usize {
        self.groups.as_ref().map(GroupCommit::waiting).unwrap_or_default()
    }

    /// The plan by which the database reads a page of a list, for tests that prove the use of an index. SQLite has one plan
    /// for all values.
    pub async fn explain_page(
        &self,
        resource: Resource,
        query: &PageQuery<'_>,
        step: &PageStep,
        planned: Planned,
    ) -> Result<String> {
        let backend = self.reader.get_database_backend();
        let mut sql = None;
        for_each_resource!(R => {
            if R::RESOURCE == resource {
                sql = plan::sql::<R>(backend, query, step);
            }
        });
        let sql = sql.ok_or_else(|| Error::internal("the index knows nothing of this filter"))?;
        let column = if backend == DbBackend::Sqlite { "detail" } else { "QUERY PLAN" };
        let rows = match backend {
            DbBackend::Sqlite => {
                self.reader.query_all_raw(Statement::from_string(backend, format!("EXPLAIN QUERY PLAN {sql}"))).await
            }
            _ => {
                let txn = match step {
                    // Its transaction sets how it is planned.
                    PageStep::Words => search::begin(&self.reader).await?,
                    _ => {
                        let txn = Transaction::begin(&self.reader, Mode::Write).await.map_err(error::from_db)?;
                        let mode = if planned == Planned::ForAll { "force_generic_plan" } else { "force_custom_plan" };
                        let mode = format!("SET LOCAL plan_cache_mode = {mode}");
                        txn.execute_unprepared(&mode).await.map_err(error::from_db)?;
                        txn
                    }
                };
                explain(&txn, sql).await
            }
        };
        let rows = rows.map_err(error::from_db)?;
        let lines = rows.iter().map(|row| row.try_get::<String>("", column).map_err(error::from_db));
        Ok(lines.collect::<Result<Vec<_>>>()?.join("\n"))
    }
}

/// The plan of a statement in PostgreSQL.
async fn explain(txn: &Transaction, mut sql: Statement) -> std::result::Result<Vec<QueryResult>, DbErr> {
    txn.execute_unprepared(&format!("PREPARE page AS {}", sql.sql)).await?;
    let count = sql.values.as_ref().map_or(0, |values| values.0.len());
    let values: Vec<_> = (1..=count).map(|number| format!("${number}")).collect();
    let values = if count == 0 { String::new() } else { format!("({})", values.join(", ")) };
    sql.sql = format!("EXPLAIN EXECUTE page {values}");
    let rows = txn.query_all_raw(Statement::from_string(DbBackend::Postgres, sql.to_string())).await?;
    txn.execute_unprepared("DEALLOCATE page").await?;
    Ok(rows)
}

async fn run(conn: &Pooled, sql: &str) -> Result<Vec<String>> {
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
