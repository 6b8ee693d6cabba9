//! User connectors: the links between users and connectors (Fiscus).

use serde::{Deserialize, Serialize};

use crate::credential::Credential;
use crate::names::names;
use crate::request::order::OrderBy;
use crate::request::reference::Ref;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::resource::Resource;
use crate::value::id::{ConnectorId, UserConnectorId};
use crate::value::meta::Meta;
use crate::value::text::{Name, UserId};

/// The link between a user and a connector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserConnector {
    pub id: UserConnectorId,
    pub user_id: UserId,
    pub connector: ConnectorId,
    pub connector_name: Name,
    pub state: UserConnectorState,
    pub credential_count: u64,
    pub meta: Meta,
}

names! {
    /// The state of a link when it is read.
    pub enum UserConnectorState {
        /// No credential.
        Attached = "ATTACHED",
        /// At least one credential that needs nothing of the user: it is valid, or has expired and can be refreshed.
        Authenticated = "AUTHENTICATED",
        /// Credentials, none of which is of use without the user.
        NeedsReauth = "NEEDS_REAUTH",
        /// The connector is disabled.
        Disabled = "DISABLED",
    }
}

/// The name of a link in a call.
#[derive(Clone, Debug)]
pub enum UserConnectorRef {
    /// By its id.
    Id(UserConnectorId),
    /// By the user and the connector that it links.
    Pair { user_id: UserId, connector: Ref },
}

/// The outcome of adding a link.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Added {
    pub user_connector: UserConnector,
    /// True if this call created it.
    pub created: bool,
}

/// The outcome of authenticating a user for a connector.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Authenticated {
    pub user_connector: UserConnector,
    /// The default credential of the link.
    pub credential: Credential,
    /// True if this call created the credential.
    pub created: bool,
}

/// The filter fields and orders of lists of user connectors.
pub const SCHEMA: Schema = Schema {
    resource: Resource::UserConnector,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "user_id", kind: FieldKind::Text },
        Field { name: "connector", kind: FieldKind::Id },
        Field { name: "state", kind: FieldKind::Enum(UserConnectorState::NAMES) },
        Field { name: "create_time", kind: FieldKind::Time },
        Field { name: "update_time", kind: FieldKind::Time },
    ],
    orders: &[OrderBy::Id, OrderBy::UserId, OrderBy::CreateTime],
};
