//! The journal: tokens that were received and are not committed yet, as sealed files on the local disk.
//!
//! A provider that rotates refresh tokens has spent the old one when it answers. If the process ends before the new one is in the database,
//! or the database is away, the journal has it. Its files are few and short-lived: each is removed as soon as its tokens are committed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jackfield_domain::credential::Material;
use jackfield_domain::{CredentialId, Error, Result, TenantId, Timestamp};
use jackfield_vault::DataKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::received::Received;
use crate::sealing::material::{self, SealedForm};

/// The directory of the journal.
pub(crate) struct Journal {
    directory: PathBuf,
}

/// Received tokens in the form in which they are sealed.
#[derive(Serialize, Deserialize)]
struct Entry {
    tenant: TenantId,
    credential: CredentialId,
    attempt: Uuid,
    version: i64,
    sent_time: Timestamp,
    got_time: Timestamp,
    create_time: Timestamp,
    rotated: bool,
    material: SealedForm,
    flaw: Option<String>,
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
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // It must be possible to write to it, and better to know now.
        let probe = directory.join(format!("{}.probe", Uuid::now_v7()));
        File::create(&probe)?;
        fs::remove_file(&probe)?;
        for attempt in list(directory, &[UNFINISHED])? {
            fs::rename(path(directory, attempt, UNFINISHED), path(directory, attempt, LEFT))?;
        }
        Ok(Journal { directory: directory.to_owned() })
    }

    /// Writes an entry, and returns when it is on the disk.
    pub(super) async fn append(&self, key: &DataKey, received: &Received) -> Result<()> {
        let bytes = serde_json::to_vec(&Entry::of(received)?).map(Zeroizing::new).map_err(Error::internal)?;
        let sealed = key.seal_token(&[CONTEXT, received.attempt.as_bytes()], &bytes)?;
        let (directory, attempt) = (self.directory.clone(), received.attempt);
        let written = tokio::task::spawn_blocking(move || write(&directory, attempt, sealed.as_bytes())).await;
        written.map_err(Error::internal)?.map_err(Error::internal)
    }

    /// The attempts that have an entry, in the order in which they were made.
    pub(super) async fn attempts(&self) -> Result<Vec<Uuid>> {
        let directory = self.directory.clone();
        let listed = tokio::task::spawn_blocking(move || list(&directory, &[WHOLE, LEFT])).await;
        listed.map_err(Error::internal)?.map_err(Error::internal)
    }

    /// The entry of an attempt; `None` if there is none any more, or only the beginning of one.
    ///
    /// # Errors
    /// The file was altered, or belongs to another deployment.
    pub(super) async fn read(&self, key: &DataKey, attempt: Uuid) -> Result<Option<Received>> {
        if let Some(sealed) = self.text(attempt, WHOLE).await? {
            let broken = || Error::internal(format!("the entry {attempt} of the journal of refreshes does not open"));
            return Entry::open(key, attempt, &sealed).ok_or_else(broken).map(Some);
        }
        let Some(sealed) = self.text(attempt, LEFT).await? else { return Ok(None) };
        let opened = Entry::open(key, attempt, &sealed);
        if opened.is_none() {
            tracing::warn!(attempt.id = %attempt, "an entry of the journal of refreshes was not finished, and is removed");
            self.remove(attempt).await;
        }
        Ok(opened)
    }

    /// Removes the entry of an attempt. One that cannot be removed is found to be committed later.
    pub(super) async fn remove(&self, attempt: Uuid) {
        for ending in [WHOLE, LEFT] {
            if let Err(error) = tokio::fs::remove_file(path(&self.directory, attempt, ending)).await
                && error.kind() != io::ErrorKind::NotFound
            {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, attempt.id = %attempt, "an entry of the journal of refreshes cannot be removed");
            }
        }
    }

    /// The text of a file; `None` if there is no such file.
    async fn text(&self, attempt: Uuid, ending: &str) -> Result<Option<String>> {
        match tokio::fs::read(path(&self.directory, attempt, ending)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // A text that was cut or altered does not open.
            read => read.map(|bytes| Some(String::from_utf8_lossy(&bytes).into_owned())).map_err(Error::internal),
        }
    }
}

// === impl Entry ===

impl Entry {
    fn of(received: &Received) -> Result<Self> {
        let Received { tenant, credential, attempt, version, sent_time, got_time, create_time, rotated, tokens, flaw } =
            received;
        Ok(Entry {
            tenant: *tenant,
            credential: *credential,
            attempt: *attempt,
            version: *version,
            sent_time: *sent_time,
            got_time: *got_time,
            create_time: *create_time,
            rotated: *rotated,
            material: material::to_form(&Material::OAuth2(tokens.duplicate()), None)?,
            flaw: flaw.clone(),
        })
    }

    /// The tokens of a sealed entry; `None` if it does not open.
    fn open(key: &DataKey, attempt: Uuid, sealed: &str) -> Option<Received> {
        let bytes = key.open_token(&[CONTEXT, attempt.as_bytes()], sealed)?;
        serde_json::from_slice::<Entry>(&bytes).ok()?.received()
    }

    /// The tokens, if it has tokens.
    fn received(self) -> Option<Received> {
        let Entry { tenant, credential, attempt, version, sent_time, got_time, create_time, rotated, material, flaw } =
            self;
        let Material::OAuth2(tokens) = material::from_form(material) else { return None };
        Some(Received { tenant, credential, attempt, version, sent_time, got_time, create_time, rotated, tokens, flaw })
    }
}

/// The purpose of entries, which are sealed for it and for their attempt.
const CONTEXT: &[u8] = b"refresh journal";

fn path(directory: &Path, attempt: Uuid, ending: &str) -> PathBuf {
    directory.join(format!("{attempt}.{ending}"))
}

/// Writes a file as a whole or not at all.
fn write(directory: &Path, attempt: Uuid, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path(directory, attempt, UNFINISHED);
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path(directory, attempt, WHOLE))?;
    File::open(directory)?.sync_all()
}

/// The attempts that have a file with one of some endings.
fn list(directory: &Path, endings: &[&str]) -> io::Result<Vec<Uuid>> {
    let mut attempts = Vec::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .filter(|_| path.extension().is_some_and(|end| endings.iter().any(|ending| end == *ending)));
        attempts.extend(name.and_then(|name| Uuid::parse_str(name).ok()));
    }
    attempts.sort_unstable();
    attempts.dedup();
    Ok(attempts)
}
