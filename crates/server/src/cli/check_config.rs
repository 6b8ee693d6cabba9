//! `jackfield check-config`.

use clap::Args;

use super::{CommandError, say};
use crate::config::{Config, DEFAULTS};

#[derive(Debug, Args)]
pub(super) struct CheckConfig {
    /// Print the documented defaults instead.
    #[arg(long)]
    defaults: bool,
}

/// Loading has checked it; what is left is to show it.
pub(super) fn run(config: &Config, command: &CheckConfig) -> Result<(), CommandError> {
    if command.defaults { say(DEFAULTS.trim_end()) } else { say(config.to_toml().trim_end()) }
}
