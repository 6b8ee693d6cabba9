//! Etags, request ids and `validate_only`.

use std::collections::BTreeSet;

use jackfield_api::v1;
use jackfield_testkit::{Refusal, TestServer, data::principal, expect_status, fixture, on_both};
use tonic::Code;
use uuid::Uuid;

use super::{create, get, list, try_create, update};

on_both! {
    async fn a_stale_etag_is_refused(server) {
        let alpha = server.client("alpha");
        let first = create(&alpha, fixture::a_connector("Gmail")).await;
        let with_etag = |etag: &str| v1::UpdateConnectorRequest {
            reference: first.id.clone(),
            connector: Some(v1::Connector { debug: Some(true), ..Default::default() }),
            etag: etag.to_owned(),
            ..Default::default()
        };
        let second = alpha.connectors().update_connector(with_etag(&first.etag)).await.unwrap().into_inner();
        let second = second.connector.unwrap();
        assert_ne!(second.etag, first.etag);
        for etag in [&*first.etag, "x", " ", "*", &second.etag.replace("W/", "")] {
            let refused = alpha.connectors().update_connector(with_etag(etag)).await;
            let refused = expect_status(refused, Code::Aborted, "ETAG_MISMATCH");
            assert_eq!((refused.metadata("resource"), refused.metadata("id")), ("connector", &*first.id));
            let reference = first.id.clone();
            let request = v1::DeleteConnectorRequest { reference, etag: etag.to_owned(), ..Default::default() };
            expect_status(alpha.connectors().delete_connector(request).await, Code::Aborted, "ETAG_MISMATCH");
        }
        assert_eq!(get(&alpha, &first.id).await.unwrap(), second);
        // Without an etag, the current state is changed.
        let third = alpha.connectors().update_connector(with_etag("")).await.unwrap().into_inner().connector.unwrap();
        let request =
            v1::DeleteConnectorRequest { reference: first.id.clone(), etag: third.etag, ..Default::default() };
        assert!(alpha.connectors().delete_connector(request).await.unwrap().into_inner().deleted);
    }

    async fn an_etag_is_not_valid_for_a_later_connector(server) {
        let alpha = server.client("alpha");
        let previous = create(&alpha, fixture::a_connector("Gmail")).await;
        let request = v1::DeleteConnectorRequest { reference: previous.id.clone(), ..Default::default() };
        alpha.connectors().delete_connector(request).await.unwrap();
        let connector = Some(fixture::a_connector("Gmail"));
        let request = v1::CreateConnectorRequest { connector, id: previous.id.clone(), ..Default::default() };
        let present = alpha.connectors().create_connector(request).await.unwrap().into_inner().connector.unwrap();
        assert_eq!(present.id, previous.id);
        assert_ne!(present.etag, previous.etag);
        let request = v1::UpdateConnectorRequest {
            reference: previous.id.clone(),
            connector: Some(fixture::a_connector("changed")),
            etag: previous.etag.clone(),
            ..Default::default()
        };
        expect_status(alpha.connectors().update_connector(request).await, Code::Aborted, "ETAG_MISMATCH");
        let request =
            v1::DeleteConnectorRequest { reference: previous.id.clone(), etag: previous.etag, ..Default::default() };
        expect_status(alpha.connectors().delete_connector(request).await, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(get(&alpha, &previous.id).await.unwrap(), present);
    }

    async fn a_repeated_create_gets_the_first_answer(server) {
        let alpha = server.client("alpha");
        let request_id = Uuid::now_v7().to_string();
        let mut connector = fixture::the_fusionauth_connector();
        connector.client_identity_key = None;
        let request = v1::CreateConnectorRequest { connector: Some(connector), request_id, ..Default::default() };
        let first = alpha.connectors().create_connector(request.clone()).await.unwrap().into_inner();
        let again = alpha.connectors().create_connector(request.clone()).await.unwrap().into_inner();
        assert_eq!(again, first);
        assert_eq!(list(&alpha).await, [first.connector.clone().unwrap()]);
        let id = &first.connector.as_ref().unwrap().id;
        update(&alpha, id, ["name"], fixture::a_connector("renamed")).await.unwrap();
        let again = alpha.connectors().create_connector(request.clone()).await.unwrap().into_inner();
        assert_eq!(again, first, "the original answer, not the current state");
        let other = v1::CreateConnectorRequest { connector: Some(fixture::a_connector("other")), ..request.clone() };
        let refused = alpha.connectors().create_connector(other).await;
        let refused = expect_status(refused, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
        let violations = &refused.details.precondition_failure().unwrap().violations;
        assert_eq!((violations.len(), &*violations[0].r#type), (1, "REQUEST_ID_CONFLICT"));
        assert_eq!((&violations[0].subject, refused.metadata("request_id")), (&request.request_id, &*request.request_id));
        // Another secret is another body.
        let mut other = request.clone();
        if let Some(v1::connector::Kind::Generic(generic)) = &mut other.connector.as_mut().unwrap().kind {
            generic.http_authentication_password.push('2');
        }
        let refused = alpha.connectors().create_connector(other).await;
        expect_status(refused, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
        assert_eq!(list(&alpha).await.len(), 1);
        for wrong in ["1", " ", "00000000-0000-0000-0000-000000000000"] {
            let request = v1::CreateConnectorRequest { request_id: wrong.to_owned(), ..request.clone() };
            let refused = alpha.connectors().create_connector(request).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["request_id"]);
        }
    }

    async fn a_request_id_belongs_to_one_caller_and_one_method(backend: Backend) {
        let server = TestServer::start_with(backend, |config| {
            config.identity.principals.push(principal("alpha 2", "alpha", &["*"]));
        })
        .await;
        let request_id = Uuid::now_v7().to_string();
        let create = |name: &str| v1::CreateConnectorRequest {
            connector: Some(fixture::a_connector(name)),
            request_id: request_id.clone(),
            ..Default::default()
        };
        let mut ids = BTreeSet::new();
        for (caller, name) in [("alpha", "one"), ("alpha 2", "two"), ("beta", "one")] {
            let created = server.client(caller).connectors().create_connector(create(name)).await.unwrap();
            ids.insert(created.into_inner().connector.unwrap().id);
        }
        assert_eq!(ids.len(), 3);
        // The same body from another caller is a separate request, too.
        let refused = server.client("alpha 2").connectors().create_connector(create("one")).await;
        expect_status(refused, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
        let alpha = server.client("alpha");
        let update = v1::UpdateConnectorRequest {
            reference: "name:one".to_owned(),
            connector: Some(v1::Connector { debug: Some(true), ..Default::default() }),
            request_id: request_id.clone(),
            ..Default::default()
        };
        assert!(alpha.connectors().update_connector(update).await.unwrap().into_inner().connector.unwrap().debug());
        let delete = v1::DeleteConnectorRequest { reference: "name:one".to_owned(), request_id, ..Default::default() };
        assert!(alpha.connectors().delete_connector(delete).await.unwrap().into_inner().deleted);
        let names: Vec<String> = list(&alpha).await.into_iter().map(|connector| connector.name).collect();
        assert_eq!(names, ["two"]);
    }

    async fn repeated_updates_and_deletes_take_effect_once(server) {
        let alpha = server.client("alpha");
        let connector = create(&alpha, fixture::a_connector("Gmail")).await;
        let request = v1::UpdateConnectorRequest {
            reference: "name:Gmail".to_owned(),
            connector: Some(fixture::a_connector("Outlook")),
            update_mask: fixture::mask(["name"]),
            etag: connector.etag,
            request_id: Uuid::now_v7().to_string(),
            ..Default::default()
        };
        let first = alpha.connectors().update_connector(request.clone()).await.unwrap().into_inner();
        let again = alpha.connectors().update_connector(request.clone()).await.unwrap().into_inner();
        assert_eq!(again, first);
        assert_eq!(get(&alpha, &connector.id).await.unwrap(), first.connector.unwrap());
        let other = v1::UpdateConnectorRequest { etag: String::new(), ..request };
        let refused = alpha.connectors().update_connector(other).await;
        expect_status(refused, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");

        let request = v1::DeleteConnectorRequest {
            reference: "name:Outlook".to_owned(),
            request_id: Uuid::now_v7().to_string(),
            ..Default::default()
        };
        assert!(alpha.connectors().delete_connector(request.clone()).await.unwrap().into_inner().deleted);
        create(&alpha, fixture::a_connector("Outlook")).await;
        assert!(alpha.connectors().delete_connector(request.clone()).await.unwrap().into_inner().deleted);
        assert_eq!(list(&alpha).await.len(), 1, "the second connector is not affected");
        let other = v1::DeleteConnectorRequest { cascade: true, ..request };
        let refused = alpha.connectors().delete_connector(other).await;
        expect_status(refused, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
    }

    async fn a_refused_request_leaves_its_id_free(server) {
        let alpha = server.client("alpha");
        create(&alpha, fixture::a_connector("Gmail")).await;
        let request = v1::CreateConnectorRequest {
            connector: Some(fixture::a_connector("gmail")),
            request_id: Uuid::now_v7().to_string(),
            ..Default::default()
        };
        let refused = alpha.connectors().create_connector(request.clone()).await;
        expect_status(refused, Code::AlreadyExists, "NAME_TAKEN");
        update(&alpha, "name:Gmail", ["name"], fixture::a_connector("Outlook")).await.unwrap();
        alpha.connectors().create_connector(request.clone()).await.unwrap();
        let other = v1::CreateConnectorRequest { connector: Some(fixture::a_connector("third")), ..request };
        let refused = alpha.connectors().create_connector(other).await;
        expect_status(refused, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
    }

    async fn one_of_several_equal_concurrent_requests_is_executed(server) {
        let alpha = server.client("alpha");
        let request = v1::CreateConnectorRequest {
            connector: Some(fixture::a_connector("Gmail")),
            request_id: Uuid::now_v7().to_string(),
            ..Default::default()
        };
        let calls = (0..8).map(|_| {
            let (mut connectors, request) = (alpha.connectors(), request.clone());
            async move { connectors.create_connector(request).await.unwrap().into_inner() }
        });
        let answers = futures::future::join_all(calls).await;
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        assert_eq!(list(&alpha).await, [answers[0].connector.clone().unwrap()]);
    }

    async fn one_of_several_concurrent_changes_with_one_etag_succeeds(server) {
        let alpha = server.client("alpha");
        let connector = create(&alpha, fixture::a_connector("Gmail")).await;
        let calls = (0..8).map(|index| {
            let mut connectors = alpha.connectors();
            let request = v1::UpdateConnectorRequest {
                reference: connector.id.clone(),
                connector: Some(v1::Connector { description: Some(format!("by {index}")), ..Default::default() }),
                etag: connector.etag.clone(),
                ..Default::default()
            };
            async move { connectors.update_connector(request).await }
        });
        let mut made = Vec::new();
        for answer in futures::future::join_all(calls).await {
            match answer {
                Ok(answer) => made.extend(answer.into_inner().connector),
                Err(status) => drop(Refusal::check(status, Code::Aborted, "ETAG_MISMATCH")),
            }
        }
        assert_eq!(made.len(), 1, "{made:?}");
        assert_eq!(list(&alpha).await, made);
    }

    async fn one_of_several_concurrent_creates_with_one_name_succeeds(server) {
        let alpha = server.client("alpha");
        let calls = ["Zürich", "ZÜRICH", "zürich", "zÜrich", "ZüRICH", "zÜRICH"].map(|name| {
            let alpha = alpha.clone();
            async move { try_create(&alpha, fixture::a_connector(name)).await }
        });
        let mut made = Vec::new();
        for answer in futures::future::join_all(calls).await {
            match answer {
                Ok(answer) => made.extend(answer.into_inner().connector),
                Err(status) => drop(Refusal::check(status, Code::AlreadyExists, "NAME_TAKEN")),
            }
        }
        assert_eq!(made.len(), 1, "{made:?}");
        assert_eq!(list(&alpha).await, made);
    }

    async fn validate_only_answers_without_changes(server) {
        let alpha = server.client("alpha");
        let request_id = Uuid::now_v7().to_string();
        let create_request = v1::CreateConnectorRequest {
            connector: Some(fixture::a_connector("Gmail")),
            id: Uuid::now_v7().to_string(),
            request_id: request_id.clone(),
            validate_only: true,
        };
        let shown = alpha.connectors().create_connector(create_request.clone()).await.unwrap().into_inner();
        let shown = shown.connector.unwrap();
        assert_eq!((&shown.name, &shown.id), (&"Gmail".to_owned(), &create_request.id));
        assert_eq!(list(&alpha).await, []);
        // Its request id is not used up.
        let create_request = v1::CreateConnectorRequest { validate_only: false, ..create_request };
        let created = alpha.connectors().create_connector(create_request.clone()).await.unwrap().into_inner();
        let created = created.connector.unwrap();
        // Everything is checked, including whether names are taken.
        let taken = v1::CreateConnectorRequest { id: String::new(), validate_only: true, ..create_request };
        expect_status(alpha.connectors().create_connector(taken).await, Code::AlreadyExists, "NAME_TAKEN");

        let request = v1::UpdateConnectorRequest {
            reference: created.id.clone(),
            connector: Some(fixture::a_connector("Outlook")),
            request_id: request_id.clone(),
            validate_only: true,
            ..Default::default()
        };
        let shown = alpha.connectors().update_connector(request.clone()).await.unwrap().into_inner();
        assert_eq!(shown.connector.unwrap().name, "Outlook");
        let stale = v1::UpdateConnectorRequest { etag: "x".to_owned(), ..request.clone() };
        expect_status(alpha.connectors().update_connector(stale).await, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(get(&alpha, "name:Gmail").await.unwrap(), created);

        let reference = created.id.clone();
        let request = v1::DeleteConnectorRequest { reference, request_id, validate_only: true, ..Default::default() };
        assert!(alpha.connectors().delete_connector(request.clone()).await.unwrap().into_inner().deleted);
        let absent = v1::DeleteConnectorRequest { reference: "name:Outlook".to_owned(), ..request };
        expect_status(alpha.connectors().delete_connector(absent).await, Code::NotFound, "CONNECTOR_NOT_FOUND");
        assert_eq!(list(&alpha).await, [created]);
    }
}
