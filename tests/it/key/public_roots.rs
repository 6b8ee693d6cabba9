//! Warnings about client certificates of public authorities, with a made-up one.

use jackfield_api::v1;
use jackfield_api::v1::rotate_key_request::Material;
use jackfield_testkit::{Backend, PublicRoots, TestServer, on_both};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::{try_import, update};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certificate(authority: &Authority, key: &KeyPair) -> String {
    CertificateParams::default().signed_by(key, authority).unwrap().pem()
}

/// A server to which this authority is a public one.
async fn server(backend: Backend, public: &Authority) -> TestServer {
    let mut server = TestServer::start(backend).await;
    server.surroundings_mut().public_roots = PublicRoots::of_pem(&public.pem());
    server.restart().await;
    server
}

fn an_import(name: &str, authority: &Authority, key: &KeyPair) -> v1::ImportKeyRequest {
    let key_of = v1::Key { name: name.to_owned(), certificate_pem: certificate(authority, key), ..Default::default() };
    v1::ImportKeyRequest { key: Some(key_of), private_key_pem: key.serialize_pem(), ..Default::default() }
}

#[track_caller]
fn assert_warned(warnings: &[String], is_warned: bool) {
    assert_eq!(warnings.len(), usize::from(is_warned), "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.contains("issued by a public authority")), "{warnings:?}");
}

on_both! {
    async fn an_import_from_a_public_authority_has_a_warning(backend: Backend) {
        let (public, private) = (authority("public"), authority("private"));
        let server = server(backend, &public).await;
        let alpha = server.client("alpha");
        for (name, authority, is_warned) in [("public", &public, true), ("private", &private, false)] {
            let request = an_import(name, authority, &KeyPair::generate().unwrap());
            let only_checked = v1::ImportKeyRequest { validate_only: true, ..request.clone() };
            for request in [only_checked, request] {
                assert_warned(&try_import(&alpha, request).await.unwrap().into_inner().warnings, is_warned);
            }
        }
        // A trust bundle may have public authorities.
        let bundle = v1::Key { name: "bundle".to_owned(), certificate_pem: public.pem(), ..Default::default() };
        let bundle = v1::ImportKeyRequest { key: Some(bundle), ..Default::default() };
        assert_warned(&try_import(&alpha, bundle).await.unwrap().into_inner().warnings, false);
    }

    async fn an_update_is_warned_of_by_the_certificate_that_it_leaves(backend: Backend) {
        let (public, private) = (authority("public"), authority("private"));
        let server = server(backend, &public).await;
        let alpha = server.client("alpha");
        let key = KeyPair::generate().unwrap();
        try_import(&alpha, an_import("mine", &private, &key)).await.unwrap();
        for (authority, is_warned) in [(&public, true), (&private, false)] {
            let certificate_pem = certificate(authority, &key);
            let change = v1::Key { certificate_pem, ..Default::default() };
            let request = v1::UpdateKeyRequest {
                reference: "name:mine".to_owned(),
                key: Some(change),
                ..Default::default()
            };
            assert_warned(&update(&alpha, request).await.unwrap().into_inner().warnings, is_warned);
        }
    }

    async fn a_rotation_is_warned_of_by_the_next_material(backend: Backend) {
        let (public, private) = (authority("public"), authority("private"));
        let server = server(backend, &public).await;
        let alpha = server.client("alpha");
        try_import(&alpha, an_import("mine", &private, &KeyPair::generate().unwrap())).await.unwrap();
        let in_a_year = jackfield_domain::Clock::now(&jackfield_domain::SystemClock).seconds() + 365 * 86_400;
        let later = prost_types::Timestamp { seconds: in_a_year, nanos: 0 };
        for (authority, activate_time, is_warned) in [
            (&public, Some(later), true),
            (&private, Some(later), false),
            (&public, None, true),
            // The current material, which is public, does not count.
            (&private, Some(later), false),
        ] {
            let key = KeyPair::generate().unwrap();
            let material = v1::KeyImport {
                certificate_pem: certificate(authority, &key),
                private_key_pem: key.serialize_pem(),
            };
            let request = v1::RotateKeyRequest {
                reference: "name:mine".to_owned(),
                material: Some(Material::Imported(material)),
                activate_time,
                ..Default::default()
            };
            let rotated = alpha.keys().rotate_key(request).await.unwrap().into_inner();
            assert_warned(&rotated.warnings, is_warned);
        }
    }
}
