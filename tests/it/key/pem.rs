//! Refused certificates and private keys, and their descriptions.

use jackfield_api::v1;
use jackfield_testkit::{Client, Flaw, Identity, Refusal, expect_status, on_both};
use rcgen::{
    CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, KeyPair, SignatureAlgorithm, date_time_ymd,
};
use tonic::Code;

use super::{facts, list, try_import};

pub(super) const CERTIFICATES: &str = "key.certificate_pem";
pub(super) const PRIVATE_KEY: &str = "private_key_pem";

on_both! {
    async fn the_private_key_must_belong_to_the_first_certificate(server) {
        let alpha = server.client("alpha");
        let (mine, other) = (server.pki().client(Identity::of("a")), server.pki().client(Identity::of("a")));
        refused(&alpha, PRIVATE_KEY, &mine.certificate_pem, &other.key_pem).await;
        let [leaf, intermediate] = blocks(&mine.certificate_pem).try_into().unwrap();
        for certificate_pem in [intermediate.clone() + &leaf, intermediate] {
            refused(&alpha, PRIVATE_KEY, &certificate_pem, &mine.key_pem).await;
        }
        let types: [&'static SignatureAlgorithm; 2] = [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        for algorithm in types {
            let key = KeyPair::generate_for(algorithm).unwrap().serialize_pem();
            refused(&alpha, PRIVATE_KEY, &mine.certificate_pem, &key).await;
        }
        assert_eq!(list(&alpha).await, []);
    }

    /// PEM is accepted as `cat` and editors write it. Text that cannot be read completely is refused, and nothing is
    /// skipped.
    async fn a_text_is_read_completely_or_refused(server) {
        let alpha = server.client("alpha");
        let mine = server.pki().client(Identity::of("a"));
        let [leaf, intermediate] = blocks(&mine.certificate_pem).try_into().unwrap();
        let plain = leaf.clone() + &intermediate;
        for text in [
            format!("{}{intermediate}", leaf.trim_end()),
            format!("\u{FEFF}{}\u{FEFF}{intermediate}", leaf.trim_end()),
            format!("\u{FEFF}{plain}"),
        ] {
            let request = v1::ImportKeyRequest { validate_only: true, ..request(&text, &mine.key_pem) };
            let key = try_import(&alpha, request).await.unwrap().into_inner().key.unwrap();
            assert_eq!(key.certificates.len(), 2, "{text}");
            assert_eq!(key.certificate_pem, plain, "{text}");
        }
        for (text, said) in [
            (plain.replace('\n', "\\n"), "the two characters \\n where its lines should break"),
            (format!("{leaf}and {intermediate}"), "only 1 of 2 sections can be read"),
            (plain.replace("CERTIFICATE-----", "X509 CRL-----"), "section 1 is X509 CRL, which does not belong here"),
        ] {
            let refused = refused(&alpha, CERTIFICATES, &text, &mine.key_pem).await;
            assert!(refused.description(CERTIFICATES).contains(said), "{refused:?}");
        }
    }

    /// Tools write private keys in other forms around certificates. Every reader gets certificate_pem.
    async fn text_around_certificates_is_accepted_and_not_kept(server) {
        let alpha = server.client("alpha");
        let mine = server.pki().client(Identity::of("a"));
        let [leaf, intermediate] = blocks(&mine.certificate_pem).try_into().unwrap();
        let body: String = mine.key_pem.lines().filter(|line| !line.starts_with('-')).collect();
        let numbers = "Private-Key: (256 bit)\npriv:\n    44:6f:6e:27:74:20:6b:65:65:70:20:6d:65\n";
        let jwk = format!("{{\"kty\":\"EC\",\"d\":\"{body}\"}}");
        let comments = "subject=CN = a\nissuer=CN = b\nBag Attributes\n    friendlyName: mine\n";
        for (index, around) in [numbers, &body, &jwk, comments].into_iter().enumerate() {
            let given = format!("{around}\n{leaf}{around}\n{intermediate}{around}");
            let mut import = request(&given, &format!("{around}\n{}{around}", mine.key_pem));
            import.key.as_mut().unwrap().name = format!("key {index}");
            let key = try_import(&alpha, import).await.unwrap().into_inner().key.unwrap();
            assert_eq!(key.certificate_pem, mine.certificate_pem, "{given}");
            // What was given is equal to what is stored, so the update changes nothing.
            let mut change = key.clone();
            (change.certificate_pem, change.etag) = (given.clone(), String::new());
            let update = v1::UpdateKeyRequest {
                reference: key.id.clone(),
                key: Some(change),
                update_mask: Some(prost_types::FieldMask { paths: vec!["certificate_pem".to_owned()] }),
                ..Default::default()
            };
            let updated = alpha.keys().update_key(update).await.unwrap().into_inner().key.unwrap();
            assert_eq!(updated, key, "{given}");
            let bundle = format!("{around}\n{}{around}", server.pki().ca_pem());
            let mut import = request(&bundle, "");
            import.key.as_mut().unwrap().name = format!("bundle {index}");
            let key = try_import(&alpha, import).await.unwrap().into_inner().key.unwrap();
            assert_eq!(key.certificate_pem, server.pki().ca_pem(), "{bundle}");
        }
        let stored = server.sql("SELECT doc FROM \"key\"").await;
        assert_eq!(stored.len(), 8);
        for text in ["44:6f", &body[..40], "friendlyName", "subject=CN"] {
            assert!(!stored.iter().any(|doc| doc.contains(text)), "{text}");
        }
    }

    /// Later readers need not handle byte order marks and text around the key.
    async fn a_private_key_is_stored_in_one_form(server) {
        let alpha = server.client("alpha");
        let mine = server.pki().client(Identity::of("a"));
        let sealed = "SELECT length(sealed) FROM secret ORDER BY 1";
        for key_pem in [mine.key_pem.clone(), format!("\u{FEFF}# mine\n{}\u{FEFF}", mine.key_pem)] {
            let mut request = request(&mine.certificate_pem, &key_pem);
            request.key.as_mut().unwrap().name = format!("of {} bytes", key_pem.len());
            try_import(&alpha, request).await.unwrap();
        }
        let lengths = server.sql(sealed).await;
        assert_eq!(lengths.len(), 2);
        assert_eq!(lengths[0], lengths[1]);
    }

    async fn the_chain_must_be_in_order(server) {
        let alpha = server.client("alpha");
        let mine = server.pki().client(Identity::of("a"));
        let [leaf, intermediate] = blocks(&mine.certificate_pem).try_into().unwrap();
        let root = server.pki().ca_pem();
        // The caller chooses how much of the chain to include.
        for chain in [leaf.clone(), leaf.clone() + &intermediate, leaf.clone() + &intermediate + &root] {
            accepted(&alpha, &chain, &mine.key_pem).await;
        }
        let [other, _] = blocks(&server.pki().client(Identity::of("a")).certificate_pem).try_into().unwrap();
        for chain in [
            leaf.clone() + &root,
            leaf.clone() + &root + &intermediate,
            leaf.clone() + &leaf,
            leaf.clone() + &other,
            leaf.clone() + &intermediate + &leaf,
            leaf + &intermediate + &intermediate,
        ] {
            let refused = refused(&alpha, CERTIFICATES, &chain, &mine.key_pem).await;
            assert!(refused.description(CERTIFICATES).contains("order"), "{refused:?}");
        }
        // A certificate with the issuer's name that did not sign the one before it is not its issuer.
        let stranger = server.pki().flawed_client(Identity::of("a"), Flaw::WrongAuthority);
        let [_, stranger] = blocks(&stranger.certificate_pem).try_into().unwrap();
        let [leaf, _] = blocks(&mine.certificate_pem).try_into().unwrap();
        let refused = refused(&alpha, CERTIFICATES, &(leaf + &stranger), &mine.key_pem).await;
        assert!(refused.description(CERTIFICATES).contains("order"), "{refused:?}");
    }

    async fn a_trust_bundle_holds_only_authorities(server) {
        let alpha = server.client("alpha");
        let mine = server.pki().client(Identity::of("a"));
        let [leaf, intermediate] = blocks(&mine.certificate_pem).try_into().unwrap();
        let root = server.pki().ca_pem();
        // Any order, and any number of unrelated authorities.
        for bundle in [root.clone() + &intermediate, intermediate.clone() + &root, intermediate.clone()] {
            accepted(&alpha, &bundle, "").await;
        }
        for (bundle, number) in [(leaf.clone(), "1"), (root.clone() + &leaf, "2"), (root + &intermediate + &leaf, "3")] {
            let refused = refused(&alpha, CERTIFICATES, &bundle, "").await;
            let said = refused.description(CERTIFICATES);
            assert!(said.contains(&format!("certificate {number} is not one")), "{refused:?}");
            assert!(said.contains("private_key_pem"), "{refused:?}");
        }
        assert_eq!(list(&alpha).await, []);
    }

    async fn expired_certificates_are_refused_and_future_ones_are_not(server) {
        let alpha = server.client("alpha");
        let old = server.pki().flawed_client(Identity::of("a"), Flaw::Expired);
        let new = server.pki().flawed_client(Identity::of("a"), Flaw::NotYetValid);
        accepted(&alpha, &new.certificate_pem, &new.key_pem).await;

        let ended = date_time_ymd(2024, 5, 6);
        let mut params = facts::authority("ended");
        params.not_after = ended;
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::default().signed_by(&key, &issuer).unwrap();
        let bundle = server.pki().ca_pem() + &issuer.pem();
        for (certificate_pem, private_key_pem, subject) in [
            (old.certificate_pem, old.key_pem, "CN=client"),
            (leaf.pem() + &issuer.pem(), key.serialize_pem(), "key.certificate_pem: certificate 2, of CN=ended"),
            (bundle, String::new(), "key.certificate_pem: certificate 2, of CN=ended"),
        ] {
            let refused = try_import(&alpha, request(&certificate_pem, &private_key_pem)).await;
            let refused = expect_status(refused, Code::FailedPrecondition, "KEY_EXPIRED");
            let violations = &refused.details.precondition_failure().unwrap().violations;
            assert_eq!((violations.len(), &*violations[0].r#type), (1, "KEY_EXPIRED"));
            assert!(refused.status.message().contains(subject), "{refused:?}");
        }
        assert_eq!(list(&alpha).await, []);
    }

    async fn a_client_identity_must_be_valid_for_clients(server) {
        let alpha = server.client("alpha");
        let server_only = server.pki().flawed_client(Identity::of("a"), Flaw::ServerOnly);
        let said = refused(&alpha, CERTIFICATES, &server_only.certificate_pem, &server_only.key_pem).await;
        assert!(said.description(CERTIFICATES).contains("client authentication"), "{said:?}");
        use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
        for (usages, good) in [
            (vec![], true),
            (vec![ClientAuth], true),
            (vec![ServerAuth, ClientAuth], true),
            (vec![Any], true),
            (vec![CodeSigning], false),
        ] {
            let mut params = CertificateParams::default();
            params.extended_key_usages = usages;
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap().pem();
            match good {
                true => accepted(&alpha, &certificate, &key.serialize_pem()).await,
                false => drop(refused(&alpha, CERTIFICATES, &certificate, &key.serialize_pem()).await),
            }
        }
    }

    async fn garbage_is_refused(server) {
        let alpha = server.client("alpha");
        let mine = server.pki().client(Identity::of("a"));
        let [leaf, _] = blocks(&mine.certificate_pem).try_into().unwrap();
        let cut = &leaf[..leaf.len() - 40];
        let der = [0x30, 0x03, 0x02, 0x01, 0x01];
        for wrong in [
            " ",
            "certificate",
            "-----BEGIN CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
            &facts::pem("CERTIFICATE", &der),
            &facts::pem("CERTIFICATE REQUEST", &der),
            cut,
            &(leaf.clone() + cut),
            &(leaf.clone() + &facts::pem("CERTIFICATE", &der)),
        ] {
            refused(&alpha, CERTIFICATES, wrong, &mine.key_pem).await;
            refused(&alpha, CERTIFICATES, wrong, "").await;
        }
        let encrypted = mine.key_pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let legacy = mine.key_pem.replace("PRIVATE KEY", "EC PRIVATE KEY").replacen(
            '\n',
            "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\n",
            1,
        );
        let public = facts::pem("PUBLIC KEY", &der);
        for wrong in [
            "key",
            &encrypted,
            &legacy,
            &public,
            &leaf,
            "-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n",
            &facts::pem("PRIVATE KEY", &der),
            &facts::pem("EC PRIVATE KEY", &der),
            &facts::pem("RSA PRIVATE KEY", &der),
            &mine.key_pem[..mine.key_pem.len() - 40],
        ] {
            refused(&alpha, PRIVATE_KEY, &leaf, wrong).await;
        }
        for placeholder in ["****", "[REDACTED]"] {
            let refused = try_import(&alpha, request(&leaf, placeholder)).await;
            expect_status(refused, Code::InvalidArgument, "PLACEHOLDER_SECRET").expect_fields(&[PRIVATE_KEY]);
        }
        let blank = refused(&alpha, PRIVATE_KEY, &leaf, " \n").await;
        assert_eq!(blank.description(PRIVATE_KEY), "must not be blank");
        assert_eq!(list(&alpha).await, []);
    }

    async fn a_private_key_among_the_certificates_is_refused(server) {
        let alpha = server.client("alpha");
        let mine = server.pki().client(Identity::of("a"));
        // Every reader gets certificate_pem.
        let encrypted = mine.key_pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        for key in [&mine.key_pem, &encrypted, &mine.key_pem.replace("PRIVATE KEY", "EC PRIVATE KEY")] {
            for pem in [mine.certificate_pem.clone() + key, key.clone() + &mine.certificate_pem] {
                let said = refused(&alpha, CERTIFICATES, &pem, &mine.key_pem).await;
                let expected = "must not hold a private key: it is given back to readers";
                assert_eq!(said.description(CERTIFICATES), expected);
            }
            refused(&alpha, CERTIFICATES, &(server.pki().ca_pem() + key), "").await;
        }
        assert_eq!(list(&alpha).await, []);
    }

    async fn sizes_have_limits(server) {
        let alpha = server.client("alpha");
        let mine = server.pki().client(Identity::of("a"));
        // Text outside the blocks counts (RFC 7468 2).
        let padded = |pem: &str, size: usize| format!("{}{pem}", "#".repeat(size - pem.len() - 1) + "\n");
        for (certificates, key, good, field) in [
            (padded(&mine.certificate_pem, 64 * 1024), mine.key_pem.clone(), true, ""),
            (padded(&mine.certificate_pem, 64 * 1024 + 1), mine.key_pem.clone(), false, CERTIFICATES),
            (mine.certificate_pem.clone(), padded(&mine.key_pem, 16 * 1024), true, ""),
            (mine.certificate_pem.clone(), padded(&mine.key_pem, 16 * 1024 + 1), false, PRIVATE_KEY),
        ] {
            match good {
                true => accepted(&alpha, &certificates, &key).await,
                false => drop(refused(&alpha, field, &certificates, &key).await),
            }
        }
        let mut params = facts::authority("a");
        params.distinguished_name = facts::name(&[(DnType::CommonName, "a")]);
        let authority = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        assert!(authority.len() * 101 <= 64 * 1024, "{}", authority.len());
        accepted(&alpha, &authority.repeat(100), "").await;
        refused(&alpha, CERTIFICATES, &authority.repeat(101), "").await;
    }
}

pub(super) fn request(certificate_pem: &str, private_key_pem: &str) -> v1::ImportKeyRequest {
    let key = v1::Key { name: "mine".to_owned(), certificate_pem: certificate_pem.to_owned(), ..Default::default() };
    v1::ImportKeyRequest { key: Some(key), private_key_pem: private_key_pem.to_owned(), ..Default::default() }
}

pub(super) async fn accepted(client: &Client, certificate_pem: &str, private_key_pem: &str) {
    let request = v1::ImportKeyRequest { validate_only: true, ..request(certificate_pem, private_key_pem) };
    let key = try_import(client, request).await.unwrap().into_inner().key.unwrap();
    assert_eq!(key.certificate_pem, certificate_pem.trim_start_matches('#').trim_start());
}

pub(super) async fn refused(client: &Client, field: &str, certificate_pem: &str, private_key_pem: &str) -> Refusal {
    let refused = try_import(client, request(certificate_pem, private_key_pem)).await;
    let refused = expect_status(refused, Code::InvalidArgument, "FIELD_INVALID");
    refused.expect_fields(&[field]);
    refused
}

/// The blocks of a PEM text.
fn blocks(pem: &str) -> Vec<String> {
    pem.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect()
}
