//! UserConnectorService: links between users and connectors, and what is removed with them.

mod authenticate;
mod source;
mod state;

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_testkit::{Client, collect, expect_status, fixture, on_both};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::steps;

fn add(user_id: &str, connector: &str) -> v1::AddUserConnectorRequest {
    v1::AddUserConnectorRequest { user_id: user_id.to_owned(), connector: connector.to_owned(), ..Default::default() }
}

fn remove(user_id: &str, connector: &str) -> v1::RemoveUserConnectorRequest {
    v1::RemoveUserConnectorRequest {
        user_id: user_id.to_owned(),
        connector: connector.to_owned(),
        ..Default::default()
    }
}

fn get(reference: &str, user_id: &str, connector: &str) -> v1::GetUserConnectorRequest {
    v1::GetUserConnectorRequest {
        reference: reference.to_owned(),
        user_id: user_id.to_owned(),
        connector: connector.to_owned(),
    }
}

async fn added(client: &Client, request: v1::AddUserConnectorRequest) -> v1::AddUserConnectorResponse {
    client.user_connectors().add_user_connector(request).await.unwrap().into_inner()
}

async fn removed(client: &Client, request: v1::RemoveUserConnectorRequest) -> v1::RemoveUserConnectorResponse {
    client.user_connectors().remove_user_connector(request).await.unwrap().into_inner()
}

async fn found(client: &Client, request: v1::GetUserConnectorRequest) -> v1::UserConnector {
    client.user_connectors().get_user_connector(request).await.unwrap().into_inner().user_connector.unwrap()
}

async fn listed(client: &Client, request: v1::ListUserConnectorsRequest) -> Result<Vec<v1::UserConnector>, Status> {
    collect::items(client.user_connectors().list_user_connectors(request).await).await
}

