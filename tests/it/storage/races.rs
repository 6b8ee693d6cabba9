//! Concurrent changes: the database never has to abort one of them, and nothing is left without its parent.

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_testkit::fixture::{a_configuration, a_connection, a_connector, a_credential, api_key_material};
use jackfield_testkit::{Client, Refusal, on_both};
use tonic::{Code, Status};

use super::counts;
use crate::steps;

/// The number of creates that race with a deletion in each round.
const CREATES: usize = 8;
const ROUNDS: usize = 5;

async fn credential(client: &Client, user: &str, connector: &str) -> Result<String, Status> {
    let request = v1::CreateCredentialRequest {
        credential: Some(a_credential(user, connector)),
        material: Some(api_key_material("key")),
        ..Default::default()
    };
    Ok(client.credentials().create_credential(request).await?.into_inner().credential.unwrap().id)
}

/// Checks that failures happened only because something was gone, and returns the number of successes.
#[track_caller]
fn gone<T>(results: Vec<Result<T, Status>>, reasons: &[(Code, &str)]) -> usize {
    let mut worked = 0;
    for result in results {
        match result {
            Ok(_) => worked += 1,
            Err(status) => {
                let reason = reasons.iter().find(|(code, reason)| {
                    *code == status.code() && String::from_utf8_lossy(status.details()).contains(reason)
                });
                let (code, reason) = *reason.unwrap_or_else(|| panic!("{status:?}"));
                drop(Refusal::check(status, code, reason));
            }
        }
    }
    worked
}

