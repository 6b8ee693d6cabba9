//! Connections: SSO and OAuth set-ups on connectors (Authress).

mod business;
mod client_secrets;
mod list;
mod settings;
mod user_id;

use serde::{Deserialize, Serialize};

use crate::error::{Violation, Violations};
use crate::value::id::{ConnectionId, ConnectorId};
use crate::value::meta::Meta;

pub use business::is_business_account;
pub use client_secrets::{
    ClientSecretFacts, ClientSecretPatch, ClientSecretsPatch, MAX_CLIENT_SECRETS, client_secret_column,
};
pub use list::SCHEMA;
pub use settings::{
    ClientAuthentication, ConnectionKind, ConnectionPatch, ConnectionSettings, DEFAULT_SCOPE,
    DEFAULT_USER_ID_EXPRESSION, Linking, TokenContentType,
};
pub use user_id::{MAX_PROVIDER_USER_ID, UserIdFault, check_user_id_expression, user_id_of};

/// A connection, without its client secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    pub id: ConnectionId,
    pub connector: ConnectorId,
    pub settings: ConnectionSettings,
    /// The facts of the sealed client secrets, in the order in which they are tried.
    pub client_secrets: Vec<ClientSecretFacts>,
    pub meta: Meta,
}

// === impl Connection ===

impl Connection {
    /// Makes a connection from a patch that has everything required.
    pub fn create(
        id: ConnectionId,
        connector: ConnectorId,
        patch: &ConnectionPatch,
        meta: Meta,
    ) -> Result<Self, Vec<Violation>> {
        let Some(name) = patch.name.clone() else {
            return Err(vec![Violation::field("connection.name", "is required")]);
        };
        let settings = ConnectionSettings::blank(name);
        Connection { id, connector, settings, client_secrets: Vec::new(), meta }.patched(patch, meta)
    }

    /// This connection with one client secret more, which is the first, or what is wrong with it.
    pub fn with_secret(mut self, secret_id: &str, meta: Meta) -> Result<Self, Violation> {
        client_secrets::add(&mut self.client_secrets, secret_id, meta.update_time)?;
        self.meta = meta;
        Ok(self)
    }

    /// This connection after a patch, or what is wrong with the result.
    pub fn patched(mut self, patch: &ConnectionPatch, meta: Meta) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        self.settings.apply(patch, &mut violations);
        patch.client_secrets.apply(&mut self.client_secrets, meta.update_time, &mut violations);
        self.meta = meta;
        violations.into_whole(self)
    }
}
