//! Deletion of connectors: refused while they are in use, or together with everything that depends on them.

use jackfield_api::v1;
use jackfield_domain::Resource;
use jackfield_testkit::{Client, expect_status, fixture, on_both};
use tonic::{Code, Status};

use super::{create, get, list, sealed};
use crate::connection;

on_both! {
    async fn deleting_a_missing_resource_is_an_error_unless_allow_missing(server) {
        let alpha = server.client("alpha");
        let connector = create(&alpha, fixture::a_connector("Gmail")).await;
        let request = v1::DeleteConnectorRequest { reference: connector.id.clone(), ..Default::default() };
        let deleted = alpha.connectors().delete_connector(request.clone()).await.unwrap().into_inner();
        assert_eq!(deleted, v1::DeleteConnectorResponse { deleted: true, ..Default::default() });
        expect_status(get(&alpha, &connector.id).await.map(tonic::Response::new), Code::NotFound, "CONNECTOR_NOT_FOUND");
        for reference in [&*connector.id, "name:Gmail"] {
            let request = v1::DeleteConnectorRequest { reference: reference.to_owned(), ..request.clone() };
            let refused = alpha.connectors().delete_connector(request.clone()).await;
            expect_status(refused, Code::NotFound, "CONNECTOR_NOT_FOUND");
            let request = v1::DeleteConnectorRequest { allow_missing: true, cascade: true, ..request };
            let deleted = alpha.connectors().delete_connector(request).await.unwrap().into_inner();
            assert_eq!(deleted, v1::DeleteConnectorResponse::default());
        }
        let request = v1::DeleteConnectorRequest { reference: " ".to_owned(), allow_missing: true, ..request };
        let refused = alpha.connectors().delete_connector(request).await;
        expect_status(refused, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["reference"]);
    }

    async fn a_connector_in_use_is_kept_and_its_uses_are_named(server) {
        let alpha = server.client("alpha");
        let all = populate(&alpha, "Gmail").await;
        let request = v1::DeleteConnectorRequest { reference: "name:Gmail".to_owned(), ..Default::default() };
        for validate_only in [false, true] {
            let request = v1::DeleteConnectorRequest { validate_only, ..request.clone() };
            let refused = alpha.connectors().delete_connector(request).await;
            let refused = expect_status(refused, Code::FailedPrecondition, "IN_USE");
            let violations = &refused.details.precondition_failure().unwrap().violations;
            let subject = format!("connector/{}", all.connector.id);
            let uses = ["2 connections", "3 user connectors", "4 credentials"];
            assert_eq!(violations.len(), uses.len());
            for (violation, uses) in violations.iter().zip(uses) {
                assert_eq!((&*violation.r#type, &violation.subject), ("IN_USE", &subject));
                assert!(violation.description.contains(uses), "{violation:?}");
            }
            assert_eq!(refused.metadata("used_by.connection"), "2");
            assert_eq!(refused.metadata("used_by.user_connector"), "3");
            assert_eq!(refused.metadata("used_by.credential"), "4");
            assert_eq!(refused.details.resource_info().unwrap().resource_name, all.connector.id);
        }
        assert_eq!(all.missing(&alpha).await, 0);
        assert_eq!(get(&alpha, "name:Gmail").await.unwrap(), all.connector);
    }

    async fn a_single_link_or_connection_is_a_use(server) {
        let alpha = server.client("alpha");
        create(&alpha, fixture::a_connector("linked")).await;
        link(&alpha, "u1", "name:linked").await;
        create(&alpha, fixture::a_connector("connected")).await;
        connection::create(&alpha, fixture::a_connection("c", "name:connected")).await;
        for (reference, user) in [("name:linked", "user_connector"), ("name:connected", "connection")] {
            let request = v1::DeleteConnectorRequest { reference: reference.to_owned(), ..Default::default() };
            let refused = alpha.connectors().delete_connector(request).await;
            let refused = expect_status(refused, Code::FailedPrecondition, "IN_USE");
            assert_eq!(refused.details.precondition_failure().unwrap().violations.len(), 1);
            assert_eq!(refused.metadata(&format!("used_by.{user}")), "1");
        }
    }

    async fn a_cascade_deletes_all_dependents_and_nothing_else(server) {
        let alpha = server.client("alpha");
        let (all, other) = (populate(&alpha, "Gmail").await, populate(&alpha, "Outlook").await);
        let expected = v1::DeleteConnectorResponse {
            deleted: true,
            connections_deleted: 2,
            user_connectors_deleted: 3,
            credentials_deleted: 4,
            // One was created with each credential, one was added.
            configurations_deleted: 5,
            routing_rules_removed: 0,
        };
        let request = v1::DeleteConnectorRequest {
            reference: all.connector.id.clone(),
            cascade: true,
            validate_only: true,
            ..Default::default()
        };
        let shown = alpha.connectors().delete_connector(request.clone()).await.unwrap().into_inner();
        assert_eq!(shown, expected);
        assert_eq!(all.missing(&alpha).await, 0);
        let secrets = [
            (Resource::Connection, &all.connections[0], "client_secret/2026"),
            (Resource::Credential, &all.credentials[0], "material"),
            (Resource::Connector, &all.connector.id, "secret_headers"),
        ];
        for (owner, id, name) in secrets {
            assert!(sealed(&server, owner, id, name).await.is_some(), "{owner} {name}");
        }
        let request = v1::DeleteConnectorRequest { validate_only: false, ..request };
        let deleted = alpha.connectors().delete_connector(request).await.unwrap().into_inner();
        assert_eq!(deleted, expected);
        assert_eq!(all.missing(&alpha).await, all.count());
        for (owner, id, name) in secrets {
            assert!(sealed(&server, owner, id, name).await.is_none(), "{owner} {name}");
        }
        assert_eq!(other.missing(&alpha).await, 0);
        assert_eq!(list(&alpha).await, [other.connector]);
        // The names and external ids are free again, and no old data comes back with them.
        let again = populate(&alpha, "Gmail").await;
        assert_eq!(again.missing(&alpha).await, 0);
        assert_eq!(all.missing(&alpha).await, all.count());
    }
}

/// A connector with everything that can depend on it.
struct Populated {
    connector: v1::Connector,
    connections: Vec<String>,
    links: Vec<String>,
    credentials: Vec<String>,
    configurations: Vec<String>,
}

// === impl Populated ===

impl Populated {
    fn count(&self) -> usize {
        1 + self.connections.len() + self.links.len() + self.credentials.len() + self.configurations.len()
    }

    /// The number of them that no longer exist.
    async fn missing(&self, client: &Client) -> usize {
        let mut missing = usize::from(is_missing(get(client, &self.connector.id).await));
        for reference in self.connections.iter().cloned() {
            let request = v1::GetConnectionRequest { reference };
            missing += usize::from(is_missing(client.connections().get_connection(request).await));
        }
        for reference in self.links.iter().cloned() {
            let request = v1::GetUserConnectorRequest { reference, ..Default::default() };
            missing += usize::from(is_missing(client.user_connectors().get_user_connector(request).await));
        }
        for reference in self.credentials.iter().cloned() {
            let request = v1::GetCredentialRequest { reference };
            missing += usize::from(is_missing(client.credentials().get_credential(request).await));
        }
        for reference in self.configurations.iter().cloned() {
            let request = v1::GetConfigurationRequest { reference, ..Default::default() };
            missing += usize::from(is_missing(client.configurations().get_configuration(request).await));
        }
        missing
    }
}

async fn populate(client: &Client, name: &str) -> Populated {
    let secret_headers = fixture::strings([("X-Token", "s3cret")]);
    let labels = fixture::strings([("env", "prod")]);
    let connector = v1::Connector { secret_headers, labels, ..fixture::an_oauth2_connector(name) };
    let connector = create(client, connector).await;
    let mut all = Populated {
        connector: connector.clone(),
        connections: Vec::new(),
        links: Vec::new(),
        credentials: Vec::new(),
        configurations: Vec::new(),
    };
    for index in 1..=2 {
        let connection = fixture::a_connection(&format!("{name} {index}"), &connector.id);
        all.connections.push(connection::create(client, connection).await.id);
    }
    for user in ["u1", "u2", "u3"] {
        all.links.push(link(client, user, &connector.id).await);
    }
    for (user, from) in [("u1", true), ("u1", false), ("u2", true), ("u2", false)] {
        let mut credential = fixture::a_credential(user, &connector.id);
        if from {
            credential.connection = format!("name:{name} 1");
        }
        let request = v1::CreateCredentialRequest {
            credential: Some(credential),
            material: Some(fixture::oauth2_material("access", "refresh")),
            ..Default::default()
        };
        let credential = client.credentials().create_credential(request).await.unwrap().into_inner();
        let credential = credential.credential.unwrap();
        all.credentials.push(credential.id);
        all.configurations.push(credential.default_configuration);
    }
    let configuration = Some(fixture::a_configuration(&all.credentials[0], "Team A"));
    let request = v1::CreateConfigurationRequest { configuration, ..Default::default() };
    let configuration = client.configurations().create_configuration(request).await.unwrap().into_inner();
    all.configurations.push(configuration.configuration.unwrap().id);
    all
}

/// Links a user to a connector, and returns the id of the link.
pub(crate) async fn link(client: &Client, user_id: &str, connector: &str) -> String {
    let (user_id, connector) = (user_id.to_owned(), connector.to_owned());
    let request = v1::AddUserConnectorRequest { user_id, connector, ..Default::default() };
    let link = client.user_connectors().add_user_connector(request).await.unwrap().into_inner();
    link.user_connector.unwrap().id
}

fn is_missing<T>(result: Result<T, Status>) -> bool {
    match result {
        Ok(_) => false,
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound, "{status:?}");
            true
        }
    }
}
