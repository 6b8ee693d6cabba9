//! Where a keyring comes from.

pub mod env;
pub mod file;
