//! The certificates in force, and their replacement while the server runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jackfield_domain::{Clock, Timestamp};
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::clients::Clients;
use super::crypto::provider;
use super::error::TlsError;
use super::key_pair::KeyPair;
use crate::config::{Tls, TlsFiles};

/// The certificates in force, with a signal when they are replaced. The server's pair and the authorities and revocation
/// lists of clients come into force separately: a fault in one of them must not keep a revoked client in.
#[derive(Debug)]
pub struct TlsReloader {
    files: TlsFiles,
    enforce_crl_expiration: bool,
    current: ArcSwap<TlsState>,
    read: Mutex<(KeyPair, Clients)>,
    generation: watch::Sender<u64>,
}

/// The state that one set of files makes.
#[derive(Debug)]
pub struct TlsState {
    /// For new handshakes.
    pub server: Arc<ServerConfig>,
    /// For checking the certificates of live connections again.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// The earliest end of validity in each file, in seconds since 1970: "certificate", "client_ca", "client_crl". A file
    /// without one, or one that cannot be read, is left out.
    pub valid_until: Vec<(&'static str, i64)>,
    key: Arc<CertifiedKey>,
}

/// The outcome of a check of the files.
#[derive(Debug)]
pub struct Reload {
    /// Something new is in force.
    pub changed: bool,
    /// The faults of files that did not come into force.
    pub faults: Vec<TlsError>,
}

/// Certificates that are read from files.
pub(crate) trait Reloading: Send + Sync + 'static {
    /// Reads the files, and puts into force what is new and can be used.
    fn reload(&self, now: Timestamp) -> impl Future<Output = Reload> + Send;
}

/// Polls files until `stop`, and reports for each change whether it came into force. A mounted secret changes by swapping a
/// symbolic link, which file notification on the path does not see.
pub(crate) async fn watch(
    files: Arc<impl Reloading>,
    interval: Duration,
    clock: Arc<dyn Clock>,
    on_reload: impl Fn(bool),
    stop: CancellationToken,
) {
    let mut logged = Vec::new();
    while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        let Reload { changed, faults } = files.reload(clock.now()).await;
        if changed {
            tracing::info!("tls certificates reloaded");
            on_reload(true);
        }
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        // The same fault is logged once, not at every check.
        for error in faults.iter().filter(|fault| !logged.contains(*fault)) {
            tracing::error!(error.message = %error, "tls certificates not reloaded, the ones in force stay");
            on_reload(false);
        }
        logged = faults;
    }
}

