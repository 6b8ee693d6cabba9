//! The services as a whole. They are the facade of the use cases: one method for each RPC, in the files of the resources.

use std::sync::Arc;

use jackfield_domain::principal::right::Admin;
use jackfield_domain::request::page::ListRequest;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::text::TenantName;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{Clock, Error, Result, TenantId, Timestamp};
use jackfield_store::{Store, Stored, Writer};
use jackfield_upstream::observe::Metrics;
use jackfield_vault::{Keyring, KeyringChange, KeyringError, Vault};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempts::Attempts;
use crate::authorization::{AcceptedSecrets, ChangedAuthorizations, DevicePolls, Issuers, MisledSessions, Redemptions};
use crate::cache::tenant_names::TenantNames;
use crate::cache::tokens::{TokenCacheSettings, Tokens};
use crate::caller::Caller;
use crate::change::{Change, Changes, missing};
use crate::credential::LaterRevocations;
use crate::events::ConnectorEvents;
use crate::gauges::{GaugeSources, Gauges};
use crate::key::{self, PublicRoots};
use crate::list::{ListScope, Listable, Lists, Pager};
use crate::login::LoginSettings;
use crate::outbound::{Outbound, OutboundSettings};
use crate::refresh::Refreshes;
use crate::rewrap::RewrapWatch;
use crate::sealing::data_keys::DataKeys;
use crate::sealing::passwords::Passwords;
use crate::sealing::secrets::Secrets;
use crate::source::SourceStreams;
use crate::turns::Turns;

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    pub(crate) shared: Arc<Components>,
}

/// The parts that use cases are made of.
pub(crate) struct Components {
    pub(crate) store: Store,
    pub(crate) vault: Arc<Vault>,
    pub(crate) data_keys: Arc<DataKeys>,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) passwords: Passwords,
    /// The turns at generating private keys.
    pub(crate) key_turns: Turns,
    pub(crate) changes: Changes,
    pub(crate) lists: Arc<Lists>,
    pub(crate) tokens: Tokens,
    pub(crate) outbound: Outbound,
    pub(crate) issuers: Issuers,
    pub(crate) login: LoginSettings,
    pub(crate) attempts: Attempts,
    pub(crate) refreshes: Refreshes,
    pub(crate) accepted_secrets: Arc<AcceptedSecrets>,
    pub(crate) later_revocations: LaterRevocations,
    pub(crate) events: ConnectorEvents,
    pub(crate) tenant_names: TenantNames,
    pub(crate) changed_authorizations: ChangedAuthorizations,
    pub(crate) misled_sessions: MisledSessions,
    pub(crate) device_polls: Arc<DevicePolls>,
    pub(crate) redemptions: Arc<Redemptions>,
    pub(crate) source_streams: SourceStreams,
    pub(crate) gauge_sources: Arc<GaugeSources>,
    pub(crate) rewrap_watch: RewrapWatch,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) facts: Facts,
}

/// Facts that do not change while the services are open.
pub(crate) struct Facts {
    pub(crate) reveal_enabled: bool,
    pub(crate) development: bool,
    /// The URL of the callback listener, if there is one.
    pub(crate) callback_url: Option<HttpUrl>,
    /// The tenant whose users the login in front of the callback listener names, if there is such a login.
    pub(crate) callback_tenant: Option<TenantName>,
    /// The authorities whose client certificates have a warning.
    pub(crate) public_roots: PublicRoots,
    pub(crate) start_time: Timestamp,
    pub(crate) schema_version: String,
}

/// Facts of the server.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    pub database_backend: &'static str,
    pub database_version: String,
    pub schema_version: String,
    pub active_key: String,
    pub keys: Vec<String>,
    pub start_time: Timestamp,
    pub reveal_enabled: bool,
    pub development: bool,
}

