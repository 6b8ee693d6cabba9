//! The number of connections to the database, for metrics.

/// The connections of one pool at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// `reader` or `writer` on SQLite; `postgres` on PostgreSQL, where one pool is for both.
    pub name: &'static str,
    /// The most connections that there can be.
    pub max: u32,
    /// Connections in use.
    pub used: u32,
    /// Connections that are open and not in use.
    pub idle: u32,
}

impl Pool {
    pub(crate) fn of<D: sqlx::Database>(name: &'static str, pool: &sqlx::Pool<D>) -> Self {
        let open = pool.size();
        // The two numbers are not read at the same moment.
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX).min(open);
        Pool { name, max: pool.options().get_max_connections(), used: open - idle, idle }
    }
}
