//! Clients of connectors. A client is made of the stored definition, and found again as long as nothing of it has changed.

mod keys;
mod source;
mod version;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::connector::{
    Connector, ConnectorKeys, ConnectorKind, ConnectorPatch, Generic, KindPatch, PASSWORD_COLUMN,
    PROXY_PASSWORD_COLUMN, SECRET_HEADERS_COLUMN, SecretHeadersPatch,
};
use jackfield_domain::key::{Key, KeyKind};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::maps::is_refused_header;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{
    Clock, ConnectionId, ConnectorId, Error, KeyId, Result, Secret, SecretAddress, SecretPatch, TenantId, Violation,
    Violations,
};
use jackfield_store::Store;
use jackfield_upstream::client::{
    AUTHORIZATION, Client, Definition, DefinitionError, HeaderMap, Limits, Network, Proxy, basic, header_of,
};
use jackfield_upstream::clients::{Clients, Revision, SlotId};
use jackfield_upstream::egress::{Policy, Target};
use jackfield_upstream::keys::Keys;
use jackfield_upstream::observe::Metrics;
use jackfield_upstream::oidc::{DocumentFault, ProviderEndpoints};
use jackfield_upstream::probe::{ConnectionProbe, Probe, Verdicts};
use jackfield_upstream::resolve::{Files, SystemResolver};
use uuid::Uuid;

use self::keys::{identity_of, key_versions, trust_of, versions};
use crate::cache::connectors::{Connectors, KnownConnector};
use crate::change::missing;
use crate::key::usable_key;
use crate::sealing::secrets::Secrets;

pub(crate) use self::version::ClientVersion;

/// The settings of calls to other systems.
#[derive(Clone, Debug)]
pub struct OutboundSettings {
    pub policy: Policy,
    /// Name servers in place of those of the machine, if there are any.
    pub dns_servers: Vec<SocketAddr>,
    /// The most clients that are kept. One that is used less often than the others gives way.
    pub max_clients: usize,
    /// The most connections that are kept for the next call, of all clients together.
    pub max_idle_connections: usize,
}

/// The clients of connectors.
pub(crate) struct Outbound {
    policy: Policy,
    store: Store,
    secrets: Arc<Secrets>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    connectors: Connectors,
    clients: Clients,
}

/// A connector with its client. If the definition cannot be used, the operator has to mend it.
pub(crate) struct ConnectorClient {
    pub(crate) connector: Arc<Connector>,
    pub(crate) client: Result<Arc<Client>, DefinitionError>,
}

/// A connector with its definition. If that cannot be used, the operator has to mend it.
pub(crate) struct ConnectorDefinition {
    pub(crate) connector: Connector,
    pub(crate) definition: Result<Definition, DefinitionError>,
    /// The client of a stored connector, if it can be made.
    pub(crate) client: Option<Arc<Client>>,
}

/// The rows that a client is made of.
struct Rows {
    connector: Connector,
    identity: Option<Key>,
    trust: Option<Key>,
    /// The connection whose key `identity` is.
    of_connection: Option<Arc<ConnectionIdentity>>,
}

/// A connection whose client presents a certificate of its own.
pub(crate) struct ConnectionIdentity {
    pub(crate) connection: ConnectionId,
    pub(crate) meta: Meta,
    pub(crate) key: KeyId,
    /// The origins that get the certificate.
    pub(crate) origins: Vec<Target>,
}

/// The secrets that a client is made of.
struct Opened {
    password: Option<Secret>,
    proxy_password: Option<Secret>,
    headers: BTreeMap<String, Secret>,
    private_key: Option<Secret>,
}

/// The fields of requests that name keys.
pub(crate) const CLIENT_IDENTITY_KEY: &str = "connector.client_identity_key";
pub(crate) const TRUST_BUNDLE_KEY: &str = "connector.trust_bundle_key";
/// The most attempts to read rows that change in between.
pub(crate) const READ_ATTEMPTS: usize = 5;
const RETRY_AFTER: Duration = Duration::from_millis(500);

// === impl Outbound ===

