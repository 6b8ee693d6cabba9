//! Database errors as errors of the domain. The message of the database goes to the log as a cause, and never to a caller,
//! because it can hold values.

use std::borrow::Cow;
use std::time::Duration;

use jackfield_domain::error::Taken;
use jackfield_domain::{Error, Resource};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlErr};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// The time after which a caller should try again if the database could not be reached or was busy.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// PostgreSQL's code of "the server itself does not know whether it committed".
const COMPLETION_UNKNOWN: &str = "40003";

/// The unique constraints: the end of their names in PostgreSQL, the end of their columns in SQLite's message, and the value
/// that is unique.
const UNIQUE: &[(&str, &str, Taken)] = &[
    ("_pkey", ".id", Taken::Id),
    ("_name_key", ".name_key", Taken::Name),
    ("_external_id_key", ".external_id", Taken::ExternalId),
    ("_user_id_key", ".user_id", Taken::ExternalId),
];

/// Returns the error for any other database error.
pub(crate) fn from_db(error: DbErr) -> Error {
    if matches!(error, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)) {
        return Error::StoreUnavailable { retry_after: RETRY_AFTER, source: Box::new(NoConnection(error)) };
    }
    if is_unavailable(&error) {
        return Error::StoreUnavailable { retry_after: RETRY_AFTER, source: Box::new(error) };
    }
    Error::internal(error)
}

/// The error of a transaction that is lost or could not begin: the same call may succeed later.
pub(crate) fn gone(why: &str) -> Error {
    from_db(lost(why))
}

/// The error of a connection or a transaction that was lost.
pub(crate) fn lost(why: &str) -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(why.to_owned()))
}

/// The error of a commit that may or may not have taken place. It does not say that the change can be sent again: only with a
/// request id is that safe, which is not known here.
pub(crate) fn outcome_unknown(lost: DbErr) -> Error {
    Error::outcome_unknown(false, lost)
}

/// Returns whether PostgreSQL itself says that it did not commit. When it goes down while COMMIT waits, it may have committed.
pub(crate) fn is_refusal(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return false;
    };
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|error| {
        let code = error.code();
        error.severity() == PgSeverity::Error && code != COMPLETION_UNKNOWN && !code.starts_with("08")
    })
}

/// Returns whether a statement that failed on PostgreSQL, outside of a transaction, may have written all the same.
pub(crate) fn may_have_run(failed: &DbErr) -> bool {
    let was_sent = matches!(failed, DbErr::Exec(RuntimeErr::SqlxError(_)) | DbErr::Query(RuntimeErr::SqlxError(_)));
    was_sent && !is_refusal(failed)
}

/// Returns whether a COMMIT that failed on SQLite may have written all the same.
///
/// A commit counts as soon as its last page is in the log. If the disk then does not confirm the write, the transaction is
/// undone in memory, but a crash before the next transaction overwrites it in the log restores it. Errors before that, and a
/// full disk, leave an incomplete transaction in the log, which counts as none.
pub(crate) fn sqlite_may_have_committed(failed: &DbErr) -> bool {
    sqlite_code(failed).is_none_or(may_have_committed)
}

/// Returns whether SQLite reports a damaged file, or one that is not a database.
pub(crate) fn is_damage(error: &DbErr) -> bool {
    sqlite_code(error).is_some_and(is_damage_code)
}

/// As [`is_damage`].
pub(crate) fn is_damage_of_sqlx(error: &sqlx::Error) -> bool {
    code_of_sqlx(error).is_some_and(is_damage_code)
}

/// SQLITE_CORRUPT and SQLITE_NOTADB.
fn is_damage_code(code: u32) -> bool {
    matches!(code & 0xff, 11 | 26)
}

/// The code that SQLite gave for a failed statement.
fn sqlite_code(error: &DbErr) -> Option<u32> {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => code_of_sqlx(error),
        _ => None,
    }
}

fn code_of_sqlx(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}

fn may_have_committed(code: u32) -> bool {
    // SQLITE_ERROR (there is no transaction any more), BUSY, LOCKED, READONLY, FULL, CONSTRAINT; and the SQLITE_IOERR codes of
    // reading and writing pages.
    const BEFORE: [u32; 6] = [1, 5, 6, 8, 13, 19];
    const IN_THE_MIDDLE: [u32; 3] = [266, 522, 778];
    !BEFORE.contains(&(code & 0xff)) && !IN_THE_MIDDLE.contains(&code)
}

