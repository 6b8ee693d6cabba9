//! Private keys that are generated, with self-signed certificates and with signing requests.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_api::v1::rotate_key_request::Material;
use jackfield_domain::{Clock, Resource, SystemClock};
use jackfield_testkit::{Client, System, expect_status, fixture, on_both};
use rcgen::{CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, ExtendedKeyUsagePurpose, KeyPair};
use tonic::Code;
use uuid::Uuid;

use super::rotate::{request_of, rotate};
use super::{delete, facts, get, list, update};
use crate::{connector, login};

on_both! {
    async fn each_algorithm_makes_an_identity_that_systems_accept(server) {
        let alpha = server.client("alpha");
        let system = login::a_system().await;
        for (algorithm, shown) in [
            (v1::KeyAlgorithm::Unspecified, "EC P-256"),
            (v1::KeyAlgorithm::EcP256, "EC P-256"),
            (v1::KeyAlgorithm::EcP384, "EC P-384"),
            (v1::KeyAlgorithm::Ed25519, "Ed25519"),
            (v1::KeyAlgorithm::Rsa2048, "RSA 2048"),
            (v1::KeyAlgorithm::Rsa3072, "RSA 3072"),
            (v1::KeyAlgorithm::Rsa4096, "RSA 4096"),
        ] {
            let generation = v1::KeyGeneration { algorithm: algorithm.into(), ..Default::default() };
            let name = format!("{algorithm:?}");
            let key = generate(&alpha, request(&name, generation)).await;
            assert_eq!((key.r#type(), key.state(), key.private_key_set), (v1::KeyType::ClientIdentity, v1::KeyState::Ready, true));
            let [certificate] = &key.certificates[..] else { panic!("{key:?}") };
            assert_eq!((&*certificate.public_key_algorithm, certificate.is_ca), (shown, false));
            assert_eq!((&certificate.subject, &certificate.issuer), (&format!("CN={name}"), &format!("CN={name}")));
            let days = (key.not_after.unwrap().seconds - SystemClock.now().seconds()) / (24 * 3_600);
            assert!((364..=365).contains(&days), "{days}");
            assert!(connector::sealed(&server, Resource::Key, &key.id, "private_key_pem").await.is_some());
            assert_eq!(get(&alpha, &key.id).await.unwrap(), key);
            let connector = login::with_identity(&alpha, &system, &name, &key.id).await;
            let connector = connector::create(&alpha, connector).await.id;
            presents(&alpha, &connector, &system, &key).await;
            if algorithm == v1::KeyAlgorithm::Ed25519 {
                let generation = Material::Generation(v1::KeyGeneration::default());
                let rotated = rotate(&alpha, request_of(&key.id, generation, None)).await.unwrap();
                presents(&alpha, &connector, &system, &rotated).await;
            }
        }
    }

    /// Its answer has a sample.
    async fn validate_only_generates_no_key(server) {
        let alpha = server.client("alpha");
        let generation = || v1::KeyGeneration {
            algorithm: v1::KeyAlgorithm::Rsa4096.into(),
            subject_alternative_names: vec!["DNS:a.example".to_owned()],
            ..Default::default()
        };
        let shown = generate(&alpha, v1::GenerateKeyRequest { validate_only: true, ..request("mine", generation()) }).await;
        let certificate = &shown.certificates[0];
        assert_eq!((shown.state(), &*certificate.subject), (v1::KeyState::Ready, "CN=mine"));
        assert_eq!((&*certificate.public_key_algorithm, &*certificate.subject_alternative_names), ("EC P-256", &["DNS:a.example".to_owned()][..]));
        assert_eq!(list(&alpha).await, []);
        let long = "a".repeat(100);
        let refused = v1::GenerateKeyRequest { validate_only: true, ..request(&long, generation()) };
        let refused = expect_status(alpha.keys().generate_key(refused).await, Code::InvalidArgument, "FIELD_INVALID");
        refused.expect_fields(&["generation.common_name"]);

        let key = generate(&alpha, request("mine", v1::KeyGeneration::default())).await;
        let rotation = request_of(&key.id, Material::Generation(generation()), None);
        let rotated = rotate(&alpha, v1::RotateKeyRequest { validate_only: true, ..rotation }).await.unwrap();
        assert_eq!(&*rotated.certificates[0].public_key_algorithm, "EC P-256");
        assert_ne!(rotated.certificate_pem, key.certificate_pem);
        assert_eq!(get(&alpha, &key.id).await.unwrap(), key);
    }

    async fn names_and_lifetime_are_those_of_the_request(server) {
        let alpha = server.client("alpha");
        let names = ["DNS:a.example", "DNS:*.b.example", "URI:spiffe://a.example/b", "email:a@b.example", "IP:192.0.2.7", "IP:2001:db8::7"];
        let generation = v1::KeyGeneration {
            common_name: " the client ".to_owned(),
            subject_alternative_names: names.map(str::to_owned).to_vec(),
            lifetime: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
            ..Default::default()
        };
        let key = generate(&alpha, request("mine", generation)).await;
        assert_eq!(key.certificates[0].subject_alternative_names, names);
        assert_eq!(key.certificates[0].subject.trim_start_matches("CN=").replace('\\', "").trim(), "the client");
        let left = key.not_after.unwrap().seconds - SystemClock.now().seconds();
        assert!((3_500..=3_600).contains(&left), "{left}");
    }

    async fn a_signing_request_waits_for_its_certificate(server) {
        let alpha = server.client("alpha");
        let generation = v1::KeyGeneration {
            issue: v1::CertificateIssue::SigningRequest.into(),
            subject_alternative_names: vec!["DNS:a.example".to_owned()],
            ..Default::default()
        };
        let pending = generate(&alpha, request("mine", generation)).await;
        assert_eq!((pending.state(), &*pending.certificate_pem), (v1::KeyState::Pending, ""));
        assert_eq!((pending.not_after, pending.certificates.len(), pending.private_key_set), (None, 0, true));
        assert_eq!(list(&alpha).await, std::slice::from_ref(&pending));

        // Nothing can use it yet.
        let with_key = v1::Connector { client_identity_key: Some("name:mine".to_owned()), ..fixture::a_connector("x") };
        let create = v1::CreateConnectorRequest { connector: Some(with_key), ..Default::default() };
        let refused = alpha.connectors().create_connector(create).await;
        let refused = expect_status(refused, Code::InvalidArgument, "FIELD_INVALID");
        refused.expect_fields(&["connector.client_identity_key"]);
        assert!(refused.description("connector.client_identity_key").contains("certificate is missing"));

        // Certificates that do not fit change nothing.
        let other = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let server_only = signed(&pending.signing_request_pem, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        for (pem, said) in [(other, "of another private key"), (server_only, "lacks clientAuth")] {
            let refused = expect_status(update(&alpha, with(&pem)).await, Code::InvalidArgument, "FIELD_INVALID");
            refused.expect_fields(&["key.certificate_pem"]);
            assert!(refused.description("key.certificate_pem").contains(said), "{refused:?}");
        }
        let expired = signed(&pending.signing_request_pem, |params| {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        });
        expect_status(update(&alpha, with(&expired)).await, Code::FailedPrecondition, "KEY_EXPIRED");
        assert_eq!(get(&alpha, "name:mine").await.unwrap(), pending);

        let chain = signed(&pending.signing_request_pem, |_| {});
        let ready = update(&alpha, with(&chain)).await.unwrap().into_inner().key.unwrap();
        assert_eq!((ready.state(), &*ready.signing_request_pem), (v1::KeyState::Ready, ""));
        assert_eq!(ready.certificate_pem, chain);
        assert_eq!(ready.certificates[0].subject_alternative_names, ["DNS:a.example"]);
        assert_eq!(ready.not_after, ready.certificates.iter().map(|it| it.not_after.unwrap()).min_by_key(|it| it.seconds));
        assert_eq!(get(&alpha, "name:mine").await.unwrap(), ready);
        let system = login::a_system().await;
        let connector = login::with_identity(&alpha, &system, "x", "name:mine").await;
        let connector = connector::create(&alpha, connector).await.id;
        presents(&alpha, &connector, &system, &ready).await;
    }

    async fn a_pending_key_can_be_changed_and_deleted(server) {
        let alpha = server.client("alpha");
        let generation =
            v1::KeyGeneration { issue: v1::CertificateIssue::SigningRequest.into(), ..Default::default() };
        let pending = generate(&alpha, request("mine", generation)).await;
        let filtered = |filter: &str| {
            let request = v1::ListKeysRequest { filter: filter.to_owned(), ..Default::default() };
            let alpha = alpha.clone();
            async move { jackfield_testkit::collect::items(alpha.keys().list_keys(request).await).await.unwrap() }
        };
        for filter in ["NOT not_after:*", "not_after != \"2026-01-01T00:00:00Z\"", "type = CLIENT_IDENTITY"] {
            assert_eq!(filtered(filter).await, std::slice::from_ref(&pending), "{filter}");
        }
        for filter in ["not_after:*", "not_after > \"2026-01-01T00:00:00Z\"", "not_after < \"2026-01-01T00:00:00Z\""] {
            assert_eq!(filtered(filter).await, [], "{filter}");
        }
        // As it was read, with another name.
        let changed = v1::UpdateKeyRequest {
            reference: pending.id.clone(),
            key: Some(v1::Key { name: "yours".to_owned(), ..pending.clone() }),
            update_mask: fixture::mask(["*"]),
            ..Default::default()
        };
        let changed = update(&alpha, changed).await.unwrap().into_inner().key.unwrap();
        assert_eq!((changed.state(), &changed.signing_request_pem), (v1::KeyState::Pending, &pending.signing_request_pem));
        let rotate = v1::RotateKeyRequest {
            reference: "name:yours".to_owned(),
            material: Some(v1::rotate_key_request::Material::Generation(v1::KeyGeneration::default())),
            ..Default::default()
        };
        let refused = expect_status(alpha.keys().rotate_key(rotate).await, Code::InvalidArgument, "FIELD_INVALID");
        refused.expect_fields(&["reference"]);
        assert!(delete(&alpha, "name:yours").await.unwrap());
        assert!(connector::sealed(&server, Resource::Key, &pending.id, "private_key_pem").await.is_none());
    }

    async fn generations_have_limits(server) {
        let alpha = server.client("alpha");
        let signing_request = v1::CertificateIssue::SigningRequest.into();
        let lasting = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let good = v1::KeyGeneration::default;
        let names = |count: usize, name: &str| vec![name.to_owned(); count];
        let mut wrong = vec![
            ("generation.algorithm", v1::KeyGeneration { algorithm: 7, ..good() }),
            ("generation.issue", v1::KeyGeneration { issue: 3, ..good() }),
            ("generation.common_name", v1::KeyGeneration { common_name: "a".repeat(65), ..good() }),
            ("generation.common_name", v1::KeyGeneration { common_name: "a\nb".to_owned(), ..good() }),
            ("generation.lifetime", v1::KeyGeneration { issue: signing_request, lifetime: lasting(7_200), ..good() }),
            ("generation.subject_alternative_names", v1::KeyGeneration { subject_alternative_names: names(101, "DNS:a"), ..good() }),
            ("generation.subject_alternative_names", v1::KeyGeneration { subject_alternative_names: names(1, "a.example"), ..good() }),
        ];
        for seconds in [-1, 0, 3_599, 3_653 * 24 * 3_600 + 1, i64::MAX] {
            wrong.push(("generation.lifetime", v1::KeyGeneration { lifetime: lasting(seconds), ..good() }));
        }
        for (field, generation) in wrong {
            let refused = alpha.keys().generate_key(request("mine", generation)).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);
        }
        let a_key = |key: v1::Key| v1::GenerateKeyRequest { key: Some(v1::Key { name: "mine".to_owned(), ..key }), ..Default::default() };
        for (field, key) in [
            ("key.type", v1::Key { r#type: v1::KeyType::TrustBundle.into(), ..Default::default() }),
            ("key.certificate_pem", v1::Key { certificate_pem: server.pki().ca_pem(), ..Default::default() }),
        ] {
            let refused = alpha.keys().generate_key(a_key(key)).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);
        }
        // A long name needs a common name beside it.
        let long = "n".repeat(65);
        let refused = alpha.keys().generate_key(request(&long, good())).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["generation.common_name"]);
        assert_eq!(list(&alpha).await, []);
        generate(&alpha, request(&long, v1::KeyGeneration { common_name: "a".repeat(64), ..good() })).await;
    }

    async fn repeats_get_the_first_key_and_validate_only_makes_none(server) {
        let alpha = server.client("alpha");
        let dry = v1::GenerateKeyRequest { validate_only: true, ..request("mine", v1::KeyGeneration::default()) };
        assert_eq!(generate(&alpha, dry).await.certificates.len(), 1);
        assert_eq!(list(&alpha).await, []);
        let with_id = v1::GenerateKeyRequest {
            request_id: Uuid::now_v7().to_string(),
            id: Uuid::now_v7().to_string(),
            ..request("mine", v1::KeyGeneration::default())
        };
        let first = generate(&alpha, with_id.clone()).await;
        assert_eq!(first.id, with_id.id);
        assert_eq!(generate(&alpha, with_id.clone()).await, first);
        let other = v1::GenerateKeyRequest { generation: None, ..with_id.clone() };
        expect_status(alpha.keys().generate_key(other).await, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
        let taken = v1::GenerateKeyRequest { request_id: String::new(), id: String::new(), ..with_id };
        expect_status(alpha.keys().generate_key(taken).await, Code::AlreadyExists, "NAME_TAKEN");
        assert_eq!(list(&alpha).await, [first]);
    }
}

pub(super) fn request(name: &str, generation: v1::KeyGeneration) -> v1::GenerateKeyRequest {
    let key = Some(v1::Key { name: name.to_owned(), ..Default::default() });
    v1::GenerateKeyRequest { key, generation: Some(generation), ..Default::default() }
}

pub(super) async fn generate(client: &Client, request: v1::GenerateKeyRequest) -> v1::Key {
    client.keys().generate_key(request).await.unwrap().into_inner().key.unwrap()
}

/// Logs in through a connector, and checks that the system accepts the key and has got its certificate.
async fn presents(client: &Client, connector: &str, system: &System, key: &v1::Key) {
    system.trust(&key.certificate_pem);
    let response = login::log_in(client, login::a_login(connector, "ada", "right")).await;
    assert_eq!(response.outcome(), v1::LoginOutcome::Accepted, "{}", key.name);
    assert_eq!(system.received().last().unwrap().certificate, login::der(key), "{}", key.name);
}

/// The chain of a certificate that an authority signs as requested, after a change.
pub(super) fn signed(signing_request_pem: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
    let authority = CertifiedIssuer::self_signed(facts::authority("a"), KeyPair::generate().unwrap()).unwrap();
    let mut requested = CertificateSigningRequestParams::from_pem(signing_request_pem).unwrap();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = u64::try_from(SystemClock.now().seconds()).unwrap();
    requested.params.not_before = epoch + Duration::from_secs(now - 3_600);
    requested.params.not_after = epoch + Duration::from_secs(now + 30 * 24 * 3_600);
    change(&mut requested.params);
    requested.signed_by(&authority).unwrap().pem() + &authority.pem()
}

/// The update of the key "mine" with these certificates.
fn with(certificate_pem: &str) -> v1::UpdateKeyRequest {
    v1::UpdateKeyRequest {
        reference: "name:mine".to_owned(),
        key: Some(v1::Key { certificate_pem: certificate_pem.to_owned(), ..Default::default() }),
        ..Default::default()
    }
}
