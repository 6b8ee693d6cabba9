//! The digest of a backup in a file beside it, in the form of `sha256sum`, which checks it as well.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jackfield_service::sha256_of;

/// The longest file of a digest, in bytes: digits, two blanks, a name, a line break.
const MAX_LEN: u64 = 8 * 1024;

/// The reason why a file does not match its digest.
#[derive(Debug, thiserror::Error)]
pub(super) enum DigestError {
    #[error("{} holds no digest: 64 hexadecimal digits, two blanks and a name", .0.display())]
    Form(PathBuf),
    #[error("it has changed since it was made: its digest is not that of {}", .0.display())]
    Differs(PathBuf),
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// SHA-256 of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

// === impl Digest ===

impl Digest {
    pub(super) fn of(file: &Path) -> io::Result<Self> {
        File::open(file).and_then(sha256_of).map(Digest)
    }

    /// The line of a file.
    pub(super) fn line(self, file: &Path) -> String {
        let mut line = String::new();
        for byte in self.0 {
            // Writing to a String does not fail.
            let _ = write!(line, "{byte:02x}");
        }
        let name = file.file_name().unwrap_or_default();
        format!("{line}  {}\n", name.display())
    }

    /// Reads a line. The file may have another name by now.
    fn parse(line: &str) -> Option<Self> {
        let (digits, name) = line.strip_suffix('\n').unwrap_or(line).split_once(' ')?;
        // A blank precedes the name, or a star: `sha256sum --binary`.
        let name = name.strip_prefix([' ', '*'])?;
        let is_digest = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_digest || name.is_empty() || name.contains('\n') {
            return None;
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Digest(bytes))
    }
}

/// The file of a digest.
pub(super) fn beside(file: &Path) -> PathBuf {
    let mut path = file.to_owned().into_os_string();
    path.push(".sha256");
    path.into()
}

/// Refuses a file that does not match its digest. Returns whether there is a digest.
pub(super) fn check(file: &Path) -> Result<bool, DigestError> {
    let path = beside(file);
    let digest = match File::open(&path) {
        Ok(digest) => digest,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut line = Vec::new();
    digest.take(MAX_LEN).read_to_end(&mut line)?;
    let expected =
        std::str::from_utf8(&line).ok().and_then(Digest::parse).ok_or_else(|| DigestError::Form(path.clone()))?;
    if Digest::of(file)? == expected { Ok(true) } else { Err(DigestError::Differs(path)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_is_written() {
        let digest = Digest(std::array::from_fn(|index| index as u8 * 7));
        let line = digest.line(Path::new("/backups/2026-11-22.sqlite3"));
        assert!(line.ends_with("  2026-11-22.sqlite3\n") && line.len() == 64 + 2 + 18 + 1, "{line}");
        assert_eq!(Digest::parse(&line), Some(digest));
        assert_eq!(Digest::parse(line.trim_end()), Some(digest));
        for wrong in
            ["", "abc  name\n", &line[1..], &line.replacen("  ", " ", 1), &format!("{line}{line}"), &line[..66]]
        {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Digest::parse(&line.replacen('0', "g", 1)), None);
    }
}
