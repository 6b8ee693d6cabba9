//! The clients that are in use, one for each definition and its revision.

use std::convert::Infallible;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jackfield_domain::TenantId;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, UnitWeighter};
use uuid::Uuid;

use crate::client::{Client, Definition, DefinitionError, Network, Places};
use crate::keys::Keys;

pub use crate::keys::Revision;

/// The clients of all definitions, found by id. A client of an earlier revision is never returned, and its idle
/// connections and TLS sessions end with it.
pub struct Clients {
    network: Arc<Network>,
    kept: Arc<Places>,
    keys: Keys,
    current: Cache<SlotId, Arc<Slot>>,
}

/// The time after which a client that is not used is forgotten.
const UNUSED: Duration = Duration::from_secs(600);

/// The tenant and the id of what a client is for.
pub type ClientId = (TenantId, Uuid);

/// The connector of a client, and the connection if it has a client of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId {
    pub connector: ClientId,
    pub connection: Option<Uuid>,
}

/// The client of one id. Only one is made at a time.
#[derive(Default)]
struct Slot(Mutex<Option<(Revision, Arc<Client>)>>);

// === impl Clients ===

impl Clients {
    /// Makes a registry that keeps at most so many clients, and so many connections of all of them for the next calls.
    pub fn new(network: Network, max_clients: usize, max_kept: usize) -> Self {
        Clients {
            network: Arc::new(network),
            kept: Arc::new(Places::new(max_kept)),
            keys: Keys::default(),
            current: cache_of(max_clients),
        }
    }

    /// The identities and bundles that the clients have.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The network of all clients.
    pub fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// Returns the client of a definition, if there is one of this revision.
    pub fn get(&self, id: impl Into<SlotId>, revision: &Revision) -> Option<Arc<Client>> {
        self.current.get(&id.into())?.get(revision)
    }

    /// Returns the client of this revision, and makes it if it does not exist. It replaces the one of another revision.
    ///
    /// # Errors
    /// The definition cannot be used. What was there before stays, and is not returned for this revision.
    pub fn get_or_insert(
        &self,
        id: impl Into<SlotId>,
        revision: Revision,
        definition: impl FnOnce() -> Result<Definition, DefinitionError>,
    ) -> Result<Arc<Client>, DefinitionError> {
        self.found_or_made(id.into(), revision, definition, Client::of_connector)
    }

    /// The same for a credential source, which has no time series of its own.
    ///
    /// # Errors
    /// The definition cannot be used.
    pub fn get_or_insert_source(
        &self,
        id: ClientId,
        revision: Revision,
        definition: impl FnOnce() -> Result<Definition, DefinitionError>,
    ) -> Result<Arc<Client>, DefinitionError> {
        self.found_or_made(id.into(), revision, definition, |client, (_, source)| client.of_source(source))
    }

    fn found_or_made(
        &self,
        id: SlotId,
        revision: Revision,
        definition: impl FnOnce() -> Result<Definition, DefinitionError>,
        named: impl FnOnce(Client, ClientId) -> Client,
    ) -> Result<Arc<Client>, DefinitionError> {
        let slot = self.current.get_or_insert_with(&id, || Ok::<_, Infallible>(Arc::default()));
        let Ok(slot) = slot;
        let mut current = slot.lock();
        if let Some((known, client)) = &*current
            && *known == revision
        {
            return Ok(client.clone());
        }
        let client = Client::new(self.network.clone(), definition()?, self.kept.clone())?;
        let client = Arc::new(named(client, id.connector));
        *current = Some((revision, client.clone()));
        Ok(client)
    }

    /// Forgets the client of a connector, such as one that was deleted, and those of its connections.
    pub fn remove(&self, connector: ClientId) {
        self.current.retain(|id, _| id.connector != connector);
    }

    /// Forgets the client of a connection.
    pub fn remove_connection(&self, tenant: TenantId, connection: Uuid) {
        self.current.retain(|id, _| id.connector.0 != tenant || id.connection != Some(connection));
    }

    /// Forgets the clients of a tenant.
    pub fn remove_tenant(&self, tenant: TenantId) {
        self.current.retain(|id, _| id.connector.0 != tenant);
    }

    /// Forgets all clients.
    pub fn clear(&self) {
        self.current.clear();
    }

    /// Closes idle connections whose time is over, and forgets clients that have not been used for a while, with the secrets in them. To
    /// be called every few seconds, because clients have no tasks.
    pub fn sweep(&self) {
        for (id, slot) in self.current.iter() {
            let client = slot.lock().as_ref().map(|(_, client)| client.clone());
            match client {
                Some(client) if client.unused() > UNUSED => {
                    self.current.remove(&id);
                }
                Some(client) => client.sweep(),
                None => {}
            }
        }
        self.keys.sweep();
        self.kept.sweep();
    }

    /// The number of clients.
    pub fn len(&self) -> usize {
        self.current.len()
    }

    /// Returns true if there is no client.
    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }
}

/// A cache of exactly so many entries. One of several shards would evict entries of a full shard while others have room.
pub(crate) fn cache_of<K: Eq + Hash, V: Clone>(max: usize) -> Cache<K, V> {
    let options = OptionsBuilder::new().shards(1).estimated_items_capacity(max).weight_capacity(max as u64).build();
    options.map_or_else(
        |_| Cache::new(max),
        |options| {
            Cache::with_options(options, UnitWeighter, DefaultHashBuilder::default(), DefaultLifecycle::default())
        },
    )
}

// === impl SlotId ===

impl From<ClientId> for SlotId {
    fn from(connector: ClientId) -> Self {
        SlotId { connector, connection: None }
    }
}

// === impl Slot ===

impl Slot {
    fn get(&self, revision: &Revision) -> Option<Arc<Client>> {
        match &*self.lock() {
            Some((known, client)) if known == revision => Some(client.clone()),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Revision, Arc<Client>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