impl Outbound {
    /// Connectors are used for at most `max_staleness` after another replica has changed them.
    pub(crate) fn new(
        settings: OutboundSettings,
        max_staleness: Duration,
        store: Store,
        secrets: Arc<Secrets>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let OutboundSettings { policy, dns_servers, max_clients, max_idle_connections } = settings;
        let metrics = Metrics::default();
        let resolver = Box::new(SystemResolver::new(Files::default(), dns_servers));
        let network = Network { policy: policy.clone(), resolver, metrics: metrics.clone() };
        let connectors = Connectors::new(&store, max_clients, max_staleness);
        let clients = Clients::new(network, max_clients, max_idle_connections);
        Outbound { policy, store, secrets, clock, metrics, connectors, clients }
    }

    /// Refuses URLs of a connector that could never be called, unless they were stored before. The addresses of names are checked when
    /// they are called.
    pub(crate) fn check(&self, before: Option<&Connector>, connector: &Connector) -> Result<()> {
        let mut violations = Violations::default();
        let refused = |field| move |refusal| Violation::field(field, format!("cannot be called: {refusal}"));
        let Connector { kind, egress_proxy, .. } = connector;
        let stored = before.map(|before| before.kind.called_urls()).unwrap_or_default();
        let has_proxy_changed = before.is_none_or(|before| before.egress_proxy != *egress_proxy);
        let is_new = |url: &(&str, &HttpUrl)| has_proxy_changed || !stored.contains(url);
        for (field, url) in kind.called_urls().into_iter().filter(is_new) {
            let checked = self.policy.check_url(url).and_then(|target| match egress_proxy {
                Some(_) => self.policy.check_proxied(&target),
                None => Ok(()),
            });
            violations.check(checked.map_err(refused(field)));
        }
        if let Some(proxy) = egress_proxy.as_ref().filter(|_| has_proxy_changed) {
            violations.check(self.policy.check_proxy_url(proxy).map_err(refused("connector.egress_proxy")));
        }
        violations.into_result(Some(()))
    }

    /// The connector that a reference names, and the client for what is stored now. `usable` says if the connector can be used at all,
    /// before its secrets are opened.
    pub(crate) async fn client(
        &self,
        tenant: TenantId,
        reference: &Ref,
        usable: impl Fn(&Connector) -> Result<()>,
    ) -> Result<ConnectorClient> {
        if let Some(known) = self.connectors.get(tenant, reference, self.clock.now()) {
            usable(&known.connector)?;
            if let Some(client) = self.clients.get((tenant, known.connector.id.0), &known.revision) {
                return Ok(ConnectorClient { connector: known.connector.clone(), client: Ok(client) });
            }
        }
        // On the heap, because most calls do without.
        Box::pin(self.read_client(tenant, reference, usable)).await
    }

    /// The connector that a reference names as it is stored, and its client.
    async fn read_client(
        &self,
        tenant: TenantId,
        reference: &Ref,
        usable: impl Fn(&Connector) -> Result<()>,
    ) -> Result<ConnectorClient> {
        let start = self.connectors.start_read();
        let rows = self.found(tenant, reference, None).await?;
        usable(&rows.connector)?;
        let (rows, client) = self.client_of(tenant, rows).await?;
        usable(&rows.connector)?;
        let known = Arc::new(rows.into_known());
        let connector = known.connector.clone();
        if client.is_ok() {
            self.connectors.put(tenant, reference, known, start);
        }
        Ok(ConnectorClient { connector, client })
    }

    /// The client for rows, which are read again if they have changed since.
    async fn client_of(&self, tenant: TenantId, rows: Rows) -> Result<(Rows, Result<Arc<Client>, DefinitionError>)> {
        let id = rows.slot(tenant);
        if let Some(client) = self.clients.get(id, &rows.revision()) {
            return Ok((rows, Ok(client)));
        }
        let (rows, opened) = self.opened(tenant, rows).await?;
        let client =
            self.clients.get_or_insert(id, rows.revision(), || rows.definition(tenant, &opened, self.clients.keys()));
        Ok((rows, client))
    }

    /// The connector that a reference names, and the definition of what is stored now: its own, or that of one of its connections.
    pub(crate) async fn definition(
        &self,
        tenant: TenantId,
        reference: &Ref,
        of_connection: Option<ConnectionIdentity>,
    ) -> Result<ConnectorDefinition> {
        let rows = self.found(tenant, reference, of_connection.map(Arc::new).as_ref()).await?;
        let (rows, opened) = self.opened(tenant, rows).await?;
        let id = rows.slot(tenant);
        let definition = || rows.definition(tenant, &opened, self.clients.keys());
        let client = self.clients.get_or_insert(id, rows.revision(), definition).ok();
        Ok(ConnectorDefinition { definition: definition(), connector: rows.connector, client })
    }

