//! TLS of the gRPC listener: client certificates are required, and everything is read from files that may change while
//! the server runs.
//!
//! No session tickets, no session cache, no early data: a resumed session would not look at the client certificate
//! again, so an expired or revoked one would get in.

mod crl;
mod key_usage;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jackfield_domain::Timestamp;
use jackfield_domain::pem::{self, Pem};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::{Tls, TlsFiles};
use crate::metrics::Metrics;

use self::crl::{complete, newest};
use self::key_usage::KeyUsageVerifier;

const CERTIFICATE: &str = "certificate";
const PRIVATE_KEY: &str = "private key";
const CRL: &str = "revocation list";

/// The certificates in force, and news of their replacement.
#[derive(Debug)]
pub struct TlsReloader {
    files: TlsFiles,
    enforce_crl_expiration: bool,
    current: ArcSwap<TlsState>,
    content: std::sync::Mutex<TlsContent>,
    generation: watch::Sender<u64>,
}

/// What one set of files makes.
#[derive(Debug)]
pub struct TlsState {
    /// For new handshakes.
    pub server: Arc<ServerConfig>,
    /// For looking again at the certificates of live connections.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// The earliest end of validity in each file, in seconds since 1970: "certificate", "client_ca", "client_crl". Left out
    /// is what has none or cannot be read.
    pub valid_until: Vec<(&'static str, i64)>,
}

/// The files as they were read.
#[derive(Clone, PartialEq, Eq)]
struct TlsContent {
    certificate: Vec<u8>,
    private_key: Vec<u8>,
    client_ca: Vec<u8>,
    client_crl: Option<Vec<u8>>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} holds no usable {what}: {message}")]
    Content { path: String, what: &'static str, message: String },
    #[error("the certificate of the server in {path} expired at {time}: put a new one there")]
    Expired { path: String, time: Timestamp },
    #[error("the certificate of the server in {path} is not valid before {time}")]
    NotYetValid { path: String, time: Timestamp },
    #[error("certificate and private key do not fit: {0}")]
    Identity(rustls::Error),
    #[error("client authorities: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// The one cryptography of the process.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

// === impl TlsReloader ===

impl TlsReloader {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Any file is missing or holds something else, or the certificate of the server is not valid now: the server does not
    /// start with half of its certificates. (Later it goes on with an expired one: lists of revoked clients count more.)
    pub async fn load(files: TlsFiles, config: &Tls, now: Timestamp) -> Result<Self, TlsError> {
        let content = TlsContent::read(&files).await?;
        content.check_validity(&files, now)?;
        let state = content.build(&files, config.enforce_crl_expiration)?;
        Ok(TlsReloader {
            enforce_crl_expiration: config.enforce_crl_expiration,
            current: ArcSwap::from_pointee(state),
            content: std::sync::Mutex::new(content),
            generation: watch::Sender::new(0),
            files,
        })
    }

    /// What is in force now.
    pub fn current(&self) -> Arc<TlsState> {
        self.current.load_full()
    }

    /// Changes whenever other certificates come into force.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Looks at the files again and again until `stop`. Polling, because a mounted secret changes by swapping a
    /// symbolic link, which file notification on the path does not see.
    pub async fn watch(self: Arc<Self>, interval: Duration, metrics: Metrics, stop: CancellationToken) {
        let mut last_error = String::new();
        while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            match self.reload().await {
                Ok(true) => {
                    tracing::info!("tls certificates reloaded");
                    metrics.tls_reloaded(true);
                    last_error.clear();
                }
                Ok(false) => last_error.clear(),
                // The same fault is told once, not at every look.
                Err(error) if error.to_string() == last_error => {}
                Err(error) => {
                    last_error = error.to_string();
                    tracing::error!(error.message = %error, "tls certificates not reloaded, the former stay in force");
                    metrics.tls_reloaded(false);
                }
            }
        }
    }

    /// Reads the files; whether something new came into force.
    ///
    /// # Errors
    /// The files are unusable; what was in force stays in force.
    pub async fn reload(&self) -> Result<bool, TlsError> {
        let content = TlsContent::read(&self.files).await?;
        if *lock(&self.content) == content {
            return Ok(false);
        }
        let state = content.build(&self.files, self.enforce_crl_expiration)?;
        self.current.store(Arc::new(state));
        *lock(&self.content) = content;
        self.generation.send_modify(|generation| *generation += 1);
        Ok(true)
    }
}

// === impl TlsState ===

impl TlsState {
    /// Whether a client certificate is still good: chain, validity and revocation as of now.
    ///
    /// # Errors
    /// Why it is not.
    pub fn verify(&self, chain: &[CertificateDer<'static>]) -> Result<(), rustls::Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).map(|_| ())
    }
}

// === impl TlsContent ===

impl TlsContent {
    async fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(TlsContent {
            certificate: read(&files.certificate).await?,
            private_key: read(&files.private_key).await?,
            client_ca: read(&files.client_ca).await?,
            client_crl: match &files.client_crl {
                Some(path) => Some(read(path).await?),
                None => None,
            },
        })
    }

    /// Refuses a chain of the server of which a part is not valid now.
    fn check_validity(&self, files: &TlsFiles, now: Timestamp) -> Result<(), TlsError> {
        let path = || files.certificate.display().to_string();
        for certificate in parse::<CertificateDer<'static>>(&self.certificate, &files.certificate, CERTIFICATE)? {
            let (_, certificate) = X509Certificate::from_der(&certificate)
                .map_err(|error| content_error(&files.certificate, "certificate", &error))?;
            let (from, until) = (certificate.validity().not_before, certificate.validity().not_after);
            let time = |seconds: i64| Timestamp(seconds.saturating_mul(1_000_000));
            if now.seconds() > until.timestamp() {
                return Err(TlsError::Expired { path: path(), time: time(until.timestamp()) });
            }
            if now < time(from.timestamp()) {
                return Err(TlsError::NotYetValid { path: path(), time: time(from.timestamp()) });
            }
        }
        Ok(())
    }

