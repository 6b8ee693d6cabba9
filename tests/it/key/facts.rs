//! The facts of a key's certificates, compared with their parameters.

use std::net::IpAddr;

use jackfield_api::v1;
use jackfield_testkit::on_both;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, DnValue, IsCa, KeyPair,
    RsaKeySize, SanType, SerialNumber, date_time_ymd,
};
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

use super::{get, import, try_import};

on_both! {
    async fn facts_are_those_of_the_certificates(server) {
        let alpha = server.client("alpha");
        let mut authority = CertificateParams::default();
        authority.distinguished_name = name(&[(DnType::OrganizationName, "Authority"), (DnType::CommonName, "Root")]);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.serial_number = Some(SerialNumber::from_slice(&[0xff, 0x00, 0x01]));
        (authority.not_before, authority.not_after) = (date_time_ymd(2020, 2, 29), date_time_ymd(2060, 12, 31));
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();

        let mut leaf = CertificateParams::default();
        leaf.distinguished_name = name(&[
            (DnType::CountryName, "CH"),
            (DnType::OrganizationName, "Müller, Söhne + Co \"<A>\"; B\\C=D"),
            (DnType::OrganizationalUnitName, " #x "),
            (DnType::CommonName, "#jackfield"),
        ]);
        // userId, which RFC 4514 abbreviates, and businessCategory, which it does not.
        leaf.distinguished_name.push(DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]), "uid");
        let value = DnValue::PrintableString("x".try_into().unwrap());
        leaf.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 15]), value);
        leaf.subject_alt_names = vec![
            SanType::DnsName("a.example.com".try_into().unwrap()),
            SanType::DnsName("*.example.com".try_into().unwrap()),
            SanType::URI("spiffe://example.com/a".try_into().unwrap()),
            SanType::Rfc822Name("a@example.com".try_into().unwrap()),
            SanType::IpAddress("192.0.2.7".parse::<IpAddr>().unwrap()),
            SanType::IpAddress("2001:db8::7".parse::<IpAddr>().unwrap()),
        ];
        leaf.serial_number = Some(SerialNumber::from_slice(&[0x01, 0xab]));
        (leaf.not_before, leaf.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2049, 12, 31));
        let key = KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &authority).unwrap();
        let request = v1::ImportKeyRequest {
            key: Some(v1::Key {
                name: "mine".to_owned(),
                certificate_pem: leaf.pem() + &authority.pem(),
                ..Default::default()
            }),
            private_key_pem: key.serialize_pem(),
            ..Default::default()
        };
        let imported = import(&alpha, request).await;
        let root = "CN=Root,O=Authority".to_owned();
        let at = |seconds: i64| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let expected = [
            v1::Certificate {
                subject: r##"2.5.4.15=#130178,UID=uid,CN=\#jackfield,OU=\ #x\ ,O=Müller\, Söhne \+ Co \"\<A\>\"\; B\\C=D,C=CH"##
                    .to_owned(),
                issuer: root.clone(),
                serial_number: "01ab".to_owned(),
                subject_alternative_names: [
                    "DNS:a.example.com",
                    "DNS:*.example.com",
                    "URI:spiffe://example.com/a",
                    "email:a@example.com",
                    "IP:192.0.2.7",
                    "IP:2001:db8::7",
                ]
                .map(str::to_owned)
                .to_vec(),
                not_before: at(1_704_067_200),
                not_after: at(2_524_521_600),
                fingerprint_sha256: sha256(leaf.der()),
                public_key_algorithm: "EC P-256".to_owned(),
                is_ca: false,
            },
            v1::Certificate {
                subject: root.clone(),
                issuer: root,
                serial_number: "ff0001".to_owned(),
                subject_alternative_names: Vec::new(),
                not_before: at(1_582_934_400),
                // Times after 2049 have another encoding (RFC 5280 4.1.2.5).
                not_after: at(2_871_676_800),
                fingerprint_sha256: sha256(authority.der()),
                public_key_algorithm: "EC P-256".to_owned(),
                is_ca: true,
            },
        ];
        assert_eq!(imported.certificates, expected);
        assert_eq!(imported.not_after, at(2_524_521_600), "the first to expire");
        assert_eq!(get(&alpha, &imported.id).await.unwrap(), imported);
    }

    async fn a_bundle_expires_with_its_first_certificate(server) {
        let alpha = server.client("alpha");
        let mut pem = String::new();
        let mut ends = Vec::new();
        for year in [2050, 2040, 2060] {
            let mut params = authority(&format!("authority {year}"));
            params.not_after = date_time_ymd(year, 1, 1);
            ends.push(params.not_after.unix_timestamp());
            pem += &params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        }
        let key = v1::Key { name: "mine".to_owned(), certificate_pem: pem.clone(), ..Default::default() };
        let imported = import(&alpha, v1::ImportKeyRequest { key: Some(key), ..Default::default() }).await;
        assert_eq!(imported.certificate_pem, pem);
        let subjects: Vec<&str> = imported.certificates.iter().map(|it| &*it.subject).collect();
        assert_eq!(subjects, ["CN=authority 2050", "CN=authority 2040", "CN=authority 2060"]);
        let found: Vec<i64> = imported.certificates.iter().map(|it| it.not_after.unwrap().seconds).collect();
        assert_eq!(found, ends);
        assert_eq!(imported.not_after.unwrap().seconds, ends[1]);
    }

    async fn every_type_and_form_of_private_key_is_accepted(server) {
        let alpha = server.client("alpha");
        let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let keys = [
            (KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(), "EC P-256", Some("EC PRIVATE KEY")),
            (KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(), "EC P-384", Some("EC PRIVATE KEY")),
            (KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap(), "EC P-521", Some("EC PRIVATE KEY")),
            (KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), "Ed25519", None),
            (rsa, "RSA 2048", Some("RSA PRIVATE KEY")),
        ];
        for (key, algorithm, other_label) in keys {
            let certificate_pem = CertificateParams::default().self_signed(&key).unwrap().pem();
            let pkcs8 = key.serialize_der();
            let mut forms = vec![key.serialize_pem()];
            // PKCS #8 wraps SEC 1 and PKCS #1 (RFC 5208 5): version, algorithm, private key.
            forms.extend(other_label.map(|label| pem(label, inner_key(&pkcs8))));
            for private_key_pem in forms {
                let label = private_key_pem.lines().next().unwrap_or_default().to_owned();
                let request = v1::ImportKeyRequest {
                    key: Some(v1::Key {
                        name: "mine".to_owned(),
                        certificate_pem: certificate_pem.clone(),
                        ..Default::default()
                    }),
                    private_key_pem,
                    validate_only: true,
                    ..Default::default()
                };
                let imported = try_import(&alpha, request).await.unwrap_or_else(|status| {
                    panic!("{algorithm} {label}: {status:?}")
                });
                let imported = imported.into_inner().key.unwrap();
                assert_eq!(imported.certificates[0].public_key_algorithm, algorithm);
            }
        }
    }
}

