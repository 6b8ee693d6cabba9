//! A connection to a running server, for commands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::CommandError;
use crate::config::Config;
use jackfield_transport::tls::certificates_pem;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The address of the server and the client's certificate. Missing values come from the configuration.
#[derive(Debug, Args)]
pub(super) struct ClientArguments {
    /// Address of the server [default: listen.address].
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<SocketAddr>,
    /// Authority of the server's certificate [default: pki/ca.pem in the data directory].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Own certificate [default: pki/client.pem in the data directory].
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Own private key [default: pki/client-key.pem in the data directory].
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Name in the server's certificate.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    server_name: String,
    /// Connect without TLS [default: listen.plaintext].
    #[arg(long)]
    plaintext: bool,
}

/// The text of the transport does not name the address.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach a server at {address}")]
struct Unreachable {
    address: SocketAddr,
    source: tonic::transport::Error,
}

// === impl ClientArguments ===

impl ClientArguments {
    /// Returns whether an address was given.
    pub(super) fn has_address(&self) -> bool {
        self.address.is_some()
    }

    pub(super) async fn connect(&self, config: &Config) -> Result<Channel, CommandError> {
        let address = match (self.address, config.listen.tcp_address()) {
            (Some(address), _) => address,
            (None, Some(address)) => reachable(address),
            (None, None) => return Err("there is no listen.address: give --address".into()),
        };
        if self.plaintext || config.listen.plaintext {
            return plaintext(address).await;
        }
        let pki = config.pki_dir();
        let read = |given: &Option<PathBuf>, flag: &str, default: &str| match given {
            Some(path) => read(path),
            None => read(&pki.join(default)).map_err(|error| format!("{error}; name the file with {flag}").into()),
        };
        let ca = read(&self.ca, "--ca", "ca.pem")?;
        let ca = certificates_pem(&ca, self.ca.as_deref().unwrap_or(&pki.join("ca.pem")))?;
        let (cert, key) = (read(&self.cert, "--cert", "client.pem")?, read(&self.key, "--key", "client-key.pem")?);
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .identity(Identity::from_pem(cert, key))
            .domain_name(&self.server_name);
        connect(address, Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?).await
    }
}

/// A channel without TLS.
pub(super) async fn plaintext(address: SocketAddr) -> Result<Channel, CommandError> {
    connect(address, Endpoint::from_shared(format!("http://{address}"))?).await
}

async fn connect(address: SocketAddr, endpoint: Endpoint) -> Result<Channel, CommandError> {
    let connected = endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await;
    Ok(connected.map_err(|source| Unreachable { address, source })?)
}

/// A server that listens on all addresses is reached at the loopback address.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}
