//! How many connections to the database there are, for metrics.

use sea_orm::DbBackend;

use crate::session::Store;

/// The connections of one pool at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// `reader` or `writer` on SQLite, `postgres` on PostgreSQL, where one is for both.
    pub name: &'static str,
    /// As many as there can be.
    pub max: u32,
    /// Those that something is done with.
    pub used: u32,
    /// Those that wait for something to do.
    pub idle: u32,
}

impl Store {
    /// The connections of each pool. Asks nothing of the database.
    pub fn pools(&self) -> Vec<Pool> {
        match self.reader.get_database_backend() {
            DbBackend::Sqlite => vec![
                Pool::of("reader", self.reader.get_sqlite_connection_pool()),
                Pool::of("writer", self.writer.get_sqlite_connection_pool()),
            ],
            _ => vec![Pool::of("postgres", self.writer.get_postgres_connection_pool())],
        }
    }
}

impl Pool {
    fn of<D: sqlx::Database>(name: &'static str, pool: &sqlx::Pool<D>) -> Self {
        let open = pool.size();
        // The two numbers are not of the same moment.
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX).min(open);
        Pool { name, max: pool.options().get_max_connections(), used: open - idle, idle }
    }
}
