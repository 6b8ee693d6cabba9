//! Journals: tokens that were received and are not committed yet, as sealed files on the local disk.
//!
//! A provider that rotates refresh tokens has spent the old one when it answers, and a code is good for one answer. If the process ends before
//! the tokens are in the database, or the database is away, the journal has them. Its files are few and short-lived: each is removed as soon as
//! its tokens are committed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jackfield_domain::{Error, Result};
use jackfield_vault::DataKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use zeroize::Zeroizing;

/// The directory of a journal, whose entries are of one type.
pub(crate) struct Journal {
    directory: PathBuf,
    /// The purpose for which entries are sealed.
    purpose: &'static str,
    /// The ids of entries that a task of this process is working on.
    held: Mutex<HashSet<Uuid>>,
    /// True from a write that failed until one that succeeds.
    is_unwritable: AtomicBool,
    /// The number of journals that cannot be written.
    unwritable: Arc<AtomicU64>,
}

/// A claim to an entry: until it is dropped, the entry is not among those that are listed.
pub(crate) struct Held<'a> {
    journal: &'a Journal,
    id: Uuid,
}

/// The bytes that an attempt to write has: those of a large entry.
const ROOM: usize = 16 * 1024;
/// The wait before a journal is tried again that cannot be written.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The ending of the names of whole files.
const WHOLE: &str = "sealed";
/// The ending while a file is being written.
const UNFINISHED: &str = "unfinished";
/// The ending of a file that shows that an entry can be written.
const PROBE: &str = "probe";
/// The ending of files that a process has left unfinished. They may be whole.
const LEFT: &str = "left";

// === impl Journal ===

impl Journal {
    /// Opens the journal, and makes its directory if there is none.
    pub(crate) fn open(directory: &Path, purpose: &'static str, unwritable: Arc<AtomicU64>) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // It must be possible to write to it, and better to know now.
        try_to_write(directory)?;
        for id in list(directory, &[PROBE])? {
            removed(fs::remove_file(path(directory, id, PROBE)))?;
        }
        for id in list(directory, &[UNFINISHED])? {
            match fs::rename(path(directory, id, UNFINISHED), path(directory, id, LEFT)) {
                // A process that ends has finished it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
        }
        let (held, is_unwritable) = Default::default();
        Ok(Journal { directory: directory.to_owned(), purpose, held, is_unwritable, unwritable })
    }

    /// Makes sure that an entry can be written. Without it, no token is asked for that can be had once.
    ///
    /// # Errors
    /// None can be. The log has the reason.
    pub(crate) async fn writable(&self) -> Result<()> {
        let directory = self.directory.clone();
        let tried = tokio::task::spawn_blocking(move || try_to_write(&directory)).await.map_err(Error::internal)?;
        self.note(tried.as_ref().map(|_| ()));
        tried.map_err(|_| Error::JournalUnwritable { retry_after: RETRY_AFTER })
    }

    /// Returns whether an entry could be written the last time.
    pub(crate) fn is_writable(&self) -> bool {
        !self.is_unwritable.load(Ordering::Relaxed)
    }

    /// Notes whether it can be written, and logs it if that changes.
    fn note(&self, written: Result<(), &io::Error>) {
        let (directory, journal) = (self.directory.display(), self.purpose);
        match (self.is_unwritable.swap(written.is_err(), Ordering::Relaxed), written) {
            (false, Err(error)) => {
                self.unwritable.fetch_add(1, Ordering::Relaxed);
                let error = error as &dyn std::error::Error;
                tracing::error!(error, %directory, journal, "a journal (refresh.journal) cannot be written, and no tokens are asked for until it can");
            }
            (true, Ok(())) => {
                self.unwritable.fetch_sub(1, Ordering::Relaxed);
                tracing::info!(%directory, journal, "a journal (refresh.journal) can be written again");
            }
            (false, Ok(())) | (true, Err(_)) => {}
        }
    }

    /// Writes an entry, and returns when it is on the disk.
    pub(crate) async fn append(&self, key: &DataKey, id: Uuid, entry: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(entry).map(Zeroizing::new).map_err(Error::internal)?;
        let sealed = key.seal_token(&[self.purpose.as_bytes(), id.as_bytes()], &bytes)?;
        let directory = self.directory.clone();
        let written = tokio::task::spawn_blocking(move || write(&directory, id, sealed.as_bytes())).await;
        let written = written.map_err(Error::internal)?;
        self.note(written.as_ref().map(|_| ()));
        written.map_err(Error::internal)
    }

    /// Claims an entry, which may not be there yet.
    pub(crate) fn hold(&self, id: Uuid) -> Held<'_> {
        self.held().insert(id);
        Held { journal: self, id }
    }

