//! Ids, names, references, etags, request ids and `validate_only` of connections.

use jackfield_api::v1;
use jackfield_testkit::{Client, expect_status, fixture, on_both};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::{a_small_one, create, everything, get, list, try_create, update};
use crate::connector;

on_both! {
    async fn ids_names_and_external_ids_are_unique(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        connector::create(&alpha, fixture::an_oauth2_connector("Outlook")).await;
        let id = Uuid::now_v7().to_string();
        let one = v1::Connection { external_id: Some("con_1".to_owned()), ..a_small_one("Zürich") };
        let request =
            v1::CreateConnectionRequest { connection: Some(one.clone()), id: id.clone(), ..Default::default() };
        let one = alpha.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap();
        assert_eq!(one.id, id);
        let two = create(&alpha, a_small_one("two")).await;
        // They are unique in the tenant, even across connectors.
        for (given, path, reason, key) in [
            (a_small_one("ZÜRICH"), "name", "NAME_TAKEN", "name"),
            (v1::Connection { connector: "name:Outlook".to_owned(), ..a_small_one(" zürich ") }, "name", "NAME_TAKEN", "name"),
            (
                v1::Connection { external_id: Some("con_1".to_owned()), ..a_small_one("three") },
                "external_id",
                "EXTERNAL_ID_TAKEN",
                "external_id",
            ),
        ] {
            let value = if key == "name" { given.name.trim().to_owned() } else { given.external_id().to_owned() };
            let refused = expect_status(try_create(&alpha, given.clone()).await, Code::AlreadyExists, reason);
            assert_eq!((refused.metadata("resource"), refused.metadata(key)), ("connection", &*value));
            let refused = update(&alpha, &two.id, [path], given).await.map(Response::new);
            expect_status(refused, Code::AlreadyExists, reason);
        }
        let request =
            v1::CreateConnectionRequest { connection: Some(a_small_one("three")), id: id.clone(), ..Default::default() };
        let refused = alpha.connections().create_connection(request.clone()).await;
        assert_eq!(expect_status(refused, Code::AlreadyExists, "ID_TAKEN").metadata("id"), id);
        for wrong in ["1", " ", "00000000-0000-0000-0000-000000000000", &format!("{{{id}}}")] {
            let request = v1::CreateConnectionRequest { id: wrong.to_owned(), ..request.clone() };
            let refused = alpha.connections().create_connection(request).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["id"]);
        }
        assert_eq!(list(&alpha).await.len(), 2);
        // External ids are compared exactly, and any number of connections may have none.
        create(&alpha, v1::Connection { external_id: Some("CON_1".to_owned()), ..a_small_one("three") }).await;
        create(&alpha, a_small_one("four")).await;
        // A connector may have the same name.
        create(&alpha, a_small_one("Gmail")).await;
        // A released name is free again.
        update(&alpha, &one.id, ["external_id"], v1::Connection::default()).await.unwrap();
        let given = v1::Connection { external_id: Some("con_1".to_owned()), ..Default::default() };
        assert_eq!(update(&alpha, &two.id, ["external_id"], given).await.unwrap().external_id(), "con_1");
    }

    async fn an_external_id_is_stored_without_its_prefix(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let external_id = "ext:corp:a".to_owned();
        let connection = create(&alpha, v1::Connection { external_id: Some(external_id), ..a_small_one("Sign in") }).await;
        assert_eq!(connection.external_id(), "corp:a");
        assert_eq!(get(&alpha, "ext:corp:a").await.unwrap(), connection);
    }

    async fn references_have_three_forms(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let external_id = "01890a5d-ac96-774b-bcce-b302099a8057".to_owned();
        let connection = create(&alpha, v1::Connection { external_id: Some(external_id), ..a_small_one("Sign in") }).await;
        let id = &connection.id;
        for reference in [
            id.clone(),
            id.to_uppercase(),
            "name:SIGN IN".to_owned(),
            " name: sign in ".to_owned(),
            // An external id may look like an id: the prefix distinguishes them.
            "ext:01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
        ] {
            assert_eq!(get(&alpha, &reference).await.unwrap().id, *id);
            assert_eq!(update(&alpha, &reference, ["linking"], v1::Connection::default()).await.unwrap().id, *id);
            let request = v1::DeleteConnectionRequest { reference, validate_only: true, ..Default::default() };
            assert!(alpha.connections().delete_connection(request).await.unwrap().into_inner().deleted);
        }
        for reference in ["", " ", "Sign in", "name:", "ext:", "ext: ", "ext:a\nb", "id:1", &id[1..]] {
            for refused in on_each_method(&alpha, reference).await {
                let refused = expect_status(refused, Code::InvalidArgument, "REFERENCE_INVALID");
                refused.expect_fields(&["reference"]);
            }
        }
        for reference in ["01890a5d-ac96-774b-bcce-b302099a8057", "name:other", "ext:Sign in", "ext:ä", &format!("ext:{id}")] {
            for refused in on_each_method(&alpha, reference).await {
                let refused = expect_status(refused, Code::NotFound, "CONNECTION_NOT_FOUND");
                assert_eq!((refused.metadata("resource"), refused.metadata("reference")), ("connection", reference));
            }
        }
    }

    async fn the_connector_must_be_named_and_exist(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let on = |connector: &str| v1::Connection { connector: connector.to_owned(), ..a_small_one("x") };
        for wrong in ["", " ", "Gmail", "ext:Gmail", "name:", "name:\n"] {
            let refused = try_create(&alpha, on(wrong)).await;
            expect_status(refused, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["connection.connector"]);
        }
        for absent in ["name:Outlook", &*Uuid::now_v7().to_string()] {
            let refused = expect_status(try_create(&alpha, on(absent)).await, Code::NotFound, "CONNECTOR_NOT_FOUND");
            assert_eq!((refused.metadata("resource"), refused.metadata("reference")), ("connector", absent));
        }
        assert_eq!(list(&alpha).await, []);
    }

    async fn resources_of_another_tenant_are_invisible(server) {
        let (alpha, beta) = (server.client("alpha"), server.client("beta"));
        let connector = connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let given = v1::Connection { external_id: Some("con_1".to_owned()), ..a_small_one("Sign in") };
        let connection = create(&alpha, given.clone()).await;
        for connector in [&*connector.id, "name:Gmail"] {
            let given = v1::Connection { connector: connector.to_owned(), ..given.clone() };
            let refused = expect_status(try_create(&beta, given).await, Code::NotFound, "CONNECTOR_NOT_FOUND");
            assert_eq!((refused.metadata("resource"), refused.metadata("reference")), ("connector", connector));
        }
        let mut seen = Vec::new();
        for reference in [&*connection.id, "name:Sign in", "ext:con_1"] {
            for refused in on_each_method(&beta, reference).await {
                seen.push(connector::facts(&expect_status(refused, Code::NotFound, "CONNECTION_NOT_FOUND")));
            }
        }
        assert_eq!(list(&beta).await, []);
        // Ids, names and external ids are free for the other tenant.
        connector::create(&beta, fixture::an_oauth2_connector("Gmail")).await;
        let request = v1::CreateConnectionRequest {
            connection: Some(given),
            id: connection.id.clone(),
            ..Default::default()
        };
        beta.connections().create_connection(request).await.unwrap();
        assert_eq!(get(&alpha, &connection.id).await.unwrap(), connection);
        for client in [&alpha, &beta] {
            let request = v1::DeleteConnectionRequest { reference: connection.id.clone(), ..Default::default() };
            client.connections().delete_connection(request).await.unwrap();
        }
        let mut absent = Vec::new();
        for reference in [&*connection.id, "name:Sign in", "ext:con_1"] {
            for refused in on_each_method(&beta, reference).await {
                absent.push(connector::facts(&expect_status(refused, Code::NotFound, "CONNECTION_NOT_FOUND")));
            }
        }
        assert_eq!(seen, absent);
    }

    async fn stale_etags_are_refused(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let first = create(&alpha, a_small_one("Sign in")).await;
        let second = update(&alpha, &first.id, ["name"], a_small_one("x")).await.unwrap();
        let update = |etag: &str| v1::UpdateConnectionRequest {
            reference: first.id.clone(),
            connection: Some(a_small_one("renamed")),
            etag: etag.to_owned(),
            ..Default::default()
        };
        let delete = |etag: &str| v1::DeleteConnectionRequest {
            reference: first.id.clone(),
            etag: etag.to_owned(),
            ..Default::default()
        };
        let refused = alpha.connections().update_connection(update(&first.etag)).await;
        let refused = expect_status(refused, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!((refused.metadata("resource"), refused.metadata("id")), ("connection", &*first.id));
        let refused = alpha.connections().delete_connection(delete(&first.etag)).await;
        expect_status(refused, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(get(&alpha, &first.id).await.unwrap(), second);
        let third = alpha.connections().update_connection(update(&second.etag)).await.unwrap().into_inner();
        let third = third.connection.unwrap();
        alpha.connections().delete_connection(delete(&third.etag)).await.unwrap();
        // A new connection with the same id has another etag, whatever its number of changes.
        let request = v1::CreateConnectionRequest {
            connection: Some(a_small_one("Sign in")),
            id: first.id.clone(),
            ..Default::default()
        };
        let again = alpha.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap();
        for etag in [&first.etag, &second.etag, &third.etag] {
            let refused = alpha.connections().update_connection(update(etag)).await;
            expect_status(refused, Code::Aborted, "ETAG_MISMATCH");
            let refused = alpha.connections().delete_connection(delete(etag)).await;
            expect_status(refused, Code::Aborted, "ETAG_MISMATCH");
        }
        assert_eq!(list(&alpha).await, [again]);
    }

    async fn repeats_get_the_first_answer_and_other_bodies_conflict(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let request_id = Uuid::now_v7().to_string();
        let mut request = v1::CreateConnectionRequest {
            connection: Some(everything()),
            request_id: request_id.clone(),
            ..Default::default()
        };
        let first = alpha.connections().create_connection(request.clone()).await.unwrap().into_inner();
        let again = alpha.connections().create_connection(request.clone()).await.unwrap().into_inner();
        assert_eq!(first, again);
        request.connection.as_mut().unwrap().client_secrets[0].value.push('2');
        let refused = alpha.connections().create_connection(request).await;
        expect_status(refused, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");

        let mut request = v1::UpdateConnectionRequest {
            reference: "name:Sign in".to_owned(),
            connection: Some(a_small_one("renamed")),
            request_id: request_id.clone(),
            ..Default::default()
        };
        let first = alpha.connections().update_connection(request.clone()).await.unwrap().into_inner();
        let again = alpha.connections().update_connection(request.clone()).await.unwrap().into_inner();
        assert_eq!(first, again);
        assert_eq!(list(&alpha).await, [again.connection.unwrap()]);
        request.connection = Some(a_small_one("renamed again"));
        let refused = alpha.connections().update_connection(request).await;
        expect_status(refused, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");

        let mut request =
            v1::DeleteConnectionRequest { reference: "name:renamed".to_owned(), request_id, ..Default::default() };
        let first = alpha.connections().delete_connection(request.clone()).await.unwrap().into_inner();
        let present = create(&alpha, a_small_one("renamed")).await;
        let again = alpha.connections().delete_connection(request.clone()).await.unwrap().into_inner();
        assert_eq!((first.deleted, first), (true, again));
        request.cascade = true;
        let refused = alpha.connections().delete_connection(request).await;
        expect_status(refused, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
        assert_eq!(list(&alpha).await, [present]);
    }

    async fn validate_only_answers_without_changes(server) {
        let alpha = server.client("alpha");
        let connector = connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let request = v1::CreateConnectionRequest {
            connection: Some(a_small_one("Sign in")),
            validate_only: true,
            ..Default::default()
        };
        let shown = alpha.connections().create_connection(request.clone()).await.unwrap().into_inner();
        let shown = shown.connection.unwrap();
        assert_eq!((&*shown.name, &shown.connector), ("Sign in", &connector.id));
        assert_eq!(list(&alpha).await, []);
        let stored = create(&alpha, a_small_one("Sign in")).await;
        expect_status(alpha.connections().create_connection(request).await, Code::AlreadyExists, "NAME_TAKEN");
        let request = v1::UpdateConnectionRequest {
            reference: stored.id.clone(),
            connection: Some(v1::Connection {
                client_secrets: vec![v1::ClientSecret { value: "new".to_owned(), ..Default::default() }],
                ..a_small_one("renamed")
            }),
            validate_only: true,
            ..Default::default()
        };
        let shown = alpha.connections().update_connection(request).await.unwrap().into_inner().connection.unwrap();
        assert_eq!((&*shown.name, shown.client_secrets.len()), ("renamed", 1));
        let request =
            v1::DeleteConnectionRequest { reference: stored.id.clone(), validate_only: true, ..Default::default() };
        assert!(alpha.connections().delete_connection(request).await.unwrap().into_inner().deleted);
        assert_eq!(list(&alpha).await, std::slice::from_ref(&stored));
        let secret = connector::sealed(&server, jackfield_domain::Resource::Connection, &stored.id, "client_secret/").await;
        assert_eq!(secret, None);
    }

    async fn a_reader_cannot_change_anything(server) {
        let (alpha, reader) = (server.client("alpha"), server.client("reader"));
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let stored = create(&alpha, a_small_one("Sign in")).await;
        assert_eq!(get(&reader, "name:Sign in").await.unwrap(), stored);
        let refused = expect_status(
            try_create(&reader, v1::Connection::default()).await,
            Code::PermissionDenied,
            "SCOPE_DENIED",
        );
        assert_eq!(refused.metadata("right"), "connections.write");
        for refused in on_each_method(&reader, &stored.id).await.into_iter().skip(1) {
            expect_status(refused, Code::PermissionDenied, "SCOPE_DENIED");
        }
        assert_eq!(list(&alpha).await, [stored]);
    }
}

/// The answers to a get, an update and a delete.
async fn on_each_method(client: &Client, reference: &str) -> [Result<Response<()>, Status>; 3] {
    let delete = v1::DeleteConnectionRequest { reference: reference.to_owned(), ..Default::default() };
    [
        get(client, reference).await.map(|_| Response::new(())),
        update(client, reference, ["linking"], v1::Connection::default()).await.map(|_| Response::new(())),
        client.connections().delete_connection(delete).await.map(|_| Response::new(())),
    ]
}
