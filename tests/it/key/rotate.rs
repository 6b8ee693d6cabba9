//! Rotations: the next material beside the current one, and its activation.

use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_api::v1::rotate_key_request::Material;
use jackfield_domain::{Clock, Resource, SystemClock};
use jackfield_testkit::pki::Leaf;
use jackfield_testkit::{Client, Identity, ManualClock, TestServer, expect_status, fixture, on_both};
use rcgen::{CertificateParams, KeyPair};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::generate::signed;
use super::{a_bundle, an_identity, delete, get, import, list, update};
use crate::connector;

const CERTIFICATES: &str = "imported.certificate_pem";
const PRIVATE_KEY: &str = "imported.private_key_pem";

on_both! {
    async fn next_material_is_held_and_becomes_current_at_its_time(backend: Backend) {
        let clock = ManualClock::at_present();
        let mut server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let alpha = server.client("alpha");
        let before = import(&alpha, an_identity(&server, "mine")).await;
        let next = a_leaf(&server);
        let planned = rotate(&alpha, given("name:mine", of(&next), in_minutes(&*clock, 10))).await.unwrap();
        let expected = v1::Key {
            next: Some(v1::KeyRotation {
                activate_time: in_minutes(&*clock, 10),
                state: v1::KeyState::Ready.into(),
                certificate_pem: next.certificate_pem.clone(),
                certificates: planned.next.clone().unwrap().certificates,
                signing_request_pem: String::new(),
                not_after: planned.next.clone().unwrap().certificates[0].not_after,
            }),
            update_time: planned.update_time,
            etag: planned.etag.clone(),
            ..before.clone()
        };
        assert_eq!(planned, expected);
        assert_eq!(get(&alpha, "name:mine").await.unwrap(), planned);
        assert_eq!(sealed(&server, &before.id).await, [true, true], "both are held");

        clock.advance(Duration::from_secs(10 * 60));
        let after = get(&alpha, &before.id).await.unwrap();
        let expected = v1::Key {
            certificate_pem: next.certificate_pem.clone(),
            certificates: planned.next.as_ref().unwrap().certificates.clone(),
            not_after: planned.next.as_ref().unwrap().not_after,
            next: None,
            update_time: planned.next.as_ref().unwrap().activate_time,
            etag: after.etag.clone(),
            ..before.clone()
        };
        assert_eq!(after, expected);
        assert_ne!(after.etag, planned.etag);
        assert_eq!(list(&alpha).await, std::slice::from_ref(&after));
        assert_eq!(sealed(&server, &before.id).await, [true, true], "reads change nothing");
        // Maintenance runs at the start, and destroys the replaced private key without a change of what callers see.
        server.restart().await;
        let alpha = server.client("alpha");
        let start = Instant::now();
        while sealed(&server, &before.id).await != [false, true] {
            assert!(start.elapsed() < Duration::from_secs(20), "the replaced private key is kept");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(get(&alpha, &before.id).await.unwrap(), after);
        assert_eq!(list(&alpha).await, [after]);
    }

    async fn a_damaged_key_does_not_keep_others_from_their_activation(backend: Backend) {
        let clock = ManualClock::at_present();
        let mut server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let alpha = server.client("alpha");
        let mut keys = Vec::new();
        for (name, minutes) in [("damaged", 5), ("good", 10)] {
            keys.push(import(&alpha, an_identity(&server, name)).await);
            let request = given(&format!("name:{name}"), of(&a_leaf(&server)), in_minutes(&*clock, minutes));
            rotate(&alpha, request).await.unwrap();
        }
        server.sql("UPDATE \"key\" SET doc = '{}' WHERE name_key = 'damaged'").await;
        clock.advance(Duration::from_secs(10 * 60));
        server.restart().await;
        let start = Instant::now();
        while sealed(&server, &keys[1].id).await != [false, true] {
            assert!(start.elapsed() < Duration::from_secs(20), "the other key is not activated");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(sealed(&server, &keys[0].id).await, [true, true]);
    }

    async fn filters_see_the_material_that_is_current(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let alpha = server.client("alpha");
        import(&alpha, an_identity(&server, "mine")).await;
        let next = server.pki().client_for(Identity::of("a"), Duration::from_secs(5 * 3_600));
        rotate(&alpha, given("name:mine", of(&next), in_minutes(&*clock, 10))).await.unwrap();
        let late = jackfield_domain::Timestamp(clock.now().0 + 2 * 3_600_000_000);
        let counts = async || {
            let mut counts = Vec::new();
            for filter in [format!("not_after < \"{late}\""), format!("not_after > \"{late}\"")] {
                let request = v1::ListKeysRequest { filter, ..Default::default() };
                let listed = jackfield_testkit::collect::items(alpha.keys().list_keys(request).await).await.unwrap();
                counts.push(listed.len());
            }
            counts
        };
        assert_eq!(counts().await, [1, 0]);
        clock.advance(Duration::from_secs(10 * 60));
        assert_eq!(counts().await, [0, 1]);
    }

    async fn changes_after_the_activation_are_of_the_new_material(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let alpha = server.client("alpha");
        let (first, second) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let certificate = |key: &KeyPair| CertificateParams::default().self_signed(key).unwrap().pem();
        let request = v1::ImportKeyRequest {
            key: Some(v1::Key { name: "mine".to_owned(), certificate_pem: certificate(&first), ..Default::default() }),
            private_key_pem: first.serialize_pem(),
            ..Default::default()
        };
        let before = import(&alpha, request).await;
        let imported = v1::KeyImport { certificate_pem: certificate(&second), private_key_pem: second.serialize_pem() };
        let planned = rotate(&alpha, request_of("name:mine", Material::Imported(imported), in_minutes(&*clock, 10))).await.unwrap();
        clock.advance(Duration::from_secs(10 * 60));
        let renew = |key: &KeyPair, etag: &str| v1::UpdateKeyRequest {
            reference: before.id.clone(),
            key: Some(v1::Key { certificate_pem: certificate(key), ..Default::default() }),
            etag: etag.to_owned(),
            ..Default::default()
        };
        expect_status(update(&alpha, renew(&second, &planned.etag)).await, Code::Aborted, "ETAG_MISMATCH");
        expect_status(update(&alpha, renew(&first, "")).await, Code::InvalidArgument, "FIELD_INVALID");
        let current = get(&alpha, &before.id).await.unwrap();
        let request = renew(&second, &current.etag);
        let renewed = update(&alpha, request.clone()).await.unwrap().into_inner().key.unwrap();
        assert_eq!((renewed.certificate_pem, renewed.next), (request.key.unwrap().certificate_pem, None));
        assert_eq!(sealed(&server, &before.id).await, [false, true], "the change has stored the activation, too");
        assert!(delete(&alpha, "name:mine").await.unwrap());
        assert_eq!(sealed(&server, &before.id).await, [false, false]);
    }

    async fn without_a_time_it_is_now(server) {
        let alpha = server.client("alpha");
        let before = import(&alpha, an_identity(&server, "mine")).await;
        let used = v1::Connector { client_identity_key: Some(before.id.clone()), ..fixture::a_connector("x") };
        connector::create(&alpha, used).await;
        for (number, time) in [(1, None), (2, in_minutes(&SystemClock, -10))] {
            let next = a_leaf(&server);
            let key = rotate(&alpha, given(&before.id, of(&next), time)).await.unwrap();
            assert_eq!((&key.certificate_pem, &key.next, key.used_by_count), (&next.certificate_pem, &None, 1));
            assert_eq!(get(&alpha, &before.id).await.unwrap(), key);
            let columns = ["private_key_pem", "private_key_pem/1", "private_key_pem/2"];
            for (column, name) in columns.iter().enumerate() {
                let is_there = connector::sealed(&server, Resource::Key, &before.id, name).await.is_some();
                assert_eq!(is_there, column == number, "{name} after rotation {number}");
            }
        }
    }

    async fn a_trust_bundle_is_rotated_without_a_private_key(server) {
        let alpha = server.client("alpha");
        let before = import(&alpha, a_bundle(&server, "bundle")).await;
        let twice = v1::KeyImport { certificate_pem: server.pki().ca_pem().repeat(2), ..Default::default() };
        let planned = request_of("name:bundle", Material::Imported(twice.clone()), in_minutes(&SystemClock, 10));
        let planned = rotate(&alpha, planned).await.unwrap();
        assert_eq!((planned.certificates.len(), planned.next.as_ref().unwrap().certificates.len()), (1, 2));
        let now = rotate(&alpha, request_of("name:bundle", Material::Imported(twice.clone()), None)).await.unwrap();
        assert_eq!((now.certificates.len(), now.next), (2, None));
        for (material, field) in [
            (Material::Imported(v1::KeyImport { private_key_pem: a_leaf(&server).key_pem, ..twice }), PRIVATE_KEY),
            (Material::Imported(v1::KeyImport { certificate_pem: a_leaf(&server).certificate_pem, ..Default::default() }), CERTIFICATES),
            (Material::Generation(v1::KeyGeneration::default()), "generation"),
        ] {
            refused(rotate(&alpha, request_of(&before.id, material, None)).await, &[field]);
        }
    }

    async fn generated_material_is_rotated_in_at_once_or_by_a_signing_request(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let alpha = server.client("alpha");
        let before = import(&alpha, an_identity(&server, "mine")).await;
        let requested = v1::KeyGeneration { issue: v1::CertificateIssue::SigningRequest.into(), ..Default::default() };
        let planned = rotate(&alpha, request_of("name:mine", Material::Generation(requested), in_minutes(&*clock, 10))).await.unwrap();
        let next = planned.next.clone().unwrap();
        assert_eq!((next.state(), next.not_after, &*next.certificate_pem), (v1::KeyState::Pending, None, ""));
        assert_eq!((planned.state(), &planned.certificate_pem), (v1::KeyState::Ready, &before.certificate_pem));
        // Its time comes and goes, because the certificate is missing.
        clock.advance(Duration::from_secs(20 * 60));
        assert_eq!(get(&alpha, &before.id).await.unwrap(), planned);

        let chain = signed(&next.signing_request_pem, |_| {});
        let completing = |certificate_pem: &str| {
            let imported = v1::KeyImport { certificate_pem: certificate_pem.to_owned(), ..Default::default() };
            request_of("name:mine", Material::Imported(imported), None)
        };
        refused(rotate(&alpha, completing(&before.certificate_pem)).await, &[CERTIFICATES]);
        let key = rotate(&alpha, completing(&chain)).await.unwrap();
        assert_eq!((&key.certificate_pem, &key.next), (&chain, &None), "its time has passed");
        assert_eq!(sealed(&server, &before.id).await, [false, true]);

        let generation = v1::KeyGeneration { algorithm: v1::KeyAlgorithm::Ed25519.into(), ..Default::default() };
        let key = rotate(&alpha, request_of("name:mine", Material::Generation(generation), None)).await.unwrap();
        assert_eq!((&*key.certificates[0].subject, &*key.certificates[0].public_key_algorithm), ("CN=mine", "Ed25519"));
        assert_eq!(sealed(&server, &before.id).await, [false, false], "only the third is left");
        assert!(connector::sealed(&server, Resource::Key, &before.id, "private_key_pem/2").await.is_some());
    }

    async fn the_certificate_of_next_material_keeps_its_time(server) {
        let alpha = server.client("alpha");
        let before = import(&alpha, an_identity(&server, "mine")).await;
        let requested = v1::KeyGeneration { issue: v1::CertificateIssue::SigningRequest.into(), ..Default::default() };
        let time = in_minutes(&SystemClock, 10);
        let planned = rotate(&alpha, request_of("name:mine", Material::Generation(requested), time)).await.unwrap();
        let chain = signed(&planned.next.unwrap().signing_request_pem, |_| {});
        let imported = v1::KeyImport { certificate_pem: chain.clone(), ..Default::default() };
        let key = rotate(&alpha, request_of("name:mine", Material::Imported(imported), None)).await.unwrap();
        let next = key.next.unwrap();
        assert_eq!((next.state(), next.certificate_pem, next.activate_time), (v1::KeyState::Ready, chain, time));
        assert_eq!(key.certificate_pem, before.certificate_pem);
        // Another plan replaces it, with its private key.
        let other = a_leaf(&server);
        let key = rotate(&alpha, given("name:mine", of(&other), time)).await.unwrap();
        assert_eq!(key.next.unwrap().certificate_pem, other.certificate_pem);
        assert_eq!(sealed(&server, &before.id).await, [true, false]);
        assert!(connector::sealed(&server, Resource::Key, &before.id, "private_key_pem/2").await.is_some());
    }

    async fn rotations_that_cannot_work_are_refused(server) {
        let alpha = server.client("alpha");
        let before = import(&alpha, an_identity(&server, "mine")).await;
        let (leaf, other) = (a_leaf(&server), a_leaf(&server));
        let minutes = |minutes| in_minutes(&SystemClock, minutes);
        let later = server.pki().flawed_client(Identity::of("a"), jackfield_testkit::Flaw::NotYetValid);
        for (request, field) in [
            (v1::RotateKeyRequest { material: None, ..given("name:mine", of(&leaf), None) }, "material"),
            (given("name:mine", v1::KeyImport { certificate_pem: String::new(), ..of(&leaf) }, None), CERTIFICATES),
            (given("name:mine", v1::KeyImport { private_key_pem: String::new(), ..of(&leaf) }, None), PRIVATE_KEY),
            (given("name:mine", v1::KeyImport { private_key_pem: other.key_pem.clone(), ..of(&leaf) }, None), PRIVATE_KEY),
            (given("name:mine", of(&leaf), Some(prost_types::Timestamp { seconds: 0, nanos: -1 })), "activate_time"),
            // The certificates are valid for an hour, and those from later begin in an hour.
            (given("name:mine", of(&leaf), minutes(61)), "activate_time"),
            (given("name:mine", of(&later), minutes(59)), "activate_time"),
        ] {
            refused(rotate(&alpha, request).await, &[field]);
        }
        let placeholder = given("name:mine", v1::KeyImport { private_key_pem: "****".to_owned(), ..of(&leaf) }, None);
        let refused = rotate(&alpha, placeholder).await.map(Response::new);
        expect_status(refused, Code::InvalidArgument, "PLACEHOLDER_SECRET").expect_fields(&[PRIVATE_KEY]);
        let stale = v1::RotateKeyRequest { etag: "x".to_owned(), ..given("name:mine", of(&leaf), None) };
        expect_status(rotate(&alpha, stale).await.map(Response::new), Code::Aborted, "ETAG_MISMATCH");
        for material in [Material::Imported(of(&leaf)), Material::Generation(v1::KeyGeneration::default())] {
            let missing = rotate(&alpha, request_of("name:none", material, None)).await.map(Response::new);
            expect_status(missing, Code::NotFound, "KEY_NOT_FOUND");
        }
        assert_eq!(get(&alpha, "name:mine").await.unwrap(), before);
        rotate(&alpha, given("name:mine", of(&later), minutes(61))).await.unwrap();
    }

    async fn repeats_rotate_once_and_validate_only_never(server) {
        let alpha = server.client("alpha");
        let before = import(&alpha, an_identity(&server, "mine")).await;
        let leaf = a_leaf(&server);
        let dry = v1::RotateKeyRequest { validate_only: true, ..given("name:mine", of(&leaf), None) };
        assert_eq!(rotate(&alpha, dry).await.unwrap().certificate_pem, leaf.certificate_pem);
        assert_eq!(get(&alpha, "name:mine").await.unwrap(), before);
        let generation = Material::Generation(v1::KeyGeneration::default());
        let request = v1::RotateKeyRequest {
            request_id: Uuid::now_v7().to_string(),
            ..request_of("name:mine", generation, None)
        };
        let first = rotate(&alpha, request.clone()).await.unwrap();
        assert_eq!(rotate(&alpha, request.clone()).await.unwrap(), first);
        assert_eq!(get(&alpha, "name:mine").await.unwrap(), first);
        assert!(delete(&alpha, "name:mine").await.unwrap());
        assert_eq!(rotate(&alpha, request).await.unwrap(), first);
    }
}

fn a_leaf(server: &TestServer) -> Leaf {
    server.pki().client(Identity::of("a connector"))
}

pub(super) fn in_minutes(clock: &dyn Clock, minutes: i64) -> Option<prost_types::Timestamp> {
    let now = clock.now();
    Some(prost_types::Timestamp { seconds: now.seconds() + minutes * 60, nanos: now.subsec_nanos() })
}

pub(super) fn request_of(
    reference: &str,
    material: Material,
    activate_time: Option<prost_types::Timestamp>,
) -> v1::RotateKeyRequest {
    let (reference, material) = (reference.to_owned(), Some(material));
    v1::RotateKeyRequest { reference, material, activate_time, ..Default::default() }
}

pub(super) fn given(
    reference: &str,
    imported: v1::KeyImport,
    activate_time: Option<prost_types::Timestamp>,
) -> v1::RotateKeyRequest {
    request_of(reference, Material::Imported(imported), activate_time)
}

pub(super) fn of(leaf: &Leaf) -> v1::KeyImport {
    v1::KeyImport { certificate_pem: leaf.certificate_pem.clone(), private_key_pem: leaf.key_pem.clone() }
}

pub(super) async fn rotate(client: &Client, request: v1::RotateKeyRequest) -> Result<v1::Key, Status> {
    Ok(client.keys().rotate_key(request).await?.into_inner().key.unwrap())
}

#[track_caller]
fn refused(result: Result<v1::Key, Status>, fields: &[&str]) {
    expect_status(result.map(Response::new), Code::InvalidArgument, "FIELD_INVALID").expect_fields(fields);
}

/// Returns whether the first and the second private key of a key are stored.
async fn sealed(server: &TestServer, id: &str) -> [bool; 2] {
    [
        connector::sealed(server, Resource::Key, id, "private_key_pem").await.is_some(),
        connector::sealed(server, Resource::Key, id, "private_key_pem/1").await.is_some(),
    ]
}
