//! Reading list streams.

use std::fmt::Debug;

use jackfield_api::v1;
use tokio_stream::StreamExt;
use tonic::{Response, Status, Streaming};

/// One message of a list.
pub trait Page: Debug + Send {
    /// The type of the listed items.
    type Item: Debug;

    /// The items of this page.
    fn items(self) -> Vec<Self::Item>;

    /// The token of the next page; empty at the end.
    fn next_page_token(&self) -> &str;
}

macro_rules! pages {
    ($($response:ident: $field:ident of $item:ident;)*) => {$(
        impl Page for v1::$response {
            type Item = v1::$item;

            fn items(self) -> Vec<v1::$item> {
                self.$field
            }

            fn next_page_token(&self) -> &str {
                &self.next_page_token
            }
        }
    )*};
}

pages! {
    ListApplicationsResponse: applications of Application;
    ListConfigurationsResponse: configurations of Configuration;
    ListConnectionsResponse: connections of Connection;
    ListConnectorEventsResponse: connector_events of ConnectorEvent;
    ListConnectorsResponse: connectors of Connector;
    ListCredentialsResponse: credentials of Credential;
    ListKeysResponse: keys of Key;
    ListPermissionsResponse: grants of PermissionGrant;
    ListSessionsResponse: sessions of Session;
    ListTenantsResponse: tenants of Tenant;
    ListUserConnectorsResponse: user_connectors of UserConnector;
    ListUsersResponse: users of User;
}

/// Reads the pages of a list to the end of the stream.
///
/// # Errors
/// Returns the status that the call or the stream ended with.
pub async fn pages<P: Page>(answer: Result<Response<Streaming<P>>, Status>) -> Result<Vec<P>, Status> {
    answer?.into_inner().collect().await
}

/// Reads the items of a list to the end of the stream.
///
/// # Errors
/// Returns the status that the call or the stream ended with.
pub async fn items<P: Page>(answer: Result<Response<Streaming<P>>, Status>) -> Result<Vec<P::Item>, Status> {
    Ok(pages(answer).await?.into_iter().flat_map(P::items).collect())
}
