//! The ways to name a configuration: by itself, within its credential, as the default one, by metadata.

use jackfield_api::v1;
use jackfield_testkit::{expect_status, fixture, on_both};
use tonic::{Code, Request};
use uuid::Uuid;

use super::{found, get, refuse_name, update};
use crate::steps;

fn with_metadata<T>(message: T, entries: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (key, value) in entries {
        request.metadata_mut().insert(*key, value.parse().unwrap());
    }
    request
}

on_both! {
    async fn a_configuration_is_named_with_its_credential(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let one = steps::api_key(&client, &link, "key").await;
        let other = steps::api_key(&client, &link, "key").await;
        let team = steps::configuration(&client, fixture::a_configuration(&one.id, "Team A")).await;
        let nothing = Uuid::now_v7().to_string();
        let invalid = Code::InvalidArgument;

        for refusal in refuse_name(&client, "ext:Team A", "", invalid, "REFERENCE_INVALID").await {
            assert_eq!(refusal.fields(), ["credential"]);
        }
        let [got, updated, destroyed] = refuse_name(&client, "", "", invalid, "REFERENCE_INVALID").await;
        assert_eq!(got.fields(), ["reference"], "a credential would name the default one");
        assert_eq!(updated.fields(), ["reference"]);
        assert_eq!(destroyed.fields(), ["reference", "credential"]);
        for reference in ["Team A", "name:Team A", " ", "ext:", "ext: "] {
            for refusal in refuse_name(&client, reference, &one.id, invalid, "REFERENCE_INVALID").await {
                assert_eq!(refusal.fields(), ["reference"], "{reference:?}");
            }
        }
        for credential in ["work", " ", "name:Gmail"] {
            for refusal in refuse_name(&client, &team.id, credential, invalid, "REFERENCE_INVALID").await {
                assert_eq!(refusal.fields(), ["credential"], "{credential:?}");
            }
        }
        for (reference, credential) in [
            (&*team.id, &*other.id),
            ("ext:Team A", &other.id),
            (&one.default_configuration, &other.id),
            (&nothing, &one.id),
        ] {
            refuse_name(&client, reference, credential, Code::NotFound, "CONFIGURATION_NOT_FOUND").await;
        }
        for credential in [&*nothing, "ext:none"] {
            refuse_name(&client, &team.id, credential, Code::NotFound, "CREDENTIAL_NOT_FOUND").await;
        }
        // Another tenant does not see it, with or without the credential.
        let theirs = server.client("beta");
        refuse_name(&theirs, &team.id, &one.id, Code::NotFound, "CREDENTIAL_NOT_FOUND").await;
        let result = theirs.configurations().get_configuration(get(&team.id, "")).await;
        expect_status(result, Code::NotFound, "CONFIGURATION_NOT_FOUND");
        assert_eq!(found(&client, &team.id, "").await, team, "none of these calls changed anything");
    }

    async fn metadata_can_name_it(server) {
        const CONFIGURATION: &str = "x-jackfield-configuration";
        const CREDENTIAL: &str = "x-jackfield-credential";
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let facts = v1::Credential { external_id: Some("work".to_owned()), ..fixture::a_credential("ada", &link.connector) };
        let credential = steps::credential(&client, facts, fixture::api_key_material("key")).await;
        let team = steps::configuration(&client, fixture::a_configuration(&credential.id, "Team A")).await;
        let both = [(CONFIGURATION, "ext:Team A"), (CREDENTIAL, "ext:work")];
        let good = [
            with_metadata(get("", ""), &both),
            with_metadata(get("ext:Team A", ""), &both),
            with_metadata(get("ext:Team A", "ext:work"), &both),
            with_metadata(get("", "ext:work"), &both[..1]),
            with_metadata(get("ext:Team A", ""), &both[1..]),
            with_metadata(get("", ""), &[(CONFIGURATION, &team.id)]),
        ];
        for request in good {
            let shown = format!("{request:?}");
            let answer = client.configurations().get_configuration(request).await.unwrap().into_inner();
            assert_eq!(answer.configuration.as_ref(), Some(&team), "{shown}");
        }
        let default = client.configurations().get_configuration(with_metadata(get("", ""), &both[1..])).await.unwrap();
        assert!(default.into_inner().configuration.unwrap().is_default);
        let change = v1::Configuration { meta: Some(fixture::object([("a", "b")])), ..Default::default() };
        // It works for updates as well as for reads.
        let result = client.configurations().update_configuration(with_metadata(update("", "", change.clone()), &both)).await;
        let after = result.unwrap().into_inner().configuration.unwrap();
        assert_eq!((after.id.as_str(), &after.meta), (&*team.id, &change.meta));
        let request = with_metadata(update(&team.id, "", change.clone()), &[(CONFIGURATION, "ext:Team B")]);
        let result = client.configurations().update_configuration(request).await;
        expect_status(result, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["reference"]);

        let different = [
            (get("ext:Team B", ""), &both[..], &["reference"][..]),
            (get("", "ext:home"), &both, &["credential"]),
            (get(&team.id, &credential.id), &both, &["reference", "credential"]),
            (get("", ""), &[(CONFIGURATION, "Team A"), (CREDENTIAL, "work")], &["reference", "credential"]),
        ];
        for (request, metadata, fields) in different {
            let result = client.configurations().get_configuration(with_metadata(request, metadata)).await;
            expect_status(result, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(fields);
        }
    }
}