    /// The connector that a patch of a blank one makes, and its definition. Nothing is stored.
    pub(crate) async fn draft(&self, tenant: TenantId, patch: ConnectorPatch) -> Result<ConnectorDefinition> {
        let mut violations = Violations::default();
        let mut find = async |reference: &Option<Option<Ref>>, kind, field| {
            let Some(Some(reference)) = reference else { return Ok(None) };
            let key = self.store.read().find::<Key>(tenant, reference).await?;
            let mut key = key.ok_or_else(|| missing::<Key>(reference))?;
            key.activate(self.clock.now());
            violations.check(usable_key(&key, kind, field));
            Ok::<_, Error>(Some(key))
        };
        let identity = find(&patch.client_identity_key, KeyKind::ClientIdentity, CLIENT_IDENTITY_KEY).await?;
        let trust = find(&patch.trust_bundle_key, KeyKind::TrustBundle, TRUST_BUNDLE_KEY).await?;
        violations.into_result(Some(()))?;
        let id = |key: &Option<Key>| Some(key.as_ref().map(|key| key.id));
        let keys = ConnectorKeys { client_identity_key: id(&identity), trust_bundle_key: id(&trust) };
        let connector = Connector::create(ConnectorId::generate(), &patch, keys, Meta::new(self.clock.now()));
        let rows = Rows { connector: connector.map_err(Error::Invalid)?, identity, trust, of_connection: None };
        let opened = Opened::given(patch, self.private_key(tenant, rows.identity.as_ref()).await?);
        Ok(ConnectorDefinition {
            definition: rows.definition(tenant, &opened, self.clients.keys()),
            connector: rows.connector,
            client: None,
        })
    }

    /// The client of a connection at endpoints that know it by its certificate: that of its connector, but with another key.
    pub(crate) async fn connection_client(
        &self,
        tenant: TenantId,
        connector: ConnectorId,
        identity: ConnectionIdentity,
    ) -> Result<Result<Arc<Client>, DefinitionError>> {
        let rows = self.found(tenant, &Ref::Id(connector.0), Some(&Arc::new(identity))).await?;
        Ok(self.client_of(tenant, rows).await?.1)
    }

    /// Makes a probe.
    pub(crate) fn probe(&self, probe: Probe) -> Verdicts {
        jackfield_upstream::probe::probe(self.clients.network().clone(), probe)
    }

    /// Reads the endpoints that an issuer publishes, as a probe does. `None`: the definition of the probe cannot be used.
    pub(crate) async fn published_endpoints(
        &self,
        probe: &Probe,
        issuer: &str,
    ) -> Option<Result<ProviderEndpoints, DocumentFault>> {
        jackfield_upstream::probe::published_endpoints(self.clients.network(), probe, issuer).await
    }

    /// Makes a probe of a connection.
    pub(crate) fn probe_connection(&self, probe: ConnectionProbe) -> Verdicts {
        jackfield_upstream::probe::probe_connection(self.clients.network().clone(), probe)
    }

    /// Forgets the client of a connector that was changed or deleted, and the secrets in it. Other replicas forget it when it has not been
    /// used for a while.
    pub(crate) fn forget(&self, tenant: TenantId, connector: ConnectorId) {
        self.clients.remove((tenant, connector.0));
    }

    /// Forgets the client of a connection that was changed or deleted, if it has one of its own, and the private key in it.
    pub(crate) fn forget_connection(&self, tenant: TenantId, connection: ConnectionId) {
        self.clients.remove_connection(tenant, connection.0);
    }

    /// Forgets the clients of a tenant that was deleted, and the secrets in them.
    pub(crate) fn forget_tenant(&self, tenant: TenantId) {
        self.clients.remove_tenant(tenant);
    }

    /// Forgets all clients.
    pub(crate) fn forget_all(&self) {
        self.clients.clear();
    }

    /// The metrics of calls.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Closes idle connections whose time is over.
    pub(crate) fn sweep(&self) {
        self.clients.sweep();
    }

    /// Drops connectors that were read a while ago, or have changed since.
    pub(crate) fn sweep_connectors(&self) {
        self.connectors.sweep(self.clock.now());
    }

