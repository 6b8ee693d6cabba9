//! Ids, names, references, etags, request ids and `validate_only` of keys.

use jackfield_api::v1;
use jackfield_testkit::{Client, expect_status, on_both};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::{a_bundle, an_identity, delete, get, import, list, try_import};

on_both! {
    async fn ids_and_names_are_unique(server) {
        let alpha = server.client("alpha");
        let id = Uuid::now_v7().to_string();
        let key = import(&alpha, v1::ImportKeyRequest { id: id.clone(), ..a_bundle(&server, "Zürich") }).await;
        assert_eq!(key.id, id);
        for name in ["ZÜRICH", " zürich "] {
            let refused = try_import(&alpha, a_bundle(&server, name)).await;
            let refused = expect_status(refused, Code::AlreadyExists, "NAME_TAKEN");
            assert_eq!((refused.metadata("resource"), refused.metadata("name")), ("key", name.trim()));
        }
        let refused = try_import(&alpha, v1::ImportKeyRequest { id: id.clone(), ..a_bundle(&server, "other") }).await;
        let refused = expect_status(refused, Code::AlreadyExists, "ID_TAKEN");
        assert_eq!((refused.metadata("resource"), refused.metadata("id")), ("key", &*id));
        for wrong in ["1", " ", "00000000-0000-0000-0000-000000000000", &id.replace('-', "")] {
            let request = v1::ImportKeyRequest { id: wrong.to_owned(), ..a_bundle(&server, "other") };
            let refused = try_import(&alpha, request).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["id"]);
        }
        // Another tenant's ids and names are its own.
        let beta = server.client("beta");
        import(&beta, v1::ImportKeyRequest { id, ..a_bundle(&server, "zürich") }).await;
        assert_eq!(list(&alpha).await, [key]);
    }

    async fn references_have_two_forms(server) {
        let (alpha, beta) = (server.client("alpha"), server.client("beta"));
        let key = import(&alpha, a_bundle(&server, "Mine")).await;
        for reference in [&*key.id, &key.id.to_uppercase(), "name:MINE", " name: mine "] {
            assert_eq!(get(&alpha, reference).await.unwrap(), key);
            let request = v1::DeleteKeyRequest { reference: reference.into(), validate_only: true, ..Default::default() };
            assert!(alpha.keys().delete_key(request).await.unwrap().into_inner().deleted);
        }
        for reference in ["", " ", "Mine", "ext:Mine", "name:", "name:a\nb", &key.id[1..]] {
            for refused in on_each_method(&alpha, reference).await {
                let refused = expect_status(refused, Code::InvalidArgument, "REFERENCE_INVALID");
                refused.expect_fields(&["reference"]);
            }
        }
        for (client, reference) in [(&beta, &*key.id), (&beta, "name:Mine"), (&alpha, "name:other")] {
            for refused in on_each_method(client, reference).await {
                let refused = expect_status(refused, Code::NotFound, "KEY_NOT_FOUND");
                assert_eq!(refused.status.message(), format!("key \"{reference}\" not found"));
                assert_eq!((refused.metadata("resource"), refused.metadata("reference")), ("key", reference));
            }
        }
        assert_eq!((list(&beta).await, list(&alpha).await), (vec![], vec![key]));
    }

    async fn deletes_respect_etags_and_allow_missing(server) {
        let alpha = server.client("alpha");
        let previous = import(&alpha, a_bundle(&server, "mine")).await;
        let request = |etag: &str| v1::DeleteKeyRequest {
            reference: previous.id.clone(),
            etag: etag.to_owned(),
            ..Default::default()
        };
        let refused = alpha.keys().delete_key(request("x")).await;
        expect_status(refused, Code::Aborted, "ETAG_MISMATCH");
        assert!(alpha.keys().delete_key(request(&previous.etag)).await.unwrap().into_inner().deleted);
        expect_status(alpha.keys().delete_key(request("")).await, Code::NotFound, "KEY_NOT_FOUND");
        let missing = v1::DeleteKeyRequest { allow_missing: true, ..request("") };
        assert!(!alpha.keys().delete_key(missing).await.unwrap().into_inner().deleted);
        let again = v1::ImportKeyRequest { id: previous.id.clone(), ..a_bundle(&server, "mine") };
        let present = import(&alpha, again).await;
        let refused = alpha.keys().delete_key(request(&previous.etag)).await;
        expect_status(refused, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(list(&alpha).await, [present]);
    }

    async fn repeats_get_the_first_answer_and_other_bodies_conflict(server) {
        let alpha = server.client("alpha");
        let request_id = Uuid::now_v7().to_string();
        let request = v1::ImportKeyRequest { request_id: request_id.clone(), ..an_identity(&server, "mine") };
        let key = import(&alpha, request.clone()).await;
        assert_eq!(import(&alpha, request.clone()).await, key);
        // The same certificates with another private key are another request, even if that would be refused.
        let private_key_pem = an_identity(&server, "mine").private_key_pem;
        let other = try_import(&alpha, v1::ImportKeyRequest { private_key_pem, ..request }).await;
        expect_status(other, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
        let request = v1::DeleteKeyRequest { reference: "name:mine".to_owned(), request_id, ..Default::default() };
        assert!(alpha.keys().delete_key(request.clone()).await.unwrap().into_inner().deleted);
        let present = import(&alpha, a_bundle(&server, "mine")).await;
        assert!(alpha.keys().delete_key(request.clone()).await.unwrap().into_inner().deleted);
        let other = v1::DeleteKeyRequest { allow_missing: true, ..request };
        let refused = alpha.keys().delete_key(other).await;
        expect_status(refused, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
        assert_eq!(list(&alpha).await, [present]);
    }

    async fn validate_only_changes_nothing(server) {
        let alpha = server.client("alpha");
        let request = v1::ImportKeyRequest { validate_only: true, ..an_identity(&server, "mine") };
        let shown = import(&alpha, request.clone()).await;
        assert_eq!((&*shown.name, shown.private_key_set, shown.certificates.len()), ("mine", true, 2));
        assert_eq!(list(&alpha).await, []);
        let key = import(&alpha, v1::ImportKeyRequest { validate_only: false, ..request.clone() }).await;
        expect_status(try_import(&alpha, request).await, Code::AlreadyExists, "NAME_TAKEN");
        let request =
            v1::DeleteKeyRequest { reference: "name:mine".into(), validate_only: true, ..Default::default() };
        assert!(alpha.keys().delete_key(request).await.unwrap().into_inner().deleted);
        assert_eq!(list(&alpha).await, [key]);
    }

    async fn a_reader_cannot_change_anything(server) {
        let (alpha, reader) = (server.client("alpha"), server.client("reader"));
        let key = import(&alpha, a_bundle(&server, "mine")).await;
        assert_eq!(get(&reader, "name:mine").await.unwrap(), key);
        let refused = try_import(&reader, v1::ImportKeyRequest::default()).await;
        assert_eq!(expect_status(refused, Code::PermissionDenied, "SCOPE_DENIED").metadata("right"), "keys.write");
        let refused = delete(&reader, &key.id).await.map(Response::new);
        expect_status(refused, Code::PermissionDenied, "SCOPE_DENIED");
        assert_eq!(list(&alpha).await, [key]);
    }
}

/// The answers to a get and a delete.
async fn on_each_method(client: &Client, reference: &str) -> [Result<Response<()>, Status>; 2] {
    [
        get(client, reference).await.map(|_| Response::new(())),
        delete(client, reference).await.map(|_| Response::new(())),
    ]
}
