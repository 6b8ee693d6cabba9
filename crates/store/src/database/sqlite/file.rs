//! The files that an SQLite database was opened in: the database file and its write-ahead log. SQLite continues to write to
//! a file that was replaced or removed, and what it writes there is gone after a restart.
//!
//! The check comes before SQLite opens anything. If SQLite opened another file at the path, even for a moment, it would copy
//! the log of this database into that file and remove the log.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The file of a database and its log.
#[derive(Debug)]
pub(crate) struct OpenedFile {
    path: PathBuf,
    /// The paths of both, and the files that they led to.
    opened: [(PathBuf, FileId); 2],
    /// A path led to another file, or to none. It stays set when the file comes back, because another process may have
    /// used the log of this database in between.
    is_lost: AtomicBool,
}

/// The device and the inode of a file.
type FileId = (u64, u64);

/// The reason why nothing may be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("the database file or its log was replaced or removed while it was in use")]
    Lost,
    #[error("the database file or its log cannot be examined: {0}")]
    Unknown(#[from] io::Error),
}

// === impl OpenedFile ===

impl OpenedFile {
    /// The file that is at a path now, and its log. A connection must have read the database and still be open, because
    /// SQLite makes the log then, and keeps it for as long as there is a connection.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        // SQLite keeps the log beside the file itself, and not beside a symbolic link to it.
        let mut log = path.canonicalize()?.into_os_string();
        log.push("-wal");
        let (file, log) = (path.to_owned(), PathBuf::from(log));
        let opened = [(id(&file)?, file), (id(&log)?, log)].map(|(id, path)| (path, id));
        Ok(OpenedFile { path: path.to_owned(), opened, is_lost: AtomicBool::new(false) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the paths lead to the files.
    pub(crate) fn check(&self) -> Result<(), FileError> {
        if self.is_lost.load(Ordering::Relaxed) {
            return Err(FileError::Lost);
        }
        self.opened.iter().try_for_each(|(path, opened)| match id(path) {
            Ok(id) if id == *opened => Ok(()),
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(error.into())
            }
            Ok(_) | Err(_) => Err(self.lost(path)),
        })
    }

    fn lost(&self, path: &Path) -> FileError {
        if !self.is_lost.swap(true, Ordering::Relaxed) {
            tracing::error!(
                database.path = %path.display(),
                "the database file or its log was replaced or removed while it was in use, so nothing is written any more: \
                 stop the server and put the file back"
            );
        }
        FileError::Lost
    }
}

fn id(path: &Path) -> io::Result<FileId> {
    std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_or_removed_stays_lost() {
        let directory = tempfile::tempdir().unwrap();
        let (path, log) = (directory.path().join("a"), directory.path().join("a-wal"));
        let aside = directory.path().join("b");
        for (file, replacement) in [(&path, None), (&path, Some("other")), (&log, None), (&log, Some("other"))] {
            std::fs::write(&path, "one").unwrap();
            std::fs::write(&log, "log").unwrap();
            let opened = OpenedFile::at(&path).unwrap();
            opened.check().unwrap();
            std::fs::rename(file, &aside).unwrap();
            if let Some(text) = replacement {
                std::fs::write(file, text).unwrap();
            }
            assert!(matches!(opened.check(), Err(FileError::Lost)));
            std::fs::rename(&aside, file).unwrap();
            assert!(matches!(opened.check(), Err(FileError::Lost)));
        }
    }
}
