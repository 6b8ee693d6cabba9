//! KeyService: imports, the facts of certificates, and uses. Refused PEM is in the module `pem`, other methods in modules of
//! their names.

mod expiring;
mod facts;
mod generate;
mod identity;
mod pem;
mod public_roots;
mod rotate;
mod unusable;
mod update;
mod upgrade;

use jackfield_api::v1;
use jackfield_domain::Resource;
use jackfield_testkit::{Canary, Client, Identity, TestServer, collect, expect_status, fixture, on_both};
use prost::Message;
use tonic::{Code, Response, Status};

use crate::connector;

on_both! {
    async fn a_client_identity_comes_back_without_its_private_key(server) {
        let alpha = server.client("alpha");
        let leaf = server.pki().client(Identity::of("alpha"));
        let given = v1::Key {
            name: " Mine ".to_owned(),
            certificate_pem: leaf.certificate_pem.clone(),
            labels: fixture::strings([("env", "prod")]),
            // Output only, and so ignored:
            id: fixture::FUSIONAUTH_KEY_ID.to_owned(),
            used_by_count: 7,
            private_key_set: false,
            etag: "x".to_owned(),
            ..Default::default()
        };
        let private_key_pem = leaf.key_pem.clone();
        let request = v1::ImportKeyRequest { key: Some(given.clone()), private_key_pem, ..Default::default() };
        let imported = import(&alpha, request).await;
        let expected = v1::Key {
            id: imported.id.clone(),
            name: "Mine".to_owned(),
            r#type: v1::KeyType::ClientIdentity.into(),
            certificate_pem: leaf.certificate_pem,
            certificates: imported.certificates.clone(),
            private_key_set: true,
            not_after: imported.certificates[0].not_after,
            used_by_count: 0,
            labels: given.labels,
            state: v1::KeyState::Ready.into(),
            signing_request_pem: String::new(),
            next: None,
            create_time: imported.create_time,
            update_time: imported.create_time,
            etag: imported.etag.clone(),
        };
        assert_eq!(imported, expected);
        assert_ne!(imported.id, given.id);
        assert_ne!(imported.etag, given.etag);
        assert_eq!(imported.certificates.len(), 2, "the leaf and the intermediate");
        assert_eq!(get(&alpha, &imported.id).await.unwrap(), expected);
        assert_eq!(list(&alpha).await, [expected]);
    }

    async fn the_type_follows_from_the_import(server) {
        use v1::KeyType::{ClientIdentity, TrustBundle, Unspecified};
        let alpha = server.client("alpha");
        let identity = |key_type| with_type(an_identity(&server, "identity"), key_type);
        let bundle = |key_type| with_type(a_bundle(&server, "bundle"), key_type);
        let shown = |request: v1::ImportKeyRequest| {
            let request = v1::ImportKeyRequest { validate_only: true, ..request };
            try_import(&alpha, request)
        };
        let kinds = [
            (identity(Unspecified.into()), ClientIdentity),
            (identity(ClientIdentity.into()), ClientIdentity),
            (bundle(Unspecified.into()), TrustBundle),
            (bundle(TrustBundle.into()), TrustBundle),
        ];
        for (request, expected) in kinds {
            let key = shown(request).await.unwrap().into_inner().key.unwrap();
            assert_eq!((key.r#type(), key.private_key_set), (expected, expected == ClientIdentity));
        }
        let refused = [
            (identity(TrustBundle.into()), "private_key_pem"),
            (bundle(ClientIdentity.into()), "private_key_pem"),
            (identity(3), "key.type"),
            (identity(-1), "key.type"),
            (bundle(i32::MAX), "key.type"),
        ];
        for (request, field) in refused {
            let refused = expect_status(shown(request).await, Code::InvalidArgument, "FIELD_INVALID");
            refused.expect_fields(&[field]);
        }
        assert_eq!(list(&alpha).await, []);
    }

    async fn fields_have_limits(server) {
        let alpha = server.client("alpha");
        let many = |entries: usize| (0..entries).map(|index| (format!("k{index}"), "v".to_owned())).collect();
        let mut wrong: Vec<(&str, v1::Key)> = Vec::new();
        let base = || a_bundle(&server, "bundle").key.unwrap();
        for name in ["", " \u{3000}", &"n".repeat(192), "a\u{0}", "a\nb", "a\u{7f}b"] {
            wrong.push(("key.name", v1::Key { name: name.to_owned(), ..base() }));
        }
        wrong.push(("key.labels", v1::Key { labels: many(65), ..base() }));
        wrong.push(("key.labels", v1::Key { labels: fixture::strings([(&*"k".repeat(64), "v")]), ..base() }));
        wrong.push(("key.labels.k", v1::Key { labels: fixture::strings([("k", &*"v".repeat(129))]), ..base() }));
        wrong.push(("key.certificate_pem", v1::Key { certificate_pem: String::new(), ..base() }));
        for (field, key) in wrong {
            let refused = try_import(&alpha, v1::ImportKeyRequest { key: Some(key), ..Default::default() }).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);
        }
        let key = v1::Key { name: "ж".repeat(191), labels: many(64), ..base() };
        let imported = import(&alpha, v1::ImportKeyRequest { key: Some(key.clone()), ..Default::default() }).await;
        assert_eq!((imported.name, imported.labels), (key.name, key.labels));

        let request = v1::ImportKeyRequest {
            key: Some(v1::Key {
                name: "\u{1}".to_owned(),
                r#type: 9,
                labels: fixture::strings([("", "")]),
                ..Default::default()
            }),
            private_key_pem: "****".to_owned(),
            id: "1".to_owned(),
            request_id: "2".to_owned(),
            validate_only: false,
        };
        expect_status(try_import(&alpha, request).await, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[
            "id",
            "request_id",
            "key.name",
            "key.type",
            "key.labels",
            "key.certificate_pem",
            "private_key_pem",
        ]);
        let refused = try_import(&alpha, v1::ImportKeyRequest::default()).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["key"]);
    }

    async fn connectors_and_credentials_that_use_a_key_are_counted(server) {
        let alpha = server.client("alpha");
        let identity = import(&alpha, an_identity(&server, "identity")).await;
        let bundle = import(&alpha, a_bundle(&server, "bundle")).await;
        for (name, client_identity_key, trust_bundle_key) in
            [("both", "name:identity", "name:bundle"), ("one", &*identity.id, ""), ("other", "", &*bundle.id)]
        {
            let connector = v1::Connector {
                client_identity_key: Some(client_identity_key.to_owned()),
                trust_bundle_key: Some(trust_bundle_key.to_owned()),
                ..fixture::a_connector(name)
            };
            connector::create(&alpha, connector).await;
        }
        let user_connector =
            v1::AddUserConnectorRequest { user_id: "u1".into(), connector: "name:both".into(), ..Default::default() };
        alpha.user_connectors().add_user_connector(user_connector).await.unwrap();
        let material = v1::ClientCertificateMaterial { key: "name:identity".to_owned() };
        let request = v1::CreateCredentialRequest {
            credential: Some(fixture::a_credential("u1", "name:both")),
            material: Some(v1::CredentialMaterial {
                material: Some(v1::credential_material::Material::ClientCertificate(material)),
            }),
            ..Default::default()
        };
        let credential = alpha.credentials().create_credential(request).await.unwrap().into_inner().credential.unwrap();
        let counts = |keys: Vec<v1::Key>| keys.into_iter().map(|key| (key.name, key.used_by_count)).collect::<Vec<_>>();
        let found = vec![get(&alpha, &identity.id).await.unwrap(), get(&alpha, "name:bundle").await.unwrap()];
        let expected = [("identity".to_owned(), 3), ("bundle".to_owned(), 2)];
        assert_eq!(counts(found), expected);
        assert_eq!(counts(list(&alpha).await), expected);

        for (reference, used_by) in [
            (&identity.id, vec![("connector", "2"), ("credential", "1")]),
            (&bundle.id, vec![("connector", "2")]),
        ] {
            let request = v1::DeleteKeyRequest { reference: reference.clone(), ..Default::default() };
            let refused = alpha.keys().delete_key(request).await;
            let refused = expect_status(refused, Code::FailedPrecondition, "IN_USE");
            let violations = &refused.details.precondition_failure().unwrap().violations;
            assert_eq!(violations.len(), used_by.len());
            for (violation, (resource, count)) in violations.iter().zip(used_by) {
                assert_eq!((&*violation.r#type, &violation.subject), ("IN_USE", &format!("key/{reference}")));
                assert!(violation.description.contains(&format!("{count} {resource}")), "{violation:?}");
                assert_eq!(refused.metadata(&format!("used_by.{resource}")), count);
            }
        }
        // Uses end with their resources: one is deleted, one is updated, one is deleted with its connector.
        let request = v1::DeleteCredentialRequest { reference: credential.id, ..Default::default() };
        alpha.credentials().delete_credential(request).await.unwrap();
        let request = v1::UpdateConnectorRequest {
            reference: "name:one".to_owned(),
            connector: Some(v1::Connector::default()),
            update_mask: fixture::mask(["client_identity_key"]),
            ..Default::default()
        };
        alpha.connectors().update_connector(request).await.unwrap();
        assert_eq!(get(&alpha, &identity.id).await.unwrap().used_by_count, 1);
        let request =
            v1::DeleteConnectorRequest { reference: "name:both".into(), cascade: true, ..Default::default() };
        alpha.connectors().delete_connector(request).await.unwrap();
        assert_eq!(get(&alpha, &identity.id).await.unwrap().used_by_count, 0);
        assert!(delete(&alpha, &identity.id).await.unwrap());
        assert_eq!(counts(list(&alpha).await), [("bundle".to_owned(), 1)]);
    }

    async fn a_key_of_the_wrong_type_is_refused_by_a_connector(server) {
        let alpha = server.client("alpha");
        let identity = import(&alpha, an_identity(&server, "identity")).await;
        let bundle = import(&alpha, a_bundle(&server, "bundle")).await;
        for (key, field) in [
            (v1::Connector { client_identity_key: Some(bundle.id), ..fixture::a_connector("x") }, "connector.client_identity_key"),
            (v1::Connector { trust_bundle_key: Some(identity.id), ..fixture::a_connector("x") }, "connector.trust_bundle_key"),
        ] {
            let request = v1::CreateConnectorRequest { connector: Some(key.clone()), ..Default::default() };
            let refused = alpha.connectors().create_connector(request).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);
            let stored = connector::create(&alpha, fixture::a_connector("stored")).await;
            let request = v1::UpdateConnectorRequest {
                reference: stored.id.clone(),
                connector: Some(key),
                ..Default::default()
            };
            let refused = alpha.connectors().update_connector(request).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);
            let request = v1::DeleteConnectorRequest { reference: stored.id, ..Default::default() };
            alpha.connectors().delete_connector(request).await.unwrap();
        }
        // Both faults are reported at once.
        let connector = v1::Connector {
            client_identity_key: Some("name:bundle".to_owned()),
            trust_bundle_key: Some("name:identity".to_owned()),
            ..fixture::a_connector("x")
        };
        let request = v1::CreateConnectorRequest { connector: Some(connector), ..Default::default() };
        let refused = alpha.connectors().create_connector(request).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&["connector.client_identity_key", "connector.trust_bundle_key"]);
        assert_eq!(get(&alpha, "name:bundle").await.unwrap().used_by_count, 0);
    }

    async fn the_private_key_is_in_no_answer_and_is_deleted_with_its_key(server) {
        let alpha = server.client("alpha");
        let leaf = server.pki().client(Identity::of("alpha"));
        // The second line is base64 of the key itself; the first is the same for all keys of one type.
        let secret = leaf.key_pem.lines().nth(2).unwrap().to_owned();
        let canary = Canary { planted_as: "the private key".to_owned(), secret };
        let certificate_pem = leaf.certificate_pem.clone();
        let request = v1::ImportKeyRequest {
            key: Some(v1::Key { name: "mine".to_owned(), certificate_pem, ..Default::default() }),
            private_key_pem: leaf.key_pem.clone(),
            request_id: uuid::Uuid::now_v7().to_string(),
            ..Default::default()
        };
        let first = try_import(&alpha, request.clone()).await.unwrap().into_inner();
        let again = try_import(&alpha, request.clone()).await.unwrap().into_inner();
        assert_eq!(first, again);
        let other = server.pki().client(Identity::of("alpha"));
        let mut wrong = request.clone();
        wrong.key.as_mut().unwrap().certificate_pem = other.certificate_pem;
        wrong.request_id = String::new();
        let mismatch = try_import(&alpha, wrong.clone()).await.unwrap_err();
        assert_eq!(mismatch.code(), Code::InvalidArgument);
        wrong.private_key_pem = leaf.key_pem.replace("-----END", "!\n-----END");
        let garbled = try_import(&alpha, wrong).await.unwrap_err();
        assert_eq!(garbled.code(), Code::InvalidArgument);
        let key = first.key.clone().unwrap();
        for (place, bytes) in [
            ("import", first.encode_to_vec()),
            ("get", get(&alpha, &key.id).await.unwrap().encode_to_vec()),
            ("list", list(&alpha).await[0].encode_to_vec()),
            ("an error", format!("{mismatch:?} {garbled:?}").into_bytes()),
            ("the details of an error", [mismatch.details(), garbled.details()].concat()),
        ] {
            canary.assert_not_in(place, &bytes);
        }
        assert!(connector::sealed(&server, Resource::Key, &key.id, "private_key_pem").await.is_some());
        assert!(delete(&alpha, &key.id).await.unwrap());
        assert!(connector::sealed(&server, Resource::Key, &key.id, "private_key_pem").await.is_none());
    }
}

