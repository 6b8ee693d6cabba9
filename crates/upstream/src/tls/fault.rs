//! The meaning of a failed handshake, or of a refusal after it.

use rustls::{AlertDescription, CertificateError};

use super::client_auth::ClientAuth;

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
    #[error("the server ended the handshake, or the session after it")]
    Ended,
    #[error("the handshake, or the session after it, failed")]
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
    #[error("it is not valid yet")]
    NotYetValid,
    #[error("it is not for clients, or of a kind that the server does not support")]
    WrongUsage,
    #[error("it is revoked")]
    Revoked,
    #[error("its authority is unknown to the server")]
    UnknownAuthority,
    #[error("it cannot be verified")]
    Unverifiable,
    #[error("it is valid, but has no access")]
    Denied,
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

    /// Considers what the server had asked for. Many servers have one alert for all flaws of a certificate, and for its absence.
    pub(crate) fn after(self, auth: ClientAuth) -> Self {
        use ClientCertificateFault as Fault;
        match (self, auth) {
            (TlsFault::ClientCertificate(_) | TlsFault::Incompatible, ClientAuth::Missing) => {
                TlsFault::ClientCertificate(Fault::Required)
            }
            // Versions and cipher suites are agreed upon before a certificate is asked for.
            (TlsFault::Incompatible, ClientAuth::Presented(flaw)) => {
                TlsFault::ClientCertificate(flaw.unwrap_or(Fault::Other))
            }
            (TlsFault::ClientCertificate(fault), ClientAuth::Presented(flaw)) => {
                TlsFault::ClientCertificate(fault.or(flaw))
            }
            // The alert has another cause, such as a host that the server does not have.
            (TlsFault::ClientCertificate(_), ClientAuth::NotRequested) => TlsFault::Ended,
            (fault, _) => fault,
        }
    }

    /// Considers that the handshake was done. An alert that is not about the certificate of the client says no more than that the
    /// session has ended, and a message that cannot be read does not mean that the server does not speak TLS.
    pub(crate) fn after_handshake(self, auth: ClientAuth) -> Self {
        match self.after(auth) {
            fault @ TlsFault::ClientCertificate(_) => fault,
            TlsFault::Incompatible | TlsFault::Ended => TlsFault::Ended,
            TlsFault::ServerCertificate(_) | TlsFault::NoTls | TlsFault::Other => TlsFault::Other,
        }
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
            Alert::UnsupportedCertificate => TlsFault::ClientCertificate(Fault::WrongUsage),
            Alert::BadCertificate => TlsFault::ClientCertificate(Fault::Unverifiable),
            Alert::AccessDenied => TlsFault::ClientCertificate(Fault::Denied),
            Alert::CertificateUnknown | Alert::DecryptError => TlsFault::ClientCertificate(Fault::Other),
            Alert::ProtocolVersion
            | Alert::InsufficientSecurity
            | Alert::HandshakeFailure
            | Alert::NoApplicationProtocol => TlsFault::Incompatible,
            _ => TlsFault::Ended,
        }
    }
}

// === impl ClientCertificateFault ===

impl ClientCertificateFault {
    /// Finds the fault in a response. nginx completes the handshake with every certificate, and then refuses each request with
    /// a page that has one text for all flaws.
    pub(crate) fn of_response(status: u16, body: &[u8]) -> Option<Self> {
        let has = |text: &[u8]| body.windows(text.len()).any(|window| window == text);
        match status {
            400 if has(b"<center>No required SSL certificate was sent</center>") => Some(Self::Required),
            400 if has(b"<center>The SSL certificate error</center>") => Some(Self::Other),
            _ => None,
        }
    }

    /// Prefers a flaw that this side can see to a vague reason. Some servers have the same alert for certificates that have
    /// expired and for those that are not valid yet.
    pub(crate) fn or(self, flaw: Option<Self>) -> Self {
        match self {
            Self::Expired | Self::Unverifiable | Self::Other => flaw.unwrap_or(self),
            exact => exact,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_about_the_certificate_of_the_client_if_the_server_asked_for_it() {
        use ClientCertificateFault::{Denied, Expired, Other, Required};
        let of_client = TlsFault::ClientCertificate;
        let asked = ClientAuth::Presented(Some(Expired));
        for (fault, auth, in_handshake, afterwards) in [
            (of_client(Denied), ClientAuth::NotRequested, TlsFault::Ended, TlsFault::Ended),
            (of_client(Denied), ClientAuth::Resumed, of_client(Denied), of_client(Denied)),
            (of_client(Denied), ClientAuth::Missing, of_client(Required), of_client(Required)),
            (of_client(Denied), asked, of_client(Denied), of_client(Denied)),
            (of_client(Other), asked, of_client(Expired), of_client(Expired)),
            (TlsFault::Incompatible, asked, of_client(Expired), of_client(Expired)),
            (TlsFault::Incompatible, ClientAuth::NotRequested, TlsFault::Incompatible, TlsFault::Ended),
            (TlsFault::NoTls, asked, TlsFault::NoTls, TlsFault::Other),
            (TlsFault::Ended, asked, TlsFault::Ended, TlsFault::Ended),
        ] {
            assert_eq!(fault.after(auth), in_handshake, "{fault:?} {auth:?}");
            assert_eq!(fault.after_handshake(auth), afterwards, "{fault:?} {auth:?}");
        }
    }
}
