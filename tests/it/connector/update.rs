//! Updates: the fields in a mask, all fields with "*", and the present fields without a mask.

use std::collections::BTreeMap;

use jackfield_api::v1;
use jackfield_api::v1::connector::Kind;
use jackfield_testkit::{Client, TestServer, expect_status, fixture, on_both};
use tonic::{Code, Response};

use super::{create, get, update};
use crate::key;

on_both! {
    async fn a_mask_changes_only_the_fields_it_names(server) {
        let alpha = server.client("alpha");
        let before = a_full_one(&server, &alpha).await;
        let mut given = v1::Connector {
            name: "new".to_owned(),
            description: Some("new".to_owned()),
            debug: Some(false),
            labels: fixture::strings([("new", "new")]),
            ..fixture::a_connector("")
        };
        generic(&mut given).authentication_url = "https://directory.example.com/new".to_owned();
        generic(&mut given).http_authentication_username = Some("new".to_owned());
        let paths = ["name", "generic.authentication_url", "debug"];
        let updated = update(&alpha, &before.id, paths, given).await.unwrap();
        let mut expected = v1::Connector {
            name: "new".to_owned(),
            debug: Some(false),
            update_time: updated.update_time,
            etag: updated.etag.clone(),
            ..before.clone()
        };
        generic(&mut expected).authentication_url = "https://directory.example.com/new".to_owned();
        assert_eq!(updated, expected);
        assert_eq!(get(&alpha, &before.id).await.unwrap(), expected);
        let time = |time: Option<prost_types::Timestamp>| time.map(|time| (time.seconds, time.nanos));
        assert!(time(updated.update_time) > time(before.update_time), "{updated:?} {before:?}");
        assert_ne!(updated.etag, before.etag);
    }

    async fn a_path_without_a_value_restores_the_default(server) {
        let alpha = server.client("alpha");
        let before = a_full_one(&server, &alpha).await;
        let empty = v1::Connector::default;
        let paths = [
            "description",
            "enabled",
            "headers",
            "connect_timeout",
            "read_timeout",
            "total_timeout",
            "client_identity_key",
            "trust_bundle_key",
            "data",
            "debug",
            "debug_until",
            "egress_proxy",
            "egress_proxy_password",
            "max_concurrent_requests",
            "max_response_bytes",
            "propagate_trace_context",
            "labels",
            "generic.http_authentication_username",
        ];
        let updated = update(&alpha, &before.id, paths, empty()).await.unwrap();
        let seconds = |seconds: i64| Some(fixture::milliseconds(1_000 * seconds));
        let mut expected = v1::Connector {
            description: None,
            enabled: Some(true),
            headers: BTreeMap::new(),
            connect_timeout: seconds(5),
            read_timeout: seconds(10),
            total_timeout: seconds(30),
            client_identity_key: None,
            trust_bundle_key: None,
            data: None,
            debug: Some(false),
            debug_until: None,
            egress_proxy: None,
            egress_proxy_password_set: false,
            max_concurrent_requests: None,
            max_response_bytes: None,
            propagate_trace_context: Some(false),
            labels: BTreeMap::new(),
            update_time: updated.update_time,
            etag: updated.etag.clone(),
            ..before.clone()
        };
        generic(&mut expected).http_authentication_username = None;
        assert_eq!(updated, expected);
        for (path, field) in
            [("name", "connector.name"), ("generic.authentication_url", "connector.generic.authentication_url")]
        {
            let refused = update(&alpha, &before.id, [path], empty()).await.map(Response::new);
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);
        }
        assert_eq!(get(&alpha, &before.id).await.unwrap(), expected);
    }

    async fn secrets_do_not_follow_a_url_to_another_origin(server) {
        let alpha = server.client("alpha");
        let before = a_full_one(&server, &alpha).await;
        let mut moved = v1::Connector { kind: before.kind.clone(), ..Default::default() };
        generic(&mut moved).authentication_url = "https://elsewhere.example.com".to_owned();
        moved.egress_proxy = Some("http://proxy.elsewhere.example:3128".to_owned());
        let paths = ["generic.authentication_url", "egress_proxy"];
        let refused = update(&alpha, &before.id, paths, moved.clone()).await.map(Response::new);
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[
            "connector.generic.http_authentication_password",
            "connector.secret_headers",
            "connector.egress_proxy_password",
        ]);
        assert_eq!(get(&alpha, &before.id).await.unwrap(), before);

        // Given again or removed, they are where the caller wants them.
        generic(&mut moved).http_authentication_password = "for elsewhere".to_owned();
        let paths = [
            "generic.authentication_url",
            "generic.http_authentication_password",
            "egress_proxy",
            "egress_proxy_password",
            "secret_headers",
        ];
        let after = update(&alpha, &before.id, paths, moved).await.unwrap();
        assert_eq!((after.secret_header_names.len(), after.egress_proxy_password_set), (0, false));
    }

    async fn secrets_do_not_follow_a_url_that_is_removed_and_added(server) {
        let alpha = server.client("alpha");
        let of = |base_url: Option<&str>| v1::Connector {
            kind: Some(Kind::HttpBasic(v1::HttpBasicConnector { base_url: base_url.map(str::to_owned) })),
            secret_headers: fixture::strings([("X-Secret", "s3cret")]),
            ..fixture::a_connector("with a secret")
        };
        let stored = create(&alpha, of(Some("https://api.example.com/"))).await;
        for (base_url, paths) in [(None, ["http_basic.base_url"]), (Some("https://b.example.com/"), ["http_basic"])] {
            let refused = update(&alpha, &stored.id, paths, of(base_url)).await.map(Response::new);
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connector.secret_headers"]);
        }
        assert_eq!(get(&alpha, &stored.id).await.unwrap(), stored);
        let without = update(&alpha, &stored.id, ["http_basic", "secret_headers"], v1::Connector {
            secret_headers: BTreeMap::new(),
            ..of(None)
        });
        assert_eq!(without.await.unwrap().secret_header_names, [""; 0]);
    }

    async fn secrets_do_not_follow_to_other_authorities_or_proxies(server) {
        let alpha = server.client("alpha");
        let before = a_full_one(&server, &alpha).await;
        key::import(&alpha, key::a_bundle(&server, "another")).await;
        let given = |bundle: &str, proxy: Option<&str>| v1::Connector {
            kind: before.kind.clone(),
            trust_bundle_key: Some(bundle.to_owned()).filter(|bundle| !bundle.is_empty()),
            egress_proxy: proxy.map(str::to_owned),
            ..Default::default()
        };
        let refused = async |given, fields: &[&str]| {
            let refused = update(&alpha, &before.id, ["trust_bundle_key", "egress_proxy"], given).await;
            expect_status(refused.map(Response::new), Code::InvalidArgument, "FIELD_INVALID").expect_fields(fields);
        };
        let (password, headers) = ("connector.generic.http_authentication_password", "connector.secret_headers");
        let proxy_password = "connector.egress_proxy_password";
        refused(given("name:another", before.egress_proxy.as_deref()), &[password, headers]).await;
        refused(given("name:another", Some("http://b.example:3128")), &[password, headers, proxy_password]).await;
        refused(given("name:bundle", None), &[proxy_password]).await;
        assert_eq!(get(&alpha, &before.id).await.unwrap(), before);

        // The public authorities may be trusted at any time, and after that every bundle is another one.
        let public = update(&alpha, &before.id, ["trust_bundle_key"], v1::Connector::default()).await.unwrap();
        assert_eq!((public.trust_bundle_key, public.secret_header_names.len()), (None, 1));
        refused(given("name:bundle", before.egress_proxy.as_deref()), &[password, headers]).await;
        let cleared = update(
            &alpha,
            &before.id,
            ["trust_bundle_key", "secret_headers", "generic.http_authentication_password"],
            given("name:another", None),
        );
        assert!(cleared.await.unwrap().trust_bundle_key.is_some());
    }

    async fn star_replaces_all(server) {
        let alpha = server.client("alpha");
        let before = a_full_one(&server, &alpha).await;
        // What secrets are bound to stays as it is.
        let mut put = v1::Connector {
            egress_proxy: before.egress_proxy.clone(),
            trust_bundle_key: before.trust_bundle_key.clone(),
            ..fixture::a_connector("put")
        };
        generic(&mut put).authentication_url = "https://directory.example.com/put".to_owned();
        let updated = update(&alpha, &before.id, ["*"], put.clone()).await.unwrap();
        let seconds = |seconds: i64| Some(fixture::milliseconds(1_000 * seconds));
        let mut expected = v1::Connector {
            id: before.id.clone(),
            enabled: Some(true),
            secret_header_names: before.secret_header_names.clone(),
            connect_timeout: seconds(5),
            read_timeout: seconds(10),
            total_timeout: seconds(30),
            debug: Some(false),
            egress_proxy_password_set: before.egress_proxy_password_set,
            propagate_trace_context: Some(false),
            create_time: before.create_time,
            update_time: updated.update_time,
            etag: updated.etag.clone(),
            ..put
        };
        generic(&mut expected).http_authentication_password_set = true;
        assert_eq!(updated, expected);
        assert_eq!(get(&alpha, &before.id).await.unwrap(), expected);
        let refused = update(&alpha, &before.id, ["*"], v1::Connector::default()).await.map(Response::new);
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&["connector.name", "connector.kind"]);
        // A resource can be put back as it was read, without its etag.
        let given = v1::Connector { etag: String::new(), ..before.clone() };
        let again = update(&alpha, &before.id, ["*"], given).await.unwrap();
        assert_eq!(again, v1::Connector { update_time: again.update_time, etag: again.etag.clone(), ..before });
    }

    async fn without_a_mask_present_fields_change(server) {
        let alpha = server.client("alpha");
        let before = a_full_one(&server, &alpha).await;
        let unchanged = |to: &v1::Connector| v1::Connector {
            update_time: to.update_time,
            etag: to.etag.clone(),
            ..before.clone()
        };
        let mut given = v1::Connector {
            enabled: Some(true),
            kind: Some(Kind::Generic(v1::GenericConnector::default())),
            read_timeout: Some(fixture::milliseconds(7)),
            ..Default::default()
        };
        generic(&mut given).http_authentication_username = Some("new".to_owned());
        let request = v1::UpdateConnectorRequest {
            reference: before.id.clone(),
            connector: Some(given.clone()),
            update_mask: None,
            ..Default::default()
        };
        let updated = alpha.connectors().update_connector(request).await.unwrap().into_inner().connector.unwrap();
        let mut expected =
            v1::Connector { enabled: Some(true), read_timeout: given.read_timeout, ..unchanged(&updated) };
        generic(&mut expected).http_authentication_username = Some("new".to_owned());
        assert_eq!(updated, expected);
        assert_eq!(get(&alpha, &before.id).await.unwrap(), expected);
    }

    async fn wrong_masks_are_refused_and_output_only_paths_do_nothing(server) {
        let alpha = server.client("alpha");
        let before = a_full_one(&server, &alpha).await;
        let given = || v1::Connector { id: before.id.clone(), etag: before.etag.clone(), ..fixture::a_connector("new") };
        for path in [
            "",
            " ",
            "Name",
            "nmae",
            "name.x",
            "kind",
            "connector.name",
            "headers.header1.x",
            "generic.",
            ".generic",
            "generic.*",
            "generic.password",
            "connect_timeout.seconds",
            "authentication_url",
        ] {
            let refused = update(&alpha, &before.id, ["description", path], given()).await.map(Response::new);
            let refused = expect_status(refused, Code::InvalidArgument, "FIELD_INVALID");
            refused.expect_fields(&["update_mask"]);
            assert!(refused.description("update_mask").contains(&format!("\"{path}\"")), "{refused:?}");
        }
        for paths in [["*", "name"], ["name", "*"], ["*", "*"]] {
            let refused = update(&alpha, &before.id, paths, given()).await.map(Response::new);
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID");
        }
        let refused = update(&alpha, &before.id, ["a", "name", "b"], v1::Connector::default()).await.map(Response::new);
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["update_mask", "update_mask"]);
        assert_eq!(get(&alpha, &before.id).await.unwrap(), before);

        let paths = [
            "id",
            "generic.http_authentication_password_set",
            "secret_header_names",
            "create_time",
            "update_time.seconds",
            "etag",
        ];
        let updated = update(&alpha, &before.id, paths, given()).await.unwrap();
        assert_eq!(updated, v1::Connector { update_time: updated.update_time, etag: updated.etag.clone(), ..before });
    }

    async fn the_kind_cannot_be_changed(server) {
        let alpha = server.client("alpha");
        let before = a_full_one(&server, &alpha).await;
        let oauth2 = fixture::an_oauth2_connector("new");
        for paths in [vec!["*"], vec![], vec!["oauth2"], vec!["name", "oauth2.issuer_url"]] {
            let request = v1::UpdateConnectorRequest {
                reference: before.id.clone(),
                connector: Some(oauth2.clone()),
                update_mask: Some(prost_types::FieldMask { paths: paths.into_iter().map(str::to_owned).collect() }),
                ..Default::default()
            };
            let refused = alpha.connectors().update_connector(request).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connector.kind"]);
        }
        // A setting of another kind is refused, whatever the message contains.
        for connector in [v1::Connector::default(), fixture::a_connector("new")] {
            let refused = update(&alpha, &before.id, ["oauth2.issuer_url"], connector).await.map(Response::new);
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connector.kind"]);
        }
        assert_eq!(get(&alpha, &before.id).await.unwrap(), before);
        // Fields outside the mask are ignored, including the kind.
        let updated = update(&alpha, &before.id, ["name"], oauth2).await.unwrap();
        assert_eq!((&*updated.name, &updated.kind), ("new", &before.kind));
        let paths = ["generic.http_authentication_username"];
        let updated = update(&alpha, &before.id, paths, fixture::an_oauth2_connector("x")).await.unwrap();
        let mut expected = before;
        generic(&mut expected).http_authentication_username = None;
        assert_eq!((&*updated.name, &updated.kind), ("new", &expected.kind));
    }

    async fn an_update_is_validated_together_with_the_stored_fields(server) {
        let alpha = server.client("alpha");
        let before = a_full_one(&server, &alpha).await;
        let refused = |paths: &'static str, field: &'static str, given: v1::Connector| {
            let (alpha, id) = (alpha.clone(), before.id.clone());
            async move {
                let refused = update(&alpha, &id, [paths], given).await.map(Response::new);
                expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);
            }
        };
        let connect_timeout = Some(fixture::milliseconds(3_001));
        let given = v1::Connector { connect_timeout, ..Default::default() };
        refused("connect_timeout", "connector.total_timeout", given).await;
        let total_timeout = Some(fixture::milliseconds(999));
        let given = v1::Connector { total_timeout, ..Default::default() };
        refused("total_timeout", "connector.total_timeout", given).await;
        let headers = fixture::strings([("x-secret", "v")]);
        let given = v1::Connector { headers, ..Default::default() };
        refused("headers", "connector.secret_headers", given).await;
        assert_eq!(get(&alpha, &before.id).await.unwrap(), before);

        let mut given = fixture::a_connector("key in a header");
        let api_key = |header_name: &str, query_parameter: &str| {
            Some(Kind::ApiKey(v1::ApiKeyConnector {
                header_name: Some(header_name.to_owned()).filter(|text| !text.is_empty()),
                query_parameter: Some(query_parameter.to_owned()).filter(|text| !text.is_empty()),
                ..Default::default()
            }))
        };
        given.kind = api_key("X-Key", "");
        let stored = create(&alpha, given.clone()).await;
        given.kind = api_key("", "key");
        let both = update(&alpha, &stored.id, ["api_key.query_parameter"], given.clone()).await.map(Response::new);
        expect_status(both, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&["connector.api_key.query_parameter"]);
        let moved = update(&alpha, &stored.id, ["api_key"], given).await.unwrap();
        assert_eq!(moved.kind, api_key("", "key"));

        let given = v1::Connector {
            kind: Some(Kind::ClientCertificate(v1::ClientCertificateConnector::default())),
            client_identity_key: Some("name:identity".to_owned()),
            ..fixture::a_connector("certificate")
        };
        let stored = create(&alpha, given).await;
        let without = update(&alpha, &stored.id, ["client_identity_key"], v1::Connector::default()).await;
        expect_status(without.map(Response::new), Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&["connector.client_identity_key"]);
    }
}

