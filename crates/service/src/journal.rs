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
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// The ids of entries that a task of this process has in hand.
    held: Mutex<HashSet<Uuid>>,
}

/// An entry in hand: until it is dropped, the entry is not among those that are listed.
pub(crate) struct Held<'a> {
    journal: &'a Journal,
    id: Uuid,
}

/// The ending of the names of whole files.
const WHOLE: &str = "sealed";
/// The ending while a file is being written.
const UNFINISHED: &str = "unfinished";
/// The ending of files that a process has left unfinished. They may be whole.
const LEFT: &str = "left";

// === impl Journal ===

impl Journal {
    /// Opens the journal, and makes its directory if there is none.
    pub(crate) fn open(directory: &Path, purpose: &'static str) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // It must be possible to write to it, and better to know now.
        let probe = directory.join(format!("{}.probe", Uuid::now_v7()));
        File::create(&probe)?;
        fs::remove_file(&probe)?;
        for id in list(directory, &[UNFINISHED])? {
            match fs::rename(path(directory, id, UNFINISHED), path(directory, id, LEFT)) {
                // A process that ends has finished it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
        }
        Ok(Journal { directory: directory.to_owned(), purpose, held: Mutex::default() })
    }

    /// Writes an entry, and returns when it is on the disk.
    pub(crate) async fn append(&self, key: &DataKey, id: Uuid, entry: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(entry).map(Zeroizing::new).map_err(Error::internal)?;
        let sealed = key.seal_token(&[self.purpose.as_bytes(), id.as_bytes()], &bytes)?;
        let directory = self.directory.clone();
        let written = tokio::task::spawn_blocking(move || write(&directory, id, sealed.as_bytes())).await;
        written.map_err(Error::internal)?.map_err(Error::internal)
    }

    /// Takes an entry in hand, which may not be there yet.
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
            let broken = || Error::internal(format!("the entry {id} of the journal of {} does not open", self.purpose));
            return self.opened(key, id, &sealed).ok_or_else(broken).map(Some);
        }
        let Some(sealed) = self.text(id, LEFT).await? else { return Ok(None) };
        let opened = self.opened(key, id, &sealed);
        if opened.is_none() {
            tracing::warn!(entry.id = %id, "an entry of a journal was not finished, and is removed");
            self.remove(id).await;
        }
        Ok(opened)
    }

    fn opened<E: DeserializeOwned>(&self, key: &DataKey, id: Uuid, sealed: &str) -> Option<E> {
        let bytes = key.open_token(&[self.purpose.as_bytes(), id.as_bytes()], sealed)?;
        serde_json::from_slice(&bytes).ok()
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
            read => read.map(|bytes| Some(String::from_utf8_lossy(&bytes).into_owned())).map_err(Error::internal),
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
