//! Files of certificates, keys and lists: how they are read.

use std::io::{Error, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jackfield_domain::value::pem::{self, Pem};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::error::TlsError;

pub(super) const CERTIFICATE: &str = "certificate";
pub(super) const PRIVATE_KEY: &str = "private key";
pub(super) const CRL: &str = "revocation list";

/// The largest file. Lists of revoked certificates of public authorities have up to 20 MiB.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Reads a regular file. Reading a pipe or a device in its place could block, or never end.
///
/// # Errors
/// It cannot be read, is not a regular file, or is larger than 64 MiB.
pub fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut content = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(Error::new(ErrorKind::FileTooLarge, "it is larger than 64 MiB"));
    }
    Ok(content)
}

pub(super) async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let file = path.to_owned();
    let content = tokio::task::spawn_blocking(move || read_file(&file)).await.map_err(Error::other).flatten();
    content.map_err(|source| TlsError::Read { path: path.display().to_string(), source })
}

/// The text of a file of certificates, all of which have been read, for libraries that take PEM and skip what they do not
/// know.
///
/// # Errors
/// The file holds no certificate, or something that is not one.
pub fn certificates_pem(bytes: &[u8], path: &Path) -> Result<String, TlsError> {
    parse::<CertificateDer<'static>>(bytes, path, CERTIFICATE)?;
    let pem = Pem::new(bytes).map_err(|fault| content_error(path, CERTIFICATE, &fault))?;
    Ok(pem.text().to_owned())
}

/// All sections of a file, which must all be of the kind that is asked for. None at all is a fault, because an empty list
/// of authorities would lock all clients out; so is one that is skipped.
pub(super) fn parse<T: PemObject>(bytes: &[u8], path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let labels = match what {
        CERTIFICATE => pem::CERTIFICATE_LABELS,
        CRL => pem::CRL_LABELS,
        _ => pem::PRIVATE_KEY_LABELS,
    };
    let wrong = |error: &dyn std::fmt::Display| content_error(path, what, error);
    let pem = Pem::new(bytes).map_err(|fault| wrong(&fault))?;
    pem.only(labels).map_err(|fault| wrong(&fault))?;
    // The message of the parser is not shown: it quotes the text, which may be a private key.
    let items: Vec<T> = T::pem_slice_iter(pem.text().as_bytes()).map_while(Result::ok).collect();
    pem.all_read(items.len()).map_err(|fault| wrong(&fault))?;
    if items.is_empty() {
        return Err(wrong(&"there is none"));
    }
    Ok(items)
}

pub(super) fn content_error(path: &Path, what: &'static str, message: &dyn std::fmt::Display) -> TlsError {
    TlsError::Content { path: path.display().to_string(), what, message: message.to_string() }
}
