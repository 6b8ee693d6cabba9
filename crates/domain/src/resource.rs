//! The kinds of resources, named as on the wire and in the database.

use serde::{Deserialize, Serialize};

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    Configuration,
    Connection,
    Connector,
    Credential,
    Key,
    Rewrap,
    Tenant,
    UserConnector,
}

impl Resource {
    /// Every kind, for tables and tests that must not miss one.
    pub const ALL: [Resource; 8] = [
        Resource::Configuration,
        Resource::Connection,
        Resource::Connector,
        Resource::Credential,
        Resource::Key,
        Resource::Rewrap,
        Resource::Tenant,
        Resource::UserConnector,
    ];

    /// The name in snake case: the table, the field of messages, the `owner` of secrets and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Resource::Configuration => "configuration",
            Resource::Connection => "connection",
            Resource::Connector => "connector",
            Resource::Credential => "credential",
            Resource::Key => "key",
            Resource::Rewrap => "rewrap",
            Resource::Tenant => "tenant",
            Resource::UserConnector => "user_connector",
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
