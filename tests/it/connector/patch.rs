//! PatchConnector: JSON Patch and JSON Merge Patch on the JSON form of a connector.

mod examples;
mod secrets;

use jackfield_api::v1;
use jackfield_api::v1::connector::Kind;
use jackfield_api::v1::patch_connector_request::Patch;
use jackfield_testkit::{Client, Refusal, expect_status, fixture, on_both};
use serde_json::{Value, json};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::update::a_full_one;
use super::{create, get};

on_both! {
    async fn a_patch_changes_what_it_names(server) {
        let alpha = server.client("alpha");
        let before = a_full_one(&server, &alpha).await;
        let operations = json!([
            { "op": "test", "path": "/id", "value": before.id },
            { "op": "test", "path": "/etag", "value": before.etag },
            { "op": "test", "path": "/connectTimeout", "value": "1s" },
            { "op": "replace", "path": "/name", "value": "new" },
            { "op": "remove", "path": "/description" },
            { "op": "replace", "path": "/generic/authenticationUrl", "value": "https://directory.example.com/login" },
            { "op": "replace", "path": "/readTimeout", "value": "1.500s" },
            { "op": "add", "path": "/labels/team~1a", "value": "blue" },
            { "op": "move", "from": "/labels/env", "path": "/labels/stage" },
            { "op": "copy", "from": "/labels", "path": "/data/labels" },
            { "op": "remove", "path": "/headers/header1" },
        ]);
        let patched = patch_json(&alpha, &before.id, operations).await.unwrap();
        let mut expected = v1::Connector {
            name: "new".to_owned(),
            description: None,
            read_timeout: Some(fixture::milliseconds(1_500)),
            labels: fixture::strings([("team/a", "blue"), ("stage", "prod")]),
            headers: fixture::strings([("header2", "value2")]),
            data: patched.data.clone(),
            update_time: patched.update_time,
            etag: patched.etag.clone(),
            ..before.clone()
        };
        let Some(Kind::Generic(generic)) = &mut expected.kind else { panic!("a generic connector") };
        generic.authentication_url = "https://directory.example.com/login".to_owned();
        assert_eq!(patched, expected);
        assert_eq!(examples::data(&patched), json!({ "modifiedBy": "richard", "labels": { "stage": "prod", "team/a": "blue" } }));
        assert_ne!(patched.etag, before.etag);
        assert_eq!(get(&alpha, &before.id).await.unwrap(), patched);

        let members = json!({
            "debug": false,
            "description": "again",
            "labels": { "stage": null, "env": "test" },
            "data": null,
            "clientIdentityKey": null,
            "generic": { "httpAuthenticationUsername": null },
        });
        let merged = merge_json(&alpha, "name:NEW", members).await.unwrap();
        let mut expected = v1::Connector {
            debug: Some(false),
            description: Some("again".to_owned()),
            labels: fixture::strings([("team/a", "blue"), ("env", "test")]),
            data: None,
            client_identity_key: None,
            update_time: merged.update_time,
            etag: merged.etag.clone(),
            ..patched
        };
        let Some(Kind::Generic(generic)) = &mut expected.kind else { panic!("a generic connector") };
        generic.http_authentication_username = None;
        assert_eq!(merged, expected);
        assert_eq!(get(&alpha, &before.id).await.unwrap(), merged);
        // A patch that changes nothing keeps the etag.
        assert_eq!(merge_json(&alpha, &before.id, json!({ "debug": false })).await.unwrap(), merged);
    }

    async fn a_failed_test_changes_nothing(server) {
        let alpha = server.client("alpha");
        let before = a_full_one(&server, &alpha).await;
        for (path, value) in [
            ("/name", json!("other")),
            ("/enabled", json!(true)),
            ("/none", json!(null)),
            ("/createTime", json!("2026-01-01T00:00:00Z")),
            ("/generic", json!({ "authenticationUrl": "http://localhost:3000/api/authenticate" })),
        ] {
            let operations = json!([
                { "op": "replace", "path": "/debug", "value": false },
                { "op": "remove", "path": "/labels/env" },
                { "op": "test", "path": path, "value": value },
            ]);
            let refused = patch_json(&alpha, &before.id, operations).await.map(Response::new);
            let refused = expect_status(refused, Code::FailedPrecondition, "PATCH_TEST_FAILED");
            assert_eq!((refused.metadata("resource"), refused.metadata("id")), ("connector", &*before.id));
            let message = format!("operation 2 failed: \"{path}\" is absent, or not what the operation states");
            assert_eq!(refused.status.message(), message);
            let violation = &refused.details.precondition_failure().unwrap().violations[0];
            assert_eq!((&*violation.r#type, &*violation.description), ("PATCH_TEST_FAILED", &*message));
        }
        assert_eq!(get(&alpha, &before.id).await.unwrap(), before);
    }

    async fn the_result_is_checked_as_an_update_is(server) {
        let alpha = server.client("alpha");
        let before = a_full_one(&server, &alpha).await;
        for (members, fields) in [
            (json!({ "name": null }), &["connector.name"][..]),
            (json!({ "name": "", "totalTimeout": "0s" }), &["connector.name", "connector.total_timeout"]),
            (json!({ "name": 5, "debug": "yes", "nmae": 1 }), &["connector.name", "connector.debug", "connector"]),
            (json!({ "connect_timeout": "1s" }), &["connector"]),
            (json!({ "connectTimeout": 5 }), &["connector.connect_timeout"]),
            (json!({ "readTimeout": "soon" }), &["connector.read_timeout"]),
            (json!({ "connectTimeout": "40s" }), &["connector.total_timeout"]),
            (json!({ "labels": { "env": 1 } }), &["connector.labels"]),
            (json!({ "labels": [] }), &["connector.labels"]),
            (json!({ "data": [] }), &["connector.data"]),
            (json!({ "generic": "none" }), &["connector.generic"]),
            (json!({ "generic": { "authenticationUrl": 1 } }), &["connector.generic.authentication_url"]),
            (json!({ "generic": { "authenticationUrl": "ftp://a" } }), &["connector.generic.authentication_url"]),
            (json!({ "generic": null }), &["connector.kind"]),
            (json!({ "license": { "baseUrl": "https://a.example.com", "applicationId": "a" } }), &["connector.license"]),
            (json!({ "generic": null, "apiKey": {} }), &["connector.kind"]),
            (json!({ "id": Uuid::now_v7() }), &["connector.id"]),
            (json!({ "headers": { "Host": "a" } }), &["connector.headers"]),
            (json!({ "headers": { "x-secret": "a" } }), &["connector.secret_headers"]),
            (json!({ "clientIdentityKey": "ext:a" }), &[]),
            (json!(["a"]), &["connector"]),
            (json!(null), &["connector"]),
        ] {
            let refused = merge_json(&alpha, &before.id, members.clone()).await.map(Response::new);
            let reason = if fields.is_empty() { "REFERENCE_INVALID" } else { "FIELD_INVALID" };
            let refused = expect_status(refused, Code::InvalidArgument, reason);
            let fields = if fields.is_empty() { &["connector.client_identity_key"] } else { fields };
            refused.expect_fields(fields);
        }
        let refused = merge_json(&alpha, &before.id, json!({ "trustBundleKey": "name:none" })).await;
        expect_status(refused.map(Response::new), Code::NotFound, "KEY_NOT_FOUND");
        create(&alpha, fixture::a_connector("taken")).await;
        let refused = merge_json(&alpha, &before.id, json!({ "name": "TAKEN" })).await;
        expect_status(refused.map(Response::new), Code::AlreadyExists, "NAME_TAKEN");
        let refused = merge_json(&alpha, "name:none", json!({})).await;
        expect_status(refused.map(Response::new), Code::NotFound, "CONNECTOR_NOT_FOUND");
        let refused = merge_json(&server.client("beta"), &before.id, json!({})).await;
        expect_status(refused.map(Response::new), Code::NotFound, "CONNECTOR_NOT_FOUND");
        assert_eq!(get(&alpha, &before.id).await.unwrap(), before);
        // What is output only may be sent back, and does nothing.
        let read = json!({
            "createTime": "2000-01-01T00:00:00Z",
            "updateTime": null,
            "secretHeaderNames": ["X-Other"],
            "generic": { "httpAuthenticationPasswordSet": false },
        });
        assert_eq!(merge_json(&alpha, &before.id, read).await.unwrap(), before);
    }

    async fn wrong_patches_are_refused(server) {
        let alpha = server.client("alpha");
        let before = create(&alpha, fixture::a_connector("Gmail")).await;
        let removals = json!(vec![json!({ "op": "remove", "path": "/data/a" }); 101]).to_string();
        let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
        let large = json!({ "description": "x".repeat(128 * 1024) }).to_string();
        for (text, description) in [
            ("", "is required"),
            ("{", "is not JSON, or nests too deep: line 1, column 1"),
            ("{}", "must be a list of operations (RFC 6902)"),
            (&removals, "must have at most 100 operations"),
            (&deep, "nests deeper than 32 levels"),
            (&large, "is larger than 128 KiB"),
            (r#"[{"op":"test","path":"name","value":"a"}]"#, "operation 0 needs an \"op\""),
            (r#"[{"op":"remove","path":"/description"}]"#, "operation 0 (\"/description\") names a place that does not exist"),
            (r#"[{"op":"add","path":"/headers/a/b","value":"c"}]"#, "operation 0 (\"/headers/a/b\") names a place that does not exist"),
        ] {
            let patch = Patch::JsonPatch(v1::JsonPatch { json: text.to_owned() });
            let refused = refused(patch_connector(&alpha, &before.id, Some(patch)).await);
            refused.expect_fields(&["json_patch.json"]);
            assert!(refused.description("json_patch.json").starts_with(description), "{refused:?}");
        }
        for text in ["", "{", &deep, &large] {
            let patch = Patch::MergePatch(v1::JsonMergePatch { json: text.to_owned() });
            refused(patch_connector(&alpha, &before.id, Some(patch)).await).expect_fields(&["merge_patch.json"]);
        }
        refused(patch_connector(&alpha, &before.id, None).await).expect_fields(&["json_patch"]);
        assert_eq!(get(&alpha, &before.id).await.unwrap(), before);
    }

    async fn etags_request_ids_and_validate_only_count(server) {
        let alpha = server.client("alpha");
        let first = create(&alpha, fixture::a_connector("Gmail")).await;
        let request = |members: Value| v1::PatchConnectorRequest {
            reference: first.id.clone(),
            patch: Some(Patch::MergePatch(v1::JsonMergePatch { json: members.to_string() })),
            ..Default::default()
        };
        let call = async |request| alpha.connectors().patch_connector(request).await;
        let tried = v1::PatchConnectorRequest { validate_only: true, ..request(json!({ "debug": true })) };
        let tried = call(tried).await.unwrap().into_inner().connector.unwrap();
        assert_eq!(tried.debug, Some(true));
        assert_eq!(get(&alpha, &first.id).await.unwrap(), first);

        let request_id = Uuid::now_v7().to_string();
        let repeated = v1::PatchConnectorRequest {
            etag: first.etag.clone(),
            request_id: request_id.clone(),
            ..request(json!({ "debug": true }))
        };
        let second = call(repeated.clone()).await.unwrap().into_inner();
        assert_eq!(call(repeated).await.unwrap().into_inner(), second, "the answer of the first");
        let second = second.connector.unwrap();
        let other = v1::PatchConnectorRequest { request_id, ..request(json!({ "debug": false })) };
        expect_status(call(other).await, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");

        for stale in [
            v1::PatchConnectorRequest { etag: first.etag.clone(), ..request(json!({ "debug": false })) },
            v1::PatchConnectorRequest { etag: first.etag.clone(), ..request(json!({ "etag": second.etag })) },
            request(json!({ "debug": false, "etag": first.etag })),
        ] {
            expect_status(call(stale).await, Code::Aborted, "ETAG_MISMATCH");
        }
        assert_eq!(get(&alpha, &first.id).await.unwrap(), second);
        // A whole connector can be sent back as it was read.
        let read = examples::json(&second);
        assert_eq!(call(request(read)).await.unwrap().into_inner().connector.unwrap(), second);
    }
}

async fn patch_connector(client: &Client, reference: &str, patch: Option<Patch>) -> Result<v1::Connector, Status> {
    let request = v1::PatchConnectorRequest { reference: reference.to_owned(), patch, ..Default::default() };
    Ok(client.connectors().patch_connector(request).await?.into_inner().connector.unwrap())
}

async fn patch_json(client: &Client, reference: &str, operations: Value) -> Result<v1::Connector, Status> {
    let patch = Patch::JsonPatch(v1::JsonPatch { json: operations.to_string() });
    patch_connector(client, reference, Some(patch)).await
}

pub(super) async fn merge_json(client: &Client, reference: &str, members: Value) -> Result<v1::Connector, Status> {
    let patch = Patch::MergePatch(v1::JsonMergePatch { json: members.to_string() });
    patch_connector(client, reference, Some(patch)).await
}

#[track_caller]
fn refused(result: Result<v1::Connector, Status>) -> Refusal {
    expect_status(result.map(Response::new), Code::InvalidArgument, "FIELD_INVALID")
}
