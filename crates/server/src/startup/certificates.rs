//! The certificates of the listeners, checked before a start writes anything.

use jackfield_domain::Timestamp;
use jackfield_transport::config::CertificateFiles;
use jackfield_transport::tls::{PairReloader, TlsError, TlsReloader};

use crate::config::Config;

/// The reason why the certificates of a listener are refused.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(transparent)]
    Grpc(#[from] TlsError),
    /// Another listener may have other files, so this names the key of the configuration.
    #[error("{key}: {fault}")]
    LicenseApi { key: &'static str, fault: TlsError },
}

/// Refuses certificates that cannot be used, except for development certificates that are still to be made.
///
/// # Errors
/// The first fault of a file.
pub async fn check(config: &Config, now: Timestamp) -> Result<(), CertificateError> {
    let files = config.tls_files();
    let to_be_made = config.makes_certificates() && !files.certificate.exists();
    if config.serves_tls() && !to_be_made {
        TlsReloader::load(files.clone(), &config.tls, now).await?;
    }
    let license_api = &config.license_api;
    let is_made = to_be_made && !license_api.has_certificate();
    if let Some(pair) = license_api.certificate_files(&files).filter(|_| !is_made) {
        let loaded = PairReloader::load(pair.clone(), now).await;
        loaded.map_err(|fault| CertificateError::LicenseApi { key: key(config, &pair, &fault), fault })?;
    }
    Ok(())
}

/// Returns the key of the configuration that a fault of the licence API's pair belongs to.
fn key(config: &Config, pair: &CertificateFiles, fault: &TlsError) -> &'static str {
    let is_certificate = match fault {
        TlsError::Read { path, .. } | TlsError::Content { path, .. } => *path == pair.certificate.display().to_string(),
        _ => true,
    };
    match (config.license_api.has_certificate(), is_certificate) {
        (true, true) => "license_api.certificate",
        (true, false) => "license_api.private_key",
        (false, true) => "tls.certificate",
        (false, false) => "tls.private_key",
    }
}
