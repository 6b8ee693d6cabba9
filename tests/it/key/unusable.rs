//! Certificates and keys that are well-formed and match, but that TLS cannot use.

use jackfield_testkit::{Flaw, Identity, expect_status, on_both};
use rcgen::{CertificateParams, KeyPair, KeyUsagePurpose};
use tonic::Code;

use super::pem::{CERTIFICATES, PRIVATE_KEY, accepted, refused, request};
use super::{facts, try_import};

/// An RSA key of 1,024 bits, made for this test.
const SHORT_RSA: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBANAB6X+eYJS7/5R5\n\
qKalTNpNc55mNVLpwW00wNPxK7w524u3VTEggP9+OZmzyxM+TDCK9P2OwWpsXjJw\n\
d7PJ7Wgly1YiBoHJkt0Jek6Pw4iWuekKUU9oML06+wA5ImNrQNi3QGRRw723S2Ji\n\
XpGcrSSLu3AFFguWelir1i/x0Z83AgMBAAECgYBQeizpH1GmugXsYBWMRDAz1fuB\n\
sXG4HpCju+FPHuQY8xmqOMhRNY4zS5bljNZpH5VCwsB+yZizoDHhufnWKa4cBsur\n\
a30ebpSs9+4QfPpCgxRqhVVlXxTl7Q3pUKM7GNzG3urhhfGwJLy9MV7HYKo6uhKw\n\
deEHQxXdoJ8xtRsvwQJBAOsJZCTLZBuU0QxY1kF+32DlDQVyPNcY4vszE4gd8ulA\n\
XGLMpNuaIEWlBHasF8kh3GhD8WWobBQ1t2wluHAoYs8CQQDij1xpdQIuOTcdIBe2\n\
9WP6HO4ssRZRV8WNZwRpfXnLn/fpLA9qVnYqUjnBQL6RLOiLXOVQ3VD1g+fltBP0\n\
YrcZAkEA0DUZiZ7Dp8tFBPMNmieSKnu99T0luEZLjMvKWaJuNULWlI9E22TFgeyU\n\
76uzxnFAlvzZM3zngV+0hRFFOdYM8QJAEybTRQbjHE0x34BrAMhVnzr610RRAqdM\n\
x9tBgDlfJltrdYaH9xFAA+vXfgKfGV6WedFsgR10TozL+ZrzZOFDYQJAZKPxMpq3\n\
xpOrI9p2/XhiimqKG50/XgUD2EDYH/0gkcXFu0fwAubX0SM/FGD0milNswhzF0YR\n\
C1YKQGXBj6EdSg==\n\
-----END PRIVATE KEY-----\n";