/// The parameters of an authority's certificate.
pub(super) fn authority(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&[(DnType::CommonName, common_name)]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// A distinguished name of these parts, in this order.
pub(super) fn name(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (part, value) in parts {
        name.push(part.clone(), *value);
    }
    name
}

/// Bytes as PEM (RFC 7468).
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encoded = der.chunks(3).flat_map(|three| {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        let digit = move |index: usize| char::from(ALPHABET[(bits >> (18 - 6 * index) & 63) as usize]);
        (0..4).map(move |index| if index <= three.len() { digit(index) } else { '=' })
    });
    let encoded: Vec<char> = encoded.collect();
    let lines: Vec<String> = encoded.chunks(64).map(|line| line.iter().collect()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The private key that a PKCS #8 structure wraps: the third part of the sequence.
fn inner_key(pkcs8: &[u8]) -> &[u8] {
    let (_, sequence, _) = der_value(pkcs8);
    let (_, _, rest) = der_value(sequence);
    let (_, _, rest) = der_value(rest);
    let (tag, key, _) = der_value(rest);
    assert_eq!(tag, 0x04, "an octet string");
    key
}

/// The first value (DER): its tag, its content, and what follows.
fn der_value(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (start, length) = match der[1] {
        short @ 0..0x80 => (2, usize::from(short)),
        long => {
            let digits = usize::from(long & 0x7f);
            (2 + digits, der[2..2 + digits].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
        }
    };
    (der[0], &der[start..start + length], &der[start + length..])
}

fn sha256(bytes: &[u8]) -> String {
    let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else { panic!("not a suite of TLS 1.3") };
    let hash = suite.common.hash_provider.hash(bytes);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
