//! `jackfield backup` and `jackfield check-backup`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;
use jackfield_service::{Database, Services, Vault, Verified};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use super::digest::{self, Digest};
use super::{CommandError, say};
use crate::config::Config;
use crate::startup::{database_file, keyring};

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file to create. It must not exist yet. Its digest is written beside it, as <FILE>.sha256.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CheckBackup {
    /// The file to check.
    file: PathBuf,
}

/// A file that is removed with this value, unless it was given its final name. It is locked, so that another process can
/// distinguish it from one that was left behind.
struct Temporary {
    path: PathBuf,
    file: File,
}

/// The beginning and the end of the names of temporary files, with a UUID between them.
const PREFIX: &str = ".backup-";
const SUFFIX: &str = ".tmp";

/// Endings of the files that SQLite may put beside a database.
const BESIDE: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Copies the SQLite database, checks the copy, and gives it its name when it is whole, sound and durable. A signal that ends
/// the process leaves nothing behind.
pub(super) async fn backup(config: &Config, command: &Backup) -> Result<(), CommandError> {
    let (mut stop, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        done = make(config, &command.to) => done,
        _ = stop.recv() => Err("stopped by a signal; there is no backup".into()),
        _ = interrupt.recv() => Err("stopped by a signal; there is no backup".into()),
        _ = hang_up.recv() => Err("stopped by a signal; there is no backup".into()),
    }
}

async fn make(config: &Config, to: &Path) -> Result<(), CommandError> {
    let Database::Sqlite(database) = config.database()? else {
        return Err("the database is PostgreSQL, which is backed up by its own tools, such as pg_dump".into());
    };
    if !database.exists() {
        return Err(format!("there is no database {}", database.display()).into());
    }
    database_file::refuse_mount(&database)?;
    database_file::refuse_replaced(&database)?;
    // A digest without a backup belongs to a backup that was moved, and is removed.
    for made in [to, &digest::beside(to)] {
        if made.symlink_metadata().is_ok() {
            return Err(there_already(made));
        }
    }
    let vault = Vault::new(keyring::load_keyring(config)?);
    Temporary::tidy(parent(to));
    let copy = Temporary::create(to)?;
    Services::copy(&database, &copy.path).await?;
    let failed = |source: io::Error| format!("cannot make {} durable: {source}", to.display());
    copy.file.sync_all().map_err(failed)?;
    let verified = Services::verify(&copy.path, &vault).await.map_err(|error| unusable(to, &error.to_string()))?;
    let digest = Digest::of(&copy.path).map_err(failed)?;
    let size = copy.file.metadata().map_err(failed)?.len();
    let line = Temporary::create(to)?;
    (&line.file).write_all(digest.line(to).as_bytes()).and_then(|()| line.file.sync_all()).map_err(failed)?;
    copy.rename(to).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => there_already(to),
        _ => failed(error).into(),
    })?;
    fs::rename(&line.path, digest::beside(to)).map_err(failed)?;
    File::open(parent(to)).and_then(|directory| directory.sync_all()).map_err(failed)?;
    say(format_args!("Backed up {} to {} ({size} bytes).", database.display(), to.display()))?;
    tell(&verified)?;
    say(format_args!("Its digest is in {}: keep the two together.", digest::beside(to).display()))?;
    say("The keyring is not in it: keep a copy of it, apart from the backup.")
}

/// Checks a file that `backup` made.
pub(super) async fn check(config: &Config, command: &CheckBackup) -> Result<(), CommandError> {
    let file = &command.file;
    let vault = Vault::new(keyring::load_keyring(config)?);
    check_kind(file).map_err(|error| unusable(file, &error))?;
    let has_digest = digest::check(file).map_err(|error| unusable(file, &error.to_string()))?;
    check_format(file).map_err(|error| unusable(file, &error))?;
    let verified = Services::verify(file, &vault).await.map_err(|error| unusable(file, &error.to_string()))?;
    tell(&verified)?;
    if has_digest {
        return say("It is bit for bit what was backed up.");
    }
    let beside = digest::beside(file);
    say(format_args!(
        "There is no {}, so a changed bit that no other check finds would go unnoticed.",
        beside.display()
    ))
}