/// The reason why a keyring is not replaced.
#[derive(Debug, thiserror::Error)]
pub enum KeyringReplaceError {
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The keyring may be right: try again.
    #[error("the database does not say which keys are in use: {0}")]
    Database(#[from] Error),
}

// === impl Services ===

impl Services {
    pub(crate) fn new(
        store: Store,
        vault: Vault,
        clock: Arc<dyn Clock>,
        token_cache: TokenCacheSettings,
        (outbound, login): (OutboundSettings, LoginSettings),
        refreshes: Refreshes,
        facts: Facts,
    ) -> Self {
        let vault = Arc::new(vault);
        let data_keys = Arc::new(DataKeys::new(store.clone(), Arc::clone(&vault), Arc::clone(&clock)));
        let secrets = Arc::new(Secrets::new(store.clone(), Arc::clone(&data_keys)));
        let gauge_sources = Arc::new(GaugeSources::new(store.clone(), &refreshes));
        let max_staleness = token_cache.max_staleness;
        let issuers = Issuers::new(outbound.max_clients);
        let outbound = Outbound::new(outbound, max_staleness, store.clone(), Arc::clone(&secrets), Arc::clone(&clock));
        let components = Components {
            outbound,
            issuers,
            secrets,
            attempts: Attempts::new(login.attempts),
            login,
            refreshes,
            accepted_secrets: Arc::default(),
            later_revocations: LaterRevocations::default(),
            passwords: Passwords::new(),
            key_turns: Turns::new(key::AT_ONCE),
            changes: Changes::new(store.clone(), Arc::clone(&data_keys), Arc::clone(&clock)),
            lists: Arc::new(Lists::new(store.clone(), Arc::clone(&data_keys), Arc::clone(&clock))),
            tokens: Tokens::new(token_cache, &store),
            tenant_names: TenantNames::default(),
            changed_authorizations: ChangedAuthorizations::default(),
            misled_sessions: MisledSessions::default(),
            device_polls: Arc::default(),
            redemptions: Arc::default(),
            source_streams: SourceStreams::default(),
            events: ConnectorEvents::new(Arc::clone(&clock), Arc::clone(&gauge_sources)),
            gauge_sources,
            rewrap_watch: RewrapWatch::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            store,
            vault,
            data_keys,
            clock,
            facts,
        };
        Services { shared: Arc::new(components) }
    }

    /// Checks that calls can be served: the database answers and can be written, and the keyring opens what is in it.
    pub async fn ready(&self) -> Result<()> {
        self.shared.store.writable().await?;
        self.shared.data_keys.probe().await
    }

    /// Replaces the keyring, unless the new one lacks a key that data keys are wrapped with.
    pub async fn keyring_replace(&self, keyring: Keyring) -> Result<KeyringChange, KeyringReplaceError> {
        let in_use = self.shared.store.read().kek_ids_in_use().await?;
        let has = keyring.ids();
        let missing: Vec<String> = in_use.into_iter().filter(|id| !has.contains(id)).collect();
        if !missing.is_empty() {
            return Err(KeyringError::KeysMissing { ids: missing }.into());
        }
        let change = self.shared.vault.reload(keyring)?;
        // What a removed key opened must not stay.
        self.shared.tokens.clear();
        self.shared.outbound.forget_all();
        Ok(change)
    }

    /// Facts of this server.
    pub async fn server_info(&self, _: &Caller<Admin>) -> Result<ServerInfo> {
        let Components { store, vault, facts, .. } = &*self.shared;
        Ok(ServerInfo {
            database_backend: store.backend_name(),
            database_version: store.backend_version().await?,
            schema_version: facts.schema_version.clone(),
            active_key: vault.active_key_id(),
            keys: vault.key_ids(),
            start_time: facts.start_time,
            reveal_enabled: facts.reveal_enabled,
            development: facts.development,
        })
    }

    /// Starts a list, or continues one.
    pub async fn list<T: Listable>(
        &self,
        caller: &Caller<T::Right>,
        request: ListRequest<T>,
        scope: ListScope,
    ) -> Result<Pager<T>> {
        self.shared.lists.open(caller.tenant(), request, scope).await
    }

    /// The values that metrics read.
    pub fn gauges(&self) -> Gauges {
        Gauges::of(&self.shared.gauge_sources)
    }

    /// The metrics of calls to other systems.
    pub fn call_metrics(&self) -> &Metrics {
        self.shared.outbound.metrics()
    }

    /// Stops background work and closes the database.
    pub async fn close(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.store.clone().close().await;
    }

    /// The store, for tests that look below the services.
    #[doc(hidden)]
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The resource that a reference names.
    pub(crate) async fn find<R: Stored>(&self, tenant: TenantId, reference: &Ref) -> Result<R> {
        self.shared.store.read().find::<R>(tenant, reference).await?.ok_or_else(|| missing::<R>(reference))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Makes a change ([`Changes::run`]).
    pub(crate) async fn change<T, W>(&self, change: Change<'_>, work: W) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        W: AsyncFnOnce(&Writer) -> Result<T>,
    {
        self.shared.changes.run(change, work).await
    }
}