on_both! {
    /// A link works even if its connector cannot be read: it has the connector's name of its creation, and can be
    /// removed.
    async fn a_link_to_a_damaged_connector_is_listed_and_removed(server) {
        let client = server.client("alpha");
        let other = steps::connector(&client, fixture::a_connector("Other")).await;
        let damages = ["'{'".to_owned(), "'[]'".to_owned(), format!("(SELECT doc FROM connector WHERE name_key = '{}')", "other")];
        for (number, damage) in damages.into_iter().enumerate() {
            let name = format!("Gmail {number}");
            let link = steps::linked(&client, "ada", &name).await;
            server.sql(&format!("UPDATE connector SET doc = {damage} WHERE name_key = '{}'", name.to_lowercase())).await;
            let seen = found(&client, get(&link.id, "", "")).await;
            assert_eq!((seen.id.as_str(), seen.connector_name.as_str()), (link.id.as_str(), name.as_str()), "{damage}");
            assert_eq!(listed(&client, v1::ListUserConnectorsRequest::default()).await.unwrap(), [seen], "{damage}");
            let request = v1::RemoveUserConnectorRequest { reference: link.id.clone(), ..Default::default() };
            assert!(removed(&client, request).await.removed, "{damage}");
            assert_eq!(listed(&client, v1::ListUserConnectorsRequest::default()).await.unwrap(), [], "{damage}");
        }
        assert_eq!(steps::link(&client, "ada", &other.id).await.connector_name, "Other");
    }

    /// A page of links needs the names of as many connectors, some of which are large.
    async fn links_of_many_connectors_have_their_current_names(server) {
        const MANY: usize = 70;
        let client = server.client("alpha");
        for number in 0..MANY {
            let mut connector = fixture::a_connector(&format!("before {number:02}"));
            if number % 7 == 0 {
                connector.description = Some("x".repeat(1_000));
            }
            let link = {
                let connector = steps::connector(&client, connector).await;
                steps::link(&client, "ada", &connector.id).await
            };
            let request = v1::UpdateConnectorRequest {
                reference: link.connector,
                connector: Some(v1::Connector { name: format!("after {number:02}"), ..Default::default() }),
                update_mask: fixture::mask(["name"]),
                ..Default::default()
            };
            client.connectors().update_connector(request).await.unwrap();
        }
        let request = v1::ListUserConnectorsRequest { page_size: 1_000, ..Default::default() };
        let names: Vec<_> = listed(&client, request).await.unwrap().into_iter().map(|link| link.connector_name).collect();
        assert_eq!(names, (0..MANY).map(|number| format!("after {number:02}")).collect::<Vec<_>>());
    }

    async fn a_second_add_finds_the_link(server) {
        let client = server.client("alpha");
        let connector = steps::connector(&client, fixture::a_connector("Gmail")).await;
        let first = added(&client, add("ada", &connector.id)).await;
        assert!(first.created);
        assert_eq!(first.warning, "");
        let link = first.user_connector.unwrap();
        assert_eq!((link.user_id.as_str(), link.connector.as_str()), ("ada", connector.id.as_str()));
        assert_eq!((link.connector_name.as_str(), link.credential_count), ("Gmail", 0));
        assert_eq!(link.state(), v1::UserConnectorState::Attached);
        assert_eq!(link.create_time, link.update_time);
        assert!(link.create_time.is_some() && !link.etag.is_empty());

        // The name in another letter case, and an id that a new link would get.
        let again = v1::AddUserConnectorRequest { id: Uuid::now_v7().to_string(), ..add("ada", "name:gMAIL") };
        let second = added(&client, again).await;
        assert!(!second.created);
        assert_eq!(second.user_connector, Some(link.clone()));
        assert_eq!(second.warning, "user ada is linked to connector Gmail already; nothing was changed");

        let other = added(&client, add("Ada", &connector.id)).await;
        assert!(other.created, "letter case of user ids matters");
        assert_ne!(other.user_connector.unwrap().id, link.id);
        assert_eq!(found(&client, get(&link.id, "", "")).await, link);
        assert_eq!(found(&client, get("", "ada", "name:gmail")).await, link);
    }

    async fn a_second_remove_finds_nothing(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let first = removed(&client, remove("ada", "name:Gmail")).await;
        assert!(first.removed);
        assert_eq!((first.warning.as_str(), first.credentials_deleted, first.configurations_deleted), ("", 0, 0));

        let unknown = Uuid::now_v7().to_string();
        let nothing = [
            remove("ada", "name:Gmail"),
            remove("unknown", "name:Gmail"),
            remove("ada", "name:no such connector"),
            v1::RemoveUserConnectorRequest { reference: link.id.clone(), ..Default::default() },
            v1::RemoveUserConnectorRequest { reference: unknown, etag: "stale".to_owned(), ..Default::default() },
        ];
        for request in nothing {
            let answer = removed(&client, request.clone()).await;
            let expected = v1::RemoveUserConnectorResponse {
                warning: "there is no such link; nothing was changed".to_owned(),
                ..Default::default()
            };
            assert_eq!(answer, expected, "{request:?}");
        }
        for request in [get(&link.id, "", ""), get("", "ada", "name:Gmail")] {
            let result = client.user_connectors().get_user_connector(request).await;
            expect_status(result, Code::NotFound, "USER_CONNECTOR_NOT_FOUND");
        }
        // A link is named by two fields, and the answer contains both as sent.
        let result = client.user_connectors().get_user_connector(get("", "ada", "name:Gmail")).await;
        let absent = expect_status(result, Code::NotFound, "USER_CONNECTOR_NOT_FOUND");
        assert_eq!((absent.metadata("user_id"), absent.metadata("connector")), ("ada", "name:Gmail"));
        let result = client.user_connectors().get_user_connector(get("", "ada", "name:no such")).await;
        let absent = expect_status(result, Code::NotFound, "CONNECTOR_NOT_FOUND");
        assert_eq!(absent.metadata("reference"), "name:no such");
    }

    /// Removing a connector clears its tokens and its configurations.
    async fn removal_deletes_everything_that_depends_on_the_link(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let kept = steps::link(&client, "grace", "name:Gmail").await;
        let labels = fixture::strings([("team", "a"), ("stage", "test")]);
        let facts = |user_id: &str, external_id: &str| v1::Credential {
            external_id: Some(external_id.to_owned()),
            labels: labels.clone(),
            ..fixture::a_credential(user_id, &link.connector)
        };
        let mut credentials = Vec::new();
        for (user_id, external_id) in [("ada", "work"), ("ada", "home"), ("grace", "hers")] {
            let material = fixture::oauth2_material("token", "refresh");
            let credential = steps::credential(&client, facts(user_id, external_id), material).await;
            steps::configuration(&client, fixture::a_configuration(&credential.id, "Team A")).await;
            credentials.push(credential);
        }
        assert_eq!(found(&client, get(&link.id, "", "")).await.credential_count, 2);
        assert_eq!(server.sql("select count(*) from secret").await, ["3"]);
        assert_eq!(server.sql("select count(*) from label").await, ["6"]);

        let answer = removed(&client, remove("ada", &link.connector)).await;
        assert_eq!((answer.removed, answer.credentials_deleted, answer.configurations_deleted), (true, 2, 4));

        for credential in &credentials[..2] {
            let request = v1::GetCredentialRequest { reference: credential.id.clone() };
            let result = client.credentials().get_credential(request).await;
            expect_status(result, Code::NotFound, "CREDENTIAL_NOT_FOUND");
            let reference = credential.default_configuration.clone();
            let request = v1::GetConfigurationRequest { reference, ..Default::default() };
            let result = client.configurations().get_configuration(request).await;
            expect_status(result, Code::NotFound, "CONFIGURATION_NOT_FOUND");
        }
        // Every table contains only rows of the other link.
        let left = [("user_connector", "1"), ("credential", "1"), ("configuration", "2"), ("secret", "1"), ("label", "2")];
        for (table, rows) in left {
            assert_eq!(server.sql(&format!("select count(*) from {table}")).await, [rows], "{table}");
        }
        assert_eq!(steps::credential_now(&client, "ext:hers").await, credentials[2]);
        assert_eq!(found(&client, get(&kept.id, "", "")).await.credential_count, 1);

        // Adding it again starts afresh, with the same external ids if needed.
        let anew = added(&client, add("ada", &link.connector)).await;
        assert!(anew.created);
        let anew = anew.user_connector.unwrap();
        assert_ne!(anew.id, link.id);
        assert_eq!((anew.state(), anew.credential_count), (v1::UserConnectorState::Attached, 0));
        steps::credential(&client, facts("ada", "work"), fixture::api_key_material("key")).await;
    }

    async fn a_removal_can_be_validated_and_made_conditional(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        steps::api_key(&client, &link, "key").await;
        let named = v1::RemoveUserConnectorRequest { reference: link.id.clone(), ..Default::default() };

        let tried = v1::RemoveUserConnectorRequest { validate_only: true, ..named.clone() };
        let answer = removed(&client, tried).await;
        assert_eq!((answer.removed, answer.credentials_deleted, answer.configurations_deleted), (true, 1, 1));
        assert_eq!(found(&client, get(&link.id, "", "")).await.credential_count, 1);

        let stale = v1::RemoveUserConnectorRequest { etag: "stale".to_owned(), ..named.clone() };
        let refusal = expect_status(
            client.user_connectors().remove_user_connector(stale).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        assert_eq!(refusal.metadata("id"), link.id);
        assert_eq!(server.sql("select count(*) from secret").await, ["1"]);

        let fresh = v1::RemoveUserConnectorRequest { etag: link.etag, ..named };
        assert!(removed(&client, fresh).await.removed);
        assert_eq!(server.sql("select count(*) from secret").await, ["0"]);
    }

    async fn a_link_is_named_in_one_way(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let (id, user, connector) = (link.id.as_str(), "ada", link.connector.as_str());
        let wrong: [(&str, &str, &str, &str, &[&str]); 9] = [
            ("", "", "", "REFERENCE_INVALID", &["reference"]),
            (id, user, connector, "REFERENCE_INVALID", &["reference"]),
            (id, user, "", "REFERENCE_INVALID", &["reference"]),
            (id, "", connector, "REFERENCE_INVALID", &["reference"]),
            ("", user, "", "REFERENCE_INVALID", &["connector"]),
            ("", "", connector, "FIELD_INVALID", &["user_id"]),
            ("", " ", "ext:Gmail", "FIELD_INVALID", &["user_id", "connector"]),
            ("ext:link", "", "", "REFERENCE_INVALID", &["reference"]),
            ("name:Gmail", "", "", "REFERENCE_INVALID", &["reference"]),
        ];
        for (reference, user_id, connector, reason, fields) in wrong {
            let request = get(reference, user_id, connector);
            let result = client.user_connectors().get_user_connector(request.clone()).await;
            expect_status(result, Code::InvalidArgument, reason).expect_fields(fields);
            let v1::GetUserConnectorRequest { reference, user_id, connector } = request;
            let request = v1::RemoveUserConnectorRequest { reference, user_id, connector, ..Default::default() };
            let result = client.user_connectors().remove_user_connector(request).await;
            expect_status(result, Code::InvalidArgument, reason).expect_fields(fields);
        }
        assert_eq!(found(&client, get(id, "", "")).await, link);
    }

    async fn all_violations_of_an_add_are_reported_at_once(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let refused = |request, code, reason: &'static str| {
            let client = client.clone();
            async move {
                expect_status(client.user_connectors().add_user_connector(request).await, code, reason)
            }
        };
        let all_wrong = v1::AddUserConnectorRequest {
            id: "1".to_owned(),
            request_id: "2".to_owned(),
            ..add("", "Gmail")
        };
        refused(all_wrong, Code::InvalidArgument, "FIELD_INVALID")
            .await
            .expect_fields(&["id", "request_id", "user_id", "connector"]);
        for user_id in [" ", " ada", "ada ", "a\nda", "a\u{202e}da", &"a".repeat(129)] {
            let request = add(user_id, "name:Gmail");
            refused(request, Code::InvalidArgument, "FIELD_INVALID").await.expect_fields(&["user_id"]);
        }
        let nil = v1::AddUserConnectorRequest { id: Uuid::nil().to_string(), ..add("grace", "name:Gmail") };
        refused(nil, Code::InvalidArgument, "FIELD_INVALID").await.expect_fields(&["id"]);
        let refusal = refused(add("grace", "name:Slack"), Code::NotFound, "CONNECTOR_NOT_FOUND").await;
        assert_eq!(refusal.metadata("reference"), "name:Slack");
        let taken = v1::AddUserConnectorRequest { id: link.id.clone(), ..add("grace", "name:Gmail") };
        let refusal = refused(taken, Code::AlreadyExists, "ID_TAKEN").await;
        assert_eq!(refusal.metadata("id"), link.id);

        let longest = "ä".repeat(128);
        assert!(added(&client, add(&longest, "name:Gmail")).await.created, "lengths count characters");
        assert_eq!(found(&client, get("", &longest, "name:Gmail")).await.user_id, longest);
    }

    async fn an_add_can_be_validated_and_repeated(server) {
        let client = server.client("alpha");
        steps::connector(&client, fixture::a_connector("Gmail")).await;
        let id = Uuid::now_v7().to_string();
        let tried = v1::AddUserConnectorRequest { id: id.clone(), validate_only: true, ..add("ada", "name:Gmail") };
        let answer = added(&client, tried.clone()).await;
        assert!(answer.created);
        assert_eq!(answer.user_connector.unwrap().id, id);
        let result = client.user_connectors().get_user_connector(get(&id, "", "")).await;
        expect_status(result, Code::NotFound, "USER_CONNECTOR_NOT_FOUND");

        let request_id = Uuid::now_v7().to_string();
        let request = v1::AddUserConnectorRequest { validate_only: false, request_id, ..tried };
        let first = added(&client, request.clone()).await;
        assert!(first.created);
        assert_eq!(first.user_connector.as_ref().unwrap().id, id);
        assert_eq!(added(&client, request.clone()).await, first, "a repeat gets the first answer");
        let other = v1::AddUserConnectorRequest { user_id: "grace".to_owned(), ..request };
        let result = client.user_connectors().add_user_connector(other).await;
        expect_status(result, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");

        // The same request id of another method or another caller is another request.
        let request_id = Uuid::now_v7().to_string();
        let request = v1::RemoveUserConnectorRequest { request_id, ..remove("ada", "name:Gmail") };
        let first = removed(&client, request.clone()).await;
        assert!(first.removed);
        added(&client, add("ada", "name:Gmail")).await;
        assert_eq!(removed(&client, request).await, first, "a repeat does not remove a later link");
        assert_eq!(listed(&client, Default::default()).await.unwrap().len(), 1);
    }

    async fn one_of_several_concurrent_adds_creates_the_link(server) {
        let client = server.client("alpha");
        steps::connector(&client, fixture::a_connector("Gmail")).await;
        let answers = join_all((0..16).map(|_| added(&client, add("ada", "name:Gmail")))).await;
        assert_eq!(answers.iter().filter(|answer| answer.created).count(), 1);
        let link = answers[0].user_connector.clone();
        assert!(answers.iter().all(|answer| answer.user_connector == link), "{answers:?}");
        let answers = join_all((0..16).map(|_| removed(&client, remove("ada", "name:Gmail")))).await;
        assert_eq!(answers.iter().filter(|answer| answer.removed).count(), 1, "{answers:?}");
    }

    async fn the_connected_connectors_of_a_user_are_listed(server) {
        let client = server.client("alpha");
        let mut links = Vec::new();
        for name in ["Gmail", "Slack", "Jira"] {
            links.push(steps::linked(&client, "ada", name).await);
        }
        links.push(steps::link(&client, "Grace", "name:Slack").await);
        let names = |request: v1::ListUserConnectorsRequest| async {
            let links = listed(&client, request).await.unwrap();
            links.into_iter().map(|link| format!("{} {}", link.user_id, link.connector_name)).collect::<Vec<_>>()
        };
        let all = v1::ListUserConnectorsRequest::default();
        assert_eq!(listed(&client, all.clone()).await.unwrap(), links);
        let of_ada = v1::ListUserConnectorsRequest { user_id: "ada".to_owned(), ..all.clone() };
        assert_eq!(names(of_ada.clone()).await, ["ada Gmail", "ada Slack", "ada Jira"]);
        let to_slack = v1::ListUserConnectorsRequest { connector: "name:SLACK".to_owned(), ..all.clone() };
        assert_eq!(names(to_slack.clone()).await, ["ada Slack", "Grace Slack"]);
        let both = v1::ListUserConnectorsRequest { connector: "name:slack".to_owned(), ..of_ada };
        assert_eq!(names(both).await, ["ada Slack"]);
        let unknown = v1::ListUserConnectorsRequest { user_id: "unknown".to_owned(), ..all.clone() };
        assert_eq!(names(unknown).await, Vec::<String>::new());

        let ordered = |order_by: &str| v1::ListUserConnectorsRequest { order_by: order_by.to_owned(), ..to_slack.clone() };
        assert_eq!(names(ordered("user_id")).await, ["Grace Slack", "ada Slack"], "in the order of bytes");
        assert_eq!(names(ordered("create_time desc")).await, ["Grace Slack", "ada Slack"]);
        assert_eq!(names(ordered("user_id desc")).await, ["ada Slack", "Grace Slack"]);
        let filtered = |filter: &str| v1::ListUserConnectorsRequest { filter: filter.to_owned(), ..all.clone() };
        assert_eq!(names(filtered("gra")).await, ["Grace Slack"], "a bare word ignores letter case");
        assert_eq!(names(filtered("user_id = gra")).await, Vec::<String>::new());
        let by_connector = format!("connector = {} AND user_id = ada", links[2].connector);
        assert_eq!(names(filtered(&by_connector)).await, ["ada Jira"]);

        let unknown = v1::ListUserConnectorsRequest { connector: "name:Trello".to_owned(), ..all.clone() };
        expect_status(client.user_connectors().list_user_connectors(unknown).await, Code::NotFound, "CONNECTOR_NOT_FOUND");
        let wrong = v1::ListUserConnectorsRequest {
            user_id: " ".to_owned(),
            connector: "Slack".to_owned(),
            order_by: "state".to_owned(),
            page_size: -1,
            ..all
        };
        let result: Result<Response<_>, Status> = client.user_connectors().list_user_connectors(wrong).await;
        expect_status(result, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&["user_id", "connector", "order_by", "page_size"]);
    }
}
