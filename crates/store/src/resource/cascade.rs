//! What a deletion takes with it.

use jackfield_domain::{ConfigurationId, ConnectionId, CredentialId, UserConnectorId};

/// The number of resources that depend on another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cascade {
    pub connections: u64,
    pub user_connectors: u64,
    pub credentials: u64,
    pub configurations: u64,
}

/// The ids of the resources that a deletion took with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CascadeIds {
    pub connections: Vec<ConnectionId>,
    pub user_connectors: Vec<UserConnectorId>,
    pub credentials: Vec<CredentialId>,
    pub configurations: Vec<ConfigurationId>,
}

// === impl CascadeIds ===

impl CascadeIds {
    /// The number of resources of each kind.
    pub fn counts(&self) -> Cascade {
        Cascade {
            connections: self.connections.len() as u64,
            user_connectors: self.user_connectors.len() as u64,
            credentials: self.credentials.len() as u64,
            configurations: self.configurations.len() as u64,
        }
    }
}
