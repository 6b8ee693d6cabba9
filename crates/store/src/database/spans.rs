//! Spans of database statements, within calls that are traced. Their names are those of OpenTelemetry's conventions for
//! database clients. A statement is named by its operation and its table: a span holds neither the text nor the values of a
//! statement.

use std::cell::Cell;

use sea_orm::{DbBackend, DbErr, RuntimeErr};
use tracing::{Instrument as _, Span, field};

tokio::task_local! {
    /// The wait of the running statement for a connection.
    static WAIT: Cell<Option<Span>>;
}

/// The span of a statement.
pub(crate) fn statement(backend: DbBackend, sql: &str) -> Span {
    let span = tracing::info_span!(
        "statement",
        otel.name = field::Empty,
        otel.kind = "client",
        otel.status_code = field::Empty,
        db.system.name = field::Empty,
        db.operation.name = field::Empty,
        db.collection.name = field::Empty,
        error.r#type = field::Empty,
    );
    if span.is_disabled() {
        return span;
    }
    span.record("db.system.name", if backend == DbBackend::Sqlite { "sqlite" } else { "postgresql" });
    let operation = operation(sql);
    span.record("db.operation.name", operation);
    match table(sql) {
        Some(table) => {
            span.record("db.collection.name", table);
            span.record("otel.name", format!("{operation} {table}"));
        }
        None => {
            span.record("otel.name", operation);
        }
    }
    span
}

/// Runs a statement on a connection.
pub(crate) async fn within<T>(span: Span, work: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
    if span.is_disabled() {
        return work.await;
    }
    let done = work.instrument(span.clone()).await;
    if let Err(error) = &done {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", code(error).as_deref().unwrap_or("_OTHER"));
    }
    done
}

/// Runs a statement on a connection that it first takes from a pool. The wait for the connection is a span of its own.
pub(crate) async fn from_pool<T>(span: Span, work: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
    if span.is_disabled() {
        return work.await;
    }
    let wait = tracing::info_span!(parent: &span, "wait for a connection");
    within(span, WAIT.scope(Cell::new(Some(wait)), work)).await
}

/// Notes that the running statement has its connection. The hooks of pools call it.
pub(crate) fn acquired() {
    let _ = WAIT.try_with(Cell::take);
}

/// The code of an error, as the database reports it.
pub(crate) fn code(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return None;
    };
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}

/// The first word of a statement.
fn operation(sql: &str) -> &str {
    let sql = sql.trim_start();
    &sql[..sql.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(sql.len())]
}

/// The table that a statement names first.
fn table(sql: &str) -> Option<&str> {
    let mut words = sql.split_ascii_whitespace();
    while let Some(word) = words.next() {
        if !matches!(word.trim_start_matches('('), "FROM" | "INTO" | "UPDATE") {
            continue;
        }
        let name = words.clone().next()?.trim_matches(['"', ',', ';', ')']);
        let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if is_name && !name.is_empty() {
            return Some(name);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_named_by_its_operation_and_its_table() {
        for (sql, named) in [
            (r#"SELECT "key"."doc" FROM "key" WHERE "key"."id" = $1"#, ("SELECT", Some("key"))),
            (r#"INSERT INTO "tenant" ("id") VALUES ($1)"#, ("INSERT", Some("tenant"))),
            (r#"UPDATE "user_connector" SET "doc" = $1"#, ("UPDATE", Some("user_connector"))),
            (r#"DELETE FROM "secret" WHERE "id" IN ($1)"#, ("DELETE", Some("secret"))),
            (
                r#"SELECT COUNT("rowid") FROM (SELECT "rowid" FROM "search_index") AS "some""#,
                ("SELECT", Some("search_index")),
            ),
            ("UPDATE seaql_migrations SET applied_at = applied_at", ("UPDATE", Some("seaql_migrations"))),
            ("SET LOCAL statement_timeout = '60s'", ("SET", None)),
            ("SELECT pg_advisory_xact_lock(1)", ("SELECT", None)),
            ("BEGIN", ("BEGIN", None)),
            ("", ("", None)),
        ] {
            assert_eq!((operation(sql), table(sql)), named, "{sql}");
        }
    }
}
