//! Failures of calls. No message has a secret, a path or a query.

use std::io;
use std::time::Duration;

use crate::egress::Refusal;
use crate::tls::TlsFault;

/// A call that has no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct CallError {
    pub fault: Fault,
    /// Bytes of the request may have reached the server, so it may have acted on it. If false, it has not.
    pub sent: bool,
}

/// The cause of a failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the name of the host has no address")]
    Unresolved,
    #[error("the name of the host cannot be resolved: no name server answered, or they failed")]
    NameServersFailed,
    #[error("no connection: {0}")]
    Connect(io::ErrorKind),
    #[error("no connection within the connect timeout: it ended while {0}")]
    ConnectTimeout(Phase),
    #[error("the proxy: {0}")]
    Proxy(#[from] ProxyFault),
    #[error("TLS: {0}")]
    Tls(#[from] TlsFault),
    #[error("the server sent nothing for as long as the read timeout")]
    ReadTimeout,
    #[error("the call took longer than the total timeout")]
    TotalTimeout,
    #[error("the call took longer than its caller waits")]
    CallerTimeout,
    #[error("the server ended the connection before its response was complete")]
    ConnectionLost,
    #[error("the response is not HTTP/1.1")]
    ResponseMalformed,
    /// gRPC needs it.
    #[error("the server does not speak HTTP/2")]
    Http2NotSpoken,
    #[error("the headers of the response are larger than the limit")]
    HeadersTooLarge,
    #[error("the body of the response is larger than the limit")]
    BodyTooLarge,
    #[error("the body of the response is compressed or encoded, which was not asked for")]
    BodyEncoded,
    #[error("as many calls as permitted are in progress")]
    Busy,
    #[error("calls failed repeatedly, so none is made for a while")]
    CircuitOpen { retry_after: Duration },
}

/// A step on the way to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Resolving,
    Connecting,
    Tunnelling,
    Handshaking,
}

/// A failure of the egress proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyFault {
    #[error("it refused with status {0}")]
    Status(u16),
    #[error("its response is not HTTP/1.1")]
    Malformed,
    #[error("the headers of its response are larger than the limit")]
    HeadersTooLarge,
    #[error("it ended the connection: {0}")]
    Lost(io::ErrorKind),
}

// === impl CallError ===

impl CallError {
    /// Returns true if the server refused the certificate of the client, or its absence. In TLS 1.3 it says so after the request was
    /// written, but it does not read requests of clients that it refuses.
    pub fn refuses_certificate(&self) -> bool {
        matches!(self.fault, Fault::Tls(TlsFault::ClientCertificate(_)))
    }
}

// === impl Fault ===

impl Fault {
    /// The name of the fault, for errors and metrics. It does not change.
    pub fn reason(&self) -> &'static str {
        match self {
            Fault::Refused(_) => "EGRESS_REFUSED",
            Fault::Unresolved => "UNRESOLVED",
            Fault::NameServersFailed => "NAME_SERVERS_FAILED",
            Fault::Connect(_) => "CONNECT_FAILED",
            Fault::ConnectTimeout(_) => "CONNECT_TIMEOUT",
            Fault::Proxy(_) => "PROXY_FAILED",
            Fault::Tls(TlsFault::ServerCertificate(_)) => "SERVER_CERTIFICATE_INVALID",
            Fault::Tls(TlsFault::ClientCertificate(_)) => "CLIENT_CERTIFICATE_REFUSED",
            Fault::Tls(_) => "TLS_FAILED",
            Fault::ReadTimeout => "READ_TIMEOUT",
            Fault::TotalTimeout => "TOTAL_TIMEOUT",
            Fault::CallerTimeout => "CALLER_TIMEOUT",
            Fault::ConnectionLost => "CONNECTION_LOST",
            Fault::ResponseMalformed => "RESPONSE_MALFORMED",
            Fault::Http2NotSpoken => "HTTP2_NOT_SPOKEN",
            Fault::HeadersTooLarge => "HEADERS_TOO_LARGE",
            Fault::BodyTooLarge => "BODY_TOO_LARGE",
            Fault::BodyEncoded => "BODY_ENCODED",
            Fault::Busy => "BUSY",
            Fault::CircuitOpen { .. } => "CIRCUIT_OPEN",
        }
    }

    /// Returns true if the system that was called is not in a state to answer, so that the circuit breaker counts it. A
    /// refusal of ours and a response that is unusable say nothing about the next call. The end of a caller's patience counts after a
    /// fair time only, which the client knows.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Fault::Refused(_)
            | Fault::CallerTimeout
            | Fault::Busy
            | Fault::CircuitOpen { .. }
            | Fault::ResponseMalformed
            | Fault::Http2NotSpoken
            | Fault::HeadersTooLarge
            | Fault::BodyTooLarge
            | Fault::BodyEncoded => false,
            Fault::Unresolved
            | Fault::NameServersFailed
            | Fault::Connect(_)
            | Fault::ConnectTimeout(_)
            | Fault::Proxy(_)
            | Fault::Tls(_)
            | Fault::ReadTimeout
            | Fault::TotalTimeout
            | Fault::ConnectionLost => true,
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Resolving => "resolving the name",
            Phase::Connecting => "connecting",
            Phase::Tunnelling => "the proxy connected",
            Phase::Handshaking => "negotiating TLS",
        })
    }
}
