//! The examples of RFC 6902 (appendix A, sections 3 to 5) and RFC 7396 (appendix A, sections 1 and 3), with their documents as the data
//! of a connector.

use jackfield_api::v1;
use jackfield_api::v1::patch_connector_request::Patch;
use jackfield_testkit::{expect_status, fixture, on_both};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tonic::{Code, Response};

use super::{merge_json, patch_connector, patch_json};
use crate::connector::{create, get};

const EXAMPLES: &str = include_str!("../../../../crates/domain/src/request/document_patch/examples.json");

on_both! {
    async fn of_json_patch(server) {
        let alpha = server.client("alpha");
        let id = create(&alpha, fixture::a_connector("Gmail")).await.id;
        let examples = examples("rfc6902");
        assert_eq!(examples.len(), 16 + 7);
        for example in examples {
            let document = json!([{ "op": "add", "path": "/data", "value": example["document"] }]);
            let before = patch_json(&alpha, &id, document).await.unwrap();
            let text = example["patch"].as_str().unwrap();
            let text = text.replace(r#""path": ""#, r#""path": "/data"#).replace(r#""from": ""#, r#""from": "/data"#);
            let patch = Patch::JsonPatch(v1::JsonPatch { json: text });
            let patched = patch_connector(&alpha, &id, Some(patch)).await.map(Response::new);
            match example["fault"].as_str() {
                None => assert_eq!(data(&patched.unwrap().into_inner()), example["result"], "{example}"),
                Some("the test fails") => {
                    expect_status(patched, Code::FailedPrecondition, "PATCH_TEST_FAILED");
                }
                Some(expected) => {
                    let refused = expect_status(patched, Code::InvalidArgument, "FIELD_INVALID");
                    assert!(refused.description("json_patch.json").ends_with(expected), "{example} {refused:?}");
                }
            }
            let after = get(&alpha, &id).await.unwrap();
            assert!(example["fault"].is_null() || after == before, "{example}");
        }
    }

    async fn of_json_merge_patch(server) {
        let alpha = server.client("alpha");
        let id = create(&alpha, fixture::a_connector("Gmail")).await.id;
        let examples = examples("rfc7396");
        assert_eq!(examples.len(), 15 + 2);
        for example in examples {
            let document = json!([{ "op": "add", "path": "/data", "value": { "a": example["document"] } }]);
            patch_json(&alpha, &id, document).await.unwrap();
            let merged = merge_json(&alpha, &id, json!({ "data": { "a": example["patch"] } })).await.unwrap();
            // Inside of another document, null removes.
            let expected = if example["result"].is_null() { json!({}) } else { json!({ "a": example["result"] }) };
            assert_eq!(data(&merged), expected, "{example}");
            assert_eq!(get(&alpha, &id).await.unwrap(), merged);
        }
    }
}

fn examples(rfc: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(EXAMPLES).unwrap()[rfc].as_array().unwrap().clone()
}

/// The free JSON of a connector.
pub(super) fn data(connector: &v1::Connector) -> Value {
    let data = json(connector)["data"].clone();
    if data.is_null() { json!({}) } else { whole(data) }
}

/// A connector in the canonical JSON form of protobuf.
pub(super) fn json(connector: &v1::Connector) -> Value {
    let pool = DescriptorPool::decode(jackfield_api::FILE_DESCRIPTOR_SET).unwrap();
    let mut message = DynamicMessage::new(pool.get_message_by_name("jackfield.v1.Connector").unwrap());
    message.transcode_from(connector).unwrap();
    serde_json::to_value(message).unwrap()
}

/// Numbers of protobuf are floating-point numbers.
fn whole(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64().unwrap() as i64),
        Value::Array(list) => list.into_iter().map(whole).collect(),
        Value::Object(object) => object.into_iter().map(|(key, value)| (key, whole(value))).collect(),
        other => other,
    }
}
