//! Updates that change nothing leave the etag valid. An update with a secret is a change, whatever the secret.

use jackfield_api::v1;
use jackfield_testkit::{fixture, on_both};

use crate::steps;

on_both! {
    async fn sending_back_a_resource_as_it_was_read_changes_nothing(server) {
        let client = server.client("alpha");
        let mut given = fixture::a_connector("Gmail");
        given.secret_headers = fixture::strings([("x-secret", "the header")]);
        given.labels = fixture::strings([("a", "1")]);
        let connector = steps::connector(&client, given).await;
        for mask in [vec![], vec!["*"], vec!["name", "labels"]] {
            let request = v1::UpdateConnectorRequest {
                reference: connector.id.clone(),
                connector: Some(connector.clone()),
                update_mask: (!mask.is_empty()).then(|| prost_types::FieldMask { paths: mask.iter().map(|&path| path.to_owned()).collect() }),
                ..Default::default()
            };
            let updated = client.connectors().update_connector(request).await.unwrap().into_inner().connector.unwrap();
            assert_eq!(updated, connector, "{mask:?}");
        }
        let change = v1::Connector { secret_headers: fixture::strings([("x-secret", "the header")]), ..Default::default() };
        let request =
            v1::UpdateConnectorRequest { reference: connector.id.clone(), connector: Some(change), ..Default::default() };
        let updated = client.connectors().update_connector(request).await.unwrap().into_inner().connector.unwrap();
        assert_ne!(updated.etag, connector.etag, "a secret");

        let request = v1::CreateConnectionRequest {
            connection: Some(fixture::a_connection("login", &connector.id)),
            ..Default::default()
        };
        let connection = client.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap();
        let request = |connection: v1::Connection| v1::UpdateConnectionRequest {
            reference: connection.id.clone(),
            connection: Some(connection),
            ..Default::default()
        };
        let updated = client.connections().update_connection(request(connection.clone())).await.unwrap().into_inner();
        assert_eq!(updated.connection.unwrap(), connection);
        let renamed = v1::Connection { name: "renamed".to_owned(), ..connection.clone() };
        let updated = client.connections().update_connection(request(renamed)).await.unwrap().into_inner();
        assert_ne!(updated.connection.unwrap().etag, connection.etag);

        let link = steps::link(&client, "ada", &connector.id).await;
        let credential = steps::api_key(&client, &link, "key").await;
        let request = |material| v1::UpdateCredentialRequest {
            reference: credential.id.clone(),
            credential: Some(v1::Credential { labels: Default::default(), is_default: Some(true), ..Default::default() }),
            material,
            ..Default::default()
        };
        let updated = client.credentials().update_credential(request(None)).await.unwrap().into_inner();
        assert_eq!(updated.credential.unwrap(), credential);
        let same = Some(fixture::api_key_material("key"));
        let updated = client.credentials().update_credential(request(same)).await.unwrap().into_inner().credential.unwrap();
        assert_ne!(updated.etag, credential.etag, "material");

        let configuration = steps::configuration(&client, fixture::a_configuration(&credential.id, "Team")).await;
        let request = |configuration: v1::Configuration| v1::UpdateConfigurationRequest {
            reference: configuration.id.clone(),
            configuration: Some(configuration),
            ..Default::default()
        };
        let updated = client.configurations().update_configuration(request(configuration.clone())).await.unwrap().into_inner();
        assert_eq!(updated.configuration.unwrap(), configuration);
        let other = v1::Configuration { external_id: Some("Another".to_owned()), ..configuration.clone() };
        let updated = client.configurations().update_configuration(request(other)).await.unwrap().into_inner();
        assert_ne!(updated.configuration.unwrap().etag, configuration.etag);
    }
}
