//! `jackfield client-cert`.

use std::path::PathBuf;

use clap::Args;
use jackfield_domain::SystemClock;

use super::{CommandError, made_authority, say};
use crate::config::{Config, is_spiffe};
use crate::startup::pki::{self, ClientRequest};

#[derive(Debug, Args)]
pub(super) struct ClientCert {
    /// Name of the files, <NAME>.pem and <NAME>-key.pem.
    name: String,
    /// Directory of the files [default: that of the authority].
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// URI that the server knows the client by [default: spiffe://jackfield.local/client/<NAME>].
    #[arg(long, value_name = "URI")]
    spiffe: Option<String>,
    /// Days of validity.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

pub(super) fn run(config: &Config, command: &ClientCert) -> Result<(), CommandError> {
    let ClientCert { name, out, spiffe, days } = command;
    if !config.development() {
        return Err("client-cert works in mode \"development\" only: use your own authority".into());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.chars().all(plain) || name.starts_with('.') || name.is_empty() {
        return Err("the name may hold letters, digits, \"-\", \"_\" and \".\" only".into());
    }
    let spiffe = spiffe.clone().unwrap_or_else(|| format!("spiffe://jackfield.local/client/{name}"));
    if !is_spiffe(&spiffe) {
        return Err(format!("--spiffe: \"{spiffe}\" is not spiffe://<trust domain>/<path>").into());
    }
    let directory = config.pki_dir();
    if pki::ensure(&directory, &SystemClock)? {
        say(made_authority(&directory))?;
    }
    let request = ClientRequest { name: name.clone(), spiffe: spiffe.clone(), days: *days };
    let (certificate, key) =
        pki::issue_client(&directory, out.as_deref().unwrap_or(&directory), &request, &SystemClock)?;
    say(format_args!("Made {} and {}.", certificate.display(), key.display()))?;
    if config.principals().iter().any(|principal| principal.spiffe == spiffe) {
        return Ok(());
    }
    say(format_args!(
        "No principal is known by it yet. In the configuration:\n\n[[identity.principals]]\nname = \"{name}\"\n\
         tenant = \"{}\"\n# What it needs and no more; deploy/guide/configuration.md lists the rights.\n\
         rights = [\"connectors.read\", \"credentials.issue\"]\nspiffe = \"{spiffe}\"",
        config.bootstrap.tenant
    ))
}
