//! AuthenticateUserConnector: material that a caller gives for the link of a user.

use jackfield_api::v1;
use jackfield_api::v1::credential_material::Material;
use jackfield_testkit::{Client, expect_status, fixture, on_both};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::{found, get};
use crate::steps;

fn request(user_id: &str, material: v1::CredentialMaterial) -> v1::AuthenticateUserConnectorRequest {
    v1::AuthenticateUserConnectorRequest {
        user_id: user_id.to_owned(),
        connector: "name:Gmail".to_owned(),
        material: Some(material),
        ..Default::default()
    }
}

async fn try_authenticate(
    client: &Client,
    request: v1::AuthenticateUserConnectorRequest,
) -> Result<Response<v1::AuthenticateUserConnectorResponse>, Status> {
    client.user_connectors().authenticate_user_connector(request).await
}

/// The link and the credential of an answer, and whether the credential is new.
async fn authenticated(
    client: &Client,
    request: v1::AuthenticateUserConnectorRequest,
) -> (v1::UserConnector, v1::Credential, bool) {
    let answer = try_authenticate(client, request).await.unwrap().into_inner();
    (answer.user_connector.unwrap(), answer.credential.unwrap(), answer.created)
}

async fn material(client: &Client, credential: &v1::Credential) -> Material {
    let (reference, purpose) = (credential.id.clone(), "a look in a test".to_owned());
    let request = v1::RevealCredentialRequest { reference, purpose };
    let revealed = client.credentials().reveal_credential(request).await.unwrap().into_inner();
    revealed.material.unwrap().material.unwrap()
}

async fn credential(client: &Client, reference: &str) -> v1::Credential {
    let request = v1::GetCredentialRequest { reference: reference.to_owned() };
    client.credentials().get_credential(request).await.unwrap().into_inner().credential.unwrap()
}

on_both! {
    async fn a_blank_token_is_refused(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        for (access, refresh, field) in [("token", " ", "material.oauth2.refresh_token"), (" ", "", "material.oauth2.access_token")] {
            let answer = try_authenticate(&client, request("ada", fixture::oauth2_material(access, refresh))).await;
            let refusal = expect_status(answer, Code::InvalidArgument, "FIELD_INVALID");
            assert_eq!(refusal.fields(), [field]);
            assert_eq!(refusal.description(field), "must not be blank");
        }
    }

    async fn material_becomes_that_of_the_default_credential(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let (seen, first, created) = authenticated(&client, request("ada", fixture::api_key_material("first"))).await;
        assert!(created && first.is_default == Some(true));
        assert_eq!((seen.id.as_str(), seen.credential_count), (link.id.as_str(), 1));
        assert_eq!(seen.state(), v1::UserConnectorState::Authenticated);
        assert_eq!(found(&client, get(&link.id, "", "")).await, seen);
        assert_eq!(credential(&client, &first.id).await, first);

        let account = v1::Credential { provider_account_id: Some("1084".to_owned()), ..Default::default() };
        let update = v1::UpdateCredentialRequest {
            reference: first.id.clone(),
            credential: Some(account),
            ..Default::default()
        };
        client.credentials().update_credential(update).await.unwrap();
        let (seen, second, created) = authenticated(&client, request("ada", fixture::api_key_material("second"))).await;
        assert!(!created);
        assert_eq!(second.provider_account_id(), "", "nothing says whose it is");
        assert_eq!((second.id.as_str(), second.version, seen.credential_count), (first.id.as_str(), 2, 1));
        assert_eq!(second.default_configuration, first.default_configuration);
        let expected = Material::ApiKey(v1::ApiKeyMaterial { api_key: "second".to_owned() });
        assert!(material(&client, &second).await == expected);
    }

    async fn material_of_another_kind_is_a_new_default(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        let (_, key, _) = authenticated(&client, request("ada", fixture::api_key_material("key"))).await;
        let tokens = fixture::oauth2_material("token", "refresh");
        let (seen, tokens, created) = authenticated(&client, request("ada", tokens)).await;
        assert!(created && tokens.is_default == Some(true) && tokens.id != key.id);
        assert_eq!(seen.credential_count, 2);
        assert_eq!(credential(&client, &key.id).await.is_default, Some(false));

        // The refresh token of the grant before does not stay beside the tokens of another one.
        let (_, again, created) = authenticated(&client, request("ada", fixture::oauth2_material("other", ""))).await;
        assert!(!created && !again.refreshable);
        assert_eq!((again.id.as_str(), again.version), (tokens.id.as_str(), 2));
        let Material::Oauth2(stored) = material(&client, &again).await else { panic!("other material") };
        assert_eq!((stored.access_token.as_str(), stored.refresh_token.as_str()), ("other", ""));
    }

    async fn tokens_without_an_access_token_leave_the_link_to_be_authorised(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        let (link, credential, _) = authenticated(&client, request("ada", fixture::oauth2_material("", ""))).await;
        assert_eq!(credential.state(), v1::CredentialState::NeedsReauth);
        assert_eq!(link.state(), v1::UserConnectorState::NeedsReauth);
    }

    async fn a_user_who_is_not_linked_is_not_authenticated(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let valid = || request("ada", fixture::api_key_material("key"));
        let unlinked = v1::AuthenticateUserConnectorRequest { user_id: "grace".to_owned(), ..valid() };
        expect_status(try_authenticate(&client, unlinked).await, Code::NotFound, "USER_CONNECTOR_NOT_FOUND");
        let unknown = v1::AuthenticateUserConnectorRequest { connector: "name:no such".to_owned(), ..valid() };
        expect_status(try_authenticate(&client, unknown).await, Code::NotFound, "CONNECTOR_NOT_FOUND");
        let without = v1::AuthenticateUserConnectorRequest { material: None, ..valid() };
        expect_status(try_authenticate(&client, without).await, Code::InvalidArgument, "FIELD_INVALID");
        let others = server.client("beta");
        expect_status(try_authenticate(&others, valid()).await, Code::NotFound, "CONNECTOR_NOT_FOUND");
        assert_eq!(found(&client, get(&link.id, "", "")).await, link);
    }

    async fn a_repeat_is_answered_and_a_check_changes_nothing(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let valid = request("ada", fixture::api_key_material("key"));
        let tried = v1::AuthenticateUserConnectorRequest { validate_only: true, ..valid.clone() };
        assert!(try_authenticate(&client, tried).await.unwrap().into_inner().created);
        assert_eq!(found(&client, get(&link.id, "", "")).await, link);
        let once = v1::AuthenticateUserConnectorRequest { request_id: Uuid::now_v7().to_string(), ..valid };
        let first = try_authenticate(&client, once.clone()).await.unwrap().into_inner();
        let repeat = try_authenticate(&client, once.clone()).await.unwrap().into_inner();
        assert_eq!(first, repeat);
        let other = v1::AuthenticateUserConnectorRequest { material: Some(fixture::api_key_material("other")), ..once };
        expect_status(try_authenticate(&client, other).await, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
    }
}
