//! The meaning of a failed handshake, or of a refusal after it.

use rustls::{AlertDescription, CertificateError};

/// A failure of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    #[error("the certificate of the server {0}")]
    ServerCertificate(ServerCertificateFault),
    #[error("the server refused the client certificate: {0}")]
    ClientCertificate(ClientCertificateFault),
    #[error("the server has no TLS version, cipher suite or protocol that is acceptable")]
    Incompatible,
    #[error("the server does not speak TLS")]
    NoTls,
    #[error("the server ended the handshake")]
    Ended,
    #[error("the handshake failed")]
    Other,
}

/// The flaw of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerCertificateFault {
    #[error("has expired")]
    Expired,
    #[error("is not valid yet")]
    NotYetValid,
    #[error("is from an authority that is not trusted")]
    UnknownAuthority,
    #[error("is for another host")]
    OtherHost,
    #[error("is not for servers")]
    WrongUsage,
    #[error("is revoked")]
    Revoked,
    #[error("cannot be verified")]
    Other,
}

/// The reason that a server gave for refusing the client certificate, or its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientCertificateFault {
    #[error("one is required")]
    Required,
    #[error("it has expired")]
    Expired,
    #[error("it is revoked")]
    Revoked,
    #[error("its authority is unknown to the server")]
    UnknownAuthority,
    #[error("the server gave no exact reason")]
    Other,
}

// === impl TlsFault ===

impl TlsFault {
    /// Finds the fault in an error of the connection.
    pub(crate) fn find(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<rustls::Error>() {
                return Some(TlsFault::of(error));
            }
            // An error of input or output does not name the error that it carries as its source, but the source of that.
            let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            if let Some(fault) = carried.and_then(|carried| TlsFault::find(carried)) {
                return Some(fault);
            }
            next = error.source();
        }
        None
    }

    fn of(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => TlsFault::ServerCertificate(ServerCertificateFault::of(error)),
            rustls::Error::AlertReceived(alert) => TlsFault::of_alert(*alert),
            rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => TlsFault::Incompatible,
            rustls::Error::InvalidMessage(_) => TlsFault::NoTls,
            _ => TlsFault::Other,
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        use AlertDescription as Alert;
        use ClientCertificateFault as Fault;
        match alert {
            Alert::CertificateRequired | Alert::NoCertificate => TlsFault::ClientCertificate(Fault::Required),
            Alert::CertificateExpired => TlsFault::ClientCertificate(Fault::Expired),
            Alert::CertificateRevoked => TlsFault::ClientCertificate(Fault::Revoked),
            Alert::UnknownCA => TlsFault::ClientCertificate(Fault::UnknownAuthority),
            Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::CertificateUnknown | Alert::AccessDenied => {
                TlsFault::ClientCertificate(Fault::Other)
            }
            Alert::ProtocolVersion
            | Alert::InsufficientSecurity
            | Alert::HandshakeFailure
            | Alert::NoApplicationProtocol => TlsFault::Incompatible,
            _ => TlsFault::Ended,
        }
    }
}

// === impl ServerCertificateFault ===

impl ServerCertificateFault {
    fn of(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::OtherHost,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Self::WrongUsage,
            CertificateError::Revoked => Self::Revoked,
            _ => Self::Other,
        }
    }
}
