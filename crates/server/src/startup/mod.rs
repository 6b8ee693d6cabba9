//! The start of the process: its files, its keyring, its database, and its hardening.

mod backend;
pub mod certificates;
pub mod database_file;
pub mod driver_log;
mod error;
pub mod hardening;
pub mod keyring;
mod metrics;
pub mod open;
pub mod permissions;
pub mod pki;

pub use self::error::StartupError;