/// Refuses a file that reading could wait for without end.
fn check_kind(file: &Path) -> Result<(), String> {
    match fs::metadata(file) {
        Ok(kind) if kind.is_file() => Ok(()),
        Ok(_) => Err("it is not a regular file".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Refuses a file that is not an SQLite database, before it would count as a damaged one.
fn check_format(file: &Path) -> Result<(), String> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let mut begin = Vec::new();
    let read = File::open(file).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut begin));
    read.map_err(|error| error.to_string())?;
    if begin.is_empty() || begin == MAGIC { Ok(()) } else { Err("it is not an SQLite database".to_owned()) }
}

fn tell(Verified { schema, data_keys, secrets, rows }: &Verified) -> Result<(), CommandError> {
    let compared = match rows {
        Some(rows) => format!("{rows} rows agree with their documents."),
        None => "That is older than this program, so rows were not compared with their documents.".to_owned(),
    };
    say(format_args!(
        "It is sound. Schema: {schema}. {compared} With this keyring {data_keys} data keys and {secrets} secrets open."
    ))
}

fn there_already(to: &Path) -> CommandError {
    format!("{} exists already: a backup does not replace a file", to.display()).into()
}

fn unusable(file: &Path, error: &str) -> String {
    format!("{} is not a reliable backup: {error}", file.display())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

// === impl Temporary ===

impl Temporary {
    /// An empty file for the owner only, beside the one that it becomes.
    fn create(to: &Path) -> Result<Self, CommandError> {
        let failed = |source: io::Error| format!("cannot write to {}: {source}", parent(to).display());
        loop {
            let path = parent(to).join(format!("{PREFIX}{}{SUFFIX}", Uuid::now_v7().simple()));
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            let file = file.map_err(failed)?;
            // Before it was locked, another backup may have considered it left behind. Then it is gone, or about to be
            // removed.
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => continue,
                // Where there are no locks, nothing counts as left behind.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            if file.metadata().map_err(failed)?.nlink() > 0 {
                return Ok(Self { path, file });
            }
        }
    }

    /// Removes the temporary files of killed processes, which are those without a lock. A file that cannot be removed
    /// stays. The lock is held until the file is gone, so that a process that has just made it notices.
    fn tidy(directory: &Path) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let middle = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
            if middle.is_none_or(|middle| Uuid::try_parse(middle).is_err()) {
                continue;
            }
            let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            let opened = OpenOptions::new().read(true).write(true).custom_flags(no_follow).open(entry.path());
            if let Ok(file) = opened
                && file.try_lock().is_ok()
            {
                remove(&entry.path());
            }
        }
    }

    /// Gives the file its final name, unless a file of that name exists.
    fn rename(&self, to: &Path) -> io::Result<()> {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        let (from, here) = (&self.path, rustix::fs::CWD);
        match rustix::fs::renameat_with(here, from, here, to, flags) {
            Ok(()) => Ok(()),
            // The file system does not support it. A hard link is refused as well if the file exists.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::hard_link(from, to),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Temporary {
    /// After a rename there is nothing left to remove.
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    let _ = fs::remove_file(path);
    for suffix in BESIDE {
        let mut path = path.to_owned().into_os_string();
        path.push(suffix);
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Backups into one directory: each makes its file, and removes what others left behind.
    #[test]
    fn a_file_that_is_in_use_is_never_taken_for_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("backup");
        let make = || {
            for _ in 0..3_000 {
                let made = Temporary::create(&to).unwrap();
                std::thread::yield_now();
                let there = fs::metadata(&made.path).map(|there| there.ino());
                assert_eq!(there.ok(), Some(made.file.metadata().unwrap().ino()), "{}", made.path.display());
            }
        };
        std::thread::scope(|scope| {
            let makers = [scope.spawn(make), scope.spawn(make)];
            while makers.iter().any(|maker| !maker.is_finished()) {
                Temporary::tidy(directory.path());
            }
        });
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_left_behind_goes_with_what_lies_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("backup");
        // Killed before it had the lock, and after.
        let left = Temporary::create(&to).unwrap();
        fs::write(directory.path().join(format!("{PREFIX}{}{SUFFIX}", Uuid::now_v7().simple())), "").unwrap();
        fs::write(format!("{}-journal", left.path.display()), "").unwrap();
        fs::write(directory.path().join(".backup-mine.tmp"), "").unwrap();
        Temporary::tidy(directory.path());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "one is locked");
        left.file.unlock().unwrap();
        Temporary::tidy(directory.path());
        let stays: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(stays, [".backup-mine.tmp"], "what only looks like one of ours stays");
    }
}