    fn build(&self, files: &TlsFiles, enforce_crl_expiration: bool) -> Result<TlsState, TlsError> {
        let certificates = parse::<CertificateDer<'static>>(&self.certificate, &files.certificate, CERTIFICATE)?;
        let mut private_keys = parse::<PrivateKeyDer<'static>>(&self.private_key, &files.private_key, PRIVATE_KEY)?;
        if private_keys.len() > 1 {
            return Err(content_error(&files.private_key, PRIVATE_KEY, &"there are several"));
        }
        let private_key = private_keys.remove(0);
        let verifier = self.verifier(files, enforce_crl_expiration)?;
        let valid_until = self.valid_until();
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(certificates, private_key)
            .map_err(TlsError::Identity)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        Ok(TlsState { server: Arc::new(server), verifier, valid_until })
    }

    fn valid_until(&self) -> Vec<(&'static str, i64)> {
        let certificates = |bytes: &[u8]| {
            let pem = Pem::new(bytes).ok()?;
            let certificates = CertificateDer::pem_slice_iter(pem.text().as_bytes()).filter_map(Result::ok);
            certificates.filter_map(|certificate| not_after(&certificate)).min()
        };
        let crl = |bytes: &Vec<u8>| {
            let pem = Pem::new(bytes).ok()?;
            let crls = CertificateRevocationListDer::pem_slice_iter(pem.text().as_bytes()).filter_map(Result::ok);
            newest(crls.collect()).0.iter().filter_map(|crl| next_update(crl)).min()
        };
        let ends = [
            ("certificate", certificates(&self.certificate)),
            ("client_ca", certificates(&self.client_ca)),
            ("client_crl", self.client_crl.as_ref().and_then(crl)),
        ];
        ends.into_iter().filter_map(|(file, end)| Some((file, end?))).collect()
    }

    fn verifier(
        &self,
        files: &TlsFiles,
        enforce_crl_expiration: bool,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in parse::<CertificateDer<'static>>(&self.client_ca, &files.client_ca, CERTIFICATE)? {
            key_usage::check_authority(&certificate)
                .map_err(|message| content_error(&files.client_ca, CERTIFICATE, &message))?;
            roots.add(certificate).map_err(|error| content_error(&files.client_ca, CERTIFICATE, &error))?;
        }
        let roots = Arc::new(roots);
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
        let mut lists = Vec::new();
        if let (Some(bytes), Some(path)) = (&self.client_crl, &files.client_crl) {
            let crls = parse::<CertificateRevocationListDer<'static>>(bytes, path, CRL)?;
            complete(&crls).map_err(|message| content_error(path, CRL, &message))?;
            let (crls, superseded) = newest(crls);
            if superseded > 0 {
                tracing::info!(
                    crl.superseded = superseded,
                    "older revocation lists of the same authorities are left out"
                );
            }
            lists.clone_from(&crls);
            builder = builder.with_crls(crls);
            if enforce_crl_expiration {
                builder = builder.enforce_revocation_expiration();
            }
        }
        let verifier = KeyUsageVerifier::new(builder.build()?, roots, &lists, enforce_crl_expiration);
        let path = files.client_crl.as_deref().unwrap_or(Path::new(""));
        Ok(Arc::new(verifier.map_err(|error| content_error(path, CRL, &error))?))
    }
}

impl std::fmt::Debug for TlsContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    tokio::fs::read(path).await.map_err(|source| TlsError::Read { path: path.display().to_string(), source })
}

/// The text of a file of certificates, all of which have been read, for libraries that take PEM and pass over what they do not
/// know.
///
/// # Errors
/// The file holds no certificate, or something that is none.
pub(crate) fn certificates_pem(bytes: &[u8], path: &Path) -> Result<String, TlsError> {
    parse::<CertificateDer<'static>>(bytes, path, CERTIFICATE)?;
    let pem = Pem::new(bytes).map_err(|fault| content_error(path, CERTIFICATE, &fault))?;
    Ok(pem.text().to_owned())
}

/// All sections of a file, which must all be of the kind that is asked for. None at all is a fault, because an empty list of
/// authorities would lock everybody out; so is one that is passed over.
fn parse<T: PemObject>(bytes: &[u8], path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let labels = match what {
        CERTIFICATE => pem::CERTIFICATE_LABELS,
        CRL => pem::CRL_LABELS,
        _ => pem::PRIVATE_KEY_LABELS,
    };
    let wrong = |error: &dyn std::fmt::Display| content_error(path, what, error);
    let pem = Pem::new(bytes).map_err(|fault| wrong(&fault))?;
    pem.only(labels).map_err(|fault| wrong(&fault))?;
    // What the parser says of a fault is not shown: it quotes the text, which may be a private key.
    let items: Vec<T> = T::pem_slice_iter(pem.text().as_bytes()).map_while(Result::ok).collect();
    pem.all_read(items.len()).map_err(|fault| wrong(&fault))?;
    if items.is_empty() {
        return Err(wrong(&"there is none"));
    }
    Ok(items)
}

fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn next_update(crl: &[u8]) -> Option<i64> {
    let (_, crl) = x509_parser::parse_x509_crl(crl).ok()?;
    crl.next_update().map(|time| time.timestamp())
}

fn content_error(path: &Path, what: &'static str, message: &dyn std::fmt::Display) -> TlsError {
    TlsError::Content { path: path.display().to_string(), what, message: message.to_string() }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
