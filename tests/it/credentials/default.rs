//! The default mark: exactly one credential of a link has it, whatever happens.

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_testkit::{Client, expect_status, fixture, on_both};
use tonic::Code;
use uuid::Uuid;

use super::{create, created, deleted, listed};
use crate::steps;

fn facts(external_id: &str, is_default: Option<bool>) -> v1::Credential {
    v1::Credential {
        external_id: Some(external_id.to_owned()),
        is_default,
        ..fixture::a_credential("ada", "name:Gmail")
    }
}

async fn store(client: &Client, external_id: &str, is_default: Option<bool>) -> v1::Credential {
    steps::credential(client, facts(external_id, is_default), fixture::api_key_material(external_id)).await
}

async fn mark(client: &Client, external_id: &str, is_default: Option<bool>) -> v1::UpdateCredentialRequest {
    let credential = steps::credential_now(client, &format!("ext:{external_id}")).await;
    v1::UpdateCredentialRequest {
        reference: credential.id,
        credential: Some(v1::Credential { is_default, ..Default::default() }),
        update_mask: fixture::mask(["is_default"]),
        ..Default::default()
    }
}

/// The external ids of the credentials with the mark.
async fn marked(client: &Client) -> Vec<String> {
    let all = listed(client, v1::ListCredentialsRequest::default()).await;
    let marked = all
        .into_iter()
        .filter(|it| it.is_default == Some(true))
        .map(|it| it.external_id().to_owned())
        .collect::<Vec<_>>();
    let request = v1::ListCredentialsRequest { filter: "is_default = true".to_owned(), ..Default::default() };
    let found = listed(client, request).await.into_iter().map(|it| it.external_id().to_owned()).collect::<Vec<_>>();
    assert_eq!(found, marked);
    marked
}

on_both! {
    async fn the_first_credential_has_it_and_it_can_only_be_moved(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        let result = created(&client, create(facts("one", Some(false)), fixture::api_key_material("key"))).await;
        expect_status(result, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["credential.is_default"]);
        let one = store(&client, "one", None).await;
        assert_eq!(one.is_default, Some(true));
        assert_eq!(store(&client, "two", None).await.is_default, Some(false));
        assert_eq!(store(&client, "three", Some(false)).await.is_default, Some(false));
        assert_eq!(steps::credential_now(&client, "ext:one").await, one, "nothing moved, nothing changed");

        // A new credential takes it, which is a change of the one that loses it.
        assert_eq!(store(&client, "four", Some(true)).await.is_default, Some(true));
        assert_eq!(marked(&client).await, ["four"]);
        let lost = steps::credential_now(&client, "ext:one").await;
        assert_ne!(lost.etag, one.etag);
        assert_eq!(lost.version, one.version, "its material did not change");

        let update = |request: v1::UpdateCredentialRequest| async { client.credentials().update_credential(request).await };
        let moved = update(mark(&client, "two", Some(true)).await).await.unwrap().into_inner().credential.unwrap();
        assert_eq!(moved.is_default, Some(true));
        assert_eq!(marked(&client).await, ["two"]);
        let refusal = expect_status(
            update(mark(&client, "two", Some(false)).await).await,
            Code::InvalidArgument,
            "FIELD_INVALID",
        );
        refusal.expect_fields(&["credential.is_default"]);
        // Setting it to its current value is not a change; absent means "keep it", even with "*".
        for (external_id, is_default) in [("two", Some(true)), ("one", Some(false)), ("two", None), ("one", None)] {
            let request = mark(&client, external_id, is_default).await;
            update(request.clone()).await.unwrap();
            let credential = Some(facts(external_id, is_default));
            update(v1::UpdateCredentialRequest { credential, update_mask: fixture::mask(["*"]), ..request }).await.unwrap();
            assert_eq!(marked(&client).await, ["two"], "{external_id} {is_default:?}");
        }
        // `validate_only` does not move it.
        let tried = v1::UpdateCredentialRequest { validate_only: true, ..mark(&client, "one", Some(true)).await };
        assert_eq!(update(tried).await.unwrap().into_inner().credential.unwrap().is_default, Some(true));
        assert_eq!(marked(&client).await, ["two"]);
    }

    async fn the_newest_inherits_it(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        store(&client, "one", None).await;
        store(&client, "two", None).await;
        store(&client, "three", None).await;
        let four = store(&client, "four", None).await;
        steps::link(&client, "grace", "name:Gmail").await;
        steps::credential(&client, fixture::a_credential("grace", "name:Gmail"), fixture::api_key_material("key")).await;

        deleted(&client, "ext:two").await;
        assert_eq!(marked(&client).await, ["one", ""], "it did not have the mark");
        deleted(&client, "ext:one").await;
        assert_eq!(marked(&client).await, ["four", ""]);
        assert_ne!(steps::credential_now(&client, "ext:four").await.etag, four.etag);
        deleted(&client, "ext:four").await;
        assert_eq!(marked(&client).await, ["three", ""]);
        deleted(&client, "ext:three").await;
        assert_eq!(marked(&client).await, [""]);
        assert_eq!(store(&client, "five", None).await.is_default, Some(true));
    }

    async fn the_heir_does_not_depend_on_ids(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        store(&client, "one", None).await;
        let id = Uuid::max().to_string();
        let request = v1::CreateCredentialRequest { id, ..create(facts("two", None), fixture::api_key_material("key")) };
        created(&client, request).await.unwrap();
        store(&client, "three", None).await;
        deleted(&client, "ext:one").await;
        assert_eq!(marked(&client).await, ["three"]);
    }

    async fn one_has_it_after_many_concurrent_changes(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        let names: Vec<String> = (0..12).map(|number| format!("c{number}")).collect();
        join_all(names.iter().map(|name| store(&client, name, Some(true)))).await;
        assert_eq!(marked(&client).await.len(), 1);
        join_all(names.iter().enumerate().map(|(index, name)| {
            let client = &client;
            async move {
                if index % 3 == 0 {
                    deleted(client, &format!("ext:{name}")).await;
                } else {
                    let request = mark(client, name, Some(true)).await;
                    client.credentials().update_credential(request).await.unwrap();
                }
            }
        }))
        .await;
        assert_eq!(marked(&client).await.len(), 1);
        assert_eq!(listed(&client, v1::ListCredentialsRequest::default()).await.len(), 8);
    }
}
