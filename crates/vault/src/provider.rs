//! Sources of a keyring.

pub mod env;
pub mod file;
