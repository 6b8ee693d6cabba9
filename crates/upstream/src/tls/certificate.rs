//! The facts that a certificate states (RFC 5280).

use jackfield_domain::Timestamp;
use jackfield_domain::key::CertificateFacts;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::hash;
use rustls::{SupportedCipherSuite, Tls13CipherSuite};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::names::{distinguished_name, hex};

/// Returns the facts in a certificate; `None` if its validity is outside the years 1 to 9999.
pub fn certificate_facts(certificate: &X509Certificate<'_>, der: &CertificateDer<'_>) -> Option<CertificateFacts> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.iter().map(general_name).collect());
    let time = |time: i64| Timestamp::from_parts(time, 0);
    Some(CertificateFacts {
        subject: distinguished_name(certificate.subject()),
        issuer: distinguished_name(certificate.issuer()),
        serial_number: hex(without_sign(certificate.raw_serial())),
        subject_alternative_names: names.unwrap_or_default(),
        not_before: time(certificate.validity().not_before.timestamp())?,
        not_after: time(certificate.validity().not_after.timestamp())?,
        fingerprint_sha256: hex(sha256(der).as_ref()),
        public_key_algorithm: algorithm(certificate),
        is_ca: certificate.is_ca(),
    })
}

/// The end of the validity of a certificate, in seconds since 1970.
pub(crate) fn not_after(der: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Returns true if a time in seconds since 1970 has come, by the clock that checks certificates.
pub(crate) fn has_ended(not_after: i64) -> bool {
    i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX) >= not_after
}

/// A positive number of DER without the zero that keeps its first bit from being read as a sign.
fn without_sign(integer: &[u8]) -> &[u8] {
    match integer {
        [0, rest @ ..] if !rest.is_empty() => rest,
        whole => whole,
    }
}

/// SHA-256, of the provider that does TLS.
fn sha256(bytes: &[u8]) -> hash::Output {
    let SupportedCipherSuite::Tls13(Tls13CipherSuite { common, .. }) = TLS13_AES_128_GCM_SHA256 else {
        unreachable!("the suite is one of TLS 1.3")
    };
    common.hash_provider.hash(bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_the_standard_example() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(sha256(b"abc").as_ref()), expected);
    }
}