on_both! {
    /// The certificate is one that `openssl x509 -req` makes without an extension file.
    async fn a_certificate_of_version_1_is_named_as_such(server) {
        let alpha = server.client("alpha");
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        accepted(&alpha, &certificate.pem(), &key.serialize_pem()).await;
        let old = facts::pem("CERTIFICATE", &version_1(certificate.der()));
        let said = refused(&alpha, CERTIFICATES, &old, &key.serialize_pem()).await;
        assert!(said.description(CERTIFICATES).contains("version 1"), "{said:?}");
        // A certificate of version 1 cannot say that it is an authority.
        refused(&alpha, CERTIFICATES, &old, "").await;
    }

    async fn the_key_of_a_client_identity_may_sign(server) {
        use KeyUsagePurpose::{DigitalSignature, KeyAgreement, KeyEncipherment};
        let alpha = server.client("alpha");
        let key = KeyPair::generate().unwrap();
        let issued = |key_usages: &[KeyUsagePurpose]| {
            let mut params = CertificateParams::default();
            params.key_usages = key_usages.to_vec();
            params.self_signed(&key).unwrap().pem()
        };
        for usages in [&[][..], &[DigitalSignature], &[KeyEncipherment, DigitalSignature]] {
            accepted(&alpha, &issued(usages), &key.serialize_pem()).await;
        }
        for usages in [&[KeyEncipherment][..], &[KeyAgreement, KeyEncipherment]] {
            let refused = refused(&alpha, CERTIFICATES, &issued(usages), &key.serialize_pem()).await;
            assert!(refused.description(CERTIFICATES).ends_with("lacks digitalSignature"), "{refused:?}");
        }
    }

    /// No private key of a certificate of a public authority is at hand; the rest is tested beside the code.
    async fn a_private_authority_causes_no_warning(server) {
        let alpha = server.client("alpha");
        let mine = server.pki().client(Identity::of("a"));
        let with_root = mine.certificate_pem.clone() + &server.pki().ca_pem();
        for (name, chain, key) in
            [("short", &mine.certificate_pem, &*mine.key_pem), ("whole", &with_root, &mine.key_pem), ("root", &server.pki().ca_pem(), "")]
        {
            let mut request = request(chain, key);
            request.key.as_mut().unwrap().name = name.to_owned();
            assert_eq!(try_import(&alpha, request).await.unwrap().into_inner().warnings, Vec::<String>::new());
        }
    }

    async fn a_short_key_is_refused_with_the_required_length(server) {
        let alpha = server.client("alpha");
        let mine = server.pki().client(Identity::of("a"));
        let said = refused(&alpha, PRIVATE_KEY, &mine.certificate_pem, SHORT_RSA).await;
        assert!(said.description(PRIVATE_KEY).contains("RSA of 2,048 to 8,192 bits"), "{said:?}");
    }

    async fn several_private_keys_are_refused(server) {
        let alpha = server.client("alpha");
        let (mine, other) = (server.pki().client(Identity::of("a")), server.pki().client(Identity::of("a")));
        for both in [mine.key_pem.clone() + &other.key_pem, mine.key_pem.repeat(2)] {
            let said = refused(&alpha, PRIVATE_KEY, &mine.certificate_pem, &both).await;
            assert!(said.description(PRIVATE_KEY).contains("one private key"), "{said:?}");
        }
    }

    async fn imports_refused_before_they_have_an_id_show_none(server) {
        let alpha = server.client("alpha");
        let old = server.pki().flawed_client(Identity::of("a"), Flaw::Expired);
        let refused = try_import(&alpha, request(&old.certificate_pem, &old.key_pem)).await;
        let refused = expect_status(refused, Code::FailedPrecondition, "KEY_EXPIRED");
        assert!(!refused.details.error_info().unwrap().metadata.contains_key("id"), "{refused:?}");
        assert!(refused.details.resource_info().is_none(), "{refused:?}");
    }
}

/// A certificate without version and extensions, as in version 1. This breaks its signature, but imports do not check
/// that.
fn version_1(certificate: &[u8]) -> Vec<u8> {
    let parts = elements(elements(certificate)[0].1);
    let kept: Vec<u8> = elements(parts[0].1)
        .into_iter()
        .filter(|(tag, _)| !matches!(tag, 0xa0 | 0xa3))
        .flat_map(|(tag, content)| element(tag, content))
        .collect();
    let rest = parts[1..].iter().flat_map(|(tag, content)| element(*tag, content));
    element(0x30, &element(0x30, &kept).into_iter().chain(rest).collect::<Vec<u8>>())
}

/// The sequence of DER elements: tag and content.
fn elements(mut der: &[u8]) -> Vec<(u8, &[u8])> {
    let mut elements = Vec::new();
    while let [tag, short, rest @ ..] = der {
        let (length, rest) = match short {
            0..=0x7f => (usize::from(*short), rest),
            long => {
                let (length, rest) = rest.split_at(usize::from(long & 0x7f));
                (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
        };
        let (content, rest) = rest.split_at(length);
        elements.push((*tag, content));
        der = rest;
    }
    elements
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length: &[u8] = match (high, low) {
        (0, ..0x80) => &[low],
        (0, _) => &[0x81, low],
        _ => &[0x82, high, low],
    };
    [&[tag], length, content].concat()
}
