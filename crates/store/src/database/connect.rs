//! Opening a database.

use std::path::PathBuf;
use std::sync::Arc;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnection;

use super::pool::Pooled;
use super::postgres::pool::Sessions;
use super::settings::PoolSettings;
use super::sqlite::guard::Guard;
use super::{postgres, sqlite};
use crate::error::StoreError;

/// A database, and its location.
pub enum Database {
    /// An SQLite file. It is created if it is missing.
    Sqlite(PathBuf),
    /// A PostgreSQL connection URL. It may hold a password, so nothing here prints it.
    Postgres(String),
}

/// A database that is open.
pub(crate) struct Opened {
    pub(crate) reader: Pooled,
    pub(crate) writer: Pooled,
    /// On SQLite, watches the connection of the writer.
    pub(crate) guard: Option<Arc<Guard>>,
}

/// Opens a reader and a writer.
pub(crate) async fn open(database: &Database, settings: PoolSettings) -> Result<Opened, StoreError> {
    match database {
        Database::Sqlite(path) => {
            let sqlite::SqlitePools { readers, writer, guard } = sqlite::open(path.clone(), settings).await?;
            let (reader, writer) = (Pooled::sqlite_readers(readers), Pooled::sqlite_writer(writer));
            Ok(Opened { reader, writer, guard: Some(guard) })
        }
        Database::Postgres(url) => open_postgres(url, settings).await,
    }
}

async fn open_postgres(url: &str, settings: PoolSettings) -> Result<Opened, StoreError> {
    let options = postgres::url::options(url)?
        .application_name("jackfield")
        // No column holds a floating-point number, and poolers do not know the option.
        .extra_float_digits(None)
        .disable_statement_logging();
    // The first session is checked before it is prepared: the settings of a session that is shared with others must not be
    // changed for them.
    let check = async |first: &mut PgConnection| {
        postgres::session::refuse_shared(first, &options, settings.acquire_timeout).await?;
        postgres::session::refuse_encoding(first).await
    };
    let conn = Pooled::postgres(Sessions::open(options.clone(), settings, check).await?);
    Ok(Opened { reader: conn.clone(), writer: conn, guard: None })
}