/// The error of a pool that got no connection in time. The pool tries again while a database refuses connections, and its own
/// error says only that the time is up.
#[derive(Debug, thiserror::Error)]
#[error("the database is away, or all its connections (database.max_connections) are in use")]
struct NoConnection(#[source] DbErr);

/// The error of an insert or update. A violated unique constraint becomes the value that is taken, which `value_of` gives.
pub(crate) fn from_write(error: DbErr, resource: Resource, value_of: impl Fn(Taken) -> String) -> Error {
    match unique_violation(&error) {
        Some(what) => Error::Taken { resource, what, value: value_of(what) },
        None => from_db(error),
    }
}

/// Returns whether a statement was cancelled because it took too long.
pub(crate) fn is_timeout(error: &Error) -> bool {
    code_of(error).is_some_and(|code| code == "57014")
}

/// Returns whether a statement failed on PostgreSQL because another transaction has locked a row: it waited for too long (55P03), or each
/// waited for the other (40P01). Nothing was written.
pub fn is_locked(error: &Error) -> bool {
    code_of(error).is_some_and(|code| ["55P03", "40P01"].contains(&code.as_ref()))
}

/// The code of the database's error behind an error.
fn code_of(error: &Error) -> Option<Cow<'_, str>> {
    let Error::StoreUnavailable { source, .. } = error else { return None };
    match source.downcast_ref::<DbErr>() {
        Some(DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) => {
            error.as_database_error().and_then(|error| error.code())
        }
        _ => None,
    }
}

/// Returns whether SQLite cannot write: the file or its file system is read-only, fails, or is full.
pub(crate) fn is_unwritable(error: &DbErr) -> bool {
    matches!(sqlite_code(error).map(|code| code & 0xff), Some(8 | 10 | 13))
}

fn unique_violation(error: &DbErr) -> Option<Taken> {
    let Some(SqlErr::UniqueConstraintViolation(message)) = error.sql_err() else {
        return None;
    };
    // SQLite lists all columns ("connector.tenant_id, connector.name_key"): the last one distinguishes the constraints.
    let last = message.trim_end_matches('"').rsplit([' ', '"']).next().unwrap_or_default();
    let known = UNIQUE.iter().find(|(name, columns, _)| last.ends_with(name) || last.ends_with(columns));
    known.map(|(_, _, what)| *what)
}

/// Returns whether the database cannot be reached, is full or is busy, so that the same call may succeed later.
pub(crate) fn is_unavailable(error: &DbErr) -> bool {
    // Use cases check their references, so a violated foreign key means that another transaction deleted a parent, or added a
    // child, at the same time. The next try sees that and reports it.
    if matches!(error.sql_err(), Some(SqlErr::ForeignKeyConstraintViolation(_))) {
        return true;
    }
    match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => true,
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => match &**error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(error) => error.code().is_some_and(|code| is_unavailable_code(&code)),
            _ => false,
        },
        _ => false,
    }
}

fn is_unavailable_code(code: &str) -> bool {
    // PostgreSQL: five characters, by class: connection, rollback (serialisation, deadlock), resources, operator
    // intervention, system; and single ones: lock not available, a read-only standby after a failover, transactions
    // that the server ended because they took too long, and statements of a schema that has changed since.
    if code.len() == 5 {
        return ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
            || ["55P03", "25006", "25P03", "25P04", "0A000"].contains(&code);
    }
    // SQLite: the primary code is in the low byte: busy, locked, read-only, I/O error, full, cannot open.
    let primary = code.parse::<u32>().map(|code| code & 0xff);
    matches!(primary, Ok(5 | 6 | 8 | 10 | 13 | 14))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_does_not_confirm_leaves_the_outcome_open() {
        // IOERR_FSYNC, IOERR_DIR_FSYNC, IOERR_SHMMAP, NOMEM, CORRUPT.
        for code in [1034, 1290, 5386, 7, 11] {
            assert!(may_have_committed(code), "{code}");
        }
        // ERROR, BUSY, BUSY_SNAPSHOT, FULL, CONSTRAINT_COMMITHOOK, CONSTRAINT_FOREIGNKEY, IOERR_WRITE, IOERR_READ.
        for code in [1, 5, 517, 13, 531, 787, 778, 266] {
            assert!(!may_have_committed(code), "{code}");
        }
        assert!(sqlite_may_have_committed(&lost("the thread of the connection is gone")));
    }

    #[test]
    fn a_pool_without_a_connection_names_possible_causes() {
        let error = from_db(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout));
        let Error::StoreUnavailable { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains("database.max_connections"), "{source}");
        assert!(std::error::Error::source(&*source).is_some_and(|cause| cause.to_string().contains("timed out")));
    }
}