/// The import request of a client identity.
pub(crate) fn an_identity(server: &TestServer, name: &str) -> v1::ImportKeyRequest {
    let leaf = server.pki().client(Identity::of("a connector"));
    let key = v1::Key { name: name.to_owned(), certificate_pem: leaf.certificate_pem, ..Default::default() };
    v1::ImportKeyRequest { key: Some(key), private_key_pem: leaf.key_pem, ..Default::default() }
}

/// The import request of a trust bundle.
pub(crate) fn a_bundle(server: &TestServer, name: &str) -> v1::ImportKeyRequest {
    let key = v1::Key { name: name.to_owned(), certificate_pem: server.pki().ca_pem(), ..Default::default() };
    v1::ImportKeyRequest { key: Some(key), ..Default::default() }
}

/// Imports a key.
pub(crate) async fn import(client: &Client, request: v1::ImportKeyRequest) -> v1::Key {
    try_import(client, request).await.unwrap().into_inner().key.unwrap()
}

async fn try_import(client: &Client, request: v1::ImportKeyRequest) -> Result<Response<v1::ImportKeyResponse>, Status> {
    client.keys().import_key(request).await
}

pub(crate) async fn get(client: &Client, reference: &str) -> Result<v1::Key, Status> {
    let request = v1::GetKeyRequest { reference: reference.to_owned() };
    Ok(client.keys().get_key(request).await?.into_inner().key.unwrap())
}

async fn update(client: &Client, request: v1::UpdateKeyRequest) -> Result<Response<v1::UpdateKeyResponse>, Status> {
    client.keys().update_key(request).await
}

async fn delete(client: &Client, reference: &str) -> Result<bool, Status> {
    let request = v1::DeleteKeyRequest { reference: reference.to_owned(), ..Default::default() };
    Ok(client.keys().delete_key(request).await?.into_inner().deleted)
}

async fn list(client: &Client) -> Vec<v1::Key> {
    collect::items(client.keys().list_keys(v1::ListKeysRequest::default()).await).await.unwrap()
}

fn with_type(mut request: v1::ImportKeyRequest, key_type: i32) -> v1::ImportKeyRequest {
    request.key.as_mut().unwrap().r#type = key_type;
    request
}
