//! Certificates for development: an authority, a certificate of the server, certificates of clients.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use jackfield_domain::Clock;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::config::OPERATOR_SPIFFE;

const DAY: u64 = 24 * 60 * 60;
/// The time by which certificates are backdated, for clients whose clock is a little behind.
const BACKDATED: u64 = 60 * 60;

/// The reason why certificates cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{} exists, but {} does not: restore it or remove the directory", present.display(), missing.display())]
    Partial { present: PathBuf, missing: PathBuf },
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// A client certificate to be made.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    /// File name without ending; also the common name.
    pub name: String,
    /// The URI SAN that the server will know it by.
    pub spiffe: String,
    /// The time for which it is valid.
    pub days: u32,
}

/// Creates the development certificates that are missing. Returns whether any was. If several processes start on one
/// directory at once, one of them creates the certificates and the others wait.
///
/// # Errors
/// A certificate without its key or the reverse is not overwritten.
pub fn ensure(directory: &Path, clock: &dyn Clock) -> Result<bool, PkiError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| PkiError::File { path: directory.to_owned(), source })?;
    let _alone = alone(directory).map_err(|source| PkiError::File { path: directory.to_owned(), source })?;
    let ca = pair_exists(directory, "ca")?;
    if !ca {
        make_authority(directory, clock)?;
    }
    let server = pair_exists(directory, "server")?;
    if !server {
        make_server(directory, clock)?;
    }
    let client = pair_exists(directory, "client")?;
    if !client {
        let operator = ClientRequest { name: "client".into(), spiffe: OPERATOR_SPIFFE.into(), days: 365 };
        issue_client(directory, directory, &operator, clock)?;
    }
    Ok(!(ca && server && client))
}

/// Makes `<name>.pem` and `<name>-key.pem` in `out`, signed by the development authority in `directory`.
///
/// # Errors
/// There is no authority in the directory, or the files exist.
pub fn issue_client(
    directory: &Path,
    out: &Path,
    request: &ClientRequest,
    clock: &dyn Clock,
) -> Result<(PathBuf, PathBuf), PkiError> {
    let mut params = params(&request.name, u64::from(request.days), clock)?;
    params.subject_alt_names = vec![SanType::URI(request.spiffe.as_str().try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    write_signed(directory, out, &request.name, &params)
}

/// A lock on a directory, until it is dropped.
fn alone(directory: &Path) -> std::io::Result<std::fs::File> {
    let lock = std::fs::File::open(directory)?;
    lock.lock()?;
    Ok(lock)
}

fn make_authority(directory: &Path, clock: &dyn Clock) -> Result<(), PkiError> {
    let mut params = params("Jackfield development CA", 10 * 365, clock)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    write_pair(directory, "ca", &certificate.pem(), &key.serialize_pem())?;
    Ok(())
}

fn make_server(directory: &Path, clock: &dyn Clock) -> Result<(), PkiError> {
    let mut params = params("localhost", 365, clock)?;
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    write_signed(directory, directory, "server", &params)?;
    Ok(())
}

fn params(common_name: &str, days: u64, clock: &dyn Clock) -> Result<CertificateParams, PkiError> {
    let now = u64::try_from(clock.now().seconds()).unwrap_or_default();
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = (UNIX_EPOCH + Duration::from_secs(now.saturating_sub(BACKDATED))).into();
    params.not_after = (UNIX_EPOCH + Duration::from_secs(now + days * DAY)).into();
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn write_signed(
    directory: &Path,
    out: &Path,
    name: &str,
    params: &CertificateParams,
) -> Result<(PathBuf, PathBuf), PkiError> {
    let ca_key = KeyPair::from_pem(&read(&directory.join("ca-key.pem"))?)?;
    let issuer = Issuer::from_ca_cert_pem(&read(&directory.join("ca.pem"))?, ca_key)?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    write_pair(out, name, &certificate.pem(), &key.serialize_pem())
}

fn pair_exists(directory: &Path, name: &str) -> Result<bool, PkiError> {
    let [certificate, key] = paths(directory, name);
    match (certificate.exists(), key.exists()) {
        (true, true) => Ok(true),
        (false, false) => Ok(false),
        (true, false) => Err(PkiError::Partial { present: certificate, missing: key }),
        (false, true) => Err(PkiError::Partial { present: key, missing: certificate }),
    }
}

fn paths(directory: &Path, name: &str) -> [PathBuf; 2] {
    [directory.join(format!("{name}.pem")), directory.join(format!("{name}-key.pem"))]
}

/// The key is written first, because a certificate without its key is of no use.
fn write_pair(directory: &Path, name: &str, certificate: &str, key: &str) -> Result<(PathBuf, PathBuf), PkiError> {
    let [certificate_path, key_path] = paths(directory, name);
    write_new(&key_path, key, 0o600)?;
    write_new(&certificate_path, certificate, 0o644)?;
    Ok((certificate_path, key_path))
}

fn write_new(path: &Path, content: &str, mode: u32) -> Result<(), PkiError> {
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| PkiError::File { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|source| PkiError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use jackfield_domain::SystemClock;

    use super::*;

    #[test]
    fn of_several_that_start_at_once_one_makes_them() {
        let directory = tempfile::tempdir().unwrap();
        let pki = directory.path().join("data/pki");
        let made: Vec<bool> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| ensure(&pki, &SystemClock).unwrap())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert_eq!(made.iter().filter(|made| **made).count(), 1);
    }
}
