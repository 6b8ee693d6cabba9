//! `jackfield descriptors`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;

use super::CommandError;

#[derive(Debug, Args)]
pub(super) struct Descriptors {
    /// The file to write [default: standard output].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(command: &Descriptors) -> Result<(), CommandError> {
    let set = crate::descriptors::complete()?;
    if let Some(path) = &command.out {
        return std::fs::write(path, set).map_err(|error| format!("{}: {error}", path.display()).into());
    }
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        return Err("descriptors are binary: name a file with --out, or send standard output to one".into());
    }
    out.write_all(&set)?;
    Ok(out.flush()?)
}
