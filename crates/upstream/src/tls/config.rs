//! The parameters of handshakes.

use std::sync::{Arc, LazyLock};

use rustls::client::{Resumption, WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier};
use rustls_pki_types::ServerName;
use url::Host;

use super::client_auth::Presenter;
use super::identity::Identity;
use super::trust::Trust;

/// The cryptography, shared by all configurations. Its first key exchange is a post-quantum hybrid (X25519MLKEM768).
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

/// The sessions kept for resumption. A client has few peers, and a session is large.
const SESSIONS: usize = 2;

pub(super) fn provider() -> &'static CryptoProvider {
    &PROVIDER
}

/// Makes the parameters for one identity, or none. Sessions are kept in them, so a session never outlives its identity, and
/// never moves to another.
///
/// # Errors
/// The parameters contradict each other.
pub(crate) fn client_config(identity: Option<&Identity>, trust: &Trust) -> Result<Arc<ClientConfig>, rustls::Error> {
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
