//! Typed ids. Each resource has its own id type, so that ids of different resources cannot be mixed up.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::resource::Resource;

/// An id of a resource.
pub trait ResourceId: Into<Uuid> + Copy + Send {
    /// The kind of the resource.
    const RESOURCE: Resource;
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident => $resource:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl ResourceId for $name {
            const RESOURCE: Resource = Resource::$resource;
        }

        impl $name {
            /// A new id (UUIDv7). Ids sort in the order in which they were made.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// Id of a tenant. It is the first column of every table and part of every encryption context.
    TenantId => Tenant;
    /// Id of a connector.
    ConnectorId => Connector;
    /// Id of an event of a connector.
    ConnectorEventId => ConnectorEvent;
    /// Id of a connection.
    ConnectionId => Connection;
    /// Id of an authorisation.
    AuthorizationSessionId => AuthorizationSession;
    /// Id of a credential.
    CredentialId => Credential;
    /// Id of a source of credentials.
    CredentialSourceId => CredentialSource;
    /// Id of a configuration.
    ConfigurationId => Configuration;
    /// Id of a key (client identity or trust bundle).
    KeyId => Key;
    /// Id of an application.
    ApplicationId => Application;
    /// Id of the permissions of a user in a company.
    PermissionGrantId => PermissionGrant;
    /// Id of a session of an application.
    SessionId => Session;
    /// Id of the link between a user and a connector.
    UserConnectorId => UserConnector;
    /// Id of a user whose password is checked here. The platform's own id of a user is a
    /// [`UserId`](crate::value::text::UserId).
    UserUuid => User;
}

impl TenantId {
    /// The owner of what belongs to the deployment and to no tenant, such as the key of page tokens.
    pub const SYSTEM: TenantId = TenantId(Uuid::nil());
}

/// Parses a UUID in its canonical form of 36 characters; other spellings of the same id are refused.
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    const CANONICAL: usize = 36;
    Uuid::try_parse(text).ok().filter(|_| text.len() == CANONICAL)
}