    /// The rows of a connector; `None` if a key was deleted in between, because the connector has another one now.
    async fn rows(
        &self,
        tenant: TenantId,
        reference: &Ref,
        of_connection: Option<&Arc<ConnectionIdentity>>,
    ) -> Result<Option<Rows>> {
        let read = self.store.read();
        let found = read.find::<Connector>(tenant, reference).await?;
        let connector = found.ok_or_else(|| missing::<Connector>(reference))?;
        let identity = of_connection.map_or(connector.client_identity_key, |own| Some(own.key));
        let identity = self.key(tenant, identity).await?;
        let trust = self.key(tenant, connector.trust_bundle_key).await?;
        let (Some(identity), Some(trust)) = (identity, trust) else { return Ok(None) };
        Ok(Some(Rows { connector, identity, trust, of_connection: of_connection.cloned() }))
    }

    /// The rows of the connector that a reference names. A key that is used is not deleted, so a missing one is a row that changed in
    /// between.
    async fn found(
        &self,
        tenant: TenantId,
        reference: &Ref,
        of_connection: Option<&Arc<ConnectionIdentity>>,
    ) -> Result<Rows> {
        for _ in 0..READ_ATTEMPTS {
            if let Some(rows) = self.rows(tenant, reference, of_connection).await? {
                return Ok(rows);
            }
        }
        Err(Error::ServerUnavailable { retry_after: RETRY_AFTER })
    }

    /// Rows with their secrets. Secrets are read after the rows. If the rows are still the same, the secrets are those of the rows,
    /// so a secret header never goes to the URL that it was not meant for.
    async fn opened(&self, tenant: TenantId, mut rows: Rows) -> Result<(Rows, Opened)> {
        for _ in 0..READ_ATTEMPTS {
            let opened = self.open(tenant, &rows).await?;
            let reference = Ref::Id(rows.connector.id.0);
            let again = self.found(tenant, &reference, rows.of_connection.as_ref()).await?;
            if again.revision() == rows.revision() {
                return Ok((rows, opened));
            }
            rows = again;
        }
        Err(Error::ServerUnavailable { retry_after: RETRY_AFTER })
    }

    /// The key of a connector, if it has one, with the material that is current now; `None` if the key does not exist.
    pub(crate) async fn key(&self, tenant: TenantId, id: Option<KeyId>) -> Result<Option<Option<Key>>> {
        let Some(id) = id else { return Ok(Some(None)) };
        let Some(mut key) = self.store.read().fetch::<Key>(tenant, id).await? else { return Ok(None) };
        key.activate(self.clock.now());
        Ok(Some(Some(key)))
    }

    async fn open(&self, tenant: TenantId, rows: &Rows) -> Result<Opened> {
        let Rows { connector, identity, trust: _, of_connection: _ } = rows;
        let password = match &connector.kind {
            ConnectorKind::Generic(Generic { password_set: true, .. }) => {
                self.secrets.text(None, SecretAddress::of(tenant, connector.id, PASSWORD_COLUMN)).await?
            }
            _ => None,
        };
        let proxy_password = match connector.egress_proxy_password_set {
            true => self.secrets.text(None, SecretAddress::of(tenant, connector.id, PROXY_PASSWORD_COLUMN)).await?,
            false => None,
        };
        let headers = match connector.secret_header_names.is_empty() {
            true => BTreeMap::new(),
            false => self.secrets.headers(SecretAddress::of(tenant, connector.id, SECRET_HEADERS_COLUMN)).await?,
        };
        let private_key = self.private_key(tenant, identity.as_ref()).await?;
        Ok(Opened { password, proxy_password, headers, private_key })
    }

    pub(crate) async fn private_key(&self, tenant: TenantId, identity: Option<&Key>) -> Result<Option<Secret>> {
        let Some(key) = identity else { return Ok(None) };
        let column = key.current.private_key_column();
        self.secrets.text(None, SecretAddress::of(tenant, key.id, &column)).await
    }
}

// === impl Opened ===

