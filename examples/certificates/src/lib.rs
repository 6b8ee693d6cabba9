//! The certificates of an example: an authority, a certificate of the example itself, and one for Jackfield.

use std::error::Error;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Makes the certificates in a directory, unless they are there. `ca.pem`, `client.pem` and `client-key.pem` are for Jackfield;
/// `server.pem` and `server-key.pem` are those of the example.
pub fn make(directory: &Path) -> Result<()> {
    if directory.join("server-key.pem").exists() {
        return Ok(());
    }
    let mut authority = CertificateParams::new([])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.distinguished_name.push(DnType::CommonName, "Example authority");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    std::fs::create_dir_all(directory)?;
    write(&directory.join("ca.pem"), &authority.pem())?;
    for (file, name, usage) in [
        ("client", "jackfield.example", ExtendedKeyUsagePurpose::ClientAuth),
        ("server", "localhost", ExtendedKeyUsagePurpose::ServerAuth),
    ] {
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        write(&directory.join(format!("{file}.pem")), &params.signed_by(&key, &authority)?.pem())?;
        write(&directory.join(format!("{file}-key.pem")), &key.serialize_pem())?;
    }
    Ok(())
}

/// Writes a file that only its owner can read.
fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
