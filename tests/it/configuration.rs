//! ConfigurationService: settings that belong to a credential. Naming is in `naming`, masks in `update`, limits of JSON
//! in `limits`, malformed requests in `wire`, races in `at_once`.

mod at_once;
mod limits;
mod naming;
mod update;
mod wire;

use jackfield_api::v1;
use jackfield_testkit::{Client, ManualClock, Refusal, TestServer, collect, expect_status, fixture, on_both};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::steps;

fn create(configuration: v1::Configuration) -> v1::CreateConfigurationRequest {
    v1::CreateConfigurationRequest { configuration: Some(configuration), ..Default::default() }
}

fn get(reference: &str, credential: &str) -> v1::GetConfigurationRequest {
    v1::GetConfigurationRequest { reference: reference.to_owned(), credential: credential.to_owned() }
}

fn update(reference: &str, credential: &str, configuration: v1::Configuration) -> v1::UpdateConfigurationRequest {
    v1::UpdateConfigurationRequest {
        reference: reference.to_owned(),
        credential: credential.to_owned(),
        configuration: Some(configuration),
        ..Default::default()
    }
}

fn destroy(reference: &str, credential: &str) -> v1::DestroyConfigurationRequest {
    v1::DestroyConfigurationRequest {
        reference: reference.to_owned(),
        credential: credential.to_owned(),
        ..Default::default()
    }
}

async fn created(
    client: &Client,
    configuration: v1::Configuration,
) -> Result<Response<v1::CreateConfigurationResponse>, Status> {
    client.configurations().create_configuration(create(configuration)).await
}

async fn found(client: &Client, reference: &str, credential: &str) -> v1::Configuration {
    let answer = client.configurations().get_configuration(get(reference, credential)).await;
    answer
        .unwrap_or_else(|status| panic!("{reference} of {credential}: {status:?}"))
        .into_inner()
        .configuration
        .unwrap()
}

async fn destroyed(client: &Client, request: v1::DestroyConfigurationRequest) -> bool {
    client.configurations().destroy_configuration(request).await.unwrap().into_inner().destroyed
}

/// Checks that get, update and destroy refuse this reference to a configuration in the same way.
async fn refuse_name(client: &Client, reference: &str, credential: &str, code: Code, reason: &str) -> [Refusal; 3] {
    let mut configurations = client.configurations();
    let change = v1::Configuration { external_id: Some("new".to_owned()), ..Default::default() };
    [
        expect_status(configurations.get_configuration(get(reference, credential)).await, code, reason),
        expect_status(configurations.update_configuration(update(reference, credential, change)).await, code, reason),
        expect_status(configurations.destroy_configuration(destroy(reference, credential)).await, code, reason),
    ]
}

/// The external ids in a list, in its order.
async fn names(client: &Client, request: v1::ListConfigurationsRequest) -> Vec<String> {
    let listed = collect::items(client.configurations().list_configurations(request.clone()).await).await;
    let listed = listed.unwrap_or_else(|status| panic!("{request:?}: {status:?}"));
    listed.into_iter().map(|configuration| configuration.external_id().to_owned()).collect()
}

