//! The permissions of the files of a server, checked when it starts. Files that others can change are refused. Files that
//! others can only read cause a warning, because sealed values stay sealed, and because orchestrators mount private keys
//! readable for all in a container that has one user.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jackfield_service::Database;

use crate::config::{Config, DatabaseUrlError, VaultProvider};

/// The reason why the files of a server are refused.
#[derive(Debug, thiserror::Error)]
pub enum PermissionError {
    #[error(transparent)]
    DatabaseUrl(#[from] DatabaseUrlError),
    #[error("{kind} {} has mode {mode:04o}, so that others can change it; set it to 0600", path.display())]
    Mode { kind: FileKind, path: PathBuf, mode: u32 },
    #[error("the directory {} has mode {mode:04o}, so that others can replace {kind} in it; set it to 0700", path.display())]
    Directory { kind: FileKind, path: PathBuf, mode: u32 },
    #[error(
        "the directory {} belongs to another user (uid {owner}), who can replace {kind} in it; give it to the user of the server",
        path.display()
    )]
    DirectoryOwner { kind: FileKind, path: PathBuf, owner: u32 },
    #[error("{kind} {} belongs to another user (uid {owner}), who can change it; give it to the user of the server", path.display())]
    Owner { kind: FileKind, path: PathBuf, owner: u32 },
}

/// A file that others can read, or that has another fault which does no harm by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    kind: FileKind,
    path: PathBuf,
    mode: u32,
    what: &'static str,
}

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Database,
    Keyring,
    PrivateKey,
}

/// Looks at the files that a configuration names, those that are there.
///
/// # Errors
/// The first one that others can change. A file that cannot be examined is left to the code that opens it.
pub fn check(config: &Config) -> Result<Vec<Warning>, PermissionError> {
    let mut warnings = Vec::new();
    if config.vault.provider == VaultProvider::File {
        // The permissions of the file itself are checked when it is read.
        check_directory(FileKind::Keyring, &config.keyring_file())?;
    }
    let of_grpc = config.tls_files();
    let of_http = config.http_sections().into_iter().filter_map(|http| http.certificate_files(&of_grpc));
    let keys: BTreeSet<_> = of_http.map(|files| files.private_key).collect();
    let of_grpc = config.serves_tls().then_some(of_grpc.private_key);
    // Each is examined once.
    let others = keys.into_iter().filter(|key| Some(key) != of_grpc.as_ref()).collect::<Vec<_>>();
    for key in of_grpc.into_iter().chain(others) {
        let directory = check_directory(FileKind::PrivateKey, &key)?;
        warnings.extend(check_file(FileKind::PrivateKey, &key, directory.as_ref())?);
    }
    if let Database::Sqlite(database) = config.database()? {
        let directory = check_directory(FileKind::Database, &database)?;
        for suffix in ["", "-wal", "-shm"] {
            let mut path = database.clone().into_os_string();
            path.push(suffix);
            warnings.extend(check_file(FileKind::Database, Path::new(&path), directory.as_ref())?);
        }
    }
    Ok(warnings)
}

fn check_file(kind: FileKind, path: &Path, directory: Option<&Metadata>) -> Result<Option<Warning>, PermissionError> {
    let Ok(file) = std::fs::metadata(path) else { return Ok(None) };
    let path = path.to_owned();
    let user = rustix::process::geteuid().as_raw();
    let is_trusted = is_trusted(file.uid(), user, directory.map(Metadata::uid));
    let mode = file.mode() & 0o7777;
    if mode & 0o002 != 0 || (mode & 0o020 != 0 && kind != FileKind::Database) {
        return Err(PermissionError::Mode { kind, path, mode });
    }
    // A database goes from user to user with its volume; the group of the volume may then write to it.
    if !is_trusted && kind != FileKind::Database {
        return Err(PermissionError::Owner { kind, path, owner: file.uid() });
    }
    Ok(fault(mode, file.gid(), is_trusted).map(|what| Warning { kind, path, mode, what }))
}

/// The fault of a file that is not refused.
fn fault(mode: u32, group: u32, is_trusted: bool) -> Option<&'static str> {
    match mode {
        _ if !is_trusted => Some("it belongs to another user"),
        mode if mode & 0o004 != 0 => Some("every account can read it"),
        mode if mode & 0o020 != 0 && group != 0 => Some("its group can change it"),
        _ => None,
    }
}

/// Looks at the directory that a file is in, or will be; that of the file to which a link leads.
fn check_directory(kind: FileKind, path: &Path) -> Result<Option<Metadata>, PermissionError> {
    let resolved = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = resolved.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(metadata) = std::fs::metadata(directory) else { return Ok(None) };
    if let Some(mode) = open_directory(&metadata) {
        return Err(PermissionError::Directory { kind, path: directory.to_owned(), mode });
    }
    // Its owner can write to it, or give itself the right to.
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    let of_file = std::fs::metadata(&resolved).ok().map(|file| file.uid());
    match is_trusted(owner, user, of_file) {
        true => Ok(Some(metadata)),
        false => Err(PermissionError::DirectoryOwner { kind, path: directory.to_owned(), owner }),
    }
}

/// The mode of a directory that every account can put files into, in place of those that are there.
fn open_directory(directory: &Metadata) -> Option<u32> {
    let mode = directory.mode() & 0o7777;
    let is_sticky = mode & 0o1000 != 0;
    (mode & 0o002 != 0 && !is_sticky).then_some(mode)
}

/// Returns whether a user relies on the owner of a file, or of its directory, anyway: on itself and on root. Root acts
/// for another user where both are that user's: `beside` is whose the directory is, or the file.
fn is_trusted(owner: u32, user: u32, beside: Option<u32>) -> bool {
    owner == user || owner == 0 || (user == 0 && beside == Some(owner))
}

// === impl FileKind ===

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Database => "the database",
            FileKind::Keyring => "the keyring",
            FileKind::PrivateKey => "the private key",
        })
    }
}

// === impl Warning ===

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Warning { kind, path, mode, what } = self;
        write!(f, "{kind} {} has mode {mode:04o}: {what}", path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_other_than_that_of_root_is_warned_about() {
        for (mode, group, is_trusted, expected) in [
            (0o660, 50, true, Some("its group can change it")),
            (0o660, 0, true, None),
            (0o640, 50, true, None),
            (0o664, 0, true, Some("every account can read it")),
            (0o600, 0, false, Some("it belongs to another user")),
        ] {
            assert_eq!(fault(mode, group, is_trusted), expected, "{mode:o} of group {group}");
        }
    }

    #[test]
    fn root_acts_for_the_user_whose_directory_it_is() {
        for (owner, user, beside, trusted) in [
            (1000, 1000, Some(0), true),
            (0, 1000, Some(0), true),
            (2000, 1000, Some(2000), false),
            (2000, 1000, Some(1000), false),
            (2000, 0, Some(2000), true),
            (2000, 0, Some(0), false),
            (2000, 0, None, false),
            (0, 0, None, true),
        ] {
            assert_eq!(is_trusted(owner, user, beside), trusted, "{owner} for {user} beside {beside:?}");
        }
    }
}
