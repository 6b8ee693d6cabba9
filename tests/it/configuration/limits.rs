//! The limits of JSON objects: at each limit and one over it, in every place where a configuration contains one.

use std::collections::BTreeMap;

use jackfield_api::v1;
use jackfield_testkit::{Client, expect_status, fixture, on_both};
use prost::Message;
use prost_types::{ListValue, Struct, Value, value::Kind};
use tonic::{Code, Response, Status};

use super::{found, update};
use crate::steps;

const KIB: usize = 1024;

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn number(number: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(number)) }
}

fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}

fn inner(object: Struct) -> Value {
    Value { kind: Some(Kind::StructValue(object)) }
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

/// This many nested objects, or lists in an object.
fn nested(levels: usize, lists: bool) -> Struct {
    let innermost = if lists { list(vec![]) } else { inner(object([])) };
    let deeper = |value, _| if lists { list(vec![value]) } else { inner(object([("a", value)])) };
    object([("a", (2..levels).fold(innermost, deeper))])
}

/// An object with this many keys.
fn keys(count: usize) -> Struct {
    Struct { fields: (0..count).map(|key| (format!("k{key}"), number(1.0))).collect() }
}

/// An object with this many values: a list and its items.
fn values(count: usize) -> Struct {
    object([("list", list(vec![number(1.0); count - 1]))])
}

/// An object of this encoded size in bytes.
fn sized(bytes: usize) -> Struct {
    let fill = |length: usize| object([("a", text(&"x".repeat(length)))]);
    let object = fill(bytes - fill(bytes - 32).encoded_len() + bytes - 32);
    assert_eq!(object.encoded_len(), bytes);
    object
}

/// The places where a configuration contains an object.
const PLACES: [&str; 3] = ["configuration.shared_settings", "configuration.meta", "configuration.workflow_settings"];

fn put(place: &str, object: Struct) -> v1::Configuration {
    match place {
        "configuration.shared_settings" => v1::Configuration { shared_settings: Some(object), ..Default::default() },
        "configuration.meta" => v1::Configuration { meta: Some(object), ..Default::default() },
        _ => workflows([("w".to_owned(), Some(object))]),
    }
}

fn workflows(entries: impl IntoIterator<Item = (String, Option<Struct>)>) -> v1::Configuration {
    let entries = entries.into_iter();
    let workflow_settings: BTreeMap<_, _> =
        entries.map(|(id, settings)| (id, v1::WorkflowSettings { enabled: true, settings })).collect();
    v1::Configuration { workflow_settings, ..Default::default() }
}

async fn credential(client: &Client) -> v1::Credential {
    let link = steps::linked(client, "ada", "Gmail").await;
    steps::api_key(client, &link, "key").await
}

/// Changes the default configuration of a credential.
async fn send(
    client: &Client,
    credential: &v1::Credential,
    configuration: v1::Configuration,
) -> Result<Response<v1::UpdateConfigurationResponse>, Status> {
    client.configurations().update_configuration(update(&credential.default_configuration, "", configuration)).await
}

on_both! {
    async fn json_comes_back_unchanged(server) {
        let client = server.client("alpha");
        let credential = credential(&client).await;
        let everything = object([
            ("null", Value { kind: Some(Kind::NullValue(0)) }),
            ("true", Value { kind: Some(Kind::BoolValue(true)) }),
            ("false", Value { kind: Some(Kind::BoolValue(false)) }),
            ("zero", number(0.0)),
            ("whole", number(-9_007_199_254_740_991.0)),
            ("part", number(0.1 + 0.2)),
            ("large", number(1.797e308)),
            ("small", number(5e-324)),
            ("empty", text("")),
            ("text", text("\"quoted\" \\ \u{1} \u{2028} \u{1f511} ß\n\t")),
            ("", text("a blank key")),
            ("key with \u{1f511} and .`", number(1.0)),
            ("list", list(vec![number(1.0), text("a"), list(vec![]), inner(object([])), list(vec![number(2.5)])])),
            ("object", inner(object([("z", number(1.0)), ("a", inner(object([("b", text("c"))])))]))),
        ]);
        for place in PLACES {
            send(&client, &credential, put(place, everything.clone())).await.unwrap();
        }
        let stored = found(&client, "", &credential.id).await;
        assert_eq!(stored.shared_settings.as_ref(), Some(&everything));
        assert_eq!(stored.meta.as_ref(), Some(&everything));
        assert_eq!(stored.workflow_settings["w"].settings.as_ref(), Some(&everything));
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for (place, field) in PLACES.into_iter().zip([PLACES[0], PLACES[1], "configuration.workflow_settings.`w`.settings"]) {
                let result = send(&client, &credential, put(place, object([("a", list(vec![number(wrong)]))]))).await;
                expect_status(result, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);
            }
        }
        let of_no_kind = object([("a", Value { kind: None })]);
        let result = send(&client, &credential, put(PLACES[1], of_no_kind)).await;
        expect_status(result, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[PLACES[1]]);
        assert_eq!(found(&client, "", &credential.id).await, stored);
    }

    async fn objects_have_limits(server) {
        let client = server.client("alpha");
        let credential = credential(&client).await;
        let cases = [
            (nested(16, false), nested(17, false), "nests deeper than 16 levels"),
            (nested(16, true), nested(17, true), "nests deeper than 16 levels"),
            (values(2_000), values(2_001), "holds more than 2000 values"),
            (keys(64), keys(65), "has an object with more than 64 keys"),
            (object([("a", inner(keys(64)))]), object([("a", inner(keys(65)))]), "has an object with more than 64 keys"),
        ];
        for (most, over, said) in cases {
            for place in PLACES {
                send(&client, &credential, put(place, most.clone())).await.unwrap();
                let refusal = expect_status(
                    send(&client, &credential, put(place, over.clone())).await,
                    Code::InvalidArgument,
                    "FIELD_INVALID",
                );
                let [field] = refusal.fields()[..] else { panic!("{refusal:?}") };
                assert!(field.starts_with(place), "{field} is not in {place}");
                assert_eq!(refusal.description(field), said);
            }
        }
        for place in &PLACES[..2] {
            send(&client, &credential, put(place, sized(64 * KIB))).await.unwrap();
            let result = send(&client, &credential, put(place, sized(64 * KIB + 1))).await;
            let refusal = expect_status(result, Code::InvalidArgument, "FIELD_INVALID");
            assert_eq!(refusal.description(place), "is larger than 64 KiB");
        }
        // JSON can be larger than its message; the larger size counts.
        let escaped = object([("a", text(&"\u{1}".repeat(12 * KIB)))]);
        let result = send(&client, &credential, put(PLACES[1], escaped)).await;
        let refusal = expect_status(result, Code::InvalidArgument, "FIELD_INVALID");
        assert_eq!(refusal.description(PLACES[1]), "is larger than 64 KiB");
    }

    /// All fields with JSON over the limits are named, although the message is not decoded.
    async fn all_objects_over_their_limits_are_named(server) {
        let client = server.client("alpha");
        let credential = credential(&client).await;
        let configuration = v1::Configuration {
            shared_settings: Some(nested(17, false)),
            meta: Some(sized(64 * KIB + 1)),
            ..Default::default()
        };
        let result = send(&client, &credential, configuration).await;
        let refusal = expect_status(result, Code::InvalidArgument, "FIELD_INVALID");
        assert_eq!(refusal.description("configuration.shared_settings"), "nests deeper than 16 levels");
        assert_eq!(refusal.description("configuration.meta"), "is larger than 64 KiB");
        assert_eq!(refusal.fields().len(), 2);
    }

    async fn workflows_have_limits(server) {
        let client = server.client("alpha");
        let credential = credential(&client).await;
        let field = "configuration.workflow_settings";
        let many = |count: usize| workflows((0..count).map(|number| (format!("w{number}"), None)));
        let refused = |configuration, reason: &'static str| {
            let (client, credential) = (client.clone(), credential.clone());
            async move {
                let result = send(&client, &credential, configuration).await;
                expect_status(result, Code::InvalidArgument, reason)
            }
        };
        send(&client, &credential, many(256)).await.unwrap();
        assert_eq!(found(&client, "", &credential.id).await.workflow_settings.len(), 256);
        let refusal = refused(many(257), "FIELD_INVALID").await;
        assert_eq!(refusal.description(field), "has more than 256 entries");
        // A single additional entry is one too many as well.
        let one_more = v1::UpdateConfigurationRequest {
            update_mask: fixture::mask(["workflow_settings.another"]),
            ..update(&credential.default_configuration, "", workflows([("another".to_owned(), None)]))
        };
        let result = client.configurations().update_configuration(one_more).await;
        expect_status(result, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);

        // The sum is limited to 64 KiB: each of four has nearly a quarter, and then one exceeds the sum.
        let quarter = |bytes: usize| Some(sized(bytes));
        let four = |last: usize| {
            let sizes = [16 * KIB - 64, 16 * KIB - 64, 16 * KIB - 64, last];
            workflows(sizes.into_iter().enumerate().map(|(number, bytes)| (format!("w{number}"), quarter(bytes))))
        };
        send(&client, &credential, four(16 * KIB - 64)).await.unwrap();
        let refusal = refused(four(16 * KIB + 256), "FIELD_INVALID").await;
        assert_eq!(refusal.description(field), "is larger than 64 KiB");
        let grown = v1::UpdateConfigurationRequest {
            update_mask: fixture::mask(["workflow_settings.w4"]),
            ..update(&credential.default_configuration, "", workflows([("w4".to_owned(), quarter(KIB))]))
        };
        let result = client.configurations().update_configuration(grown).await;
        expect_status(result, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);

        send(&client, &credential, workflows([("ä".repeat(128), None)])).await.unwrap();
        for id in ["", " ", "a\nb", &"ä".repeat(129)] {
            refused(workflows([(id.to_owned(), None)]), "FIELD_INVALID").await.expect_fields(&[field]);
        }
        let stored = found(&client, "", &credential.id).await.workflow_settings;
        assert_eq!(stored.into_keys().collect::<Vec<_>>(), ["ä".repeat(128)]);
    }
}
