//! UpdateConfiguration: single workflows, single fields, the whole resource.

use std::collections::BTreeMap;

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_testkit::{Client, expect_status, fixture, on_both};
use tonic::{Code, Response, Status};

use super::{found, update};
use crate::steps;

fn workflow(enabled: bool, folder: &str) -> v1::WorkflowSettings {
    let settings = (!folder.is_empty()).then(|| fixture::object([("folder", folder)]));
    v1::WorkflowSettings { enabled, settings }
}

fn workflows<const N: usize>(entries: [(&str, v1::WorkflowSettings); N]) -> BTreeMap<String, v1::WorkflowSettings> {
    entries.into_iter().map(|(id, settings)| (id.to_owned(), settings)).collect()
}

async fn send(
    client: &Client,
    request: v1::UpdateConfigurationRequest,
) -> Result<Response<v1::UpdateConfigurationResponse>, Status> {
    client.configurations().update_configuration(request).await
}

async fn updated(client: &Client, request: v1::UpdateConfigurationRequest) -> v1::Configuration {
    send(client, request).await.unwrap().into_inner().configuration.unwrap()
}

/// A configuration with three workflows and everything else set.
async fn full(client: &Client) -> v1::Configuration {
    let link = steps::linked(client, "ada", "Gmail").await;
    let credential = steps::api_key(client, &link, "key").await.id;
    let given = v1::Configuration {
        workflow_settings: workflows([
            ("sync", workflow(true, "inbox")),
            ("mail merge 2.0", workflow(false, "drafts")),
            ("a`b", workflow(true, "")),
        ]),
        meta: Some(fixture::object([("color", "green")])),
        ..fixture::a_configuration(&credential, "Team A")
    };
    steps::configuration(client, given).await
}