/// The settings of a listener with a certificate.
pub(super) fn server_config(
    verifier: Arc<dyn ClientCertVerifier>,
    key: Arc<CertifiedKey>,
    alpn: &[u8],
) -> Result<ServerConfig, TlsError> {
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    server.alpn_protocols = vec![alpn.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;
    Ok(server)
}

// === impl TlsReloader ===

impl TlsReloader {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Any file is missing or holds something else, or the certificate of the server is not valid now: the server does not
    /// start with half of its certificates.
    pub async fn load(files: TlsFiles, config: &Tls, now: Timestamp) -> Result<Self, TlsError> {
        let (identity, clients) = (KeyPair::read(&files).await?, Clients::read(&files).await?);
        identity.check_validity(&files, now)?;
        let key = identity.build(&files, &provider())?;
        let verifier = clients.build(&files, config.enforce_crl_expiration)?;
        let state = TlsState::of(key, verifier, &identity, &clients)?;
        Ok(TlsReloader {
            enforce_crl_expiration: config.enforce_crl_expiration,
            current: ArcSwap::from_pointee(state),
            read: Mutex::new((identity, clients)),
            generation: watch::Sender::new(0),
            files,
        })
    }

    /// Returns the state that is in force now.
    pub fn current(&self) -> Arc<TlsState> {
        self.current.load_full()
    }

    /// Changes whenever other certificates come into force.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Reads the files, and puts into force what is new and can be used. What cannot be used leaves the old files in force.
    pub async fn reload(&self, now: Timestamp) -> Reload {
        let mut faults = Vec::new();
        let (mut identity, mut clients) = self.read().clone();
        let (key, verifier) = {
            let current = self.current.load();
            (current.key.clone(), current.verifier.clone())
        };
        let new_key = keep_fault(self.new_identity(&identity, now).await, &mut faults);
        let new_verifier = self.new_clients(&clients, &mut faults).await;
        let changed = new_key.is_some() || new_verifier.is_some();
        let key = new_key.map_or(key, |(read, key)| {
            identity = read;
            key
        });
        let verifier = new_verifier.map_or(verifier, |(read, verifier)| {
            clients = read;
            verifier
        });
        if !changed {
            return Reload { changed, faults };
        }
        match TlsState::of(key, verifier, &identity, &clients) {
            Ok(state) => {
                self.current.store(Arc::new(state));
                *self.read() = (identity, clients);
                self.generation.send_modify(|generation| *generation += 1);
            }
            Err(error) => {
                faults.push(error);
                return Reload { changed: false, faults };
            }
        }
        Reload { changed, faults }
    }

    /// Returns the pair of the server if it is a new one. A pair that is not valid now replaces only one that is not valid
    /// either.
    async fn new_identity(
        &self,
        current: &KeyPair,
        now: Timestamp,
    ) -> Result<Option<(KeyPair, Arc<CertifiedKey>)>, TlsError> {
        let identity = KeyPair::read(&self.files).await?;
        if identity == *current {
            return Ok(None);
        }
        let key = identity.build(&self.files, &provider())?;
        if current.check_validity(&self.files, now).is_ok() {
            identity.check_validity(&self.files, now)?;
        }
        Ok(Some((identity, key)))
    }

    /// Returns the authorities and lists of clients if they are new: both, or one of them together with the other one in
    /// force.
    async fn new_clients(
        &self,
        current: &Clients,
        faults: &mut Vec<TlsError>,
    ) -> Option<(Clients, Arc<dyn ClientCertVerifier>)> {
        let authorities = keep_fault(Clients::read_authorities(&self.files).await.map(Some), faults);
        let lists = keep_fault(Clients::read_lists(&self.files).await.map(Some), faults);
        let both = current.with(authorities.as_ref(), lists.as_ref());
        if both == *current {
            return None;
        }
        let build = |clients: Clients| {
            let verifier = clients.build(&self.files, self.enforce_crl_expiration)?;
            Ok::<_, TlsError>((clients, verifier))
        };
        let fault = match build(both) {
            Ok(new) => return Some(new),
            Err(fault) => fault,
        };
        // Each half is tried by itself: both may be at fault, and the operator has to know of both.
        let (mut new, before) = (None, faults.len());
        for one in [current.with(None, lists.as_ref()), current.with(authorities.as_ref(), None)] {
            if one == *current {
                continue;
            }
            match build(one) {
                Ok(built) => new = new.or(Some(built)),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.len() == before {
            faults.push(fault);
        }
        new
    }

    fn read(&self) -> MutexGuard<'_, (KeyPair, Clients)> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reloading for TlsReloader {
    async fn reload(&self, now: Timestamp) -> Reload {
        TlsReloader::reload(self, now).await
    }
}

// === impl TlsState ===

impl TlsState {
    fn of(
        key: Arc<CertifiedKey>,
        verifier: Arc<dyn ClientCertVerifier>,
        identity: &KeyPair,
        clients: &Clients,
    ) -> Result<Self, TlsError> {
        let server = server_config(verifier.clone(), key.clone(), b"h2")?;
        let ends = [
            ("certificate", identity.valid_until()),
            ("client_ca", clients.authorities_valid_until()),
            ("client_crl", clients.lists_valid_until()),
        ];
        let valid_until = ends.into_iter().filter_map(|(file, end)| Some((file, end?))).collect();
        Ok(TlsState { server: Arc::new(server), verifier, valid_until, key })
    }

    /// Verifies that a client certificate is still valid: chain, validity and revocation as of now.
    ///
    /// # Errors
    /// The reason why it is not.
    pub fn verify(&self, chain: &[CertificateDer<'static>]) -> Result<(), rustls::Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).map(|_| ())
    }
}

fn keep_fault<T>(result: Result<Option<T>, TlsError>, faults: &mut Vec<TlsError>) -> Option<T> {
    result.unwrap_or_else(|error| {
        faults.push(error);
        None
    })
}
