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

use super::commit::Received;
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

/// The ending of the names of whole files. A file that is being written has another one.
const WHOLE: &str = "sealed";

// === impl Journal ===

impl Journal {
    /// Opens the journal, and makes its directory if there is none.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // It must be possible to write to it, and better to know now.
        let probe = directory.join(format!("{}.probe", Uuid::now_v7()));
        File::create(&probe)?;
        fs::remove_file(&probe)?;
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
        let listed = tokio::task::spawn_blocking(move || list(&directory)).await;
        listed.map_err(Error::internal)?.map_err(Error::internal)
    }

    /// The entry of an attempt; `None` if there is none any more.
    ///
    /// # Errors
    /// The file was altered, or belongs to another deployment.
    pub(super) async fn read(&self, key: &DataKey, attempt: Uuid) -> Result<Option<Received>> {
        let sealed = match tokio::fs::read_to_string(self.path(attempt)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            sealed => sealed.map_err(Error::internal)?,
        };
        let broken = || Error::internal(format!("the entry {attempt} of the journal of refreshes does not open"));
        let bytes = key.open_token(&[CONTEXT, attempt.as_bytes()], &sealed).ok_or_else(broken)?;
        let entry: Entry = serde_json::from_slice(&bytes).map_err(|_| broken())?;
        entry.received().map(Some).ok_or_else(broken)
    }

    /// Removes the entry of an attempt. One that cannot be removed is found to be committed later.
    pub(super) async fn remove(&self, attempt: Uuid) {
        if let Err(error) = tokio::fs::remove_file(self.path(attempt)).await
            && error.kind() != io::ErrorKind::NotFound
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, attempt.id = %attempt, "an entry of the journal of refreshes cannot be removed");
        }
    }

    fn path(&self, attempt: Uuid) -> PathBuf {
        path(&self.directory, attempt)
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

fn path(directory: &Path, attempt: Uuid) -> PathBuf {
    directory.join(format!("{attempt}.{WHOLE}"))
}

/// Writes a file as a whole or not at all.
fn write(directory: &Path, attempt: Uuid, bytes: &[u8]) -> io::Result<()> {
    let unfinished = directory.join(format!("{attempt}.unfinished"));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path(directory, attempt))?;
    File::open(directory)?.sync_all()
}

fn list(directory: &Path) -> io::Result<Vec<Uuid>> {
    let mut attempts = Vec::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .filter(|_| path.extension().is_some_and(|end| end == WHOLE));
        attempts.extend(name.and_then(|name| Uuid::parse_str(name).ok()));
    }
    attempts.sort_unstable();
    Ok(attempts)
}
