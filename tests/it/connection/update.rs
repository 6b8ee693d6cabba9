//! Updates: the fields in a mask, all fields with "*", and the present fields without a mask.

use jackfield_api::v1;
use jackfield_testkit::{expect_status, fixture, on_both};
use tonic::{Code, Response};

use super::{a_small_one, create, everything, get, update};
use crate::connector;

/// Every path except the secrets and the required fields.
const OPTIONAL: [&str; 30] = [
    "external_id",
    "type",
    "authentication_url",
    "token_url",
    "issuer_url",
    "provider_certificate",
    "client_id",
    "user_data_location",
    "provider_tenant_id",
    "developer_account_id",
    "supported_content_type",
    "oidc_user_endpoint_url",
    "user_id_expression",
    "trust_identity_user_id",
    "scope",
    "parameters",
    "require_business_account",
    "linking",
    "active",
    "tags",
    "redirect_uris",
    "revocation_url",
    "jwks_url",
    "device_authorization_url",
    "client_authentication",
    "token_parameters",
    "refresh_parameters",
    "refresh_token_grace_period",
    "return_uris",
    "iss_parameter_supported",
];

on_both! {
    async fn each_path_changes_its_field_and_no_other(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let full = create(&alpha, everything()).await;
        let small = create(&alpha, a_small_one("small")).await;
        let mut before = small.clone();
        let mut given = everything();
        given.external_id = Some("other".to_owned());
        // Fills the small connection path by path; each answer differs from the one before only in that field.
        for path in OPTIONAL {
            let after = update(&alpha, &small.id, [path], given.clone()).await.unwrap();
            assert_eq!(differences(&before, &after), [path]);
            assert_eq!(get(&alpha, &small.id).await.unwrap(), after);
            before = after;
        }
        let mut expected = v1::Connection {
            id: small.id.clone(),
            name: small.name.clone(),
            external_id: Some("other".to_owned()),
            client_secrets: vec![],
            create_time: small.create_time,
            ..full
        };
        (expected.update_time, expected.etag) = (before.update_time, before.etag.clone());
        assert_eq!(before, expected);
        // Without values the paths restore the defaults.
        for path in OPTIONAL {
            let after = update(&alpha, &small.id, [path], v1::Connection::default()).await.unwrap();
            assert_eq!(differences(&before, &after), [path]);
            before = after;
        }
        assert_eq!(differences(&before, &small), [""; 0]);
    }

    async fn star_replaces_all(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let before = create(&alpha, everything()).await;
        let updated = update(&alpha, "ext:con_1.A-b:c", ["*"], a_small_one("put")).await.unwrap();
        let expected = v1::Connection {
            id: before.id.clone(),
            name: "put".to_owned(),
            connector: before.connector.clone(),
            r#type: v1::ConnectionType::Oauth2.into(),
            client_secrets: before.client_secrets.clone(),
            supported_content_type: v1::TokenContentType::Json.into(),
            user_id_expression: Some("{sub}".to_owned()),
            trust_identity_user_id: Some(false),
            scope: Some("profile email openid".to_owned()),
            require_business_account: Some(false),
            linking: v1::LinkingType::Disabled.into(),
            client_authentication: v1::ClientAuthentication::ClientSecretBasic.into(),
            iss_parameter_supported: Some(false),
            grant_type: v1::ConnectionGrantType::AuthorizationCode.into(),
            active: Some(true),
            create_time: before.create_time,
            update_time: updated.update_time,
            etag: updated.etag.clone(),
            ..Default::default()
        };
        assert_eq!(updated, expected);
        assert_eq!(get(&alpha, &before.id).await.unwrap(), expected);
        let refused = update(&alpha, &before.id, ["*"], v1::Connection::default()).await.map(Response::new);
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connection.name"]);
        // A resource can be put back as it was read, without its etag.
        let given = v1::Connection { etag: String::new(), ..before.clone() };
        let again = update(&alpha, &before.id, ["*"], given).await.unwrap();
        assert_eq!(differences(&before, &again), [""; 0]);
    }

    async fn without_a_mask_present_fields_change(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let before = create(&alpha, everything()).await;
        let given = v1::Connection {
            active: Some(true),
            scope: Some(String::new()),
            r#type: v1::ConnectionType::Password.into(),
            ..Default::default()
        };
        let request = v1::UpdateConnectionRequest {
            reference: before.id.clone(),
            connection: Some(given),
            ..Default::default()
        };
        let updated = alpha.connections().update_connection(request).await.unwrap().into_inner().connection.unwrap();
        assert_eq!(differences(&before, &updated), ["type", "scope", "active"]);
        assert_eq!((updated.r#type(), updated.scope.as_deref()), (v1::ConnectionType::Password, Some("")));
        assert_eq!(get(&alpha, &before.id).await.unwrap(), updated);
    }

    async fn wrong_masks_are_refused_and_output_only_paths_do_nothing(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let before = create(&alpha, everything()).await;
        let given = || v1::Connection { id: before.id.clone(), etag: before.etag.clone(), ..a_small_one("new") };
        for path in ["", "names", "connection.name", "client_secrets.value", "tags.team.a", "r#type", "default_scope"] {
            let refused = update(&alpha, &before.id, ["name", path], given()).await.map(Response::new);
            let refused = expect_status(refused, Code::InvalidArgument, "FIELD_INVALID");
            refused.expect_fields(&["update_mask"]);
            assert!(refused.description("update_mask").contains(&format!("\"{path}\"")), "{refused:?}");
        }
        let refused = update(&alpha, &before.id, ["*", "name"], given()).await.map(Response::new);
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["update_mask"]);
        assert_eq!(get(&alpha, &before.id).await.unwrap(), before);
        let paths = ["id", "create_time", "update_time", "etag"];
        let updated = update(&alpha, &before.id, paths, given()).await.unwrap();
        assert_eq!(differences(&before, &updated), [""; 0]);
    }

    async fn a_connection_stays_on_its_connector(server) {
        let (alpha, beta) = (server.client("alpha"), server.client("beta"));
        let connector = connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        connector::create(&alpha, fixture::an_oauth2_connector("Outlook")).await;
        let foreign = connector::create(&beta, fixture::an_oauth2_connector("Yahoo")).await;
        let before = create(&alpha, a_small_one("mine")).await;
        let on = |connector: &str| v1::Connection { connector: connector.to_owned(), ..a_small_one("mine") };
        // The same connector may be named, in any form.
        for same in [connector.id.clone(), "name:GMAIL".to_owned()] {
            for paths in [["connector"], ["*"]] {
                update(&alpha, &before.id, paths, on(&same)).await.unwrap();
            }
        }
        for paths in [["connector"], ["*"]] {
            let refused = update(&alpha, &before.id, paths, on("name:Outlook")).await.map(Response::new);
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["connection.connector"]);
            for absent in [&*foreign.id, "name:Yahoo"] {
                let refused = update(&alpha, &before.id, paths, on(absent)).await.map(Response::new);
                let refused = expect_status(refused, Code::NotFound, "CONNECTOR_NOT_FOUND");
                assert_eq!(refused.metadata("reference"), absent);
            }
            let refused = update(&alpha, &before.id, paths, on("Outlook")).await.map(Response::new);
            expect_status(refused, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["connection.connector"]);
        }
        assert_eq!(get(&alpha, &before.id).await.unwrap().connector, connector.id);
    }
}

