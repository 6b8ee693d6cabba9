use serde_json::json;

use super::*;

fn no_secrets(value: Value) -> Document {
    Document { value, secrets: Secrets::new(Vec::new(), []) }
}

/// A document with a password in an object, and a map of secret headers.
fn with_secrets(stored: &[&str]) -> Document {
    let pointer = |text: &str| PointerBuf::parse(text).unwrap();
    let paths = vec![
        SecretPath { pointer: pointer("/generic/password"), is_map: false },
        SecretPath { pointer: pointer("/secretHeaders"), is_map: true },
    ];
    let value = json!({ "name": "a", "generic": { "url": "https://a" }, "data": {} });
    Document { value, secrets: Secrets::new(paths, stored.iter().map(|text| pointer(text))) }
}

fn operations(document: Document, operations: &str) -> Result<Document, PatchFault> {
    DocumentPatch::operations("patch", operations).map_err(PatchFault::Invalid)?.apply(document)
}

fn merge(document: Document, patch: &str) -> Result<Document, PatchFault> {
    DocumentPatch::merge("patch", patch).map_err(PatchFault::Invalid)?.apply(document)
}

#[track_caller]
fn fault(result: Result<Document, PatchFault>) -> String {
    match result.map(|document| document.value) {
        Err(PatchFault::Invalid(violation)) => violation.description,
        Err(PatchFault::TestFailed { operation, path }) => format!("test {operation} of {path:?} failed"),
        Ok(value) => panic!("it was applied: {value}"),
    }
}

/// The changed secrets as texts: `path key = text`.
fn changes(document: &Document) -> Vec<String> {
    let changes = document.secrets.changes().into_iter();
    let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    changes.map(|change| format!("{} {} = {}", change.pointer, shown(change.key), shown(change.text))).collect()
}

/// The examples of the RFCs, those of the appendices first.
fn examples(rfc: &str) -> Vec<Value> {
    let examples: Value = serde_json::from_str(include_str!("examples.json")).unwrap();
    examples[rfc].as_array().unwrap().clone()
}

#[test]
fn the_examples_of_rfc_6902() {
    for example in examples("rfc6902") {
        let result = operations(no_secrets(example["document"].clone()), example["patch"].as_str().unwrap());
        match example["fault"].as_str() {
            None => assert_eq!(result.unwrap().value, example["result"], "{example}"),
            Some("the test fails") => {
                let fault = fault(result);
                assert!(fault.starts_with("test ") && fault.ends_with(" failed"), "{example} {fault}");
            }
            Some(expected) => assert!(fault(result).ends_with(expected), "{example}"),
        }
    }
}

#[test]
fn the_examples_of_rfc_7396() {
    for example in examples("rfc7396") {
        let result = merge(no_secrets(example["document"].clone()), &example["patch"].to_string()).unwrap();
        assert_eq!(result.value, example["result"], "{example}");
    }
}

