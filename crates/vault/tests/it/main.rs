//! The vault from outside.

mod files;
mod format;
mod keyring;
mod sealing;
mod support;
mod tokens;
mod vault;
