//! The two databases: how they are opened, their pools and connections, and their errors.

pub(crate) mod connect;
pub(crate) mod driver;
pub(crate) mod error;
mod pool;
mod pool_counts;
pub(crate) mod postgres;
mod settings;
pub(crate) mod spans;
pub(crate) mod sqlite;
pub(crate) mod template;

pub use self::pool::Pooled;
pub use self::pool_counts::Pool;
pub use self::settings::PoolSettings;
