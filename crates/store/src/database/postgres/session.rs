//! The settings of a session with PostgreSQL, and a check that it is a session at all: a pooler may share it with other
//! clients.
//!
//! The settings are made by statements after connecting and then read back. As start-up options they would be refused by
//! some poolers and silently dropped by others.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::error::StoreError;

/// The settings, and their values as they are read back.
const SETTINGS: [(&str, &str); 6] = [
    ("statement_timeout", "5s"),
    ("lock_timeout", "2s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("synchronous_commit", "on"),
    // Compiling a statement pays off for reports. A filter of many terms seems to cost as much as a report, and takes seconds
    // to compile.
    ("jit", "off"),
    ("timezone", "UTC"),
];

/// The number of times that two sessions check whether they share one. A pooler that shares sessions might keep the two apart
/// by chance.
const CHECKS: usize = 3;

/// The reason why nothing was checked.
const NO_SECOND: &str = "no second session was available in time";

/// A variable of the session that nothing else uses.
const VARIABLE: &str = "jackfield.session";

/// Sets up a session that was just opened, and refuses it if a setting is not as it should be.
pub(crate) async fn prepare(conn: &mut PgConnection) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| StoreError::Connect(error.to_string());
    let set: String = SETTINGS.iter().map(|(name, value)| format!("SET {name} = '{value}'; ")).collect();
    run(conn, set).await.map_err(failed)?;
    let read: Vec<_> = SETTINGS.iter().map(|(name, _)| format!("current_setting('{name}')")).collect();
    let rows = run(conn, format!("SELECT {}", read.join(", "))).await.map_err(failed)?;
    for (index, (name, expected)) in SETTINGS.iter().enumerate() {
        let actual: String =
            rows.first().map(|row| row.try_get(index)).transpose().map_err(failed)?.unwrap_or_default();
        if actual != *expected {
            return Err(StoreError::Setting { name, expected, actual });
        }
    }
    Ok(())
}

/// Refuses a database that cannot hold every text. The driver sends UTF-8, and the server would refuse each call with a
/// character that its encoding lacks.
pub(crate) async fn refuse_encoding(conn: &mut PgConnection) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| StoreError::Connect(error.to_string());
    let rows = run(conn, "SELECT current_setting('server_encoding')".to_owned()).await.map_err(failed)?;
    let encoding: String = rows.first().map(|row| row.try_get(0)).transpose().map_err(failed)?.unwrap_or_default();
    if encoding == "UTF8" { Ok(()) } else { Err(StoreError::Encoding(encoding)) }
}

/// The access that a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    /// The server, the database or the role was made read-only.
    Read,
    /// The server is a standby: it cannot be written, and may lag behind.
    Standby,
}

/// The access that a session has now.
pub(crate) async fn access(conn: &mut PgConnection) -> Result<Access, sqlx::Error> {
    let query = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
    let rows = run(conn, query.to_owned()).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(match (row.try_get(0)?, row.try_get(1)?) {
        (true, _) => Access::Standby,
        (false, true) => Access::Read,
        (false, false) => Access::Write,
    })
}

/// The identity of the server as far as ids of transactions are concerned. It changes whenever an id may be assigned again: its
/// parts are the timeline, which changes when a standby takes over, and the time since which the server counts its statistics,
/// which is new after a crash and differs between standbys. `None` if the server does not show them.
///
/// After a crash the server assigns ids again whose transactions were not yet on disk, and a standby that takes over assigns
/// ids again that it did not receive.
pub(crate) async fn identity(conn: &mut PgConnection) -> Option<Arc<str>> {
    let identity = "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) || ' ' || stats_reset::text \
                    FROM pg_stat_bgwriter";
    let rows = run(conn, identity.to_owned()).await.ok()?;
    let identity: Option<String> = rows.first()?.try_get(0).ok()?;
    identity.map(Arc::from)
}

/// Refuses a pooler that shares sessions between transactions. The settings would apply to the next client, and would not apply
/// to this one. Nothing else shows that, if the pooler keeps prepared statements apart.
///
/// The check needs a second session. If there is none in time, nothing is refused: a pooler that gives each client a session
/// and has only one accepts the second client, and lets its first statement wait.
pub(crate) async fn refuse_shared(
    first: &mut PgConnection,
    options: &PgConnectOptions,
    patience: Duration,
) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| StoreError::Connect(error.to_string());
    let until = Instant::now() + patience;
    let second = match timeout_at(until, options.connect()).await {
        Ok(Ok(second)) => second,
        Ok(Err(error)) => return skip(&error.to_string()),
        Err(_) => return skip(NO_SECOND),
    };
    match timeout_at(until + patience, is_shared(first, second, until)).await {
        Ok(Ok(Some(false))) => Ok(()),
        Ok(Ok(Some(true))) => Err(StoreError::SharedSessions),
        Ok(Ok(None)) => skip(NO_SECOND),
        // With pool_mode = statement there are no transactions at all, and the pooler says so.
        Ok(Err(error)) if error.to_string().contains("pooling mode") => Err(StoreError::SharedSessions),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(StoreError::Connect("it does not answer in time".to_owned())),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is the result of the check")]
fn skip(why: &str) -> Result<(), StoreError> {
    tracing::warn!(error.message = why, "could not check whether a pooler shares sessions");
    Ok(())
}

/// Returns whether one session sees a value that only the other one has set, or has lost its own. `None` if the second
/// session cannot begin in time.
async fn is_shared(
    first: &mut PgConnection,
    mut second: PgConnection,
    until: Instant,
) -> Result<Option<bool>, sqlx::Error> {
    let seen = |rows: Vec<PgRow>| -> Result<String, sqlx::Error> {
        let seen = rows.first().map(|row| row.try_get::<Option<String>, _>(0)).transpose()?;
        Ok(seen.flatten().unwrap_or_default())
    };
    let read = format!("SELECT current_setting('{VARIABLE}', true)");
    let mut shared = false;
    for check in 0..CHECKS {
        let value = Uuid::now_v7().simple().to_string();
        run(first, format!("SET {VARIABLE} = '{value}'")).await?;
        // The second one keeps its session until its transaction ends.
        let begin = run(&mut second, "BEGIN".to_owned());
        if check > 0 {
            begin.await?;
        } else if let Ok(begun) = timeout_at(until, begin).await {
            begun?;
        } else {
            // It is dropped first: otherwise it would get the session that it waits for.
            drop(second);
            run(first, format!("RESET {VARIABLE}")).await?;
            return Ok(None);
        }
        shared = seen(run(&mut second, read.clone()).await?)? == value;
        // This is skipped if the result is clear: with a pool of one, the first session would wait for the second.
        shared = shared || seen(run(first, read.clone()).await?)? != value;
        run(&mut second, "ROLLBACK".to_owned()).await?;
        if shared {
            break;
        }
    }
    run(first, format!("RESET {VARIABLE}")).await?;
    let _ = second.close().await;
    Ok(Some(shared))
}

/// Runs statements without preparing them: in a shared session, another client may have prepared a statement of the same name.
async fn run(conn: &mut PgConnection, sql: String) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(conn).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_cannot_set_these_settings() {
        let names: Vec<_> = SETTINGS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, super::super::url::OWN_SETTINGS);
    }
}