    fn held(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ids of the entries on which no task of this process works, in the order in which they were made (UUIDv7).
    pub(crate) async fn ids(&self) -> Result<Vec<Uuid>> {
        let directory = self.directory.clone();
        let listed = tokio::task::spawn_blocking(move || list(&directory, &[WHOLE, LEFT])).await;
        let mut ids = listed.map_err(Error::internal)?.map_err(Error::internal)?;
        let held = self.held();
        ids.retain(|id| !held.contains(id));
        Ok(ids)
    }

    /// Returns true if there may be an entry with an id.
    pub(crate) async fn has(&self, id: Uuid) -> bool {
        tokio::fs::try_exists(path(&self.directory, id, WHOLE)).await.unwrap_or(true)
    }

    /// The entry with an id; `None` if there is none any more, or only the beginning of one.
    ///
    /// # Errors
    /// The file was altered, or belongs to another deployment.
    pub(crate) async fn read<E: DeserializeOwned>(&self, key: &DataKey, id: Uuid) -> Result<Option<E>> {
        if let Some(sealed) = self.text(id, WHOLE).await? {
            return self.opened(key, id, &sealed).map(Some).map_err(|cause| self.unreadable(id, WHOLE, &cause));
        }
        let Some(sealed) = self.text(id, LEFT).await? else { return Ok(None) };
        let opened = self.opened(key, id, &sealed).ok();
        if opened.is_none() {
            tracing::warn!(entry.id = %id, "an entry of a journal was not finished, and is removed");
            self.remove(id).await;
        }
        Ok(opened)
    }

    /// The entry of a sealed text, or why it cannot be read. The error of what is in it would show parts of it.
    fn opened<E: DeserializeOwned>(&self, key: &DataKey, id: Uuid, sealed: &str) -> Result<E, &'static str> {
        let bytes = key.open_token(&[self.purpose.as_bytes(), id.as_bytes()], sealed);
        let bytes =
            bytes.ok_or("it does not open: it was altered, cut or renamed, or another deployment has sealed it")?;
        serde_json::from_slice(&bytes).map_err(|_| "it opens, and has no entry that this release can read")
    }

    /// Names a file that cannot be read in the log, and makes the error for it.
    fn unreadable(&self, id: Uuid, ending: &str, cause: &dyn std::fmt::Display) -> Error {
        let (path, journal) = (path(&self.directory, id, ending), self.purpose);
        let file = path.display();
        tracing::error!(%file, journal, %cause, "a file of a journal (refresh.journal) cannot be read, and stays: its tokens are not stored");
        Error::internal(format!("{file}: {cause}"))
    }

    /// Removes an entry. One that cannot be removed is found to be committed later.
    pub(crate) async fn remove(&self, id: Uuid) {
        for ending in [WHOLE, LEFT] {
            if let Err(error) = tokio::fs::remove_file(path(&self.directory, id, ending)).await
                && error.kind() != io::ErrorKind::NotFound
            {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, entry.id = %id, "an entry of a journal cannot be removed");
            }
        }
    }

    /// The text of a file; `None` if there is no such file.
    async fn text(&self, id: Uuid, ending: &str) -> Result<Option<String>> {
        match tokio::fs::read(path(&self.directory, id, ending)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // A text that was cut or altered does not open.
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) => Err(self.unreadable(id, ending, &error)),
        }
    }
}

// === impl Held ===

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.journal.held().remove(&self.id);
    }
}

fn path(directory: &Path, id: Uuid, ending: &str) -> PathBuf {
    directory.join(format!("{id}.{ending}"))
}

/// Writes a file of the size of an entry, and removes it.
fn try_to_write(directory: &Path) -> io::Result<()> {
    let path = path(directory, Uuid::now_v7(), PROBE);
    let written = File::options().write(true).create_new(true).mode(0o600).open(&path)?.write_all(&[0; ROOM]);
    let removed = removed(fs::remove_file(&path));
    written.and(removed)
}

/// The outcome of a removal, which another process may have made.
fn removed(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Writes a file as a whole or not at all.
fn write(directory: &Path, id: Uuid, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path(directory, id, UNFINISHED);
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path(directory, id, WHOLE))?;
    File::open(directory)?.sync_all()
}

/// The ids that have a file with one of some endings.
fn list(directory: &Path, endings: &[&str]) -> io::Result<Vec<Uuid>> {
    let mut ids = Vec::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .filter(|_| path.extension().is_some_and(|end| endings.iter().any(|ending| end == *ending)));
        ids.extend(name.and_then(|name| Uuid::parse_str(name).ok()));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path at which there is a file in place of a directory: no process can write below it, whatever its rights.
    #[tokio::test]
    async fn a_journal_that_cannot_be_written_is_noted_until_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join("journal"), directory.path().join("aside"));
        let unwritable = Arc::<AtomicU64>::default();
        let journal = Journal::open(&path, "refreshes", Arc::clone(&unwritable)).unwrap();
        let count = || unwritable.load(Ordering::Relaxed);
        journal.writable().await.unwrap();
        assert!(journal.is_writable() && count() == 0);
        fs::rename(&path, &aside).unwrap();
        fs::write(&path, "").unwrap();
        for _ in 0..2 {
            let refused = journal.writable().await.unwrap_err();
            assert!(matches!(refused, Error::JournalUnwritable { .. }), "{refused:?}");
            assert!(!journal.is_writable() && count() == 1);
        }
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        journal.writable().await.unwrap();
        assert!(journal.is_writable() && count() == 0);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "nothing is left of the attempts");
        fs::write(directory.path().join("file"), "").unwrap();
        assert!(Journal::open(&directory.path().join("file/journal"), "refreshes", unwritable).is_err());
    }
}
