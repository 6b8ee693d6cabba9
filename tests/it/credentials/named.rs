//! The parents of a credential may be named in an update but not changed. Metadata that names a credential counts in
//! every method.

use jackfield_api::v1;
use jackfield_testkit::{expect_status, fixture, on_both};
use tonic::{Code, Request};

use crate::steps;

type Change = fn(&mut v1::Credential);

/// Names one credential in the message and another in the metadata.
fn two<T>(message: T) -> Request<T> {
    with(message, &["ext:other"])
}

fn with<T>(message: T, names: &[&str]) -> Request<T> {
    let mut request = Request::new(message);
    for name in names {
        request.metadata_mut().append("x-jackfield-credential", name.parse().unwrap());
    }
    request
}

/// A mask of these paths; without paths, none.
fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    let paths = paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    (!paths.is_empty()).then_some(prost_types::FieldMask { paths })
}

on_both! {
    async fn the_parents_of_a_credential_may_be_named_but_not_changed(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        steps::linked(&client, "ada", "Drive").await;
        let credential = steps::api_key(&client, &link, "key").await;
        let update = |credential: v1::Credential, paths: &[&str]| {
            let update_mask = mask(paths);
            let reference = credential.id.clone();
            let request =
                v1::UpdateCredentialRequest { reference, credential: Some(credential), update_mask, ..Default::default() };
            let client = client.clone();
            async move { client.credentials().update_credential(request).await }
        };
        let changes: [(&str, Change); 6] = [
            ("user_id", |it| it.user_id = "eve".to_owned()),
            ("connector", |it| it.connector = "name:Drive".to_owned()),
            ("connector", |it| it.connector = "name:ghost".to_owned()),
            ("connector", |it| it.connector = uuid::Uuid::now_v7().to_string()),
            ("connection", |it| it.connection = "ext:ghost".to_owned()),
            ("connection", |it| it.connection = uuid::Uuid::now_v7().to_string()),
        ];
        for (path, change) in changes {
            let mut other = credential.clone();
            change(&mut other);
            for paths in [&[path][..], &[], &["*"]] {
                let refusal = expect_status(update(other.clone(), paths).await, Code::InvalidArgument, "FIELD_INVALID");
                assert_eq!(refusal.fields(), [format!("credential.{path}")], "{paths:?}");
            }
            // Fields outside the mask are ignored.
            assert_eq!(update(other, &["labels"]).await.unwrap().into_inner().credential.unwrap(), credential);
        }
        // A credential may be sent back as it was read, with the connector by name in any letter case.
        let named = v1::Credential { connector: "name:gmail".to_owned(), ..credential.clone() };
        for same in [credential.clone(), named] {
            for paths in [&["user_id", "connector", "connection"][..], &[], &["*"]] {
                assert_eq!(update(same.clone(), paths).await.unwrap().into_inner().credential.unwrap(), credential);
            }
        }

        let configuration = steps::configuration(&client, fixture::a_configuration(&credential.id, "Team A")).await;
        let other = steps::api_key(&client, &link, "other").await;
        for wrong in [other.id.as_str(), "ext:ghost"] {
            for paths in [&["credential"][..], &[], &["*"]] {
                let changed = v1::Configuration { credential: wrong.to_owned(), ..configuration.clone() };
                let request = v1::UpdateConfigurationRequest {
                    reference: configuration.id.clone(),
                    configuration: Some(changed),
                    update_mask: mask(paths),
                    ..Default::default()
                };
                let refused = client.configurations().update_configuration(request).await;
                let refusal = expect_status(refused, Code::InvalidArgument, "FIELD_INVALID");
                assert_eq!(refusal.fields(), ["configuration.credential"], "{wrong} {paths:?}");
            }
        }
    }

    async fn metadata_and_message_must_agree_in_every_method(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let credential = steps::api_key(&client, &link, "key").await;
        let other = steps::api_key(&client, &link, "other").await;
        let reference = other.id.clone();
        let credential_of = v1::Credential { external_id: Some("other".to_owned()), ..Default::default() };
        let request =
            v1::UpdateCredentialRequest { reference, credential: Some(credential_of), ..Default::default() };
        client.credentials().update_credential(request).await.unwrap();

        let reference = credential.id.clone();
        let (invalid, reason) = (Code::InvalidArgument, "REFERENCE_INVALID");
        let mut credentials = client.credentials();
        let mut configurations = client.configurations();
        let get = v1::GetCredentialRequest { reference: reference.clone() };
        expect_status(credentials.get_credential(two(get)).await, invalid, reason);
        let update = v1::UpdateCredentialRequest {
            reference: reference.clone(),
            credential: Some(v1::Credential { provider_account_id: Some("changed".to_owned()), ..Default::default() }),
            ..Default::default()
        };
        expect_status(credentials.update_credential(two(update)).await, invalid, reason);
        let delete = v1::DeleteCredentialRequest { reference: reference.clone(), ..Default::default() };
        expect_status(credentials.delete_credential(two(delete)).await, invalid, reason);
        let reveal = v1::RevealCredentialRequest { reference: reference.clone(), purpose: "a test of names".to_owned() };
        expect_status(credentials.reveal_credential(two(reveal)).await, invalid, reason);
        let create = v1::CreateConfigurationRequest {
            configuration: Some(fixture::a_configuration(&reference, "Team A")),
            ..Default::default()
        };
        expect_status(configurations.create_configuration(two(create)).await, invalid, reason);
        let list = v1::ListConfigurationsRequest { credential: reference.clone(), ..Default::default() };
        expect_status(configurations.list_configurations(two(list)).await, invalid, reason);
        // Twice, with different values.
        let get = v1::GetCredentialRequest::default();
        let refused = credentials.get_credential(with(get, &["ext:other", &reference])).await;
        assert_eq!(expect_status(refused, invalid, reason).fields(), ["reference"]);

        // Metadata alone is enough, and nothing was changed above.
        let get = with(v1::GetCredentialRequest::default(), &[&reference, &reference]);
        assert_eq!(credentials.get_credential(get).await.unwrap().into_inner().credential.unwrap(), credential);
        let create = v1::CreateConfigurationRequest {
            configuration: Some(fixture::a_configuration("", "Team A")),
            ..Default::default()
        };
        let created = configurations.create_configuration(with(create, &["ext:other"])).await.unwrap().into_inner();
        assert_eq!(created.configuration.unwrap().credential, other.id);
    }
}
