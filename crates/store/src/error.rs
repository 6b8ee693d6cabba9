//! The errors of a store that does not open.

use crate::database::postgres::url::UrlError;

/// The reason that a store does not open. Unlike [`jackfield_domain::Error`] it is for operators, so it says in full what is
/// wrong. It never holds a connection URL, because that may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database.url: {0}")]
    Url(#[from] UrlError),
    #[error("the database cannot be reached: {0}")]
    Connect(String),
    #[error("the database is damaged: {0}")]
    Damaged(String),
    #[error(
        "the server of the database is a standby, which cannot be written: database.url has to lead to the primary"
    )]
    Standby,
    #[error("the schema is newer than this program: it has the migration {migration}, which is unknown here")]
    SchemaNewer { migration: String },
    #[error("the schema is older than this program: the migration {migration} is missing; run `jackfield migrate`")]
    SchemaOlder { migration: String },
    #[error("the migration failed: {0}")]
    Migration(String),
    #[error("the database cannot be copied: {0}")]
    Copy(String),
    #[error("the SQLite setting {pragma} is {actual} and not {expected}")]
    Pragma { pragma: &'static str, expected: String, actual: String },
    #[error(
        "the setting {name} of the sessions with PostgreSQL is {actual} and not {expected}: a pooler in between does not pass on \
         what sets it; use one that gives each client a session (PgBouncer: pool_mode = session), or the address of PostgreSQL"
    )]
    Setting { name: &'static str, expected: &'static str, actual: String },
    #[error(
        "the database is behind a pooler that shares sessions between transactions or statements: give Jackfield sessions of its \
         own (PgBouncer: pool_mode = session for this database or user), or the address of PostgreSQL"
    )]
    SharedSessions,
    #[error(
        "the encoding of the database is {0} and not UTF8, so that it cannot hold every name: give Jackfield a database made with \
         CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
    )]
    Encoding(String),
    #[error("SQLite {actual} is older than {needed}, the first without the known corruption of write-ahead logs")]
    SqliteTooOld { actual: String, needed: &'static str },
}
