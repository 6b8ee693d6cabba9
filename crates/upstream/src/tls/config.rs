//! The parameters of handshakes.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rustls::client::{Resumption, WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier};
use rustls_pki_types::ServerName;
use url::Host;

use super::certificate::has_ended;
use super::client_auth::Presenter;
use super::identity::Identity;
use super::trust::Trust;

/// The parameters of the handshakes of one client, with the sessions that servers let it resume. A session is not resumed after the end of
/// a certificate that it rests on: in a resumed handshake, neither side shows one.
pub(crate) struct Handshakes {
    identity: Option<Identity>,
    trust: Trust,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ClientConfig>,
    /// The end of the certificate that ends first, in seconds since 1970.
    not_after: Option<i64>,
}

/// The cryptography, shared by all configurations. Its first key exchange is a post-quantum hybrid (X25519MLKEM768).
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

/// The sessions kept for resumption. A client has few peers, and a session is large.
const SESSIONS: usize = 2;

// === impl Handshakes ===

impl Handshakes {
    /// Takes an identity, or none, and the authorities of servers.
    ///
    /// # Errors
    /// They contradict each other.
    pub(crate) fn new(identity: Option<&Identity>, trust: &Trust) -> Result<Self, rustls::Error> {
        let current = Mutex::new(Current { config: client_config(identity, trust)?, not_after: None });
        Ok(Handshakes { identity: identity.cloned(), trust: trust.clone(), current })
    }

    /// The parameters of the next handshake.
    ///
    /// # Errors
    /// As those of [`Handshakes::new`].
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.not_after.is_some_and(has_ended) {
            let config = client_config(self.identity.as_ref(), &self.trust)?;
            *current = Current { config, not_after: None };
        }
        Ok(current.config.clone())
    }

    /// Notes the end of the certificates of a handshake, in seconds since 1970.
    pub(crate) fn note(&self, not_after: Option<i64>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.not_after = [current.not_after, not_after].into_iter().flatten().min();
    }
}

pub(super) fn provider() -> &'static CryptoProvider {
    &PROVIDER
}

/// Makes the parameters for one identity, or none. Sessions are kept in them, so a session never outlives its identity, and
/// never moves to another.
///
/// # Errors
/// The parameters contradict each other.
fn client_config(identity: Option<&Identity>, trust: &Trust) -> Result<Arc<ClientConfig>, rustls::Error> {
    Ok(finished(builder()?.with_webpki_verifier(verifier(trust)?), identity))
}

pub(super) fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
}

/// The verifier of servers.
pub(super) fn verifier(trust: &Trust) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    let verifier = WebPkiServerVerifier::builder_with_provider(trust.0.clone(), PROVIDER.clone()).build();
    verifier.map_err(|error| rustls::Error::General(error.to_string()))
}

pub(super) fn finished(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<&Identity>,
) -> Arc<ClientConfig> {
    let mut config = builder.with_client_cert_resolver(Arc::new(Presenter(identity.cloned())));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    config.enable_early_data = false;
    Arc::new(config)
}

/// The name that the certificate of a host must have. `None`: the host is no name.
pub(crate) fn server_name(host: &Host<String>) -> Option<ServerName<'static>> {
    match host {
        Host::Domain(name) => ServerName::try_from(name.clone()).ok(),
        Host::Ipv4(address) => Some(ServerName::IpAddress(std::net::IpAddr::from(*address).into())),
        Host::Ipv6(address) => Some(ServerName::IpAddress(std::net::IpAddr::from(*address).into())),
    }
}
