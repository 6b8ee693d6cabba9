//! `jackfield backup` and `jackfield check-backup`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use jackfield_service::{Database, Services, Vault, Verified};
use uuid::Uuid;

use super::{CommandError, say};
use crate::config::Config;
use crate::open;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file to make. It must not be there yet.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CheckBackup {
    /// The file to check.
    file: PathBuf,
}

/// A file that goes with this value, unless it was put in its place.
struct Temporary(PathBuf);

/// Copies the SQLite database, checks the copy, and gives it its name when it is whole, sound and durable.
pub(super) async fn backup(config: &Config, command: &Backup) -> Result<(), CommandError> {
    let Database::Sqlite(database) = open::database(config)? else {
        return Err("the database is PostgreSQL, which is backed up by its own tools, such as pg_dump".into());
    };
    if !database.exists() {
        return Err(format!("there is no database {}", database.display()).into());
    }
    let to = &command.to;
    if to.symlink_metadata().is_ok() {
        return Err(format!("{} is there already: a backup does not replace a file", to.display()).into());
    }
    let vault = Vault::new(open::load_keyring(config)?);
    let temporary = Temporary::create(to)?;
    Services::copy(&database, &temporary.0).await?;
    let failed = |source: io::Error| format!("cannot make {} durable: {source}", to.display());
    let file = File::open(&temporary.0).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let verified = Services::verify(&temporary.0, &vault).await.map_err(|error| unusable(to, &error))?;
    // A link is refused where a file is, which a renaming is not.
    fs::hard_link(&temporary.0, to).map_err(failed)?;
    drop(temporary);
    File::open(parent(to)).and_then(|directory| directory.sync_all()).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    say(format_args!("Backed up {} to {} ({size} bytes).", database.display(), to.display()))?;
    tell(&verified)?;
    say("The keyring is not in it: keep a copy of it, apart from the backup.")
}

/// Checks a file that `backup` made.
pub(super) async fn check(config: &Config, command: &CheckBackup) -> Result<(), CommandError> {
    let vault = Vault::new(open::load_keyring(config)?);
    let verified = Services::verify(&command.file, &vault).await.map_err(|error| unusable(&command.file, &error))?;
    tell(&verified)
}

fn tell(Verified { schema, data_keys, secrets }: &Verified) -> Result<(), CommandError> {
    say(format_args!(
        "It is sound. Schema: {schema}. With this keyring {data_keys} data keys and {secrets} secrets open."
    ))
}

fn unusable(file: &Path, error: &dyn std::error::Error) -> String {
    format!("{} is no backup to rely on: {error}", file.display())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

// === impl Temporary ===

impl Temporary {
    /// An empty file for the owner only, beside the one that it becomes.
    fn create(to: &Path) -> Result<Self, CommandError> {
        let path = parent(to).join(format!(".backup-{}.tmp", Uuid::now_v7().simple()));
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.map_err(|source| format!("cannot write to {}: {source}", parent(to).display()))?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let mut path = self.0.clone().into_os_string();
            path.push(suffix);
            let _ = fs::remove_file(path);
        }
    }
}
