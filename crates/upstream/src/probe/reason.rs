//! The reasons of faults.

use jackfield_domain::probe::ProbeReason as Reason;

use crate::error::{Fault, ProxyFault};
use crate::license::{BodyFlaw, LicenseFault};
use crate::login::LoginFault;
use crate::tls::{ClientCertificateFault, ServerCertificateFault, TlsFault};

pub(super) fn of_fault(fault: &Fault) -> Reason {
    match fault {
        Fault::Refused(_) => Reason::EgressRefused,
        Fault::Unresolved => Reason::Unresolved,
        Fault::NameServersFailed => Reason::NameServersFailed,
        Fault::Connect(_) => Reason::ConnectFailed,
        Fault::ConnectTimeout(_) => Reason::ConnectTimeout,
        Fault::Proxy(ProxyFault::Status(407)) => Reason::ProxyAuthenticationFailed,
        Fault::Proxy(
            ProxyFault::Status(_) | ProxyFault::Malformed | ProxyFault::HeadersTooLarge | ProxyFault::Lost(_),
        ) => Reason::ProxyFailed,
        Fault::Tls(TlsFault::ServerCertificate(fault)) => of_server_certificate(*fault),
        Fault::Tls(TlsFault::ClientCertificate(fault)) => of_client_certificate(*fault),
        Fault::Tls(TlsFault::Incompatible) => Reason::TlsIncompatible,
        Fault::Tls(TlsFault::NoTls) => Reason::TlsNotSpoken,
        Fault::Tls(TlsFault::Ended | TlsFault::Other) => Reason::TlsFailed,
        Fault::ReadTimeout => Reason::ReadTimeout,
        Fault::TotalTimeout => Reason::TotalTimeout,
        Fault::CallerTimeout => Reason::CallerTimeout,
        Fault::ConnectionLost => Reason::ConnectionLost,
        // Probes speak HTTP/1.1.
        Fault::ResponseMalformed | Fault::Http2NotSpoken => Reason::ResponseMalformed,
        Fault::HeadersTooLarge => Reason::HeadersTooLarge,
        Fault::BodyTooLarge => Reason::BodyTooLarge,
        Fault::BodyEncoded => Reason::BodyEncoded,
        Fault::Busy => Reason::Busy,
        // Probes have no circuit.
        Fault::CircuitOpen { .. } => Reason::Undecided,
    }
}

pub(super) fn of_client_certificate(fault: ClientCertificateFault) -> Reason {
    match fault {
        ClientCertificateFault::Required => Reason::ClientCertificateRequired,
        ClientCertificateFault::Expired => Reason::ClientCertificateExpired,
        ClientCertificateFault::NotYetValid => Reason::ClientCertificateNotYetValid,
        ClientCertificateFault::WrongUsage => Reason::ClientCertificateWrongUsage,
        ClientCertificateFault::Revoked => Reason::ClientCertificateRevoked,
        ClientCertificateFault::UnknownAuthority => Reason::ClientCertificateUnknownAuthority,
        ClientCertificateFault::Denied => Reason::ClientCertificateDenied,
        ClientCertificateFault::Unverifiable | ClientCertificateFault::Other => Reason::ClientCertificateRefused,
    }
}

/// The reason of a login whose response cannot be used. Its status was looked at before.
pub(super) fn of_login(fault: &LoginFault) -> Reason {
    match fault {
        LoginFault::Call(error) => of_fault(&error.fault),
        LoginFault::Status(_) => Reason::StatusUnexpected,
        LoginFault::BodyNotUtf8 => Reason::BodyNotUtf8,
        LoginFault::BodyMalformed { .. } => Reason::BodyMalformed,
        LoginFault::UserMissing => Reason::UserMissing,
        LoginFault::UserIdInvalid => Reason::UserIdInvalid,
        LoginFault::UserUnnamed => Reason::UserUnnamed,
        LoginFault::UserInvalid(_) => Reason::UserInvalid,
    }
}

/// The reason of a log-in at a licence server whose response cannot be used.
pub(super) fn of_license(fault: &LicenseFault) -> Reason {
    match fault {
        LicenseFault::Call(error) => of_fault(&error.fault),
        LicenseFault::Request(_) => Reason::DefinitionInvalid,
        LicenseFault::Status { .. } => Reason::StatusUnexpected,
        LicenseFault::Body { flaw: BodyFlaw::NotUtf8, .. } => Reason::BodyNotUtf8,
        LicenseFault::Body { flaw: BodyFlaw::Malformed { .. }, .. } => Reason::BodyMalformed,
        LicenseFault::Body { flaw: BodyFlaw::Field(_), .. } => Reason::FieldInvalid,
    }
}

fn of_server_certificate(fault: ServerCertificateFault) -> Reason {
    match fault {
        ServerCertificateFault::Expired => Reason::ServerCertificateExpired,
        ServerCertificateFault::NotYetValid => Reason::ServerCertificateNotYetValid,
        ServerCertificateFault::UnknownAuthority => Reason::ServerCertificateUnknownAuthority,
        ServerCertificateFault::OtherHost => Reason::ServerCertificateOtherHost,
        ServerCertificateFault::WrongUsage => Reason::ServerCertificateWrongUsage,
        ServerCertificateFault::Revoked | ServerCertificateFault::Other => Reason::ServerCertificateInvalid,
    }
}
