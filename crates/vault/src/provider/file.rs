//! A keyring in a file that only its owner can use. Replacing it is atomic: a reader sees the old file or the new one,
//! and after a crash one of the two is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::error::KeyringError;
use crate::keyring::Keyring;

/// The longest keyring file in bytes, about 300 keys.
const MAX_LEN: u64 = 64 * 1024;
const MODE: u32 = 0o600;
/// The prefix and the suffix of the names of temporary files, with 16 digits between them.
const PREFIX: &str = ".keyring-";
const SUFFIX: &str = ".tmp";

/// A file with a fresh name next to the keyring, removed when it is dropped.
struct Temporary<'a> {
    keyring: &'a Path,
    path: PathBuf,
}

/// Reads a keyring file. It must be a regular file, not a symbolic link, that only its owner can read or write. A file
/// of root may also be readable by its group, unless this process itself runs as root: that is how a process without
/// privileges receives secrets, through the group of a Kubernetes volume or through the access list of systemd
/// credentials, which shows in the same bits. The owner must be the user of this process or root; root also reads the
/// file of a user in a directory of that user. (A directory on the way may be a link, as in volumes of Kubernetes: name
/// the file as `..data/<name>` there.)
///
/// # Errors
/// `FileMissing`, `FileKind`, `FileMode`, `FileOwner`, `FileTooLong`, `Io`, or as [`Keyring::parse`].
pub fn load(path: &Path) -> Result<Keyring, KeyringError> {
    let mut file = open(path)?;
    let io = |source| KeyringError::Io { path: path.into(), action: "read", source };
    let metadata = file.metadata().map_err(io)?;
    check_kind(path, metadata.file_type())?;
    let mode = metadata.mode() & 0o7777;
    let user = rustix::process::geteuid().as_raw();
    if is_open_to_others(mode, metadata.uid(), user) {
        return Err(KeyringError::FileMode { path: path.into(), mode });
    }
    let directory = fs::metadata(parent(path)).map_err(io)?.uid();
    if !is_trusted(metadata.uid(), user, directory) {
        return Err(KeyringError::FileOwner { path: path.into(), owner: metadata.uid() });
    }
    // One byte larger than the file, because otherwise reading to the end would grow the buffer.
    let capacity = usize::try_from(metadata.len().min(MAX_LEN)).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    Read::by_ref(&mut file).take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(KeyringError::FileTooLong { path: path.into(), limit: MAX_LEN });
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| KeyringError::invalid("keyring", "is not UTF-8"))?;
    Keyring::parse(text)
}

/// Creates a keyring with one fresh key in a new file of mode 0600, which is complete and durable on return.
///
/// # Errors
/// `FileExists`, `Random` or `Io`.
pub fn create_new(path: &Path) -> Result<Keyring, KeyringError> {
    let (keyring, text) = Keyring::generate()?;
    let directory = Directory::open(path)?;
    directory.lock()?;
    let temporary = Temporary::write(path, &text)?;
    // A hard link fails if the file exists, and appears together with its content. No other way of creating a file does
    // both.
    fs::hard_link(&temporary.path, path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyringError::FileExists { path: path.into() },
        _ => KeyringError::Io { path: path.into(), action: "create", source },
    })?;
    drop(temporary);
    directory.sync()?;
    Ok(keyring)
}

/// Writes a keyring, replacing an existing file. If several processes may do so at once, use [`update`].
///
/// # Errors
/// `FileKind` or `Io`.
pub fn save(path: &Path, keyring: &Keyring) -> Result<(), KeyringError> {
    let directory = Directory::open(path)?;
    directory.lock()?;
    replace(path, keyring, &directory)
}

/// Changes a keyring file: reads it, lets `change` work on it, writes it, and returns what `change` returned.
/// Concurrent changes of several processes are made one after the other. If `change` fails, the file stays as it is.
///
/// # Errors
/// As [`load`] and [`save`], or the error of `change`.
pub fn update<T>(
    path: &Path,
    change: impl FnOnce(&mut Keyring) -> Result<T, KeyringError>,
) -> Result<(Keyring, T), KeyringError> {
    let directory = Directory::open(path)?;
    directory.lock()?;
    let mut keyring = load(path)?;
    let result = change(&mut keyring)?;
    replace(path, &keyring, &directory)?;
    Ok((keyring, result))
}

fn replace(path: &Path, keyring: &Keyring, directory: &Directory<'_>) -> Result<(), KeyringError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => check_kind(path, metadata.file_type())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(KeyringError::Io { path: path.into(), action: "replace", source }),
    }
    let temporary = Temporary::write(path, &keyring.to_toml())?;
    fs::rename(&temporary.path, path).map_err(|source| KeyringError::Io {
        path: path.into(),
        action: "replace",
        source,
    })?;
    directory.sync()
}

