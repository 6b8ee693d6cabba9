//! The certificates of the listeners, checked before a start writes anything.

use jackfield_domain::Timestamp;
use jackfield_transport::config::CertificateFiles;
use jackfield_transport::tls::{PairReloader, TlsError, TlsReloader};

use crate::config::{Config, HttpSection};

/// The reason why the certificates of a listener are refused.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(transparent)]
    Grpc(#[from] TlsError),
    /// Another listener may have other files, so this names the key of the configuration.
    #[error("{key}: {fault}")]
    Http { key: String, fault: TlsError },
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
    for http in config.http_sections() {
        let is_made = to_be_made && !http.has_certificate();
        if let Some(pair) = http.certificate_files(&files).filter(|_| !is_made) {
            let loaded = PairReloader::load(pair.clone(), now).await;
            loaded.map_err(|fault| CertificateError::Http { key: key(http, &pair, &fault), fault })?;
        }
    }
    Ok(())
}

/// Returns the key of the configuration that a fault of the pair of an HTTP listener belongs to.
fn key(http: HttpSection<'_>, pair: &CertificateFiles, fault: &TlsError) -> String {
    let is_certificate = match fault {
        TlsError::Read { path, .. } | TlsError::Content { path, .. } => *path == pair.certificate.display().to_string(),
        _ => true,
    };
    let section = if http.has_certificate() { http.name } else { "tls" };
    let key = if is_certificate { "certificate" } else { "private_key" };
    format!("{section}.{key}")
}
