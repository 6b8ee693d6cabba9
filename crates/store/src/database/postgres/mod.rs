//! PostgreSQL: its URL, its sessions and their pool, and its transactions.

mod failures;
pub(crate) mod lease;
mod opening;
pub(crate) mod pool;
pub(crate) mod session;
mod session_pool;
pub(crate) mod transaction;
pub mod url;
