//! The connections of a harness. A token endpoint that leaves several requests in a row in doubt gets one at a time, after pauses. If all cases had
//! one endpoint, most of them would have no request while something fails. So there are several, each with a connector of its own.

use std::time::Duration;

use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::{ProviderOptions, fixture};
use tokio::time::sleep;
use tonic::{Code, Status};

use super::world::{Grant, World};
use crate::steps;

/// Connections to the provider.
pub(super) struct Places(Vec<Place>);

struct Place {
    connector: String,
    connection: String,
}

/// The times that a credential is tried to be stored, and the pause between them.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// Their number: in a round, each has so few credentials that its endpoint is seldom silent, and sometimes is.
const PLACES: usize = 20;

// === impl Places ===

impl Places {
    /// Makes connections to the provider of a world.
    pub(super) async fn of(world: &World, change: impl Fn(&mut v1::Connection)) -> Self {
        let mut places = Vec::new();
        for number in 0..PLACES {
            let name = format!("Provider {number}");
            let connector = steps::connector(&world.client, fixture::an_oauth2_connector(&name)).await.id;
            let ProviderOptions { client_id, client_secrets, .. } = ProviderOptions::default();
            let secrets = client_secrets.into_iter().map(|value| {
                let secret_id = "1".to_owned();
                v1::ClientSecret { secret_id, value, create_time: None }
            });
            let mut connection = v1::Connection {
                token_url: Some(world.provider.token_url()),
                client_id: Some(client_id),
                client_secrets: secrets.collect(),
                ..fixture::a_connection(&name, &connector)
            };
            change(&mut connection);
            let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
            let created = world.client.connections().create_connection(request).await.expect("a connection");
            let connection = created.into_inner().connection.expect("the created connection").id;
            places.push(Place { connector, connection });
        }
        Places(places)
    }

    /// A credential of a new grant whose access token has expired. Those of subsequent numbers have different connections.
    pub(super) async fn expired(&self, world: &World, (round, number): (usize, usize)) -> Grant {
        let place = &self.0[number % self.0.len()];
        for again in 0..TRIES {
            match place.expired(world, &format!("user-{round}-{number}-{again}")).await {
                Ok(grant) => return grant,
                // On a slow machine, callers wait for the database for longer than they can.
                Err(status) if status.code() == Code::Unavailable => sleep(PAUSE).await,
                Err(status) => panic!("a credential: {status:?}"),
            }
        }
        panic!("no credential can be stored");
    }
}

// === impl Place ===

impl Place {
    async fn expired(&self, world: &World, user: &str) -> Result<Grant, Status> {
        let Place { connector, connection } = self;
        let issued = world.provider.grant(user, &["read", "write"]);
        let oauth2 = v1::OAuth2Material {
            access_token: issued.access_token.clone(),
            refresh_token: issued.refresh_token,
            expire_time: Some(fixture::seconds_from_now(-60)),
            scopes: vec!["read".to_owned(), "write".to_owned()],
            ..Default::default()
        };
        let (user_id, connector) = (user.to_owned(), connector.clone());
        let facts = v1::Credential { connection: connection.clone(), ..fixture::a_credential(user, &connector) };
        let link = v1::AddUserConnectorRequest { user_id, connector, ..Default::default() };
        world.client.user_connectors().add_user_connector(link).await?;
        let material = Some(v1::CredentialMaterial { material: Some(Material::Oauth2(oauth2)) });
        let request = v1::CreateCredentialRequest { credential: Some(facts), material, ..Default::default() };
        let created = world.client.credentials().create_credential(request).await?.into_inner();
        let credential = created.credential.expect("the created credential").id;
        Ok(Grant { family: issued.family, access_token: issued.access_token, credential })
    }
}
