//! Concurrent calls: each gets its own result, and nothing is left half done.

use std::collections::BTreeSet;

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_testkit::{expect_status, fixture, on_both};
use tonic::Code;

use super::{created, found};
use crate::steps;

on_both! {
    /// A race between two creates, each of which could otherwise get the other's object.
    async fn concurrent_creates_return_their_own_objects(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let credential = steps::api_key(&client, &link, "key").await.id;
        let name = |number: usize| format!("Team {number}");
        let create = |number: usize| {
            let (client, credential) = (client.clone(), credential.clone());
            async move {
                let meta = Some(fixture::object([("number", &*number.to_string())]));
                let given = v1::Configuration { meta, ..fixture::a_configuration(&credential, &name(number)) };
                (steps::configuration(&client, given.clone()).await, given)
            }
        };
        let all = join_all((0..24).map(create)).await;
        for (configuration, given) in &all {
            assert_eq!((&configuration.external_id, &configuration.meta), (&given.external_id, &given.meta));
            assert_eq!(found(&client, &configuration.id, &credential).await, *configuration);
        }
        assert_eq!(all.iter().map(|(it, _)| &it.id).collect::<BTreeSet<_>>().len(), all.len());

        let same = join_all((0..12).map(|_| created(&client, fixture::a_configuration(&credential, "one for all")))).await;
        assert_eq!(same.iter().filter(|result| result.is_ok()).count(), 1);
        for result in same.into_iter().filter(Result::is_err) {
            expect_status(result, Code::AlreadyExists, "EXTERNAL_ID_TAKEN");
        }
    }

    /// Late calls are refused, and no configuration is left without its credential.
    async fn creates_race_with_the_deletion_of_the_credential(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        for round in 0..5 {
            let credential = steps::api_key(&client, &link, "key").await.id;
            let creates = join_all((0..8).map(|number| {
                created(&client, fixture::a_configuration(&credential, &format!("Team {number}")))
            }));
            let remove = async {
                let reference = credential.clone();
                let request = v1::DeleteCredentialRequest { reference, ..Default::default() };
                client.credentials().delete_credential(request).await.unwrap().into_inner()
            };
            let (created, deleted) = tokio::join!(creates, remove);
            let made = created.iter().filter(|result| result.is_ok()).count();
            assert_eq!(deleted.configurations_deleted, i64::try_from(made).unwrap() + 1, "round {round}");
            for result in created.into_iter().filter(Result::is_err) {
                expect_status(result, Code::NotFound, "CREDENTIAL_NOT_FOUND");
            }
            assert_eq!(server.sql("select count(*) from configuration").await, ["0"]);
        }
    }
}
