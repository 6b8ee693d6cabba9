//! The kinds of resources, named as on the wire and in the database.

use serde::{Deserialize, Serialize};

macro_rules! resources {
    ($($variant:ident = $name:literal, $not_found:literal;)*) => {
        /// A kind of resource.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Resource {
            $($variant,)*
        }

        impl Resource {
            /// Every kind, for tables and tests that must not miss one.
            pub const ALL: [Resource; [$($name),*].len()] = [$(Resource::$variant),*];

            /// The name in snake case: the table, the field of messages, the `owner` of secrets and labels.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Resource::$variant => $name,)*
                }
            }

            /// The error reason on the wire when there is no such resource.
            pub(crate) const fn not_found_reason(self) -> &'static str {
                match self {
                    $(Resource::$variant => $not_found,)*
                }
            }
        }
    };
}

resources! {
    Application = "application", "APPLICATION_NOT_FOUND";
    AuthorizationSession = "authorization_session", "AUTHORIZATION_NOT_FOUND";
    Configuration = "configuration", "CONFIGURATION_NOT_FOUND";
    Connection = "connection", "CONNECTION_NOT_FOUND";
    Connector = "connector", "CONNECTOR_NOT_FOUND";
    // An event is named by its connector, so it is the connector that is missing.
    ConnectorEvent = "connector_event", "CONNECTOR_NOT_FOUND";
    Credential = "credential", "CREDENTIAL_NOT_FOUND";
    CredentialSource = "credential_source", "CREDENTIAL_SOURCE_NOT_FOUND";
    Key = "key", "KEY_NOT_FOUND";
    // A grant is named by its application, so it is the application that is missing.
    PermissionGrant = "permission_grant", "APPLICATION_NOT_FOUND";
    Rewrap = "rewrap", "REWRAP_NOT_FOUND";
    RoutingPolicy = "routing_policy", "ROUTING_RULE_NOT_FOUND";
    RoutingRule = "routing_rule", "ROUTING_RULE_NOT_FOUND";
    Session = "session", "SESSION_NOT_FOUND";
    Tenant = "tenant", "TENANT_NOT_FOUND";
    User = "user", "USER_NOT_FOUND";
    UserConnector = "user_connector", "USER_CONNECTOR_NOT_FOUND";
}

/// The number of resources that depend on another one. A deletion takes them with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dependents {
    pub connections: u64,
    pub user_connectors: u64,
    pub credentials: u64,
    pub configurations: u64,
    pub routing_rules: u64,
    pub applications: u64,
    pub permission_grants: u64,
    pub sessions: u64,
    /// Authorisations that were cancelled.
    pub authorizations: u64,
}

// === impl Dependents ===

impl Dependents {
    /// The uses that keep a resource from being deleted by itself.
    pub fn uses(self) -> [(Resource, u64); 5] {
        let Dependents { connections, user_connectors, credentials, applications, routing_rules, .. } = self;
        [
            (Resource::Application, applications),
            (Resource::Connection, connections),
            (Resource::UserConnector, user_connectors),
            (Resource::Credential, credentials),
            (Resource::RoutingRule, routing_rules),
        ]
    }
}

// === impl Resource ===

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
