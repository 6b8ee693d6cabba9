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

/// The number of resources that depend on another one, or that were deleted with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cascade {
    pub connections: u64,
    pub user_connectors: u64,
    pub credentials: u64,
    pub configurations: u64,
}

// === impl Cascade ===

impl Cascade {
    /// The uses that keep a resource from being deleted by itself.
    pub fn uses(self) -> [(Resource, u64); 3] {
        let Cascade { connections, user_connectors, credentials, configurations: _ } = self;
        [
            (Resource::Connection, connections),
            (Resource::UserConnector, user_connectors),
            (Resource::Credential, credentials),
        ]
    }
}

// === impl Resource ===

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
