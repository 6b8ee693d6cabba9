//! The scopes of all requests. They have the characters that the standard gives them (RFC 6749 3.3), whichever method gets them.

use std::fmt::Debug;

use jackfield_api::v1;
use jackfield_testkit::{expect_status, fixture};
use tonic::Response;

use super::*;

/// The fields that a call is refused for.
fn refused<T: Debug>(result: Result<Response<T>, Status>) -> Vec<String> {
    let refused = expect_status(result, Code::InvalidArgument, "FIELD_INVALID");
    refused.fields().into_iter().map(str::to_owned).collect()
}

fn tokens(scopes: &[String]) -> Option<v1::CredentialMaterial> {
    let oauth2 =
        v1::OAuth2Material { access_token: "access".to_owned(), scopes: scopes.to_vec(), ..Default::default() };
    Some(v1::CredentialMaterial { material: Some(v1::credential_material::Material::Oauth2(oauth2)) })
}

on_both! {
    async fn a_scope_of_a_list_is_a_scope(server) {
        let client = server.client("alpha");
        let (ada, named) = (|| "ada".to_owned(), || "name:Gmail".to_owned());
        for wrong in ["", "a b", "a\"b", "a\\b", "\u{e4}", "a\u{a0}b"] {
            let scopes = vec!["openid".to_owned(), wrong.to_owned()];
            let mut found = Vec::new();
            let request = v1::StartAuthorizationRequest {
                connection: named(),
                user_id: ada(),
                scopes: scopes.clone(),
                ..Default::default()
            };
            found.extend(refused(client.connections().start_authorization(request).await));
            let request = v1::GetUserConnectionCredentialsRequest {
                connection: named(),
                user_id: ada(),
                scopes: scopes.clone(),
                ..Default::default()
            };
            found.extend(refused(client.connections().get_user_connection_credentials(request).await));
            let request = v1::IssueAccessTokenRequest {
                user_id: ada(),
                connector: named(),
                scopes: scopes.clone(),
                ..Default::default()
            };
            found.extend(refused(client.credentials().issue_access_token(request).await));
            let credential = Some(fixture::a_credential("ada", "name:Gmail"));
            let request = v1::CreateCredentialRequest { credential, material: tokens(&scopes), ..Default::default() };
            found.extend(refused(client.credentials().create_credential(request).await));
            let request = v1::UpdateCredentialRequest {
                reference: "ext:main".to_owned(),
                credential: Some(v1::Credential::default()),
                material: tokens(&scopes),
                ..Default::default()
            };
            found.extend(refused(client.credentials().update_credential(request).await));
            let request = v1::AuthenticateUserConnectorRequest {
                user_id: ada(),
                connector: named(),
                material: tokens(&scopes),
                ..Default::default()
            };
            found.extend(refused(client.user_connectors().authenticate_user_connector(request).await));
            let (listed, stored) = ("scopes[1]", "material.oauth2.scopes[1]");
            assert_eq!(found, [listed, listed, listed, stored, stored, stored], "{wrong:?}");
        }
    }

    async fn scopes_in_a_text_are_scopes(server) {
        let client = server.client("alpha");
        for wrong in ["openid a\"b", "a\\b", "\u{e4}", "a\tb"] {
            let connection = v1::Connection {
                scope: Some(wrong.to_owned()),
                token_parameters: fixture::strings([("scope", wrong)]),
                refresh_parameters: fixture::strings([("scope", wrong)]),
                ..fixture::a_connection("login", "name:Gmail")
            };
            let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
            let mut found = refused(client.connections().create_connection(request).await);
            found.sort_unstable();
            let fields = ["connection.refresh_parameters.scope", "connection.scope", "connection.token_parameters.scope"];
            assert_eq!(found, fields, "{wrong:?}");
        }
    }
}