#[test]
fn numbers_are_equal_if_their_values_are() {
    let document = |number: Value| no_secrets(json!({ "a": [number] }));
    for (stored, tested) in [(json!(1), "1.0"), (json!(1), "10e-1"), (json!(0.5), "5e-1"), (json!(100), "1E2")] {
        let test = format!(r#"[{{ "op": "test", "path": "/a", "value": [{tested}] }}]"#);
        assert!(operations(document(stored), &test).is_ok(), "{tested}");
    }
    let test = r#"[{ "op": "test", "path": "/a/0", "value": 1.5 }]"#;
    assert_eq!(fault(operations(document(json!(1)), test)), "test 0 of \"/a/0\" failed");
}

#[test]
fn a_patch_is_applied_as_a_whole_or_not_at_all() {
    let patch = r#"[
        { "op": "replace", "path": "/name", "value": "b" },
        { "op": "remove", "path": "/none" }
    ]"#;
    assert_eq!(
        fault(operations(with_secrets(&[]), patch)),
        "operation 1 (\"/none\") names a place that does not exist"
    );
    let absent = r#"[{ "op": "test", "path": "/none", "value": null }]"#;
    assert_eq!(fault(operations(with_secrets(&[]), absent)), "test 0 of \"/none\" failed");
    for (patch, expected) in [
        (r#"[{ "op": "copy", "from": "/none", "path": "/a" }]"#, "(from \"/none\") names a place that does not exist"),
        (r#"[{ "op": "move", "from": "/none", "path": "/a" }]"#, "(from \"/none\") names a place that does not exist"),
        (
            r#"[{ "op": "copy", "from": "/name", "path": "/none/a" }]"#,
            "(\"/none/a\") names a place that does not exist",
        ),
        (
            r#"[{ "op": "move", "from": "/generic", "path": "/generic/a" }]"#,
            "(\"/generic/a\") moves a value into itself",
        ),
    ] {
        assert_eq!(fault(operations(with_secrets(&[]), patch)), format!("operation 0 {expected}"));
    }
    let same = operations(with_secrets(&[]), r#"[{ "op": "move", "from": "/name", "path": "/name" }]"#).unwrap();
    assert_eq!(same.value, with_secrets(&[]).value);
}

#[test]
fn secrets_cannot_be_read() {
    let stored = ["/generic/password", "/secretHeaders/X-A"];
    for path in ["/generic/password", "/generic/password/0", "/secretHeaders", "/secretHeaders/X-A", "/secretHeaders/x"]
    {
        for operation in [
            json!({ "op": "test", "path": path, "value": true }),
            json!({ "op": "copy", "from": path, "path": "/data/a" }),
            json!({ "op": "move", "from": path, "path": "/data/a" }),
        ] {
            let refused = fault(operations(with_secrets(&stored), &json!([operation]).to_string()));
            let place = if operation["op"] == "test" { format!("\"{path}\"") } else { format!("from \"{path}\"") };
            let text = "is a secret: it can be set and removed, and not be tested, copied or moved";
            assert_eq!(refused, format!("operation 0 ({place}) {text}"));
        }
    }
    // The values around them do not have them, not even those that the same patch gave.
    let around = r#"[
        { "op": "add", "path": "/generic/password", "value": "given" },
        { "op": "replace", "path": "/generic", "value": { "url": "https://b", "password": "again" } },
        { "op": "test", "path": "/generic", "value": { "url": "https://b" } },
        { "op": "copy", "from": "", "path": "/data/all" },
        { "op": "copy", "from": "/data/all/generic", "path": "/data/generic" }
    ]"#;
    let patched = operations(with_secrets(&stored), around).unwrap();
    assert!(!patched.value.to_string().contains("given") && !patched.value.to_string().contains("again"));
    assert_eq!(changes(&patched), ["/generic/password - = again"]);
    // What becomes a part of the settings by copying does not stay where it can be read.
    let copied = r#"[
        { "op": "add", "path": "/data/s", "value": { "url": "https://b", "password": "plain" } },
        { "op": "copy", "from": "/data/s", "path": "/generic" },
        { "op": "move", "from": "/data/s/password", "path": "/secretHeaders/X-B" }
    ]"#;
    let patched = operations(with_secrets(&stored), copied).unwrap();
    assert_eq!(
        patched.value,
        json!({ "name": "a", "generic": { "url": "https://b" }, "data": { "s": { "url": "https://b" } } })
    );
    assert_eq!(changes(&patched), ["/generic/password - = plain", "/secretHeaders X-B = plain"]);
}

#[test]
fn secrets_are_set_and_removed() {
    let stored = ["/generic/password", "/secretHeaders/X-A", "/secretHeaders/X-B"];
    let password = "/generic/password";
    for (patch, expected) in [
        (json!([{ "op": "add", "path": password, "value": "new" }]), vec!["/generic/password - = new"]),
        (json!([{ "op": "replace", "path": password, "value": "new" }]), vec!["/generic/password - = new"]),
        (json!([{ "op": "remove", "path": password }]), vec!["/generic/password - = -"]),
        (json!([{ "op": "add", "path": password, "value": null }]), vec!["/generic/password - = -"]),
        // Absent secrets stay, as in an update.
        (json!([{ "op": "replace", "path": "/generic", "value": { "url": "https://b" } }]), vec![]),
        (json!([{ "op": "replace", "path": "", "value": { "name": "b", "secretHeaders": {} } }]), vec![]),
        (json!([{ "op": "add", "path": "/secretHeaders/x-a", "value": "new" }]), vec!["/secretHeaders X-A = new"]),
        (json!([{ "op": "remove", "path": "/secretHeaders/x-a" }]), vec!["/secretHeaders X-A = -"]),
        (json!([{ "op": "add", "path": "/secretHeaders/X-C", "value": "new" }]), vec!["/secretHeaders X-C = new"]),
        (
            json!([{ "op": "replace", "path": "/secretHeaders", "value": { "X-C": "new" } }]),
            vec![
                "/secretHeaders - = -",
                "/secretHeaders X-A = -",
                "/secretHeaders X-B = -",
                "/secretHeaders X-C = new",
            ],
        ),
        (
            json!([{ "op": "remove", "path": "/secretHeaders" }]),
            vec!["/secretHeaders - = -", "/secretHeaders X-A = -", "/secretHeaders X-B = -"],
        ),
    ] {
        let patched = operations(with_secrets(&stored), &patch.to_string()).unwrap();
        assert_eq!(changes(&patched), expected, "{patch}");
    }
    for (patch, expected) in [
        (json!({ "generic": { "password": "new" } }), vec!["/generic/password - = new"]),
        (json!({ "generic": { "password": null } }), vec!["/generic/password - = -"]),
        (json!({ "generic": null, "secretHeaders": {} }), vec![]),
        (
            json!({ "secretHeaders": { "x-a": "new", "X-C": "new" } }),
            vec!["/secretHeaders X-A = new", "/secretHeaders X-C = new"],
        ),
        (json!({ "secretHeaders": { "x-a": null, "X-C": null } }), vec!["/secretHeaders X-A = -"]),
        (
            json!({ "secretHeaders": null }),
            vec!["/secretHeaders - = -", "/secretHeaders X-A = -", "/secretHeaders X-B = -"],
        ),
    ] {
        let patched = merge(with_secrets(&stored), &patch.to_string()).unwrap();
        assert_eq!(changes(&patched), expected, "{patch}");
        assert!(!patched.value.to_string().contains("new"));
    }
}

#[test]
fn secrets_are_texts_and_absent_ones_cannot_be_replaced() {
    for (path, value) in [
        ("/generic/password", json!(true)),
        ("/generic/password", json!({})),
        ("/secretHeaders", json!(["a"])),
        ("/secretHeaders", json!({ "X-A": true })),
        ("/secretHeaders/X-A", json!(1)),
        ("/generic", json!({ "password": true })),
        ("", json!({ "secretHeaders": { "X-A": true } })),
    ] {
        let patch = json!([{ "op": "add", "path": path, "value": value }]).to_string();
        let refused = fault(operations(with_secrets(&[]), &patch));
        assert!(
            refused.contains("must be strings or null") || refused.contains("must be a string or null"),
            "{refused}"
        );
    }
    for (patch, place) in [
        (json!({ "generic": { "password": true } }), "/generic/password"),
        (json!({ "secretHeaders": "a" }), "/secretHeaders"),
        (json!({ "secretHeaders": { "X-A": true } }), "/secretHeaders/X-A"),
    ] {
        assert!(fault(merge(with_secrets(&[]), &patch.to_string())).starts_with(&format!("\"{place}\" ")));
    }
    for operation in ["replace", "remove"] {
        for path in ["/generic/password", "/secretHeaders/X-A"] {
            let patch = json!([{ "op": operation, "path": path, "value": "new" }]).to_string();
            assert!(fault(operations(with_secrets(&[]), &patch)).ends_with("does not exist"));
        }
    }
}

#[test]
fn limits_hold_exactly() {
    let test = |count: usize| json!(vec![json!({ "op": "remove", "path": "/a" }); count]).to_string();
    assert!(DocumentPatch::operations("patch", &test(MAX_OPERATIONS)).is_ok());
    let refused = DocumentPatch::operations("patch", &test(MAX_OPERATIONS + 1)).map(drop).unwrap_err();
    assert_eq!(refused.description, "must have at most 100 operations");
    let sized = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
    assert!(DocumentPatch::merge("patch", &sized(MAX_BYTES)).is_ok());
    let refused = DocumentPatch::merge("patch", &sized(MAX_BYTES + 1)).map(drop).unwrap_err();
    assert_eq!(refused.description, "is larger than 128 KiB");
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    assert!(DocumentPatch::merge("patch", &deep(MAX_LEVELS)).is_ok());
    for levels in [MAX_LEVELS + 1, 127, 128, 20_000] {
        let refused = DocumentPatch::merge("patch", &deep(levels)).map(drop).unwrap_err();
        assert!(refused.description.contains("deep"), "{}", refused.description);
    }
    let put = |path: String| format!(r#"[{{ "op": "add", "path": "{path}", "value": {} }}]"#, deep(29));
    assert!(operations(no_secrets(json!([[[]]])), &put("/0/0/0".to_owned())).is_ok());
    let deeper = operations(no_secrets(json!([[[[]]]])), &put("/0/0/0/0".to_owned()));
    assert!(fault(deeper).ends_with("would nest deeper than 32 levels"));
}

#[test]
fn copies_cannot_fill_the_memory() {
    let copy = json!({ "op": "copy", "from": "/a", "path": "/a/-" });
    let refused = operations(no_secrets(json!({ "a": ["x".repeat(1_000)] })), &json!(vec![copy; 100]).to_string());
    let refused = fault(refused);
    assert!(refused.contains("copies too much") || refused.contains("deeper"), "{refused}");
    let flat = json!({ "op": "copy", "from": "/a", "path": "/b/-" });
    let document = || no_secrets(json!({ "a": "x".repeat(4_000), "b": [] }));
    assert!(operations(document(), &json!(vec![flat.clone(); 60]).to_string()).is_ok());
    assert!(fault(operations(document(), &json!(vec![flat; 70]).to_string())).contains("operation 65 "));
}

#[test]
fn other_texts_are_refused_without_a_word_of_them() {
    for text in [
        "",
        "{",
        "hunter2",
        r#"{"op":"add"}"#,
        r#"["hunter2"]"#,
        r#"[{"op":"hunter2","path":"/a","value":1}]"#,
        r#"[{"op":"add","path":"hunter2","value":1}]"#,
        r#"[{"op":"add","path":"/a"}]"#,
        r#"[{"op":"move","path":"/a"}]"#,
        r#"[{"op":"add","path":"/~2","value":"hunter2"}]"#,
        r#"[{"path":"/a"}]"#,
        r#"[["add","/a","hunter2"]]"#,
        r#"[["remove",{"path":"/a"}]]"#,
        r#"[] []"#,
        "1e999",
    ] {
        let refused = DocumentPatch::operations("patch", text).map(drop).unwrap_err();
        assert_eq!(refused.field, "patch");
        assert!(!refused.description.contains("hunter2"), "{}", refused.description);
    }
    let refused = DocumentPatch::operations("patch", r#"[{"op":"remove","path":"/a"},{"op":"add","path":"/a"}]"#);
    assert!(refused.map(drop).unwrap_err().description.starts_with("operation 1 needs an \"op\""));
}
