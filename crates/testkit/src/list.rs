//! All lists behind one type, for tests of what they have in common.

use std::pin::Pin;

use jackfield_api::v1;
use prost::Message;
use tokio_stream::{Stream, StreamExt};
use tonic::{Response, Status, Streaming};

use crate::{client::Client, collect::Page};

/// A list RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// ApplicationService.ListApplications.
    Applications,
    /// ConfigurationService.ListConfigurations.
    Configurations,
    /// ConnectionService.ListConnections.
    Connections,
    /// ConnectorService.ListConnectorEvents.
    ConnectorEvents,
    /// ConnectorService.ListConnectors.
    Connectors,
    /// CredentialsService.ListCredentials.
    Credentials,
    /// KeyService.ListKeys.
    Keys,
    /// ApplicationService.ListPermissions.
    Permissions,
    /// ApplicationService.ListSessions.
    Sessions,
    /// AdminService.ListTenants.
    Tenants,
    /// UserConnectorService.ListUserConnectors.
    UserConnectors,
    /// UserService.ListUsers.
    Users,
}

/// The fields of a list request. Fields that a list does not have are not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Items per message.
    pub page_size: i32,
    /// The token to continue from.
    pub page_token: String,
    /// Items in the whole stream.
    pub limit: i32,
    /// The filter.
    pub filter: String,
    /// The order.
    pub order_by: String,
    /// Only of this user.
    pub user_id: String,
    /// Only of this connector.
    pub connector: String,
    /// Only of this connection.
    pub connection: String,
    /// Only of this credential.
    pub credential: String,
    /// Only of this application.
    pub application: String,
    /// Only of this company.
    pub company_id: String,
}

/// One message of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// The items.
    pub rows: Vec<Row>,
    /// The token of the next page; empty at the end.
    pub next_page_token: String,
    /// Size of the message.
    pub bytes: usize,
}

/// One item of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its UUID.
    pub id: String,
    /// Its name; empty if such items have none.
    pub name: String,
    /// Its user; empty if such items have none.
    pub user_id: String,
    /// The creation time, in microseconds since 1970.
    pub create_time: i64,
    /// The whole item, encoded.
    pub message: Vec<u8>,
}

/// The messages of a list, read as they are taken.
pub type Pages = Pin<Box<dyn Stream<Item = Result<ListPage, Status>> + Send>>;

// === impl List ===

impl List {
    /// All lists.
    pub const ALL: [List; 12] = [
        List::Applications,
        List::Configurations,
        List::Connections,
        List::ConnectorEvents,
        List::Connectors,
        List::Credentials,
        List::Keys,
        List::Permissions,
        List::Sessions,
        List::Tenants,
        List::UserConnectors,
        List::Users,
    ];

