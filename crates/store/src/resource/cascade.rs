//! The resources that a deletion takes with it.

use jackfield_domain::resource::Dependents;
use jackfield_domain::{ConfigurationId, ConnectionId, CredentialId, CredentialSourceId, UserConnectorId};

/// The ids of the resources that a deletion took with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CascadeIds {
    pub connections: Vec<ConnectionId>,
    pub user_connectors: Vec<UserConnectorId>,
    pub credentials: Vec<CredentialId>,
    pub configurations: Vec<ConfigurationId>,
    /// The sources of users who are linked to nothing any more.
    pub credential_sources: Vec<CredentialSourceId>,
    /// The number of rules of the routing policy that led to them.
    pub routing_rules: u64,
}

// === impl CascadeIds ===

impl CascadeIds {
    /// The number of resources of each kind.
    pub fn counts(&self) -> Dependents {
        Dependents {
            connections: self.connections.len() as u64,
            user_connectors: self.user_connectors.len() as u64,
            credentials: self.credentials.len() as u64,
            configurations: self.configurations.len() as u64,
            routing_rules: self.routing_rules,
            ..Dependents::default()
        }
    }
}