on_both! {
    async fn a_mask_reaches_single_workflows(server) {
        let client = server.client("alpha");
        let before = full(&client).await;
        let (sync, merge, quoted) = ("sync", "mail merge 2.0", "a`b");
        // Paths, workflows in the message, resulting workflows.
        let everything = workflows([
            (sync, workflow(false, "archive")),
            (merge, workflow(true, "sent")),
            (quoted, workflow(false, "spam")),
            ("new", workflow(true, "news")),
        ]);
        let cases = [
            (
                vec!["workflow_settings.sync"],
                workflows([(sync, workflow(false, "archive")), (merge, workflow(true, "")), (quoted, workflow(false, ""))]),
            ),
            (
                vec!["workflow_settings.`mail merge 2.0`", "workflow_settings.`a``b`"],
                workflows([(sync, workflow(true, "inbox")), (merge, workflow(true, "sent")), (quoted, workflow(false, "spam"))]),
            ),
            (
                vec!["workflow_settings.new", "workflow_settings.`sync`"],
                workflows([
                    (sync, workflow(false, "archive")),
                    (merge, workflow(false, "drafts")),
                    (quoted, workflow(true, "")),
                    ("new", workflow(true, "news")),
                ]),
            ),
            (vec!["workflow_settings"], everything.clone()),
            (vec!["meta"], before.workflow_settings.clone()),
        ];
        for (paths, mut expected) in cases {
            if paths == ["workflow_settings.sync"] {
                // Only the named workflow changes, whatever the message says about the others.
                expected = workflows([
                    (sync, workflow(false, "archive")),
                    (merge, workflow(false, "drafts")),
                    (quoted, workflow(true, "")),
                ]);
            }
            let paths = paths.iter().map(|&path| path.to_owned()).collect();
            let configuration = v1::Configuration { workflow_settings: everything.clone(), ..Default::default() };
            let request = v1::UpdateConfigurationRequest {
                update_mask: Some(prost_types::FieldMask { paths }),
                validate_only: true,
                ..update(&before.id, "", configuration)
            };
            let after = updated(&client, request.clone()).await;
            assert_eq!(after.workflow_settings, expected, "{request:?}");
            assert_eq!((&after.external_id, &after.shared_settings), (&before.external_id, &before.shared_settings));
        }
        assert_eq!(found(&client, &before.id, "").await, before, "validate_only changed nothing");

        // A named, absent workflow is removed; one that did not exist makes no difference.
        let request = v1::UpdateConfigurationRequest {
            update_mask: fixture::mask(["workflow_settings.`mail merge 2.0`", "workflow_settings.none"]),
            ..update("ext:Team A", &before.credential, v1::Configuration::default())
        };
        let after = updated(&client, request).await;
        let expected = v1::Configuration {
            workflow_settings: workflows([(sync, workflow(true, "inbox")), (quoted, workflow(true, ""))]),
            update_time: after.update_time,
            etag: after.etag.clone(),
            ..before.clone()
        };
        assert_eq!(after, expected);
        assert_ne!(after.etag, before.etag);
        assert_eq!(found(&client, &before.id, "").await, after);
    }

    /// Enabling a workflow twice is not an error.
    async fn enabling_twice_succeeds(server) {
        let client = server.client("alpha");
        let before = full(&client).await;
        for enabled in [true, true, false, false] {
            let settings = workflows([("sync", workflow(enabled, "inbox"))]);
            let configuration = v1::Configuration { workflow_settings: settings, ..Default::default() };
            let request = v1::UpdateConfigurationRequest {
                update_mask: fixture::mask(["workflow_settings.sync"]),
                ..update(&before.id, "", configuration)
            };
            let after = updated(&client, request).await;
            assert_eq!(after.workflow_settings["sync"], workflow(enabled, "inbox"));
            assert_eq!(after.workflow_settings.len(), 3);
        }
    }

    async fn single_workflows_can_be_changed_concurrently(server) {
        let client = server.client("alpha");
        let before = full(&client).await;
        let change = |number: usize| {
            let (client, id) = (client.clone(), before.id.clone());
            async move {
                let name = format!("w{number}");
                let settings = workflows([(&*name, workflow(true, &name))]);
                let configuration = v1::Configuration { workflow_settings: settings, ..Default::default() };
                let request = v1::UpdateConfigurationRequest {
                    update_mask: fixture::mask([&*format!("workflow_settings.{name}")]),
                    ..update(&id, "", configuration)
                };
                updated(&client, request).await
            }
        };
        join_all((0..16).map(change)).await;
        let after = found(&client, &before.id, "").await;
        assert_eq!(after.workflow_settings.len(), 3 + 16, "no change was lost");
        // Of concurrent updates with the same etag, one wins.
        let insist = || {
            let configuration = v1::Configuration { external_id: Some("Team B".to_owned()), ..Default::default() };
            let request = v1::UpdateConfigurationRequest { etag: after.etag.clone(), ..update(&before.id, "", configuration) };
            send(&client, request)
        };
        let results = join_all((0..8).map(|_| insist())).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        for result in results.into_iter().filter(Result::is_err) {
            expect_status(result, Code::Aborted, "ETAG_MISMATCH");
        }
    }

    async fn without_a_mask_and_with_a_star(server) {
        let client = server.client("alpha");
        let before = full(&client).await;
        // Without a mask, the present fields change, each as a whole.
        let some = v1::Configuration {
            shared_settings: Some(fixture::object([("zone", "UTC")])),
            workflow_settings: workflows([("only", workflow(true, ""))]),
            ..Default::default()
        };
        let after = updated(&client, update(&before.id, "", some.clone())).await;
        let expected = v1::Configuration {
            shared_settings: some.shared_settings.clone(),
            workflow_settings: some.workflow_settings.clone(),
            update_time: after.update_time,
            etag: after.etag.clone(),
            ..before.clone()
        };
        assert_eq!(after, expected);
        // An empty object is a value, with or without a mask: an absent one reads as empty.
        let cleared = v1::Configuration { shared_settings: Some(fixture::object([])), ..Default::default() };
        assert_eq!(updated(&client, update(&before.id, "", cleared)).await.shared_settings, None);
        let masked = v1::UpdateConfigurationRequest {
            update_mask: fixture::mask(["meta", "external_id"]),
            ..update(&before.id, "", v1::Configuration::default())
        };
        let after = updated(&client, masked).await;
        assert_eq!((after.external_id(), &after.meta), ("", &None));
        assert_eq!(after.workflow_settings, some.workflow_settings);
        // "*" is a PUT. Output-only fields are ignored.
        let put = v1::UpdateConfigurationRequest {
            update_mask: fixture::mask(["*"]),
            ..update(&before.id, "", v1::Configuration {
                external_id: Some("Team C".to_owned()),
                is_default: true,
                ..Default::default()
            })
        };
        let after = updated(&client, put).await;
        let expected = v1::Configuration {
            external_id: Some("Team C".to_owned()),
            shared_settings: None,
            workflow_settings: BTreeMap::new(),
            meta: None,
            update_time: after.update_time,
            etag: after.etag.clone(),
            ..before.clone()
        };
        assert_eq!(after, expected);
        let fixed = v1::UpdateConfigurationRequest {
            update_mask: fixture::mask(["credential", "user_id", "is_default", "id"]),
            ..update(&before.id, "", v1::Configuration { is_default: true, ..Default::default() })
        };
        let after = updated(&client, fixed).await;
        assert!(!after.is_default);
        assert_eq!(after.external_id(), "Team C");
    }

    async fn wrong_updates_change_nothing(server) {
        let client = server.client("alpha");
        let before = full(&client).await;
        let masked = |paths: &[&str]| v1::UpdateConfigurationRequest {
            update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() }),
            ..update(&before.id, "", v1::Configuration::default())
        };
        for path in [
            "nothing",
            "workflow_settings.sync.enabled",
            "workflow_settings.mail merge",
            "workflow_settings.`sync",
            "workflow_settings.``",
            "workflow_settings.*",
            "workflow_settings.",
            "shared_settings.language",
            "meta.`color`",
            "externalId",
            "",
        ] {
            let refusal = expect_status(send(&client, masked(&[path])).await, Code::InvalidArgument, "FIELD_INVALID");
            refusal.expect_fields(&["update_mask"]);
            assert!(refusal.description("update_mask").contains(&format!("\"{path}\"")), "{refusal:?}");
        }
        expect_status(send(&client, masked(&["a", "meta", "b"])).await, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&["update_mask", "update_mask"]);
        let absent = v1::UpdateConfigurationRequest {
            configuration: None,
            request_id: "1".to_owned(),
            reference: "Team A".to_owned(),
            ..masked(&["nothing"])
        };
        expect_status(send(&client, absent).await, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&["request_id", "update_mask", "configuration", "reference"]);
        let stale = v1::UpdateConfigurationRequest { etag: "stale".to_owned(), ..masked(&["*"]) };
        let refusal = expect_status(send(&client, stale).await, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(refusal.metadata("id"), before.id);
        assert_eq!(found(&client, &before.id, "").await, before);
    }
}
