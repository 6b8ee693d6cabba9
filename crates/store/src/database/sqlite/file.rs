//! The file that an SQLite database was opened in. SQLite continues to write to a file that was replaced or removed, and
//! what it writes there is gone after a restart.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The file of a database, by device and inode.
#[derive(Debug)]
pub(crate) struct OpenedFile {
    path: PathBuf,
    id: (u64, u64),
    /// The path led to another file, or to none. It stays set when the file comes back, because another process may have
    /// used the log of this database in between.
    is_lost: AtomicBool,
}

/// The reason why nothing may be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("the database file was replaced or removed while it was in use")]
    Lost,
    #[error("the database file cannot be examined: {0}")]
    Unknown(#[from] io::Error),
}

// === impl OpenedFile ===

impl OpenedFile {
    /// The file that is at a path now.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(OpenedFile { path: path.to_owned(), id: id(path)?, is_lost: AtomicBool::new(false) })
    }

    /// Checks that the path leads to the file.
    pub(crate) fn check(&self) -> Result<(), FileError> {
        if self.is_lost.load(Ordering::Relaxed) {
            return Err(FileError::Lost);
        }
        match id(&self.path) {
            Ok(id) if id == self.id => return Ok(()),
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(error.into());
            }
            Ok(_) | Err(_) => {}
        }
        if !self.is_lost.swap(true, Ordering::Relaxed) {
            tracing::error!(
                database.path = %self.path.display(),
                "the database file was replaced or removed while it was in use, so nothing is written any more: stop the server \
                 and put the file back"
            );
        }
        Err(FileError::Lost)
    }
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_or_removed_stays_lost() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join("a"), directory.path().join("b"));
        for replacement in [None, Some("other")] {
            std::fs::write(&path, "one").unwrap();
            let file = OpenedFile::at(&path).unwrap();
            file.check().unwrap();
            std::fs::rename(&path, &aside).unwrap();
            if let Some(text) = replacement {
                std::fs::write(&path, text).unwrap();
            }
            assert!(matches!(file.check(), Err(FileError::Lost)));
            std::fs::rename(&aside, &path).unwrap();
            assert!(matches!(file.check(), Err(FileError::Lost)));
        }
    }
}