/// The paths of the fields in which two connections differ, except those that change with every update.
fn differences(one: &v1::Connection, other: &v1::Connection) -> Vec<&'static str> {
    let debug = |connection: &v1::Connection| {
        let v1::Connection {
            id,
            name,
            external_id,
            connector,
            r#type,
            authentication_url,
            token_url,
            issuer_url,
            provider_certificate,
            client_id,
            client_secrets,
            user_data_location,
            provider_tenant_id,
            developer_account_id,
            supported_content_type,
            oidc_user_endpoint_url,
            user_id_expression,
            trust_identity_user_id,
            scope,
            parameters,
            require_business_account,
            linking,
            active,
            tags,
            redirect_uris,
            revocation_url,
            jwks_url,
            device_authorization_url,
            client_authentication,
            client_key,
            token_parameters,
            refresh_parameters,
            refresh_token_grace_period,
            return_uris,
            iss_parameter_supported,
            grant_type,
            create_time,
            update_time: _,
            etag: _,
        } = connection.clone();
        let text = |value: &dyn std::fmt::Debug| format!("{value:?}");
        [
            ("id", text(&id)),
            ("name", text(&name)),
            ("external_id", text(&external_id)),
            ("connector", text(&connector)),
            ("type", text(&r#type)),
            ("authentication_url", text(&authentication_url)),
            ("token_url", text(&token_url)),
            ("issuer_url", text(&issuer_url)),
            ("provider_certificate", text(&provider_certificate)),
            ("client_id", text(&client_id)),
            ("client_secrets", text(&client_secrets)),
            ("user_data_location", text(&user_data_location)),
            ("provider_tenant_id", text(&provider_tenant_id)),
            ("developer_account_id", text(&developer_account_id)),
            ("supported_content_type", text(&supported_content_type)),
            ("oidc_user_endpoint_url", text(&oidc_user_endpoint_url)),
            ("user_id_expression", text(&user_id_expression)),
            ("trust_identity_user_id", text(&trust_identity_user_id)),
            ("scope", text(&scope)),
            ("parameters", text(&parameters)),
            ("require_business_account", text(&require_business_account)),
            ("linking", text(&linking)),
            ("active", text(&active)),
            ("tags", text(&tags)),
            ("redirect_uris", text(&redirect_uris)),
            ("revocation_url", text(&revocation_url)),
            ("jwks_url", text(&jwks_url)),
            ("device_authorization_url", text(&device_authorization_url)),
            ("client_authentication", text(&client_authentication)),
            ("client_key", text(&client_key)),
            ("token_parameters", text(&token_parameters)),
            ("refresh_parameters", text(&refresh_parameters)),
            ("refresh_token_grace_period", text(&refresh_token_grace_period)),
            ("return_uris", text(&return_uris)),
            ("iss_parameter_supported", text(&iss_parameter_supported)),
            ("grant_type", text(&grant_type)),
            ("create_time", text(&create_time)),
        ]
    };
    let pairs = debug(one).into_iter().zip(debug(other));
    pairs.filter(|((_, one), (_, other))| one != other).map(|((path, _), _)| path).collect()
}
