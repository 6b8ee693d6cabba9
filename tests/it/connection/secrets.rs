//! Client secrets: kept, replaced, ordered and cleared by id, and never returned.

use jackfield_api::v1;
use jackfield_domain::Resource;
use jackfield_testkit::{Canary, TestServer, expect_status, fixture, on_both};
use prost::Message;
use prost_types::Timestamp;
use tonic::{Code, Response};

use super::{a_small_one, create, get, list, try_create, update};
use crate::connector;

on_both! {
    async fn an_absent_list_keeps_the_secrets_whatever_the_mask(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let stored = create(&alpha, with_secrets(&[("a", "first"), ("b", "second")])).await;
        let before = sealed(&server, &stored.id, &["a", "b"]).await;
        assert!(before.iter().all(Option::is_some));
        let masks: [&[&str]; 4] = [&[], &["*"], &["name"], &["scope", "parameters", "etag"]];
        for paths in masks {
            let request = v1::UpdateConnectionRequest {
                reference: stored.id.clone(),
                connection: Some(a_small_one("renamed")),
                update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|&path| path.into()).collect() }),
                ..Default::default()
            };
            let updated = alpha.connections().update_connection(request).await.unwrap().into_inner();
            assert_eq!(updated.connection.unwrap().client_secrets, stored.client_secrets, "{paths:?}");
            assert_eq!(sealed(&server, &stored.id, &["a", "b"]).await, before, "{paths:?}");
        }
        // Secrets outside the mask are ignored.
        let updated = update(&alpha, &stored.id, ["name"], with_secrets(&[("c", "third")])).await.unwrap();
        assert_eq!(updated.client_secrets, stored.client_secrets);
        assert_eq!(sealed(&server, &stored.id, &["a", "b", "c"]).await, [&before[..], &[None]].concat());
    }

    async fn a_list_replaces_the_stored_one_and_keeps_values_by_id(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let ids = ["a", "b", "c", ""];
        let stored = create(&alpha, with_secrets(&[("a", "1"), ("b", "2"), ("", "3")])).await;
        let first = stored.client_secrets[0].create_time;
        assert_eq!(shown(&stored), [("a", first), ("b", first), ("", first)]);
        let before = sealed(&server, &stored.id, &ids).await;

        // Another order, one secret kept, one with a new value, one new, one removed.
        let given = with_secrets(&[("c", "4"), ("", ""), ("a", "5")]);
        let updated = update(&alpha, &stored.id, ["client_secrets"], given).await.unwrap();
        let second = updated.update_time;
        assert!(second.map(in_order) > first.map(in_order));
        assert_eq!(shown(&updated), [("c", second), ("", first), ("a", second)]);
        assert_eq!(get(&alpha, &stored.id).await.unwrap(), updated);
        let after = sealed(&server, &stored.id, &ids).await;
        assert!(after[0].is_some() && after[0] != before[0], "a has a new value");
        assert_eq!(after[1], None, "b is gone");
        assert!(after[2].is_some(), "c is new");
        assert_eq!(after[3], before[3], "the one without id is kept");

        // Only kept secrets, with every mask that covers them: order and number change, values do not.
        let masks: [&[&str]; 3] = [&[], &["*"], &["client_secrets"]];
        for (paths, wanted) in masks.into_iter().zip([["a", "c", ""], ["", "c", "a"], ["c", "a", ""]]) {
            let request = v1::UpdateConnectionRequest {
                reference: stored.id.clone(),
                connection: Some(with_secrets(&wanted.map(|id| (id, "")))),
                update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|&path| path.into()).collect() }),
                ..Default::default()
            };
            let updated = alpha.connections().update_connection(request).await.unwrap().into_inner();
            let found = updated.connection.unwrap();
            let found: Vec<&str> = found.client_secrets.iter().map(|secret| &*secret.secret_id).collect();
            assert_eq!(found, wanted, "{paths:?}");
            assert_eq!(sealed(&server, &stored.id, &ids).await, after, "{paths:?}");
        }

        // Removed secrets cannot be kept any more, and ids are compared exactly.
        for (given, index) in [(with_secrets(&[("a", ""), ("b", "")]), 1), (with_secrets(&[("A", "")]), 0)] {
            let refused = update(&alpha, &stored.id, ["client_secrets"], given).await.map(Response::new);
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID")
                .expect_fields(&[&format!("connection.client_secrets[{index}].value")]);
        }
        assert_eq!(sealed(&server, &stored.id, &ids).await, after);
    }

    async fn clearing_all_requires_the_path(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let stored = create(&alpha, with_secrets(&[("a", "1"), ("", "2")])).await;
        let updated = update(&alpha, &stored.id, ["client_secrets"], v1::Connection::default()).await.unwrap();
        assert_eq!(updated.client_secrets, []);
        assert_eq!(sealed(&server, &stored.id, &["a", ""]).await, [None, None]);
        assert_eq!(get(&alpha, &stored.id).await.unwrap(), updated);
        update(&alpha, &stored.id, ["client_secrets"], v1::Connection::default()).await.unwrap();
        let updated = update(&alpha, &stored.id, [], with_secrets(&[("a", "3")])).await.unwrap();
        assert_eq!(shown(&updated), [("a", updated.update_time)]);
    }

    async fn placeholders_are_refused_as_secrets(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let stored = create(&alpha, with_secrets(&[("a", "1"), ("b", "2")])).await;
        let before = sealed(&server, &stored.id, &["a", "b"]).await;
        for placeholder in ["****", "REDACTED", "[redacted]", "\u{25cf}\u{25cf}\u{25cf}\u{25cf}", "xxxx"] {
            let given = with_secrets(&[("a", "new"), ("b", placeholder)]);
            let field = "connection.client_secrets[1].value";
            let refused = try_create(&alpha, given.clone()).await;
            expect_status(refused, Code::InvalidArgument, "PLACEHOLDER_SECRET").expect_fields(&[field]);
            let refused = update(&alpha, &stored.id, ["client_secrets"], given).await.map(Response::new);
            expect_status(refused, Code::InvalidArgument, "PLACEHOLDER_SECRET").expect_fields(&[field]);
        }
        assert_eq!(sealed(&server, &stored.id, &["a", "b"]).await, before);
        assert_eq!(list(&alpha).await, [stored]);
    }

    async fn no_answer_contains_a_secret(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let canary = Canary::new("a client secret");
        let given = with_secrets(&[("a", &*canary.secret)]);
        let request = v1::CreateConnectionRequest {
            connection: Some(given.clone()),
            request_id: uuid::Uuid::now_v7().to_string(),
            ..Default::default()
        };
        let created = alpha.connections().create_connection(request.clone()).await.unwrap().into_inner();
        let again = alpha.connections().create_connection(request).await.unwrap().into_inner();
        assert_eq!(created, again);
        let id = created.connection.as_ref().unwrap().id.clone();
        let updated = update(&alpha, &id, ["*"], given.clone()).await.unwrap();
        let taken = try_create(&alpha, given).await.unwrap_err();
        let long = canary.secret.repeat(200);
        let invalid = update(&alpha, &id, ["*"], with_secrets(&[("a", &*long)])).await.unwrap_err();
        assert_eq!((taken.code(), invalid.code()), (Code::AlreadyExists, Code::InvalidArgument));
        for (place, bytes) in [
            ("create", created.encode_to_vec()),
            ("update", updated.encode_to_vec()),
            ("get", get(&alpha, &id).await.unwrap().encode_to_vec()),
            ("list", list(&alpha).await[0].encode_to_vec()),
            ("an error", format!("{taken:?} {invalid:?}").into_bytes()),
            ("the details of an error", [taken.details(), invalid.details()].concat()),
        ] {
            canary.assert_not_in(place, &bytes);
        }
    }
}

fn with_secrets(secrets: &[(&str, &str)]) -> v1::Connection {
    let secret = |(secret_id, value): &(&str, &str)| v1::ClientSecret {
        secret_id: (*secret_id).to_owned(),
        value: (*value).to_owned(),
        create_time: None,
    };
    v1::Connection { client_secrets: secrets.iter().map(secret).collect(), ..a_small_one("with secrets") }
}

/// The information about a connection's secrets: their ids and update times.
fn shown(connection: &v1::Connection) -> Vec<(&str, Option<Timestamp>)> {
    let secrets = connection.client_secrets.iter();
    secrets
        .inspect(|secret| assert_eq!(secret.value, ""))
        .map(|secret| (&*secret.secret_id, secret.create_time))
        .collect()
}

fn in_order(time: Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

/// The sealed form of these secrets.
async fn sealed(server: &TestServer, id: &str, secret_ids: &[&str]) -> Vec<Option<Vec<u8>>> {
    let mut sealed = Vec::new();
    for secret_id in secret_ids {
        let name = format!("client_secret/{secret_id}");
        sealed.push(connector::sealed(server, Resource::Connection, id, &name).await);
    }
    sealed
}