/// A connector with a value other than the default in every field.
pub(super) async fn a_full_one(server: &TestServer, client: &Client) -> v1::Connector {
    key::import(client, key::an_identity(server, "identity")).await;
    key::import(client, key::a_bundle(server, "bundle")).await;
    let mut given = v1::Connector {
        description: Some("as it was".to_owned()),
        enabled: Some(false),
        secret_headers: fixture::strings([("X-Secret", "s3cret")]),
        connect_timeout: Some(fixture::milliseconds(1_000)),
        read_timeout: Some(fixture::milliseconds(2_000)),
        total_timeout: Some(fixture::milliseconds(3_000)),
        client_identity_key: Some("name:identity".to_owned()),
        trust_bundle_key: Some("name:bundle".to_owned()),
        debug_until: Some(prost_types::Timestamp { seconds: 2_000_000_000, nanos: 0 }),
        egress_proxy: Some("http://proxy.example:3128".to_owned()),
        egress_proxy_username: Some("user".to_owned()),
        egress_proxy_password: "s3cret".to_owned(),
        max_concurrent_requests: Some(8),
        max_response_bytes: Some(4_096),
        propagate_trace_context: Some(true),
        labels: fixture::strings([("env", "prod")]),
        ..fixture::the_fusionauth_connector()
    };
    generic(&mut given).authentication_url = "https://directory.example.com".to_owned();
    create(client, given).await
}

fn generic(connector: &mut v1::Connector) -> &mut v1::GenericConnector {
    let Some(Kind::Generic(generic)) = &mut connector.kind else { panic!("not a generic connector") };
    generic
}