on_both! {
    async fn the_default_configuration_lives_as_long_as_its_credential(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let facts = v1::Credential { external_id: Some("work".to_owned()), ..fixture::a_credential("ada", &link.connector) };
        let credential = steps::credential(&client, facts, fixture::api_key_material("key")).await;
        let default = found(&client, "", &credential.id).await;
        let expected = v1::Configuration {
            id: credential.default_configuration.clone(),
            credential: credential.id.clone(),
            is_default: true,
            user_id: "ada".to_owned(),
            connector: link.connector.clone(),
            create_time: credential.create_time,
            update_time: credential.create_time,
            etag: default.etag.clone(),
            ..Default::default()
        };
        assert_eq!(default, expected);
        assert!(!default.etag.is_empty());
        for (reference, of) in [("", "ext:work"), (&*default.id, ""), (&*default.id, "ext:work"), (&*default.id, &*credential.id)] {
            assert_eq!(found(&client, reference, of).await, default);
        }
        // It can be changed, but not destroyed.
        let named = v1::Configuration { external_id: Some("main".to_owned()), ..Default::default() };
        let request = update(&default.id, &credential.id, named);
        let after = client.configurations().update_configuration(request).await.unwrap().into_inner().configuration.unwrap();
        assert_eq!((after.id.as_str(), after.external_id(), after.is_default), (&*default.id, "main", true));
        for reference in [&*default.id, "ext:main"] {
            for allow_missing in [false, true] {
                let request = v1::DestroyConfigurationRequest { allow_missing, ..destroy(reference, "ext:work") };
                let refusal = expect_status(
                    client.configurations().destroy_configuration(request).await,
                    Code::FailedPrecondition,
                    "DEFAULT_CONFIGURATION",
                );
                assert_eq!((refusal.metadata("resource"), refusal.metadata("id")), ("configuration", &*default.id));
            }
        }
        assert_eq!(found(&client, "", "ext:work").await, after);
        let request = v1::DeleteCredentialRequest { reference: credential.id.clone(), ..Default::default() };
        let deleted = client.credentials().delete_credential(request).await.unwrap().into_inner();
        assert_eq!(deleted.configurations_deleted, 1);
        refuse_name(&client, &default.id, &credential.id, Code::NotFound, "CREDENTIAL_NOT_FOUND").await;
        let result = client.configurations().get_configuration(get(&default.id, "")).await;
        expect_status(result, Code::NotFound, "CONFIGURATION_NOT_FOUND");
        let missing = v1::DestroyConfigurationRequest { allow_missing: true, ..destroy(&default.id, &credential.id) };
        assert!(!destroyed(&client, missing).await, "it is gone with its credential");
    }

    /// The example of Paragon: a configuration with the external id "Team A".
    async fn team_a_is_found_by_its_external_id(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let credential = steps::api_key(&client, &link, "key").await.id;
        let given = v1::Configuration {
            id: Uuid::now_v7().to_string(),
            is_default: true,
            user_id: "grace".to_owned(),
            meta: Some(fixture::object([("color", "green")])),
            ..fixture::a_configuration(&credential, " ext:Team A ")
        };
        let team = steps::configuration(&client, given.clone()).await;
        let expected = v1::Configuration {
            id: team.id.clone(),
            external_id: Some("Team A".to_owned()),
            is_default: false,
            user_id: "ada".to_owned(),
            connector: link.connector.clone(),
            create_time: team.create_time,
            update_time: team.create_time,
            etag: team.etag.clone(),
            ..given.clone()
        };
        assert_eq!(team, expected);
        assert_ne!(team.id, given.id, "the id is a field of the request, not of the configuration");
        for (reference, of) in [("ext:Team A", &*credential), (" ext: Team A ", &*credential), (&*team.id, ""), (&*team.id, &*credential)] {
            assert_eq!(found(&client, reference, of).await, team);
        }
        // Letter case and inner spaces matter.
        for reference in ["ext:team a", "ext:Team  A", "ext:TeamA"] {
            refuse_name(&client, reference, &credential, Code::NotFound, "CONFIGURATION_NOT_FOUND").await;
        }
        // An external id that looks like an id needs its prefix.
        let like_an_id = team.id.to_uppercase();
        let other = steps::configuration(&client, fixture::a_configuration(&credential, &like_an_id)).await;
        assert_eq!(found(&client, &format!("ext:{like_an_id}"), &credential).await, other);
        assert_eq!(found(&client, &like_an_id, &credential).await, team);

        let stale = v1::DestroyConfigurationRequest { etag: "stale".to_owned(), ..destroy("ext:Team A", &credential) };
        expect_status(client.configurations().destroy_configuration(stale).await, Code::Aborted, "ETAG_MISMATCH");
        let tried = v1::DestroyConfigurationRequest { validate_only: true, ..destroy("ext:Team A", &credential) };
        assert!(destroyed(&client, tried).await);
        assert_eq!(found(&client, "ext:Team A", &credential).await, team);
        let fresh = v1::DestroyConfigurationRequest { etag: team.etag, ..destroy("ext:Team A", &credential) };
        assert!(destroyed(&client, fresh).await);
        refuse_name(&client, "ext:Team A", &credential, Code::NotFound, "CONFIGURATION_NOT_FOUND").await;
        let result = client.configurations().get_configuration(get("ext:Team A", &credential)).await;
        let absent = expect_status(result, Code::NotFound, "CONFIGURATION_NOT_FOUND");
        assert_eq!((absent.metadata("reference"), absent.metadata("credential")), ("ext:Team A", &*credential));
        let missing = v1::DestroyConfigurationRequest { allow_missing: true, ..destroy("ext:Team A", &credential) };
        assert!(!destroyed(&client, missing).await);
    }

    async fn external_ids_are_unique_in_their_credential(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let one = steps::api_key(&client, &link, "key").await.id;
        let other = steps::api_key(&client, &link, "key").await.id;
        let first = steps::configuration(&client, fixture::a_configuration(&one, "Team A")).await;
        for external_id in ["Team A", "ext:Team A", "  Team A"] {
            let refusal = expect_status(
                created(&client, fixture::a_configuration(&one, external_id)).await,
                Code::AlreadyExists,
                "EXTERNAL_ID_TAKEN",
            );
            assert_eq!((refusal.metadata("resource"), refusal.metadata("external_id")), ("configuration", "Team A"));
        }
        let second = steps::configuration(&client, fixture::a_configuration(&other, "Team A")).await;
        assert_ne!(first.id, second.id);
        assert_eq!(found(&client, "ext:Team A", &one).await, first);
        assert_eq!(found(&client, "ext:Team A", &other).await, second);
        // Any number of configurations may have none.
        for _ in 0..2 {
            steps::configuration(&client, fixture::a_configuration(&one, "")).await;
        }
        let third = steps::configuration(&client, fixture::a_configuration(&one, "Team B")).await;
        let taken = v1::Configuration { external_id: Some("Team A".to_owned()), ..Default::default() };
        let result = client.configurations().update_configuration(update(&third.id, "", taken)).await;
        expect_status(result, Code::AlreadyExists, "EXTERNAL_ID_TAKEN");
        let id = Some(fixture::a_configuration(&one, "Team C"));
        let request = v1::CreateConfigurationRequest { configuration: id, id: second.id.clone(), ..Default::default() };
        let refusal = expect_status(
            client.configurations().create_configuration(request).await,
            Code::AlreadyExists,
            "ID_TAKEN",
        );
        assert_eq!(refusal.metadata("id"), second.id);
        // Destroyed, its external id is free again.
        assert!(destroyed(&client, destroy("ext:Team A", &one)).await);
        assert_ne!(steps::configuration(&client, fixture::a_configuration(&one, "Team A")).await.id, first.id);

        let most = "ä".repeat(191);
        steps::configuration(&client, fixture::a_configuration(&one, &most)).await;
        for external_id in ["ext:", "ext: ", " ", "ext:ext:Team", "Team\nA", "Team\u{2028}A", &"ä".repeat(192)] {
            let result = created(&client, fixture::a_configuration(&one, external_id)).await;
            let refusal = expect_status(result, Code::InvalidArgument, "FIELD_INVALID");
            assert_eq!(refusal.fields(), ["configuration.external_id"], "{external_id:?}");
        }
    }

    async fn an_invalid_credential_gets_no_more_configurations(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let facts = fixture::a_credential("ada", &link.connector);
        let empty = steps::credential(&client, facts.clone(), fixture::oauth2_material("", "refresh")).await.id;
        let short = steps::credential(&client, facts, steps::tokens_for(&clock, 3600, "token", "")).await.id;
        steps::configuration(&client, fixture::a_configuration(&short, "while it is valid")).await;
        let refused = |credential: String| {
            let client = client.clone();
            async move {
                let result = created(&client, fixture::a_configuration(&credential, "Team A")).await;
                let refusal = expect_status(result, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
                assert_eq!((refusal.metadata("resource"), refusal.metadata("id")), ("credential", &*credential));
            }
        };
        refused(empty.clone()).await;
        let enabled = |enabled, settings| {
            let workflow = v1::WorkflowSettings { enabled, settings };
            v1::Configuration { workflow_settings: [("sync".to_owned(), workflow)].into_iter().collect(), ..Default::default() }
        };
        let kept = async |change| {
            client.configurations().update_configuration(update("ext:while it is valid", &short, change)).await
        };
        kept(enabled(true, None)).await.unwrap();
        clock.advance(std::time::Duration::from_secs(3600));
        refused(short.clone()).await;
        // Existing configurations stay, and can be changed and destroyed.
        let change = v1::Configuration { meta: Some(fixture::object([("a", "b")])), ..Default::default() };
        let request = update("ext:while it is valid", &short, change);
        client.configurations().update_configuration(request).await.unwrap();
        // A workflow that is enabled stays so, and can be changed.
        kept(enabled(true, Some(fixture::object([("every", "day")])))).await.unwrap();
        kept(enabled(false, None)).await.unwrap();
        expect_status(kept(enabled(true, None)).await, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
        let none = update("ext:while it is valid", "ext:none", enabled(true, None));
        expect_status(client.configurations().update_configuration(none).await, Code::NotFound, "CREDENTIAL_NOT_FOUND");
        // But no workflow can be enabled, whatever way it is asked for.
        for (path, credential) in [("workflow_settings", &short), ("workflow_settings.sync", &empty)] {
            let default = found(&client, "", credential).await.id;
            let request = v1::UpdateConfigurationRequest {
                update_mask: Some(prost_types::FieldMask { paths: vec![path.to_owned()] }),
                ..update(&default, credential, enabled(true, None))
            };
            let result = client.configurations().update_configuration(request).await;
            let refusal = expect_status(result, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
            assert_eq!((refusal.metadata("resource"), refusal.metadata("id")), ("credential", &**credential), "{path}");
            assert!(found(&client, "", credential).await.workflow_settings.is_empty(), "{path}");
        }
        let default = found(&client, "", &short).await.id;
        let request = update(&default, &short, enabled(false, None));
        client.configurations().update_configuration(request).await.unwrap();
        assert!(destroyed(&client, destroy("ext:while it is valid", &short)).await);
        assert!(found(&client, "", &empty).await.is_default);
        for (credential, reason) in [("ext:none".to_owned(), "CREDENTIAL_NOT_FOUND"), (Uuid::now_v7().to_string(), "CREDENTIAL_NOT_FOUND")] {
            let result = created(&client, fixture::a_configuration(&credential, "Team A")).await;
            expect_status(result, Code::NotFound, reason);
        }
    }

    async fn a_create_can_be_validated_and_repeated(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let credential = steps::api_key(&client, &link, "key").await.id;
        let id = Uuid::now_v7().to_string();
        let tried = v1::CreateConfigurationRequest {
            id: id.clone(),
            validate_only: true,
            ..create(fixture::a_configuration(&credential, "Team A"))
        };
        let send = |request: v1::CreateConfigurationRequest| {
            let client = client.clone();
            async move { client.configurations().create_configuration(request).await }
        };
        assert_eq!(send(tried.clone()).await.unwrap().into_inner().configuration.unwrap().id, id);
        refuse_name(&client, &id, &credential, Code::NotFound, "CONFIGURATION_NOT_FOUND").await;
        let request_id = Uuid::now_v7().to_string();
        let request = v1::CreateConfigurationRequest { validate_only: false, request_id, ..tried };
        let first = send(request.clone()).await.unwrap().into_inner();
        assert_eq!(send(request.clone()).await.unwrap().into_inner(), first);
        let other = Some(fixture::a_configuration(&credential, "Team B"));
        let result = send(v1::CreateConfigurationRequest { configuration: other, ..request }).await;
        expect_status(result, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
        let wrong = v1::CreateConfigurationRequest {
            configuration: Some(fixture::a_configuration("Gmail", "ext:")),
            id: "1".to_owned(),
            request_id: "2".to_owned(),
            validate_only: false,
        };
        expect_status(send(wrong).await, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&["id", "request_id", "configuration.credential", "configuration.external_id"]);
        let nothing = send(v1::CreateConfigurationRequest::default()).await;
        expect_status(nothing, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["configuration"]);
    }

    async fn lists_are_narrowed_by_parent_and_filter(server) {
        let client = server.client("alpha");
        let ada = steps::linked(&client, "ada", "Gmail").await;
        let slack = steps::linked(&client, "ada", "Slack").await;
        let grace = steps::link(&client, "grace", &slack.connector).await;
        let mut credentials = Vec::new();
        for (link, name) in [(&ada, "A"), (&slack, "B"), (&grace, "C")] {
            let credential = steps::api_key(&client, link, "key").await.id;
            let team = fixture::a_configuration(&credential, &format!("Team {name}"));
            steps::configuration(&client, team).await;
            credentials.push(credential);
        }
        let all = v1::ListConfigurationsRequest::default();
        let scoped = |user_id: &str, connector: &str, credential: &str| v1::ListConfigurationsRequest {
            user_id: user_id.to_owned(),
            connector: connector.to_owned(),
            credential: credential.to_owned(),
            ..Default::default()
        };
        assert_eq!(names(&client, all.clone()).await, ["", "Team A", "", "Team B", "", "Team C"]);
        assert_eq!(names(&client, scoped("ada", "", "")).await, ["", "Team A", "", "Team B"]);
        assert_eq!(names(&client, scoped("", "name:slack", "")).await, ["", "Team B", "", "Team C"]);
        assert_eq!(names(&client, scoped("ada", "name:Slack", "")).await, ["", "Team B"]);
        assert_eq!(names(&client, scoped("", "", &credentials[2])).await, ["", "Team C"]);
        assert_eq!(names(&client, scoped("ada", "", &credentials[2])).await, Vec::<String>::new());
        let by_credential = format!("credential = {}", credentials[0]);
        let cases: [(&str, &[&str]); 7] = [
            ("is_default = true", &["", "", ""]),
            ("is_default = false", &["Team A", "Team B", "Team C"]),
            ("team", &["Team A", "Team B", "Team C"]),
            ("\"team b\"", &["Team B"]),
            ("external_id = \"Team C\"", &["Team C"]),
            ("user_id = grace AND external_id:*", &["Team C"]),
            (&by_credential, &["", "Team A"]),
        ];
        for (filter, expected) in cases {
            let request = v1::ListConfigurationsRequest { filter: filter.to_owned(), ..all.clone() };
            assert_eq!(names(&client, request).await, expected, "{filter}");
        }
        let newest = v1::ListConfigurationsRequest {
            filter: "is_default = false".to_owned(),
            order_by: "create_time desc".to_owned(),
            ..all
        };
        assert_eq!(names(&client, newest).await, ["Team C", "Team B", "Team A"]);
        for (request, reason) in [
            (scoped("", "name:Jira", ""), "CONNECTOR_NOT_FOUND"),
            (scoped("", "", "ext:none"), "CREDENTIAL_NOT_FOUND"),
        ] {
            expect_status(client.configurations().list_configurations(request).await, Code::NotFound, reason);
        }
    }
}
