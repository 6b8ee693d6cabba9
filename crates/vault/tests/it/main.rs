//! Tests of the vault's public interface.

mod files;
mod format;
mod keyring;
mod sealing;
mod support;
mod tokens;
mod vault;
