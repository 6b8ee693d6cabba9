//! Deletion of connections: refused while they have credentials, or together with these.

use jackfield_api::v1;
use jackfield_domain::Resource;
use jackfield_testkit::{Client, collect, expect_status, fixture, on_both};
use tonic::Code;

use super::{a_small_one, create, get, list};
use crate::connector;

on_both! {
    async fn a_connection_in_use_is_deleted_only_with_its_credentials(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let mut given = a_small_one("Sign in");
        given.client_secrets = vec![v1::ClientSecret { value: "s3cret".to_owned(), ..Default::default() }];
        let connection = create(&alpha, given).await;
        let other = create(&alpha, a_small_one("other")).await;
        connector::link(&alpha, "u1", "name:Gmail").await;
        connector::link(&alpha, "u2", "name:Gmail").await;
        let gone = [
            a_credential(&alpha, "u1", &connection.id).await,
            a_credential(&alpha, "u2", "name:Sign in").await,
        ];
        let kept = [a_credential(&alpha, "u1", &other.id).await, a_credential(&alpha, "u2", "").await];
        let configuration = Some(fixture::a_configuration(&gone[0].id, "Team A"));
        let request = v1::CreateConfigurationRequest { configuration, ..Default::default() };
        alpha.configurations().create_configuration(request).await.unwrap();

        let request = v1::DeleteConnectionRequest { reference: connection.id.clone(), ..Default::default() };
        let refused = alpha.connections().delete_connection(request.clone()).await;
        let refused = expect_status(refused, Code::FailedPrecondition, "IN_USE");
        let violations = &refused.details.precondition_failure().unwrap().violations;
        assert_eq!(violations.len(), 1);
        let subject = format!("connection/{}", connection.id);
        assert_eq!((&*violations[0].r#type, &violations[0].subject), ("IN_USE", &subject));
        assert!(violations[0].description.contains("2 credential"), "{violations:?}");
        assert_eq!(refused.metadata("used_by.credential"), "2");

        let shown = v1::DeleteConnectionRequest { cascade: true, validate_only: true, ..request.clone() };
        let expected =
            v1::DeleteConnectionResponse {
                deleted: true,
                credentials_deleted: 2,
                configurations_deleted: 3,
                routing_rules_removed: 0,
            };
        assert_eq!(alpha.connections().delete_connection(shown).await.unwrap().into_inner(), expected);
        assert_eq!(credentials(&alpha).await.len(), 4);
        assert_eq!(get(&alpha, &connection.id).await.unwrap(), connection);

        let request = v1::DeleteConnectionRequest { cascade: true, ..request };
        assert_eq!(alpha.connections().delete_connection(request).await.unwrap().into_inner(), expected);
        assert_eq!(list(&alpha).await, [other]);
        let left: Vec<String> = credentials(&alpha).await.into_iter().map(|credential| credential.id).collect();
        assert_eq!(left, kept.map(|credential| credential.id));
        let configurations = v1::ListConfigurationsRequest::default();
        let configurations = collect::items(alpha.configurations().list_configurations(configurations).await).await;
        assert_eq!(configurations.unwrap().len(), 2);
        for (owner, id, name) in [
            (Resource::Connection, &connection.id, "client_secret/"),
            (Resource::Credential, &gone[0].id, "material"),
        ] {
            assert_eq!(connector::sealed(&server, owner, id, name).await, None, "{owner}");
        }
        // The links and the connector are not part of the cascade.
        let links = v1::ListUserConnectorsRequest::default();
        let links = collect::items(alpha.user_connectors().list_user_connectors(links).await).await.unwrap();
        assert_eq!(links.len(), 2);
        assert!(connector::get(&alpha, "name:Gmail").await.is_ok());
    }

    async fn deleting_a_missing_resource_is_an_error_unless_allow_missing(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let given = v1::Connection { external_id: Some("con_1".to_owned()), ..a_small_one("Sign in") };
        create(&alpha, given.clone()).await;
        let request = v1::DeleteConnectionRequest { reference: "ext:con_1".to_owned(), ..Default::default() };
        let deleted = alpha.connections().delete_connection(request.clone()).await.unwrap().into_inner();
        assert_eq!(deleted, v1::DeleteConnectionResponse { deleted: true, ..Default::default() });
        let refused = alpha.connections().delete_connection(request.clone()).await;
        expect_status(refused, Code::NotFound, "CONNECTION_NOT_FOUND");
        let request = v1::DeleteConnectionRequest { allow_missing: true, ..request };
        let deleted = alpha.connections().delete_connection(request).await.unwrap().into_inner();
        assert_eq!(deleted, v1::DeleteConnectionResponse::default());
        let request =
            v1::DeleteConnectionRequest { reference: "Sign in".into(), allow_missing: true, ..Default::default() };
        let refused = alpha.connections().delete_connection(request).await;
        expect_status(refused, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["reference"]);
        // A new connection under the same names has nothing of the previous one.
        let again = create(&alpha, given).await;
        assert_eq!(get(&alpha, "ext:con_1").await.unwrap(), again);
        assert_eq!(list(&alpha).await, [again]);
    }
}

async fn a_credential(client: &Client, user_id: &str, connection: &str) -> v1::Credential {
    let mut credential = fixture::a_credential(user_id, "name:Gmail");
    credential.connection = connection.to_owned();
    let request = v1::CreateCredentialRequest {
        credential: Some(credential),
        material: Some(fixture::oauth2_material("access", "refresh")),
        ..Default::default()
    };
    client.credentials().create_credential(request).await.unwrap().into_inner().credential.unwrap()
}

async fn credentials(client: &Client) -> Vec<v1::Credential> {
    let request = v1::ListCredentialsRequest::default();
    collect::items(client.credentials().list_credentials(request).await).await.unwrap()
}