    /// The fields that the list can be ordered by.
    pub const fn orders(self) -> &'static [&'static str] {
        match self {
            List::Configurations | List::ConnectorEvents | List::Permissions | List::Sessions | List::Users => {
                &["id", "create_time"]
            }
            List::Applications | List::Connections | List::Connectors | List::Keys | List::Tenants => {
                &["id", "name", "create_time"]
            }
            List::Credentials | List::UserConnectors => &["id", "user_id", "create_time"],
        }
    }

    /// Calls the RPC.
    ///
    /// # Errors
    /// Returns the status if the call ended before its first message. Later errors come out of the stream.
    pub async fn open(self, client: &Client, ask: &Ask) -> Result<Pages, Status> {
        let Ask {
            page_size,
            page_token,
            limit,
            filter,
            order_by,
            user_id,
            connector,
            connection,
            credential,
            application,
            company_id,
        } = ask.clone();
        match self {
            List::Applications => boxed(
                client
                    .applications()
                    .list_applications(v1::ListApplicationsRequest {
                        page_size,
                        page_token,
                        limit,
                        filter,
                        order_by,
                        connector,
                    })
                    .await,
            ),
            List::Permissions => boxed(
                client
                    .applications()
                    .list_permissions(v1::ListPermissionsRequest {
                        page_size,
                        page_token,
                        limit,
                        filter,
                        order_by,
                        application,
                        company_id,
                        user_id,
                    })
                    .await,
            ),
            List::Sessions => boxed(
                client
                    .applications()
                    .list_sessions(v1::ListSessionsRequest {
                        page_size,
                        page_token,
                        limit,
                        filter,
                        order_by,
                        application,
                        user_id,
                    })
                    .await,
            ),
            List::Configurations => boxed(
                client
                    .configurations()
                    .list_configurations(v1::ListConfigurationsRequest {
                        page_size,
                        page_token,
                        limit,
                        filter,
                        order_by,
                        user_id,
                        connector,
                        credential,
                    })
                    .await,
            ),
            List::Connections => boxed(
                client
                    .connections()
                    .list_connections(v1::ListConnectionsRequest {
                        page_size,
                        page_token,
                        limit,
                        filter,
                        order_by,
                        connector,
                    })
                    .await,
            ),
            List::ConnectorEvents => boxed(
                client
                    .connectors()
                    .list_connector_events(v1::ListConnectorEventsRequest {
                        page_size,
                        page_token,
                        limit,
                        filter,
                        order_by,
                        connector,
                    })
                    .await,
            ),
            List::Connectors => boxed(
                client
                    .connectors()
                    .list_connectors(v1::ListConnectorsRequest { page_size, page_token, limit, filter, order_by })
                    .await,
            ),
            List::Credentials => boxed(
                client
                    .credentials()
                    .list_credentials(v1::ListCredentialsRequest {
                        page_size,
                        page_token,
                        limit,
                        filter,
                        order_by,
                        user_id,
                        connector,
                        connection,
                    })
                    .await,
            ),
            List::Keys => boxed(
                client.keys().list_keys(v1::ListKeysRequest { page_size, page_token, limit, filter, order_by }).await,
            ),
            List::Tenants => boxed(
                client
                    .admin()
                    .list_tenants(v1::ListTenantsRequest { page_size, page_token, limit, filter, order_by })
                    .await,
            ),
            List::UserConnectors => boxed(
                client
                    .user_connectors()
                    .list_user_connectors(v1::ListUserConnectorsRequest {
                        page_size,
                        page_token,
                        limit,
                        filter,
                        order_by,
                        user_id,
                        connector,
                    })
                    .await,
            ),
            List::Users => boxed(
                client
                    .users()
                    .list_users(v1::ListUsersRequest { page_size, page_token, limit, filter, order_by })
                    .await,
            ),
        }
    }

    /// Reads its messages to the end of the stream.
    ///
    /// # Errors
    /// Returns the status that the call or the stream ended with.
    pub async fn pages(self, client: &Client, ask: &Ask) -> Result<Vec<ListPage>, Status> {
        self.open(client, ask).await?.collect().await
    }

    /// Reads its items to the end of the stream.
    ///
    /// # Errors
    /// Returns the status that the call or the stream ended with.
    pub async fn rows(self, client: &Client, ask: &Ask) -> Result<Vec<Row>, Status> {
        Ok(self.pages(client, ask).await?.into_iter().flat_map(|page| page.rows).collect())
    }
}

// === impl Ask ===

impl Ask {
    /// All items that match a filter.
    pub fn filter(filter: impl Into<String>) -> Self {
        Self { filter: filter.into(), ..Self::default() }
    }

    /// All items, in pages of this size.
    pub fn pages_of(page_size: i32) -> Self {
        Self { page_size, ..Self::default() }
    }

    /// The same request, continued from a token.
    #[must_use]
    pub fn from(&self, page_token: &str) -> Self {
        Self { page_token: page_token.to_owned(), ..self.clone() }
    }
}

/// An item of any list.
trait Listed: Message {
    fn row(&self) -> Row;
}

macro_rules! listed {
    ($($message:ident { $($field:ident),* })*) => {$(
        impl Listed for v1::$message {
            fn row(&self) -> Row {
                let time = self.create_time.expect("every item has a creation time");
                #[allow(clippy::needless_update, reason = "some items have all of these fields")]
                Row {
                    id: self.id.clone(),
                    create_time: time.seconds * 1_000_000 + i64::from(time.nanos / 1_000),
                    message: self.encode_to_vec(),
                    $($field: self.$field.clone(),)*
                    ..Row { id: String::new(), name: String::new(), user_id: String::new(), create_time: 0, message: vec![] }
                }
            }
        }
    )*};
}

listed! {
    Application { name }
    Configuration { user_id }
    Connection { name }
    Connector { name }
    ConnectorEvent { }
    Credential { user_id }
    Key { name }
    PermissionGrant { user_id }
    Session { user_id }
    Tenant { name }
    UserConnector { user_id }
    User { user_id }
}

fn boxed<P>(answer: Result<Response<Streaming<P>>, Status>) -> Result<Pages, Status>
where
    P: Page + Message + 'static,
    P::Item: Listed,
{
    let pages = answer?.into_inner().map(|page| {
        page.map(|page| ListPage {
            next_page_token: page.next_page_token().to_owned(),
            bytes: page.encoded_len(),
            rows: page.items().iter().map(Listed::row).collect(),
        })
    });
    Ok(Box::pin(pages))
}
