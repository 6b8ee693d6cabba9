//! Secrets in patches: set, kept and cleared, and never read.

use jackfield_api::v1;
use jackfield_api::v1::connector::Kind;
use jackfield_domain::Resource;
use jackfield_testkit::{TestServer, expect_status, fixture, on_both};
use serde_json::json;
use tonic::{Code, Response};

use super::{examples, merge_json, patch_json, refused};
use crate::connector::{create, get, password_set, sealed};

const PASSWORD: &str = "/generic/httpAuthenticationPassword";
const STORED: &str = "the stored password";

on_both! {
    async fn they_cannot_be_tested_copied_or_moved(server) {
        let alpha = server.client("alpha");
        let before = create(&alpha, with_secrets()).await;
        for path in [PASSWORD, "/secretHeaders", "/secretHeaders/X-A", "/secretHeaders/x-a", "/secretHeaders/X-None"] {
            for operation in [
                json!({ "op": "test", "path": path, "value": STORED }),
                json!({ "op": "test", "path": path, "value": "another" }),
                json!({ "op": "copy", "from": path, "path": "/data/copied" }),
                json!({ "op": "move", "from": path, "path": "/description" }),
            ] {
                let from = if operation["op"] == "test" { "" } else { "from " };
                let refused = refused(patch_json(&alpha, &before.id, json!([operation])).await);
                refused.expect_fields(&["json_patch.json"]);
                let description = refused.description("json_patch.json");
                let text = "is a secret: it can be set and removed, and not be tested, copied or moved";
                assert_eq!(description, format!("operation 0 ({from}\"{path}\") {text}"));
            }
        }
        // The objects around them do not contain them.
        let with_url = json!({ "authenticationUrl": "https://id.example.com/login", "migrateUsers": false });
        let around = json!([
            { "op": "test", "path": "/generic", "value": with_url },
            { "op": "copy", "from": "/generic", "path": "/data/generic" },
            { "op": "copy", "from": "", "path": "/data/all" },
        ]);
        let patched = patch_json(&alpha, &before.id, around).await.unwrap();
        let data = examples::data(&patched).to_string();
        assert!(data.contains("https://id.example.com/login") && !data.contains("assword") && !data.contains("X-A"), "{data}");
    }

    async fn they_are_set_kept_and_cleared(server) {
        let alpha = server.client("alpha");
        let created = create(&alpha, with_secrets()).await;
        let (id, before) = (created.id.clone(), both(&server, &created.id).await);
        for kept in [
            json!([{ "op": "replace", "path": "/generic", "value": { "authenticationUrl": "https://id.example.com/2" } }]),
            json!([{ "op": "replace", "path": "/name", "value": "another" }]),
        ] {
            let patched = patch_json(&alpha, &id, kept.clone()).await.unwrap();
            assert!(password_set(&patched) && patched.secret_header_names == ["X-A", "X-B"], "{kept}");
            assert_eq!(both(&server, &id).await, before, "{kept}");
        }

        let set = json!([{ "op": "replace", "path": PASSWORD, "value": "new" }]);
        assert!(password_set(&patch_json(&alpha, &id, set).await.unwrap()));
        let after = both(&server, &id).await;
        assert!(after.0 != before.0 && after.0.is_some() && after.1 == before.1);

        let merged = merge_json(&alpha, &id, json!({ "secretHeaders": { "x-a": null, "X-C": "new" } })).await.unwrap();
        assert_eq!(merged.secret_header_names, ["X-B", "X-C"]);
        assert!(password_set(&merged));
        let moved = json!([
            { "op": "add", "path": "/headers/X-D", "value": "was plain" },
            { "op": "move", "from": "/headers/X-D", "path": "/secretHeaders/X-D" },
        ]);
        let moved = patch_json(&alpha, &id, moved).await.unwrap();
        assert_eq!((moved.secret_header_names.join(" "), moved.headers.len()), ("X-B X-C X-D".to_owned(), 0));

        let cleared = json!([{ "op": "remove", "path": PASSWORD }, { "op": "remove", "path": "/secretHeaders/x-b" }]);
        let cleared = patch_json(&alpha, &id, cleared).await.unwrap();
        assert!(!password_set(&cleared) && cleared.secret_header_names == ["X-C", "X-D"]);
        assert_eq!(both(&server, &id).await.0, None);
        let again = refused(patch_json(&alpha, &id, json!([{ "op": "remove", "path": PASSWORD }])).await);
        assert!(again.description("json_patch.json").ends_with("names a place that does not exist"));
        let cleared = merge_json(&alpha, &id, json!({ "secretHeaders": null })).await.unwrap();
        assert!(cleared.secret_header_names.is_empty());
        assert_eq!(both(&server, &id).await, (None, None));
    }

    async fn they_do_not_follow_a_patch_to_another_destination(server) {
        let alpha = server.client("alpha");
        let given = v1::Connector {
            egress_proxy: Some("http://proxy.example:3128".to_owned()),
            egress_proxy_password: STORED.to_owned(),
            ..with_secrets()
        };
        let before = create(&alpha, given).await;
        let password = "connector.generic.http_authentication_password";
        let elsewhere = json!({ "authenticationUrl": "https://elsewhere.example.com/login" });
        for (members, fields) in [
            (json!({ "generic": elsewhere }), &[password, "connector.secret_headers"][..]),
            (json!({ "generic": elsewhere, "secretHeaders": { "X-A": "new" } }), &[password, "connector.secret_headers"]),
            (json!({ "egressProxy": null }), &["connector.egress_proxy_password"]),
        ] {
            refused(merge_json(&alpha, &before.id, members).await).expect_fields(fields);
        }
        assert_eq!(get(&alpha, &before.id).await.unwrap(), before);
        let removed = json!({ "egressProxy": null, "egressProxyPassword": null });
        assert!(!merge_json(&alpha, &before.id, removed).await.unwrap().egress_proxy_password_set);
    }

    async fn they_are_checked_as_in_an_update(server) {
        let alpha = server.client("alpha");
        let before = create(&alpha, with_secrets()).await;
        for (value, reason) in [("****", "PLACEHOLDER_SECRET"), (" ", "FIELD_INVALID"), ("a\nb", "FIELD_INVALID")] {
            let operations = json!([{ "op": "replace", "path": PASSWORD, "value": value }]);
            let refused = patch_json(&alpha, &before.id, operations).await.map(Response::new);
            expect_status(refused, Code::InvalidArgument, reason)
                .expect_fields(&["connector.generic.http_authentication_password"]);
        }
        for value in [json!(1), json!(true), json!({}), json!(["a"])] {
            let refused = refused(merge_json(&alpha, &before.id, json!({ "secretHeaders": { "X-A": value } })).await);
            let description = "\"/secretHeaders/X-A\" is a secret, which must be a string or null";
            assert_eq!(refused.description("merge_patch.json"), description);
        }
        let refused = merge_json(&alpha, &before.id, json!({ "secretHeaders": { "Host": "secretCanary" } })).await;
        let refused = expect_status(refused.map(Response::new), Code::InvalidArgument, "FIELD_INVALID");
        refused.expect_fields(&["connector.secret_headers"]);
        assert!(!format!("{refused:?}").contains("secretCanary"));
        assert_eq!(get(&alpha, &before.id).await.unwrap(), before);
    }
}

fn with_secrets() -> v1::Connector {
    let generic = v1::GenericConnector {
        authentication_url: "https://id.example.com/login".to_owned(),
        http_authentication_password: STORED.to_owned(),
        ..Default::default()
    };
    v1::Connector {
        name: "with secrets".to_owned(),
        kind: Some(Kind::Generic(generic)),
        secret_headers: fixture::strings([("X-A", "of a"), ("X-B", "of b")]),
        ..Default::default()
    }
}

/// The sealed password and the sealed headers.
async fn both(server: &TestServer, id: &str) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let one = async |name| sealed(server, Resource::Connector, id, name).await;
    (one("generic.http_authentication_password").await, one("secret_headers").await)
}
