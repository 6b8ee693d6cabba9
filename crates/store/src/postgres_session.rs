//! What a session with PostgreSQL is set to, and that it is a session at all: a pooler in between may share it.
//!
//! The settings are made by statements after connecting and then read back. As start-up options they would be refused by some
//! poolers and dropped unnoticed by others.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::session::StoreError;

/// What is set, and how it reads back.
const SETTINGS: [(&str, &str); 6] = [
    ("statement_timeout", "5s"),
    ("lock_timeout", "2s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("synchronous_commit", "on"),
    // Compiling a statement pays for reports; a filter of many terms looks as dear as one and takes seconds to compile.
    ("jit", "off"),
    ("timezone", "UTC"),
];

/// How often two sessions look whether they share one. A pooler has to give both the same one, or one of them another, and
/// it might by chance keep them apart while others use it, too.
const LOOKS: usize = 3;

/// Why nothing was looked at.
const NO_SECOND: &str = "there is no second session in time";

/// A variable of the session that nothing else uses.
const MARK: &str = "jackfield.session";

/// Sets up a session that was just made, and refuses it if a setting did not take.
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

/// Refuses a database that cannot hold every text. The driver speaks UTF-8, and the server would refuse what its encoding lacks,
/// a call at a time.
pub(crate) async fn refuse_encoding(conn: &mut PgConnection) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| StoreError::Connect(error.to_string());
    let rows = run(conn, "SELECT current_setting('server_encoding')".to_owned()).await.map_err(failed)?;
    let encoding: String = rows.first().map(|row| row.try_get(0)).transpose().map_err(failed)?.unwrap_or_default();
    if encoding == "UTF8" { Ok(()) } else { Err(StoreError::Encoding(encoding)) }
}

/// What can be done in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    /// Somebody has made the server, the database or the role read-only.
    Read,
    /// Its server is a standby: it can write nothing, and what it reads may be past.
    Standby,
}

/// What can be done in a session, now that it was opened.
pub(crate) async fn access(conn: &mut PgConnection) -> Result<Access, sqlx::Error> {
    let look = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
    let rows = run(conn, look.to_owned()).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(match (row.try_get(0)?, row.try_get(1)?) {
        (true, _) => Access::Standby,
        (false, true) => Access::Read,
        (false, false) => Access::Write,
    })
}

/// What changes when the fate of a transaction may be another than its server says: its timeline, which changes when a standby
/// takes over, and the time since which it counts, which begins anew after a crash and is another on each standby. `None` where
/// that is not told.
///
/// The number of a transaction whose end was not yet on disk is given again after a crash, and one that a standby did not get
/// is given again by it.
pub(crate) async fn identity(conn: &mut PgConnection) -> Option<Arc<str>> {
    let identity = "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) || ' ' || stats_reset::text \
                    FROM pg_stat_bgwriter";
    let rows = run(conn, identity.to_owned()).await.ok()?;
    let identity: Option<String> = rows.first()?.try_get(0).ok()?;
    identity.map(Arc::from)
}

/// Refuses a pooler that shares sessions between transactions. What is set would hold for whoever comes next, and would not
/// hold for us; nothing else shows that where the pooler keeps prepared statements apart.
///
/// A second session is needed for it. Where there is none to have in time, nothing is said: a pooler that gives each client a
/// session and has but one takes the second client, and lets it wait with its first statement.
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
        // With pool_mode = statement there are no transactions at all, which is said so.
        Ok(Err(error)) if error.to_string().contains("pooling mode") => Err(StoreError::SharedSessions),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(StoreError::Connect("it does not answer in time".to_owned())),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is what the start goes on with")]
fn skip(why: &str) -> Result<(), StoreError> {
    tracing::warn!(error.message = why, "whether a pooler shares sessions was not looked at");
    Ok(())
}

/// Whether either session sees what only the other one has set, or has lost its own; `None` if the second one cannot begin until
/// then.
async fn is_shared(
    first: &mut PgConnection,
    mut second: PgConnection,
    until: Instant,
) -> Result<Option<bool>, sqlx::Error> {
    let seen = |rows: Vec<PgRow>| -> Result<String, sqlx::Error> {
        let seen = rows.first().map(|row| row.try_get::<Option<String>, _>(0)).transpose()?;
        Ok(seen.flatten().unwrap_or_default())
    };
    let look = format!("SELECT current_setting('{MARK}', true)");
    let mut shared = false;
    for turn in 0..LOOKS {
        let mark = Uuid::now_v7().simple().to_string();
        run(first, format!("SET {MARK} = '{mark}'")).await?;
        // The second one holds what it was given until its transaction ends.
        let begin = run(&mut second, "BEGIN".to_owned());
        if turn > 0 {
            begin.await?;
        } else if let Ok(begun) = timeout_at(until, begin).await {
            begun?;
        } else {
            // It goes first: what it waits for would be given to it.
            drop(second);
            run(first, format!("RESET {MARK}")).await?;
            return Ok(None);
        }
        shared = seen(run(&mut second, look.clone()).await?)? == mark;
        // Not asked if it is clear: with a pool of one the first one would wait for the second.
        shared = shared || seen(run(first, look.clone()).await?)? != mark;
        run(&mut second, "ROLLBACK".to_owned()).await?;
        if shared {
            break;
        }
    }
    run(first, format!("RESET {MARK}")).await?;
    let _ = second.close().await;
    Ok(Some(shared))
}

/// Runs statements without preparing them: a prepared one might meet one of somebody else.
async fn run(conn: &mut PgConnection, sql: String) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(conn).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_cannot_set_what_is_set_here() {
        let names: Vec<_> = SETTINGS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, crate::postgres_url::OWN_SETTINGS);
    }
}
