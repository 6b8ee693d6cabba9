//! Connections: SSO and OAuth set-ups on connectors (Authress).

mod business;
mod client_secrets;
mod linking;
mod list;
mod settings;
mod user_id;

use serde::{Deserialize, Serialize};

use crate::document::is_default;
use crate::error::{Violation, Violations};
use crate::value::id::{ConnectionId, ConnectorId, KeyId};
use crate::value::meta::Meta;

pub use business::is_business_account;
pub use client_secrets::{
    ClientSecretFacts, ClientSecretPatch, ClientSecretsPatch, MAX_CLIENT_SECRETS, client_secret_column,
};
pub use linking::verified_email;
pub use list::SCHEMA;
pub use settings::{
    ClientAuthentication, ConnectionGrant, ConnectionKind, ConnectionPatch, ConnectionSettings, DEFAULT_SCOPE,
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
    /// The key by which the client says who it is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub client_key: Option<KeyId>,
    pub meta: Meta,
}

// === impl Connection ===

impl Connection {
    /// Makes a connection from a patch that has everything required, with the key that the patch names.
    pub fn create(
        id: ConnectionId,
        connector: ConnectorId,
        client_key: Option<KeyId>,
        patch: &ConnectionPatch,
        meta: Meta,
    ) -> Result<Self, Vec<Violation>> {
        let Some(name) = patch.name.clone() else {
            return Err(vec![Violation::field("connection.name", "is required")]);
        };
        let settings = ConnectionSettings::blank(name);
        Connection { id, connector, settings, client_secrets: Vec::new(), client_key, meta }
            .patched(patch, client_key, meta)
    }

    /// This connection with one client secret more, which is the first, or what is wrong with it.
    pub fn with_secret(mut self, secret_id: &str, meta: Meta) -> Result<Self, Violation> {
        client_secrets::add(&mut self.client_secrets, secret_id, meta.update_time)?;
        self.meta = meta;
        Ok(self)
    }

    /// This connection after a patch, with the key that it has then, or what is wrong with the result.
    pub fn patched(
        mut self,
        patch: &ConnectionPatch,
        client_key: Option<KeyId>,
        meta: Meta,
    ) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        self.settings.apply(patch, &mut violations);
        let ConnectionSettings { grant, client_authentication, .. } = &self.settings;
        if *grant == ConnectionGrant::ClientCredentials && *client_authentication == ClientAuthentication::None {
            let description = "must not be NONE: any program could get the tokens of a client that proves nothing";
            violations.push(Violation::field("connection.client_authentication", description));
        }
        patch.client_secrets.apply(&mut self.client_secrets, meta.update_time, &mut violations);
        self.client_key = client_key;
        self.meta = meta;
        violations.into_whole(self)
    }
}
