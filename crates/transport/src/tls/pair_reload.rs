//! The certificate of a listener whose clients present none, and its replacement while the server runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jackfield_domain::Timestamp;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;

use super::error::TlsError;
use super::key_pair::KeyPair;
use super::reload::{Reload, Reloading, server_config};
use crate::config::{CertificateFiles, TlsFiles};

/// The certificate in force.
#[derive(Debug)]
pub struct PairReloader {
    /// Without client authorities.
    files: TlsFiles,
    current: ArcSwap<PairState>,
    read: Mutex<KeyPair>,
}

/// The state that one pair of files makes.
#[derive(Debug)]
pub struct PairState {
    /// For new handshakes.
    pub server: Arc<ServerConfig>,
    /// The earliest end of validity in the chain, in seconds since 1970.
    pub valid_until: Option<i64>,
}

/// The only protocol: no other one is spoken there.
const ALPN: &[u8] = b"http/1.1";

// === impl PairReloader ===

impl PairReloader {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// A file is missing or holds something else, or the certificate is not valid now.
    pub async fn load(files: CertificateFiles, now: Timestamp) -> Result<Self, TlsError> {
        let CertificateFiles { certificate, private_key } = files;
        let files = TlsFiles { certificate, private_key, ..TlsFiles::default() };
        let pair = KeyPair::read(&files).await?;
        pair.check_validity(&files, now)?;
        let current = ArcSwap::from_pointee(PairState::of(&pair, &files)?);
        Ok(PairReloader { files, current, read: Mutex::new(pair) })
    }

    /// Returns the state that is in force now.
    pub fn current(&self) -> Arc<PairState> {
        self.current.load_full()
    }

    /// Puts the files into force if they are new. A pair that is not valid now replaces only one that is not valid either.
    async fn replace(&self, now: Timestamp) -> Result<bool, TlsError> {
        let pair = KeyPair::read(&self.files).await?;
        let before = self.read().clone();
        if pair == before {
            return Ok(false);
        }
        let state = PairState::of(&pair, &self.files)?;
        if before.check_validity(&self.files, now).is_ok() {
            pair.check_validity(&self.files, now)?;
        }
        self.current.store(Arc::new(state));
        *self.read() = pair;
        Ok(true)
    }

    fn read(&self) -> MutexGuard<'_, KeyPair> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reloading for PairReloader {
    async fn reload(&self, now: Timestamp) -> Reload {
        match self.replace(now).await {
            Ok(changed) => Reload { changed, faults: Vec::new() },
            Err(fault) => Reload { changed: false, faults: vec![fault] },
        }
    }
}

// === impl PairState ===

impl PairState {
    fn of(pair: &KeyPair, files: &TlsFiles) -> Result<Self, TlsError> {
        let key: Arc<CertifiedKey> = pair.build(files, &super::provider())?;
        let server = server_config(WebPkiClientVerifier::no_client_auth(), key, ALPN)?;
        Ok(PairState { server: Arc::new(server), valid_until: pair.valid_until() })
    }
}
