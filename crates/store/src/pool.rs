//! How many connections to the database there are, for metrics.

use crate::postgres_pool::Sessions;
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
        let of_sqlite = [("reader", &self.reader), ("writer", &self.writer)];
        let of_sqlite = of_sqlite.into_iter().filter_map(|(name, pool)| Some((name, pool.of_sqlite()?)));
        let of_sqlite = of_sqlite.map(|(name, pool)| Pool::of(name, pool.get_sqlite_connection_pool()));
        of_sqlite.chain(self.writer.of_postgres().map(Sessions::count)).collect()
    }

    /// How often no connection to the database could be opened.
    pub fn connect_failures(&self) -> u64 {
        self.writer.of_postgres().map(Sessions::failures).unwrap_or_default()
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
