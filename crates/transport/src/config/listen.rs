//! `[listen]` and `[tls]`: where the server listens and with which certificates.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::duration;

/// The addresses of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Address of the gRPC listener; port 0 takes a free one. Empty: no TCP listener.
    pub address: String,
    /// Path of a Unix socket that serves gRPC without TLS. Empty: none.
    pub unix_socket: PathBuf,
    /// Permissions of the Unix socket, octal.
    pub unix_socket_mode: String,
    /// Address of a plaintext listener that answers `grpc.health.v1` only, for probes without a certificate. Empty: none.
    pub health_address: String,
    /// Serves `address` without TLS. Refused on an address that is not loopback, unless `allow_plaintext_public` is set.
    pub plaintext: bool,
    /// Allows plaintext on an address that is not loopback, such as behind a mesh proxy.
    pub allow_plaintext_public: bool,
    /// Name of the principal that callers on plaintext listeners are. Empty: they are unauthenticated.
    pub plaintext_principal: String,
}

/// Certificates of the TLS listener. Files are PEM and are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Certificate chain of the server, leaf first. Empty: `pki/server.pem` in the data directory.
    pub certificate: PathBuf,
    /// Private key of the server. Empty: `pki/server-key.pem` in the data directory.
    pub private_key: PathBuf,
    /// Authorities that client certificates must chain to. Empty: `pki/ca.pem` in the data directory.
    pub client_ca: PathBuf,
    /// Revocation lists of these authorities. Empty: none, and revocation is not checked. With a file, a certificate whose
    /// authority has no list in it is refused.
    pub client_crl: PathBuf,
    /// Refuses all clients once the revocation list is past its next update.
    pub enforce_crl_expiration: bool,
    /// The interval at which the files are checked for changes.
    #[serde(with = "duration")]
    pub reload_interval: Duration,
    /// The time that a handshake may take.
    #[serde(with = "duration")]
    pub handshake_timeout: Duration,
    /// Handshakes under way at once.
    pub max_handshakes: u32,
    /// Handshakes under way at once from one address.
    pub max_handshakes_per_ip: u32,
    /// The time that a connection has to finish its calls after its client certificate expired or was revoked.
    #[serde(with = "duration")]
    pub revoked_grace: Duration,
}

impl Default for Listen {
    fn default() -> Self {
        Listen {
            address: "127.0.0.1:7443".into(),
            unix_socket: PathBuf::new(),
            unix_socket_mode: "0600".into(),
            health_address: String::new(),
            plaintext: false,
            allow_plaintext_public: false,
            plaintext_principal: String::new(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Tls {
            certificate: PathBuf::new(),
            private_key: PathBuf::new(),
            client_ca: PathBuf::new(),
            client_crl: PathBuf::new(),
            enforce_crl_expiration: true,
            reload_interval: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(5),
            max_handshakes: 256,
            max_handshakes_per_ip: 20,
            revoked_grace: Duration::from_secs(1),
        }
    }
}

impl Listen {
    /// Returns the address of the gRPC listener, if there is one.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.address.parse().ok()
    }

    /// Returns the permissions of the Unix socket; `None` if the text is not an octal mode.
    pub fn socket_mode(&self) -> Option<u32> {
        u32::from_str_radix(&self.unix_socket_mode, 8).ok().filter(|mode| *mode <= 0o777)
    }
}
