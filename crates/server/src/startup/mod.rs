//! The start of the process: its files, its keyring, its database, and its hardening.

mod backend;
pub mod database_file;
mod error;
mod gauges;
pub mod hardening;
pub mod keyring;
pub mod open;
pub mod permissions;
pub mod pki;

pub use self::error::StartupError;
