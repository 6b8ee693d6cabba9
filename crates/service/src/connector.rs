//! Use cases of connectors.

use jackfield_domain::connector::{
    Connector, ConnectorKeys, ConnectorPatch, KindPatch, PASSWORD_COLUMN, PROXY_PASSWORD_COLUMN, SECRET_HEADERS_COLUMN,
};
use jackfield_domain::error::Violations;
use jackfield_domain::key::KeyKind;
use jackfield_domain::principal::right::{ConnectorsRead, ConnectorsWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{ConnectorId, Error, Resource, Result, SecretAddress, TenantId};
use jackfield_store::Writer;

use crate::caller::Caller;
use crate::change::{
    Change, DeleteOptions, Deleted, Expected, Length, RequestOptions, found_for_delete, found_for_update, missing,
    refuse_in_use, unchanged,
};
use crate::key::lock_key;
use crate::list::Listable;
use crate::outbound::{CLIENT_IDENTITY_KEY, TRUST_BUNDLE_KEY};
use crate::services::Services;

// === impl Services ===

impl Services {
    pub async fn connector_create(
        &self,
        caller: &Caller<ConnectorsWrite>,
        request: &RequestOptions,
        id: Option<ConnectorId>,
        patch: ConnectorPatch,
    ) -> Result<Connector> {
        self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let keys = connector_keys(txn, tenant, &patch).await?;
            let id = id.unwrap_or_else(ConnectorId::generate);
            let connector = Connector::create(id, &patch, keys, Meta::new(self.now())).map_err(Error::Invalid)?;
            self.shared.outbound.check(None, &connector)?;
            txn.insert(tenant, &connector).await?;
            self.connector_secrets(txn, tenant, id, &patch).await?;
            Ok(connector)
        })
        .await
    }

    pub async fn connector_get(&self, caller: &Caller<ConnectorsRead>, reference: &Ref) -> Result<Connector> {
        self.find::<Connector>(caller.tenant(), reference).await
    }

    pub async fn connector_update(
        &self,
        caller: &Caller<ConnectorsWrite>,
        request: &RequestOptions,
        reference: &Ref,
        expected: &Expected,
        patch: ConnectorPatch,
    ) -> Result<Connector> {
        let mut has_changed = false;
        let updated = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let found = txn.find_for_update::<Connector>(tenant, reference).await?;
            let before = found_for_update(found, || missing::<Connector>(reference), expected)?;
            let version = before.meta.version;
            let updated = self.connector_change(txn, tenant, before, &patch).await?;
            has_changed = updated.meta.version != version;
            Ok(updated)
        });
        let updated = updated.await?;
        self.forget_changed(caller, request, has_changed.then_some(updated.id));
        Ok(updated)
    }

    /// Changes a connector by a patch that depends on its state. The state is read in the transaction that changes it.
    pub async fn connector_patch(
        &self,
        caller: &Caller<ConnectorsWrite>,
        request: &RequestOptions,
        reference: &Ref,
        etag: String,
        patch: impl FnOnce(Connector) -> Result<(Expected, ConnectorPatch)>,
    ) -> Result<Connector> {
        let mut has_changed = false;
        let patched = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let found = txn.find_for_update::<Connector>(tenant, reference).await?;
            let before = found_for_update(found, || missing::<Connector>(reference), &Expected { etag, id: None })?;
            let (expected, patch) = patch(before.clone())?;
            let before = found_for_update(Some(before), || missing::<Connector>(reference), &expected)?;
            let version = before.meta.version;
            let patched = self.connector_change(txn, tenant, before, &patch).await?;
            has_changed = patched.meta.version != version;
            Ok(patched)
        });
        let patched = patched.await?;
        self.forget_changed(caller, request, has_changed.then_some(patched.id));
        Ok(patched)
    }

    pub async fn connector_delete(
        &self,
        caller: &Caller<ConnectorsWrite>,
        request: &RequestOptions,
        reference: &Ref,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        let (mut id, mut sources) = (None, Vec::new());
        let deleted = self.change(Change::of_tenant(caller, request, Length::of(options)), async |txn| {
            let tenant = caller.tenant();
            let found = txn.find_for_update::<Connector>(tenant, reference).await?;
            let Some(connector) = found_for_delete(found, || missing::<Connector>(reference), options)? else {
                return Ok(Deleted::default());
            };
            // Without the connector, the passwords of an application would be checked in another way. That is never a side effect.
            let uses = txn.connector_dependents(tenant, connector.id).await?.uses();
            let stay = |(user, _): &(Resource, u64)| !options.cascade || *user == Resource::Application;
            refuse_in_use(&connector, uses.into_iter().filter(stay))?;
            let deleted = txn.connector_delete(tenant, connector.id, self.now()).await?;
            id = Some(connector.id);
            let counts = deleted.counts();
            sources = deleted.credential_sources;
            Ok(Deleted::with(counts))
        });
        let deleted = deleted.await?;
        self.forget_changed(caller, request, id);
        self.forget_sources(caller.tenant(), request, sources);
        Ok(deleted)
    }

    /// Forgets the client of a connector that has changed. If it was only checked what a change would do, the client stays, with its
    /// connections and its circuit breaker.
    fn forget_changed(&self, caller: &Caller<ConnectorsWrite>, request: &RequestOptions, changed: Option<ConnectorId>) {
        if let Some(id) = changed.filter(|_| !request.validate_only) {
            self.shared.outbound.forget(caller.tenant(), id);
            // What its connections have fetched came through its client.
            self.shared.issuers.forget_tenant(caller.tenant());
            self.refresh_forget_connector(caller.tenant(), id);
        }
    }

    async fn connector_change(
        &self,
        txn: &Writer,
        tenant: TenantId,
        before: Connector,
        patch: &ConnectorPatch,
    ) -> Result<Connector> {
        let keys = connector_keys(txn, tenant, patch).await?;
        let meta = before.meta.changed(self.now());
        let connector = before.clone().patched(patch, keys, meta).map_err(Error::Invalid)?;
        if !patch.sets_secrets() && unchanged(&before, &connector) {
            return Ok(before);
        }
        let misdirected = before.misdirected_secrets(&connector, patch);
        if !misdirected.is_empty() {
            return Err(Error::Invalid(misdirected));
        }
        self.shared.outbound.check(Some(&before), &connector)?;
        txn.replace(tenant, &connector).await?;
        self.connector_secrets(txn, tenant, connector.id, patch).await?;
        Ok(connector)
    }

    async fn connector_secrets(
        &self,
        txn: &Writer,
        tenant: TenantId,
        id: ConnectorId,
        patch: &ConnectorPatch,
    ) -> Result<()> {
        let address = |name| SecretAddress::of(tenant, id, name);
        let secrets = &self.shared.secrets;
        if let KindPatch::Generic(generic) = &patch.kind {
            secrets.patch(txn, address(PASSWORD_COLUMN), &generic.password).await?;
        }
        secrets.patch(txn, address(PROXY_PASSWORD_COLUMN), &patch.egress_proxy_password).await?;
        secrets.patch_headers(txn, address(SECRET_HEADERS_COLUMN), &patch.secret_headers).await
    }
}

impl Listable for Connector {
    type Right = ConnectorsRead;
    const LIST: &'static str = "connectors";
}

/// The keys that a patch names. Each must be of the right kind.
async fn connector_keys(txn: &Writer, tenant: TenantId, patch: &ConnectorPatch) -> Result<ConnectorKeys> {
    let (identity, bundle) = (patch.client_identity_key.as_ref(), patch.trust_bundle_key.as_ref());
    let mut wrong = Violations::default();
    let mut lock = async |reference: Option<&Option<Ref>>, kind, field| {
        Ok::<_, Error>(match reference {
            None => None,
            Some(None) => Some(None),
            Some(Some(reference)) => Some(wrong.check(lock_key(txn, tenant, reference, kind, field).await?)),
        })
    };
    let keys = ConnectorKeys {
        client_identity_key: lock(identity, KeyKind::ClientIdentity, CLIENT_IDENTITY_KEY).await?,
        trust_bundle_key: lock(bundle, KeyKind::TrustBundle, TRUST_BUNDLE_KEY).await?,
    };
    wrong.into_result(Some(keys))
}
