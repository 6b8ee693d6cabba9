//! `jackfield check-config`.

use std::io::Write as _;

use clap::Args;
use jackfield_domain::{Clock as _, SystemClock};

use super::{CommandError, runtime, say};
use crate::config::{Config, DEFAULTS};
use crate::startup::{certificates, permissions};
use jackfield_transport::tls::{certificates_pem, read_file};

#[derive(Debug, Args)]
pub(super) struct CheckConfig {
    /// Print the documented defaults instead.
    #[arg(long)]
    defaults: bool,
}

/// Loading has already checked it. Here it is printed, and the files that it names are checked as `serve` does.
pub(super) fn run(config: &Config, command: &CheckConfig) -> Result<(), CommandError> {
    if command.defaults {
        return say(DEFAULTS.trim_end());
    }
    say(config.to_toml().trim_end())?;
    runtime()?.block_on(certificates::check(config, SystemClock.now()))?;
    for warning in permissions::check(config)? {
        writeln!(std::io::stderr(), "jackfield: {warning}")?;
    }
    let ca = &config.telemetry.otlp_ca;
    if !ca.as_os_str().is_empty() {
        let text = read_file(ca).map_err(|error| format!("telemetry.otlp_ca: {}: {error}", ca.display()))?;
        certificates_pem(&text, ca)?;
    }
    Ok(())
}
