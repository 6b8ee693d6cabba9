//! Secrets of connectors: written, kept, replaced and cleared, and never returned.

use jackfield_api::v1;
use jackfield_api::v1::connector::Kind;
use jackfield_domain::Resource;
use jackfield_testkit::{Canary, TestServer, expect_status, fixture, on_both};
use prost::Message;
use tonic::{Code, Response};

use super::{create, get, list, password_set, sealed, try_create, update};

const PASSWORD: &str = "generic.http_authentication_password";

/// Placeholders that user interfaces show in place of a secret.
const PLACEHOLDERS: [&str; 8] = [
    "****",
    "********",
    "REDACTED",
    "[redacted]",
    "<masked>",
    "\u{2022}\u{2022}\u{2022}\u{2022}",
    "xxxxx",
    "**HIDDEN**",
];

on_both! {
    async fn an_absent_secret_is_kept_whatever_the_mask(server) {
        let alpha = server.client("alpha");
        let stored = create(&alpha, with_secrets("first", "first")).await;
        let before = both_sealed(&server, &stored.id).await;
        assert!(before.0.is_some() && before.1.is_some());
        let masks: [&[&str]; 6] = [
            &[],
            &["*"],
            &["generic"],
            &["generic.authentication_url", "headers"],
            &["name", "generic.http_authentication_password_set", "secret_header_names"],
            &["generic", "description", "data"],
        ];
        for paths in masks {
            let request = v1::UpdateConnectorRequest {
                reference: stored.id.clone(),
                connector: Some(fixture::a_connector("Gmail")),
                update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|&path| path.into()).collect() }),
                ..Default::default()
            };
            let updated = alpha.connectors().update_connector(request).await.unwrap().into_inner().connector.unwrap();
            assert!(password_set(&updated), "{paths:?}");
            assert_eq!(updated.secret_header_names, ["X-Token"], "{paths:?}");
            assert_eq!(both_sealed(&server, &stored.id).await, before, "{paths:?}");
        }
        // A secret outside the mask is ignored.
        let updated = update(&alpha, &stored.id, ["name"], with_secrets("other", "other")).await.unwrap();
        assert!(password_set(&updated));
        assert_eq!(both_sealed(&server, &stored.id).await, before);
    }

    async fn a_given_secret_replaces_the_stored_one(server) {
        let alpha = server.client("alpha");
        let stored = create(&alpha, fixture::a_connector("Gmail")).await;
        assert!(!password_set(&stored) && stored.secret_header_names.is_empty());
        assert_eq!(both_sealed(&server, &stored.id).await, (None, None));
        let mut before = (None, None);
        let masks: [&[&str]; 4] = [&[], &["*"], &["generic", "secret_headers"], &[PASSWORD, "secret_headers"]];
        for (index, paths) in masks.into_iter().enumerate() {
            let mut given = with_secrets("next", "next");
            given.secret_headers = fixture::strings([(&*format!("X-{index}"), "next")]);
            let request = v1::UpdateConnectorRequest {
                reference: stored.id.clone(),
                connector: Some(given),
                update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|&path| path.into()).collect() }),
                ..Default::default()
            };
            let updated = alpha.connectors().update_connector(request).await.unwrap().into_inner().connector.unwrap();
            assert!(password_set(&updated), "{paths:?}");
            assert_eq!(updated.secret_header_names, [format!("X-{index}")], "the map is replaced as a whole: {paths:?}");
            let after = both_sealed(&server, &stored.id).await;
            assert!(after.0.is_some() && after.0 != before.0, "{paths:?}");
            assert!(after.1.is_some() && after.1 != before.1, "{paths:?}");
            before = after;
        }
    }

    async fn clearing_a_secret_requires_its_own_path(server) {
        let alpha = server.client("alpha");
        let stored = create(&alpha, with_secrets("first", "first")).await;
        let updated = update(&alpha, &stored.id, [PASSWORD], v1::Connector::default()).await.unwrap();
        assert!(!password_set(&updated));
        assert_eq!(updated.secret_header_names, ["X-Token"]);
        let (password, headers) = both_sealed(&server, &stored.id).await;
        assert!(password.is_none() && headers.is_some());
        let updated = update(&alpha, &stored.id, ["secret_headers"], fixture::a_connector("x")).await.unwrap();
        assert_eq!(updated.secret_header_names, Vec::<String>::new());
        assert_eq!(both_sealed(&server, &stored.id).await, (None, None));
        assert_eq!(get(&alpha, &stored.id).await.unwrap(), updated);
        // Clearing an absent secret is not an error.
        update(&alpha, &stored.id, [PASSWORD, "secret_headers"], v1::Connector::default()).await.unwrap();
    }

    async fn placeholders_are_refused_as_secrets(server) {
        let alpha = server.client("alpha");
        let stored = create(&alpha, with_secrets("first", "first")).await;
        let before = both_sealed(&server, &stored.id).await;
        for placeholder in PLACEHOLDERS {
            let mut given = fixture::a_connector("x");
            generic(&mut given).http_authentication_password = placeholder.to_owned();
            let refused = try_create(&alpha, given.clone()).await;
            let field = "connector.generic.http_authentication_password";
            expect_status(refused, Code::InvalidArgument, "PLACEHOLDER_SECRET").expect_fields(&[field]);
            let refused = update(&alpha, &stored.id, [PASSWORD], given.clone()).await.map(Response::new);
            expect_status(refused, Code::InvalidArgument, "PLACEHOLDER_SECRET").expect_fields(&[field]);
            let refused = update(&alpha, &stored.id, ["*"], given).await.map(Response::new);
            expect_status(refused, Code::InvalidArgument, "PLACEHOLDER_SECRET").expect_fields(&[field]);
        }
        for placeholder in PLACEHOLDERS.into_iter().filter(|placeholder| placeholder.is_ascii()) {
            let secret_headers = fixture::strings([("token", placeholder), ("other", "s3cret")]);
            let given = v1::Connector { secret_headers, ..fixture::a_connector("x") };
            let refused = try_create(&alpha, given.clone()).await;
            let field = "connector.secret_headers.token";
            expect_status(refused, Code::InvalidArgument, "PLACEHOLDER_SECRET").expect_fields(&[field]);
            let refused = update(&alpha, &stored.id, [], given).await.map(Response::new);
            expect_status(refused, Code::InvalidArgument, "PLACEHOLDER_SECRET").expect_fields(&[field]);
        }
        assert_eq!(both_sealed(&server, &stored.id).await, before);
        assert_eq!(list(&alpha).await, [stored]);
    }

    async fn no_answer_contains_a_secret(server) {
        let alpha = server.client("alpha");
        let (password, header) = (Canary::new("the password"), Canary::new("a secret header"));
        let given = with_secrets(&password.secret, &header.secret);
        let request = v1::CreateConnectorRequest {
            connector: Some(given.clone()),
            request_id: uuid::Uuid::now_v7().to_string(),
            ..Default::default()
        };
        let created = alpha.connectors().create_connector(request.clone()).await.unwrap().into_inner();
        let again = alpha.connectors().create_connector(request.clone()).await.unwrap().into_inner();
        let shown = v1::CreateConnectorRequest { validate_only: true, ..request };
        let refused = alpha.connectors().create_connector(shown).await.unwrap_err();
        let id = created.connector.as_ref().unwrap().id.clone();
        let updated = update(&alpha, &id, ["*"], given.clone()).await.unwrap();
        let mut wrong = given;
        generic(&mut wrong).http_authentication_password = password.secret.repeat(100);
        wrong.secret_headers = fixture::strings([("X-Token", &*header.secret.repeat(300)), ("X Y", &*header.secret)]);
        let invalid = update(&alpha, &id, ["*"], wrong).await.unwrap_err();
        assert_eq!(invalid.code(), Code::InvalidArgument);
        let answers = [
            ("create", created.encode_to_vec()),
            ("the repeat", again.encode_to_vec()),
            ("update", updated.encode_to_vec()),
            ("get", get(&alpha, &id).await.unwrap().encode_to_vec()),
            ("list", list(&alpha).await.iter().flat_map(Message::encode_to_vec).collect()),
            ("an error", format!("{refused:?}").into_bytes()),
            ("the details of an error", refused.details().to_vec()),
            ("a violation", format!("{invalid:?}").into_bytes()),
            ("the details of a violation", invalid.details().to_vec()),
        ];
        for (place, bytes) in answers {
            assert!(!bytes.is_empty(), "{place}");
            password.assert_not_in(place, &bytes);
            header.assert_not_in(place, &bytes);
        }
    }
}

fn with_secrets(password: &str, header: &str) -> v1::Connector {
    let mut connector = fixture::a_connector("with secrets");
    generic(&mut connector).http_authentication_password = password.to_owned();
    connector.secret_headers = fixture::strings([("X-Token", header)]);
    connector
}

fn generic(connector: &mut v1::Connector) -> &mut v1::GenericConnector {
    let Some(Kind::Generic(generic)) = &mut connector.kind else { panic!("not a generic connector") };
    generic
}

/// The sealed password and the sealed headers of a connector.
async fn both_sealed(server: &TestServer, id: &str) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    (
        sealed(server, Resource::Connector, id, PASSWORD).await,
        sealed(server, Resource::Connector, id, "secret_headers").await,
    )
}