/// Returns whether another user may use a file of this mode and owner.
const fn is_open_to_others(mode: u32, owner: u32, user: u32) -> bool {
    let given_by_root = owner == 0 && user != 0;
    mode & if given_by_root { 0o037 } else { 0o077 } != 0
}

/// Returns whether a user has to trust the owner of a file anyway. Root acts for the user who owns the directory.
const fn is_trusted(owner: u32, user: u32, directory: u32) -> bool {
    owner == user || owner == 0 || (user == 0 && directory == owner)
}

/// Opens a file without following a link in the last part of the path and without waiting for the writer of a pipe.
fn open(path: &Path) -> Result<File, KeyringError> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path);
    opened.map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            return KeyringError::FileMissing { path: path.into() };
        }
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_symlink()) {
            return KeyringError::FileKind { path: path.into(), found: "a symbolic link" };
        }
        KeyringError::Io { path: path.into(), action: "open", source }
    })
}

fn check_kind(path: &Path, kind: fs::FileType) -> Result<(), KeyringError> {
    let found = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a symbolic link",
        _ => "a device, pipe or socket",
    };
    Err(KeyringError::FileKind { path: path.into(), found })
}

/// The directory of the keyring. It is locked because the file itself is replaced, and synced because it holds the
/// name.
struct Directory<'a> {
    keyring: &'a Path,
    file: File,
}

// === impl Directory ===

impl<'a> Directory<'a> {
    fn open(keyring: &'a Path) -> Result<Self, KeyringError> {
        let file = File::open(parent(keyring)).map_err(|source| KeyringError::Io {
            path: keyring.into(),
            action: "open the directory of",
            source,
        })?;
        Ok(Directory { keyring, file })
    }

    /// Waits until no other process holds the lock; dropping the directory releases it. Removes the leftovers of killed
    /// processes because they hold keys.
    fn lock(&self) -> Result<(), KeyringError> {
        self.file.lock().map_err(|source| self.error("lock the directory of", source))?;
        let failed = |source| self.error("tidy the directory of", source);
        for entry in fs::read_dir(parent(self.keyring)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if is_temporary(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), KeyringError> {
        self.file.sync_all().map_err(|source| self.error("sync the directory of", source))
    }

    fn error(&self, action: &'static str, source: io::Error) -> KeyringError {
        KeyringError::Io { path: self.keyring.into(), action, source }
    }
}

/// Returns whether a name is that of a temporary file.
fn is_temporary(name: &std::ffi::OsStr) -> bool {
    let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
    digits.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

// === impl Temporary ===

impl<'a> Temporary<'a> {
    fn write(keyring: &'a Path, text: &str) -> Result<Self, KeyringError> {
        let mut digits = [0; 8];
        rand::fill(&mut digits).map_err(|_| KeyringError::Random)?;
        let path = parent(keyring).join(format!("{PREFIX}{:016x}{SUFFIX}", u64::from_be_bytes(digits)));
        let io = |source| KeyringError::Io { path: keyring.into(), action: "write", source };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path).map_err(io)?;
        let temporary = Temporary { keyring, path };
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        Ok(temporary)
    }
}

impl Drop for Temporary<'_> {
    /// Removes the file, unless it was renamed.
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(
                keyring.path = %self.keyring.display(),
                temporary.path = %self.path.display(),
                %error,
                "temporary file with keys could not be removed"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_acts_for_the_owner_of_the_directory() {
        for (owner, user, directory, trusted) in [
            (1000, 1000, 0, true),
            (0, 1000, 0, true),
            (2000, 1000, 2000, false),
            (2000, 0, 2000, true),
            (2000, 0, 0, false),
        ] {
            assert_eq!(is_trusted(owner, user, directory), trusted, "{owner} for {user} in {directory}");
        }
    }

    #[test]
    fn the_group_may_read_a_file_of_root() {
        for (mode, owner, user, open) in [
            (0o440, 0, 1000, false),
            (0o640, 0, 1000, false),
            (0o400, 0, 1000, false),
            (0o660, 0, 1000, true),
            (0o450, 0, 1000, true),
            (0o444, 0, 1000, true),
            (0o440, 0, 0, true),
            (0o440, 1000, 1000, true),
            (0o440, 2000, 1000, true),
            (0o400, 2000, 1000, false),
        ] {
            assert_eq!(is_open_to_others(mode, owner, user), open, "{mode:o} of {owner} for {user}");
        }
    }
}