on_both! {
    async fn credentials_race_with_the_removal_of_their_link(server) {
        let client = server.client("alpha");
        let connector = steps::connector(&client, a_connector("main")).await.id;
        for round in 0..ROUNDS {
            steps::link(&client, "ada", &connector).await;
            let creates = join_all((0..CREATES).map(|_| credential(&client, "ada", &connector)));
            let request = v1::RemoveUserConnectorRequest {
                user_id: "ada".to_owned(),
                connector: connector.clone(),
                ..Default::default()
            };
            let mut links = client.user_connectors();
            let (created, removed) = tokio::join!(creates, links.remove_user_connector(request));
            let made = gone(created, &[(Code::NotFound, "USER_CONNECTOR_NOT_FOUND")]);
            let removed = removed.unwrap().into_inner();
            assert!(removed.removed);
            assert_eq!(removed.credentials_deleted, i64::try_from(made).unwrap(), "round {round}");
            let counts = counts(&server).await;
            for table in ["user_connector", "credential", "configuration", "secret"] {
                assert_eq!(counts[table], 0, "{table} in round {round}");
            }
        }
    }

    async fn everything_races_with_the_deletion_of_a_connector(server) {
        let client = server.client("alpha");
        for round in 0..ROUNDS {
            let connector = steps::connector(&client, a_connector("main")).await.id;
            let request = |name: &str| v1::CreateConnectionRequest {
                connection: Some(a_connection(name, &connector)),
                ..Default::default()
            };
            let connection = client.connections().create_connection(request("login")).await.unwrap();
            let connection = connection.into_inner().connection.unwrap().id;
            let mut ids = Vec::new();
            for user in ["ada", "bob"] {
                steps::link(&client, user, &connector).await;
                ids.push(credential(&client, user, &connector).await.unwrap());
                ids.push(credential(&client, user, &connector).await.unwrap());
            }
            let not_found = |what: &'static str| (Code::NotFound, what);
            let parents = [not_found("CONNECTOR_NOT_FOUND"), not_found("USER_CONNECTOR_NOT_FOUND")];

            let creates = join_all((0..CREATES).map(|number| {
                let (client, connector) = (&client, &connector);
                async move { credential(client, ["ada", "bob"][number % 2], connector).await.map(drop) }
            }));
            let links = join_all((0..CREATES).map(|number| {
                let (client, connector) = (&client, connector.clone());
                let request =
                    v1::AddUserConnectorRequest { user_id: format!("u{number}"), connector, ..Default::default() };
                async move { client.user_connectors().add_user_connector(request).await.map(drop) }
            }));
            let connections = join_all((0..CREATES).map(|number| {
                let (client, request) = (&client, request(&format!("c{number}")));
                async move { client.connections().create_connection(request).await.map(drop) }
            }));
            let configurations = join_all(ids.iter().map(|credential| {
                let (client, configuration) = (&client, a_configuration(credential, "Team"));
                let request =
                    v1::CreateConfigurationRequest { configuration: Some(configuration), ..Default::default() };
                async move { client.configurations().create_configuration(request).await.map(drop) }
            }));
            // Default marks move under the lock of the link, and pass to an heir.
            let updates = join_all(ids.iter().map(|credential| {
                let (client, reference) = (&client, credential.clone());
                let credential = Some(v1::Credential { is_default: Some(true), ..Default::default() });
                let request = v1::UpdateCredentialRequest {
                    reference,
                    credential,
                    material: Some(api_key_material("another")),
                    ..Default::default()
                };
                async move { client.credentials().update_credential(request).await.map(drop) }
            }));
            let deletes = async {
                let request = v1::DeleteCredentialRequest { reference: ids[0].clone(), ..Default::default() };
                let credential = client.credentials().delete_credential(request).await.map(drop);
                let request = v1::DeleteConnectionRequest { reference: connection, cascade: true, ..Default::default() };
                let connection = client.connections().delete_connection(request).await.map(drop);
                vec![credential, connection]
            };
            let delete = async {
                let request =
                    v1::DeleteConnectorRequest { reference: connector.clone(), cascade: true, ..Default::default() };
                client.connectors().delete_connector(request).await.map(drop)
            };
            let (creates, links, connections, configurations, updates, deletes, delete) =
                tokio::join!(creates, links, connections, configurations, updates, deletes, delete);
            delete.unwrap();
            gone(creates, &parents);
            gone(links, &parents);
            gone(connections, &parents);
            let credentials = [not_found("CREDENTIAL_NOT_FOUND"), not_found("CONNECTION_NOT_FOUND")];
            gone(configurations, &credentials);
            gone(updates, &credentials);
            gone(deletes, &credentials);
            let counts = counts(&server).await;
            for table in ["connector", "connection", "user_connector", "credential", "configuration", "secret", "label"] {
                assert_eq!(counts[table], 0, "{table} in round {round}");
            }
        }
    }

    async fn everything_races_with_the_deletion_of_the_tenant(server) {
        let operator = server.client("operator");
        let client = server.client("alpha");
        let before = counts(&server).await;
        for round in 0..ROUNDS {
            if round > 0 {
                let tenant = Some(v1::Tenant { name: "alpha".to_owned(), ..Default::default() });
                operator.admin().create_tenant(v1::CreateTenantRequest { tenant, ..Default::default() }).await.unwrap();
            }
            let connector = steps::connector(&client, a_connector("main")).await.id;
            steps::link(&client, "ada", &connector).await;
            let first = credential(&client, "ada", &connector).await.unwrap();
            let unknown = (Code::PermissionDenied, "TENANT_UNKNOWN");
            let not_found = |what: &'static str| (Code::NotFound, what);

            let connectors = join_all((0..CREATES).map(|number| {
                let (client, connector) = (&client, Some(a_connector(&format!("c{number}"))));
                let request_id = uuid::Uuid::now_v7().to_string();
                let request = v1::CreateConnectorRequest { connector, request_id, ..Default::default() };
                async move { client.connectors().create_connector(request).await.map(drop) }
            }));
            let credentials = join_all((0..CREATES).map(|_| credential(&client, "ada", &connector)));
            let configurations = join_all((0..CREATES).map(|number| {
                let (client, configuration) = (&client, a_configuration(&first, &format!("Team {number}")));
                let request =
                    v1::CreateConfigurationRequest { configuration: Some(configuration), ..Default::default() };
                async move { client.configurations().create_configuration(request).await.map(drop) }
            }));
            let delete = async {
                let request = v1::DeleteTenantRequest {
                    reference: "name:alpha".to_owned(),
                    cascade: true,
                    ..Default::default()
                };
                operator.admin().delete_tenant(request).await.map(drop)
            };
            let (connectors, credentials, configurations, delete) =
                tokio::join!(connectors, credentials, configurations, delete);
            delete.unwrap();
            gone(connectors, &[unknown]);
            gone(credentials, &[unknown, not_found("CONNECTOR_NOT_FOUND")]);
            gone(configurations, &[unknown, not_found("CREDENTIAL_NOT_FOUND")]);
            let counts = counts(&server).await;
            assert_eq!(counts["tenant"], before["tenant"] - 1);
            for table in ["connector", "user_connector", "credential", "configuration", "secret", "label"] {
                assert_eq!(counts[table], 0, "{table} in round {round}");
            }
        }
    }
}
