//! Headers that the server sets itself, and base URLs to which it appends paths: a connector that has one is refused whenever it is
//! written.

use jackfield_api::v1;
use jackfield_api::v1::connector::Kind;
use jackfield_testkit::{Client, expect_status, fixture, on_both};
use serde_json::{Value, json};
use tonic::{Code, Response, Status};

use super::patch::merge_json;
use super::{create, try_create, update};
use crate::connector_test::{inline, verdicts};
use crate::login::{a_system, connector};

on_both! {
    /// The requests of a system say which headers they have.
    async fn a_header_that_requests_have_anyway_is_refused(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let generic = v1::GenericConnector {
            authentication_url: system.url("/login"),
            http_authentication_username: Some("jackfield".to_owned()),
            ..Default::default()
        };
        let license = v1::LicenseConnector { base_url: system.url("/v1"), application_id: "app-1".to_owned() };
        let basis = connector(&alpha, &system, "system").await;
        for (kind, names) in [
            (Kind::Generic(generic), vec!["accept", "authorization", "content-type"]),
            (Kind::License(license), vec!["accept", "content-type", "x-license-module"]),
        ] {
            let given = v1::Connector { kind: Some(kind), headers: Default::default(), ..basis.clone() };
            let before = system.received().len();
            verdicts(&alpha, inline(given.clone())).await;
            let received = system.received().swap_remove(before).headers;
            assert!(names.iter().all(|name| received.contains_key(*name)), "{received:?}");
            for name in received.keys().map(http::HeaderName::as_str).filter(|name| *name != "user-agent") {
                let headers = fixture::strings([(name, "v")]);
                let plain = v1::Connector { headers: headers.clone(), ..given.clone() };
                let secret = v1::Connector { secret_headers: headers, ..given.clone() };
                for (given, field) in [(plain, "connector.headers"), (secret, "connector.secret_headers")] {
                    let refused = expect_status(try_create(&alpha, given).await, Code::InvalidArgument, "FIELD_INVALID");
                    refused.expect_fields(&[field]);
                    let said = refused.description(field);
                    assert!(said.starts_with(&format!("header \"{name}\" cannot be set: ")), "{said}");
                }
            }
        }
    }

    async fn a_change_may_not_make_a_header_one_of_the_server(server) {
        let alpha = server.client("alpha");
        let headers = fixture::strings([("Authorization", "Bearer a"), ("TraceParent", "b")]);
        let stored = create(&alpha, v1::Connector { headers, ..fixture::a_connector("a") }).await;
        let refused = |result: Result<v1::Connector, Status>, cause: &str| {
            let refused = expect_status(result.map(Response::new), Code::InvalidArgument, "FIELD_INVALID");
            refused.expect_fields(&["connector.headers"]);
            assert!(refused.description("connector.headers").contains(cause), "{refused:?}");
        };
        let username = |name: &str| v1::GenericConnector {
            http_authentication_username: Some(name.to_owned()),
            ..Default::default()
        };
        let basic = v1::Connector { kind: Some(Kind::Generic(username("user"))), ..Default::default() };
        let path = "generic.http_authentication_username";
        refused(update(&alpha, &stored.id, [path], basic).await, path);
        let basic = json!({ "generic": { "httpAuthenticationUsername": "user" } });
        refused(merge_json(&alpha, &stored.id, basic).await, path);
        let traced = json!({ "propagateTraceContext": true });
        refused(merge_json(&alpha, &stored.id, traced).await, "propagate_trace_context");
        refused(merge_json(&alpha, &stored.id, json!({ "headers": { "Accept": "*/*" } })).await, "\"Accept\"");
        let moved = json!({
            "headers": { "Authorization": null, "TraceParent": null },
            "generic": { "httpAuthenticationUsername": "user" },
            "propagateTraceContext": true,
        });
        merge_json(&alpha, &stored.id, moved).await.unwrap();
    }

    async fn a_base_of_a_licence_server_has_no_query_and_no_fragment(server) {
        let alpha = server.client("alpha");
        let kind = |base: &str| {
            Some(Kind::License(v1::LicenseConnector { base_url: base.to_owned(), application_id: "a".to_owned() }))
        };
        let given = |base: &str| v1::Connector { kind: kind(base), ..fixture::a_connector("a") };
        let stored = create(&alpha, given("https://a.example/v1/")).await;
        for (base, said) in [
            ("https://a.example/v1?a=b", "must not have a query: paths are appended to it"),
            ("https://a.example/v1?", "must not have a query: paths are appended to it"),
            ("https://a.example/v1#a", "must not have a fragment"),
        ] {
            let members: Value = json!({ "license": { "baseUrl": base } });
            for result in [
                try_create(&alpha, given(base)).await.map(|response| response.into_inner().connector.unwrap()),
                update(&alpha, &stored.id, ["license.base_url"], given(base)).await,
                merge_json(&alpha, &stored.id, members).await,
                tested(&alpha, given(base)).await,
            ] {
                let refused = expect_status(result.map(Response::new), Code::InvalidArgument, "FIELD_INVALID");
                refused.expect_fields(&["connector.license.base_url"]);
                assert_eq!(refused.description("connector.license.base_url"), said, "{base}");
            }
        }
    }
}

/// The refusal of a test; a connector if it is not refused.
async fn tested(client: &Client, connector: v1::Connector) -> Result<v1::Connector, Status> {
    client.connectors().test_connector(inline(connector)).await.map(|_| v1::Connector::default())
}
