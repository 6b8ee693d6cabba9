//! The settings of pools.

use std::time::Duration;

/// The size of a pool, and how long to wait for a connection.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// Connections to PostgreSQL, or read connections to SQLite.
    pub max_connections: u32,
    /// The time that a call waits for a connection before it is UNAVAILABLE.
    pub acquire_timeout: Duration,
}
