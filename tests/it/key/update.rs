//! Updates of keys: name, labels and certificates.

use jackfield_api::v1;
use jackfield_testkit::{Identity, expect_status, fixture, on_both};
use rcgen::{CertificateParams, KeyPair};
use tonic::Code;

use super::{a_bundle, an_identity, get, import, update};
use crate::connector;

const CERTIFICATES: &str = "key.certificate_pem";

on_both! {
    async fn name_and_labels_change_and_uses_are_counted(server) {
        let alpha = server.client("alpha");
        let before = import(&alpha, an_identity(&server, "mine")).await;
        import(&alpha, a_bundle(&server, "taken")).await;
        let used = v1::Connector { client_identity_key: Some(before.id.clone()), ..fixture::a_connector("x") };
        connector::create(&alpha, used).await;
        let change = v1::Key { name: " Yours ".to_owned(), labels: fixture::strings([("env", "prod")]), ..Default::default() };
        let after = update(&alpha, of(&before, change, &[])).await.unwrap().into_inner().key.unwrap();
        let expected = v1::Key {
            name: "Yours".to_owned(),
            labels: fixture::strings([("env", "prod")]),
            used_by_count: 1,
            update_time: after.update_time,
            etag: after.etag.clone(),
            ..before.clone()
        };
        assert_eq!(after, expected);
        assert_ne!(after.etag, before.etag);
        for reference in [&*before.id, "name:yours"] {
            assert_eq!(get(&alpha, reference).await.unwrap(), after);
        }
        expect_status(get(&alpha, "name:mine").await.map(tonic::Response::new), Code::NotFound, "KEY_NOT_FOUND");
        let taken = v1::Key { name: "TAKEN".to_owned(), ..Default::default() };
        expect_status(update(&alpha, of(&before, taken, &[])).await, Code::AlreadyExists, "NAME_TAKEN");
        let none = v1::Key::default();
        let after = update(&alpha, of(&before, none, &["labels.env"])).await.unwrap().into_inner().key.unwrap();
        assert!(after.labels.is_empty());
    }

    async fn what_was_read_can_be_sent_back(server) {
        let alpha = server.client("alpha");
        for request in [an_identity(&server, "identity"), a_bundle(&server, "bundle")] {
            let key = import(&alpha, request).await;
            for mask in [&[][..], &["*"], &["name", "type", "certificate_pem", "labels", "next", "etag"]] {
                let answer = update(&alpha, of(&key, key.clone(), mask)).await.unwrap().into_inner();
                assert_eq!(answer.key.unwrap(), key, "{mask:?}");
            }
        }
    }

    async fn a_renewed_certificate_must_be_of_the_stored_private_key(server) {
        let alpha = server.client("alpha");
        let key = KeyPair::generate().unwrap();
        let certificate = |key: &KeyPair| CertificateParams::default().self_signed(key).unwrap().pem();
        let request = v1::ImportKeyRequest {
            key: Some(v1::Key { name: "mine".to_owned(), certificate_pem: certificate(&key), ..Default::default() }),
            private_key_pem: key.serialize_pem(),
            ..Default::default()
        };
        let before = import(&alpha, request).await;
        let renewed = v1::Key { certificate_pem: certificate(&key), ..Default::default() };
        assert_ne!(renewed.certificate_pem, before.certificate_pem);
        let after = update(&alpha, of(&before, renewed.clone(), &[])).await.unwrap().into_inner().key.unwrap();
        assert_eq!((&after.certificate_pem, &after.name), (&renewed.certificate_pem, &before.name));
        assert_ne!(after.certificates, before.certificates);

        let other = server.pki().client(Identity::of("a"));
        for (certificate_pem, said) in [
            (certificate(&KeyPair::generate().unwrap()), "of another private key"),
            (other.certificate_pem, "of another private key"),
            (other.key_pem, "must not hold a private key"),
            ("nothing".to_owned(), "holds no certificate"),
        ] {
            let change = v1::Key { certificate_pem, ..Default::default() };
            let refused = expect_status(update(&alpha, of(&before, change, &[])).await, Code::InvalidArgument, "FIELD_INVALID");
            refused.expect_fields(&[CERTIFICATES]);
            assert!(refused.description(CERTIFICATES).contains(said), "{refused:?}");
        }
        for mask in ["*", "certificate_pem"] {
            let change = v1::Key { name: "mine".to_owned(), ..Default::default() };
            let refused = expect_status(update(&alpha, of(&before, change, &[mask])).await, Code::InvalidArgument, "FIELD_INVALID");
            refused.expect_fields(&[CERTIFICATES]);
            assert_eq!(refused.description(CERTIFICATES), "is required");
        }
        assert_eq!(get(&alpha, "name:mine").await.unwrap(), after);
    }

    async fn a_trust_bundle_gets_other_authorities(server) {
        let alpha = server.client("alpha");
        let before = import(&alpha, a_bundle(&server, "bundle")).await;
        let chain = server.pki().client(Identity::of("a")).certificate_pem;
        let intermediate = chain.split_inclusive("-----END CERTIFICATE-----\n").nth(1).unwrap();
        let both = server.pki().ca_pem() + intermediate;
        let change = v1::Key { certificate_pem: both, ..Default::default() };
        let after = update(&alpha, of(&before, change, &[])).await.unwrap().into_inner().key.unwrap();
        assert_eq!(after.certificates.len(), 2);
        let leaf = v1::Key { certificate_pem: server.pki().client(Identity::of("a")).certificate_pem, ..Default::default() };
        let refused = expect_status(update(&alpha, of(&before, leaf, &[])).await, Code::InvalidArgument, "FIELD_INVALID");
        refused.expect_fields(&[CERTIFICATES]);
        assert_eq!(get(&alpha, "name:bundle").await.unwrap(), after);
    }

    async fn the_type_cannot_change(server) {
        let alpha = server.client("alpha");
        let key = import(&alpha, a_bundle(&server, "bundle")).await;
        let change = v1::Key { r#type: v1::KeyType::ClientIdentity.into(), ..Default::default() };
        let refused = expect_status(update(&alpha, of(&key, change, &[])).await, Code::InvalidArgument, "FIELD_INVALID");
        refused.expect_fields(&["key.type"]);
        assert_eq!(refused.description("key.type"), "may not be changed");
        assert_eq!(get(&alpha, &key.id).await.unwrap(), key);
    }
}

fn of(key: &v1::Key, change: v1::Key, mask: &[&str]) -> v1::UpdateKeyRequest {
    let paths: Vec<String> = mask.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = (!paths.is_empty()).then_some(prost_types::FieldMask { paths });
    v1::UpdateKeyRequest { reference: key.id.clone(), key: Some(change), update_mask, ..Default::default() }
}