impl Opened {
    /// The secrets of a patch.
    fn given(patch: ConnectorPatch, private_key: Option<Secret>) -> Self {
        let set = |patch| match patch {
            SecretPatch::Set(secret) => Some(secret),
            SecretPatch::Keep | SecretPatch::Clear => None,
        };
        let password = match patch.kind {
            KindPatch::Generic(generic) => set(generic.password),
            _ => None,
        };
        let headers = match patch.secret_headers {
            SecretHeadersPatch::Set(headers) => headers,
            SecretHeadersPatch::Keep | SecretHeadersPatch::Clear | SecretHeadersPatch::Entries(_) => BTreeMap::new(),
        };
        Opened { password, proxy_password: set(patch.egress_proxy_password), headers, private_key }
    }
}

// === impl ConnectionIdentity ===

impl ConnectionIdentity {
    /// The versions of the connection, and the origins, which a document of the issuer may have changed.
    fn versions(&self) -> [(Uuid, i64); 3] {
        let mut hasher = DefaultHasher::new();
        self.origins.iter().for_each(|origin| origin.origin().hash(&mut hasher));
        let [created, changed] = versions(self.connection.0, &self.meta);
        [created, changed, (self.connection.0, hasher.finish().cast_signed())]
    }
}

// === impl Rows ===

impl Rows {
    /// The versions of the rows.
    fn revision(&self) -> Revision {
        let keys = [&self.identity, &self.trust].into_iter().flatten().flat_map(key_versions);
        let connection = self.of_connection.iter().flat_map(|own| own.versions());
        Revision::of(versions(self.connector.id.0, &self.connector.meta).into_iter().chain(keys).chain(connection))
    }

    fn slot(&self, tenant: TenantId) -> SlotId {
        let connection = self.of_connection.as_ref().map(|own| own.connection.0);
        SlotId { connector: (tenant, self.connector.id.0), connection }
    }

    /// The part of the rows that is kept when there is a client.
    fn into_known(self) -> KnownConnector {
        let activations = [&self.identity, &self.trust].into_iter().flatten().filter_map(Key::activation);
        let (activate_time, revision) = (activations.min(), self.revision());
        // What a call does not need may be large.
        let (data, labels, description) = Default::default();
        let connector = Connector { data, labels, description, ..self.connector };
        KnownConnector { connector: Arc::new(connector), revision, activate_time }
    }

    fn definition(&self, tenant: TenantId, opened: &Opened, keys: &Keys) -> Result<Definition, DefinitionError> {
        let Rows { connector, identity, trust, of_connection } = self;
        let none = Secret::new(String::new());
        let mut headers = HeaderMap::new();
        let secret = opened.headers.iter().map(|(name, value)| (name.as_str(), value.expose(), true));
        let plain = connector.headers.iter().map(|(name, value)| (name.as_str(), value.as_str(), false));
        // A header that is refused today may have been stored before it was.
        for (name, value, is_secret) in plain.chain(secret).filter(|(name, ..)| !is_refused_header(name)) {
            let (name, value) = header_of(name, value, is_secret)?;
            headers.append(name, value);
        }
        if let ConnectorKind::Generic(Generic { username: Some(username), .. }) = &connector.kind {
            let value = basic(username, opened.password.as_ref().unwrap_or(&none))?;
            headers.insert(AUTHORIZATION, value);
        }
        let identity = identity_of(tenant, identity.as_ref(), opened.private_key.as_ref(), keys)?;
        let trust = trust_of(tenant, trust.as_ref(), keys)?;
        // A URL that cannot be called is refused when it is called, with the reason.
        let urls = connector.kind.system_urls().into_iter();
        let origins = urls.filter_map(|(_, url)| Target::parse(url).ok()).collect();
        let Connector { timeouts, max_concurrent_requests, max_response_bytes, egress_proxy, .. } = connector;
        let proxy = egress_proxy.as_ref().map(|url| {
            let username = connector.egress_proxy_username.as_deref();
            Proxy::new(url, username.map(|username| (username, opened.proxy_password.as_ref().unwrap_or(&none))))
        });
        let mut limits = Limits::default();
        limits.concurrency = max_concurrent_requests.map_or(limits.concurrency, |most| most as usize);
        limits.idle = limits.concurrency;
        limits.body = max_response_bytes.map_or(limits.body, |most| most as usize);
        Ok(Definition {
            origins,
            identity,
            identity_origins: of_connection.as_ref().map(|own| own.origins.clone()),
            headers,
            trust,
            timeouts: *timeouts,
            limits,
            proxy: proxy.transpose()?,
            propagate_trace_context: connector.propagate_trace_context,
        })
    }
}
