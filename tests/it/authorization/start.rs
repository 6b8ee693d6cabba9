//! Starts that are refused: the user is not sent away in vain.

use jackfield_api::v1;
use jackfield_testkit::{ManualClock, expect_status, fixture, on_both};
use tonic::Code;

use super::{BACK, World, callback, complete, get};
use crate::steps;

on_both! {
    async fn a_connection_that_lacks_something_starts_nothing(server) {
        let world = World::new(&server).await;
        type Change = fn(&mut v1::Connection);
        let cases: [(&[&str], Change, &str, &str); 8] = [
            (&["client_id"], |_| {}, "CONNECTION_INCOMPLETE", "connection.client_id is required"),
            (&["client_secrets"], |_| {}, "CONNECTION_INCOMPLETE", "connection.client_secrets is required"),
            (&["token_url"], |_| {}, "CONNECTION_INCOMPLETE", "connection.token_url is required, or connector.oauth2.token_url"),
            (&["authentication_url"], |_| {}, "CONNECTION_INCOMPLETE", "connection.authentication_url is required, or connector.oauth2.authorization_url"),
            (&["issuer_url"], |_| {}, "CONNECTION_INCOMPLETE", "connection.issuer_url is required, or connector.oauth2.issuer_url"),
            (&["type"], |it| it.r#type = v1::ConnectionType::Saml2.into(), "CONNECTION_INCOMPLETE", "CONNECTION_TYPE_OAUTH2"),
            (&["active"], |it| it.active = Some(false), "CONNECTION_INACTIVE", "not active"),
            (&["redirect_uris"], |_| {}, "FIELD_INVALID", ""),
        ];
        for (paths, change, reason, message) in cases {
            let mut connection = v1::Connection::default();
            change(&mut connection);
            update(&world, paths, connection).await;
            let refused = world.client.connections().start_authorization(world.request("ada")).await;
            let code = if reason == "FIELD_INVALID" { Code::InvalidArgument } else { Code::FailedPrecondition };
            let refusal = expect_status(refused, code, reason);
            assert!(refusal.status.message().contains(message) || format!("{:?}", refusal.status).contains(message), "{:?}", refusal.status);
            // As it was.
            let secrets = vec![v1::ClientSecret { value: "again".to_owned(), ..Default::default() }];
            update(&world, paths, v1::Connection { client_secrets: secrets, ..world.connection.clone() }).await;
        }
        steps::enable(&world.client, &world.connection.connector, false).await;
        let refused = world.client.connections().start_authorization(world.request("ada")).await;
        expect_status(refused, Code::FailedPrecondition, "CONNECTOR_DISABLED");
    }

    async fn openid_needs_an_issuer(backend: Backend) {
        let server = callback::server(backend, &ManualClock::at_present()).await;
        let world = World::with(&server, |connection| {
            (connection.issuer_url, connection.iss_parameter_supported) = (None, None);
            connection.return_uris = vec![callback::HOME.to_owned()];
        })
        .await;
        callback::start(&world, "ada").await;
        let (scopes, return_uri) = (vec!["openid".to_owned()], callback::HOME.to_owned());
        let request = v1::StartAuthorizationRequest { scopes, return_uri, ..world.request("ada") };
        let refused = world.client.connections().start_authorization(request).await;
        let refusal = expect_status(refused, Code::FailedPrecondition, "CONNECTION_INCOMPLETE");
        assert!(refusal.status.message().contains("issuer_url (for the scope openid) is required"), "{:?}", refusal.status);
    }

    async fn what_a_start_names_must_belong_together(server) {
        let world = World::with(&server, |connection| connection.return_uris = vec!["https://app.example/home".to_owned()]).await;
        let link = steps::link(&world.client, "eve", &world.connection.connector).await;
        let facts = |user: &str| fixture::a_credential(user, &link.connector);
        let of_eve = steps::credential(&world.client, facts("eve"), fixture::oauth2_material("at", "rt")).await.id;
        steps::link(&world.client, "ada", &world.connection.connector).await;
        let key = steps::credential(&world.client, facts("ada"), fixture::api_key_material("key")).await.id;
        let other = v1::Connection { redirect_uris: vec![], ..fixture::a_connection("other", &link.connector) };
        let request = v1::CreateConnectionRequest { connection: Some(other), ..Default::default() };
        let other = world.client.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap();
        let of_other = v1::Credential { connection: other.id.clone(), ..facts("ada") };
        let of_other = steps::credential(&world.client, of_other, fixture::oauth2_material("at", "rt")).await.id;
        type Change = Box<dyn Fn(&mut v1::StartAuthorizationRequest)>;
        let credential = |id: &str| -> Change { let id = id.to_owned(); Box::new(move |it| it.credential = id.clone()) };
        let cases: Vec<(&[&str], Change)> = vec![
            (&["redirect_uri"], Box::new(|it| it.redirect_uri = format!("{BACK}/"))),
            (&["redirect_uri"], Box::new(|it| it.redirect_uri = "https://APP.example/back".to_owned())),
            (&["redirect_uri"], Box::new(|it| it.redirect_uri = "javascript:alert(1)".to_owned())),
            (&["return_uri"], Box::new(|it| (it.redirect_uri, it.return_uri) = (BACK.to_owned(), BACK.to_owned()))),
            // There is no callback listener here.
            (&["return_uri"], Box::new(|it| it.return_uri = "https://app.example/home".to_owned())),
            (&["user_id"], Box::new(|it| it.user_id = String::new())),
            (&["scopes[1]"], Box::new(|it| it.scopes = vec!["a".to_owned(), "b c".to_owned()])),
            (&["credential"], credential(&of_eve)),
            (&["credential"], credential(&key)),
            (&["credential"], credential(&of_other)),
        ];
        for (fields, change) in cases {
            let mut request = world.request("ada");
            change(&mut request);
            let refused = world.client.connections().start_authorization(request).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(fields);
        }
        let request = v1::StartAuthorizationRequest { credential: other.id, ..world.request("ada") };
        let refused = world.client.connections().start_authorization(request).await;
        expect_status(refused, Code::NotFound, "CREDENTIAL_NOT_FOUND");
    }

    async fn an_answer_is_a_code_or_an_error(server) {
        let world = World::new(&server).await;
        let brought = world.visited("ada").await.1;
        type Change = fn(&mut v1::CompleteAuthorizationRequest);
        let cases: [(&[&str], Change); 7] = [
            (&["user_id"], |it| it.user_id = String::new()),
            (&["state"], |it| it.state = String::new()),
            (&["code"], |it| it.code = String::new()),
            (&["code"], |it| it.code = "c".repeat(4_097)),
            (&["error"], |it| it.error = "access_denied".to_owned()),
            (&["iss"], |it| it.iss = Some("i".repeat(2_049))),
            (&["code", "iss", "state"], |it| it.completion_code = "c".to_owned()),
        ];
        for (fields, change) in cases {
            let mut request = brought.completion("ada");
            change(&mut request);
            let refused = world.client.connections().complete_authorization(request).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(fields);
        }
        let mut request = brought.completion("ada");
        request.state = "a".repeat(43);
        let refused = world.client.connections().complete_authorization(request).await;
        expect_status(refused, Code::NotFound, "AUTHORIZATION_NOT_FOUND");
        // None of them used it.
        assert_eq!(complete(&world.client, brought.completion("ada")).await.unwrap().state(), v1::AuthorizationState::Completed);
    }

    async fn a_connection_is_deleted_with_its_sessions(server) {
        let world = World::new(&server).await;
        let (session, brought) = world.visited("ada").await;
        let delete = v1::DeleteConnectionRequest { reference: world.connection.id.clone(), ..Default::default() };
        world.client.connections().delete_connection(delete).await.unwrap();
        let gone = get(&world.client, &session.id).await.map(tonic::Response::new);
        expect_status(gone, Code::NotFound, "AUTHORIZATION_NOT_FOUND");
        let gone = complete(&world.client, brought.completion("ada")).await.map(tonic::Response::new);
        expect_status(gone, Code::NotFound, "AUTHORIZATION_NOT_FOUND");
        assert_eq!(world.provider.redeemed().len(), 0);
    }
}

pub(super) async fn update(world: &World, paths: &[&str], connection: v1::Connection) {
    let request = v1::UpdateConnectionRequest {
        reference: world.connection.id.clone(),
        connection: Some(v1::Connection { etag: String::new(), ..connection }),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
        ..Default::default()
    };
    world.client.connections().update_connection(request).await.unwrap();
}
