//! The versions of the clients of connections.

use jackfield_domain::connection::Connection;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Result, TenantId};
use jackfield_upstream::clients::Revision;

use super::Outbound;
use super::keys::{key_versions, versions};

/// The version of all by which the client of a connection says who it is: its connection and connector, and the keys of both. After a refusal,
/// a client of another version is worth a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientVersion {
    connector: Revision,
    connection: Revision,
}

// === impl Outbound ===

impl Outbound {
    /// The version of the client of a connection. It is read before the client itself, so a client that is newer than its version is tried
    /// once more than needed, and one that is older is never taken for a newer one.
    pub(crate) async fn client_version(&self, tenant: TenantId, connection: &Connection) -> Result<ClientVersion> {
        let reference = Ref::Id(connection.connector.0);
        let connector = match self.connectors.get(tenant, &reference, self.clock.now()) {
            Some(known) => known.revision.clone(),
            None => self.found(tenant, &reference, None).await?.revision(),
        };
        // A key that was deleted in between is another version as well.
        let key = self.key(tenant, connection.client_key).await?.flatten();
        let of_key = key.iter().flat_map(key_versions);
        let connection = Revision::of(versions(connection.id.0, &connection.meta).into_iter().chain(of_key));
        Ok(ClientVersion { connector, connection })
    }
}

#[cfg(test)]
impl ClientVersion {
    /// A version that differs from those of other numbers.
    pub(crate) fn numbered(number: i64) -> Self {
        let revision = Revision::of([(uuid::Uuid::nil(), number)]);
        ClientVersion { connector: revision.clone(), connection: revision }
    }
}
