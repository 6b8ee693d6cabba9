//! The facts that a certificate states (RFC 5280).

use jackfield_domain::error::Violation;
use jackfield_domain::key::CertificateFacts;
use jackfield_domain::{Result, Timestamp};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;
use x509_parser::public_key::PublicKey;

use super::names::{distinguished_name, hex};

/// Returns the facts in a certificate. `field` is the field of the request that has it.
pub(super) fn facts(
    field: &str,
    certificate: &X509Certificate<'_>,
    der: &CertificateDer<'_>,
) -> Result<CertificateFacts> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.iter().map(general_name).collect());
    let time = |time: i64| {
        let outside = || Violation::field(field, "has a validity outside the years 1 to 9999");
        Timestamp::from_parts(time, 0).ok_or_else(outside)
    };
    Ok(CertificateFacts {
        subject: distinguished_name(certificate.subject()),
        issuer: distinguished_name(certificate.issuer()),
        serial_number: hex(without_sign(certificate.raw_serial())),
        subject_alternative_names: names.unwrap_or_default(),
        not_before: time(certificate.validity().not_before.timestamp())?,
        not_after: time(certificate.validity().not_after.timestamp())?,
        fingerprint_sha256: hex(&jackfield_vault::sha256(der)),
        public_key_algorithm: algorithm(certificate),
        is_ca: certificate.is_ca(),
    })
}

/// A positive number of DER without the zero that keeps its first bit from being read as a sign.
fn without_sign(integer: &[u8]) -> &[u8] {
    match integer {
        [0, rest @ ..] if !rest.is_empty() => rest,
        whole => whole,
    }
}

fn general_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::RFC822Name(address) => format!("email:{address}"),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(four), _) => format!("IP:{}", std::net::Ipv4Addr::from(four)),
            (_, Ok(sixteen)) => format!("IP:{}", std::net::Ipv6Addr::from(sixteen)),
            _ => format!("IP:{}", hex(bytes)),
        },
        GeneralName::DirectoryName(name) => format!("dirName:{}", distinguished_name(name)),
        other => format!("other:{other:?}"),
    }
}

fn algorithm(certificate: &X509Certificate<'_>) -> String {
    let info = certificate.public_key();
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => match point.key_size() {
            256 => "EC P-256".to_owned(),
            384 => "EC P-384".to_owned(),
            521 | 528 => "EC P-521".to_owned(),
            bits => format!("EC {bits}"),
        },
        _ if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".to_owned(),
        _ => info.algorithm.algorithm.to_id_string(),
    }
}
