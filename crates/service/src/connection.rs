//! Use cases of connections.

use jackfield_domain::connection::{
    ClientAuthentication, ClientSecretsPatch, Connection, ConnectionPatch, client_secret_column,
};
use jackfield_domain::connector::Connector;
use jackfield_domain::error::Violation;
use jackfield_domain::key::{Key, KeyKind};
use jackfield_domain::principal::right::{ConnectionsRead, ConnectionsWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{ConnectionId, ConnectorId, Error, KeyId, Result, Secret, SecretAddress, TenantId};
use jackfield_store::Writer;
use jackfield_upstream::oauth::AssertionKey;
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::caller::Caller;
use crate::change::{
    Change, DeleteOptions, Deleted, Expected, Length, RequestOptions, found_for_delete, found_for_update, lock_parent,
    missing, refuse_in_use, unchanged,
};
use crate::key::usable_key;
use crate::list::Listable;
use crate::services::Services;

const CLIENT_KEY: &str = "connection.client_key";

// === impl Services ===

impl Services {
    pub async fn connection_create(
        &self,
        caller: &Caller<ConnectionsWrite>,
        request: &RequestOptions,
        id: Option<ConnectionId>,
        patch: ConnectionPatch,
    ) -> Result<Connection> {
        self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let reference = patch.connector.as_ref();
            let reference = reference.ok_or_else(|| Violation::field("connection.connector", "is required"))?;
            let connector = lock_parent::<Connector>(txn, tenant, reference).await?.id;
            let id = id.unwrap_or_else(ConnectionId::generate);
            let key = client_key(txn, tenant, &patch, None).await?;
            let connection =
                Connection::create(id, connector, key, &patch, Meta::new(self.now())).map_err(Error::Invalid)?;
            txn.insert(tenant, &connection).await?;
            self.client_secrets(txn, tenant, id, &patch.client_secrets, &[]).await?;
            Ok(connection)
        })
        .await
    }

    pub async fn connection_get(&self, caller: &Caller<ConnectionsRead>, reference: &Ref) -> Result<Connection> {
        self.find::<Connection>(caller.tenant(), reference).await
    }

    pub async fn connection_update(
        &self,
        caller: &Caller<ConnectionsWrite>,
        request: &RequestOptions,
        reference: &Ref,
        expected: &Expected,
        patch: ConnectionPatch,
    ) -> Result<Connection> {
        let updated = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let found = txn.find_for_update::<Connection>(tenant, reference).await?;
            let before = found_for_update(found, || missing::<Connection>(reference), expected)?;
            if let Some(connector) = &patch.connector
                && connector_of(txn, tenant, connector).await? != before.connector
            {
                return Err(Violation::field("connection.connector", "may not be changed").into());
            }
            if patch.grant.is_some_and(|grant| grant != before.settings.grant) {
                return Err(Violation::field("connection.grant_type", "may not be changed").into());
            }
            let stored: Vec<String> = before.client_secrets.iter().map(|secret| secret.secret_id.clone()).collect();
            let meta = before.meta.changed(self.now());
            let key = client_key(txn, tenant, &patch, Some(&before)).await?;
            let connection = before.clone().patched(&patch, key, meta).map_err(Error::Invalid)?;
            let sets_secrets = match &patch.client_secrets {
                ClientSecretsPatch::Set(secrets) => secrets.iter().any(|secret| secret.value.is_some()),
                ClientSecretsPatch::Keep | ClientSecretsPatch::Clear => false,
            };
            if !sets_secrets && unchanged(&before, &connection) {
                return Ok(before);
            }
            txn.replace(tenant, &connection).await?;
            self.client_secrets(txn, tenant, connection.id, &patch.client_secrets, &stored).await?;
            Ok(connection)
        });
        let updated = updated.await?;
        self.forget_issuer(caller, request, Some(updated.id));
        Ok(updated)
    }

    /// Adds a client secret to a connection, before the others. Without an id, one is made.
    pub async fn connection_rotate_secret(
        &self,
        caller: &Caller<ConnectionsWrite>,
        request: &RequestOptions,
        reference: &Ref,
        expected: &Expected,
        (secret_id, value): (Option<String>, Secret),
    ) -> Result<Connection> {
        let rotated = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let found = txn.find_for_update::<Connection>(tenant, reference).await?;
            let before = found_for_update(found, || missing::<Connection>(reference), expected)?;
            let secret_id = secret_id.unwrap_or_else(|| Uuid::now_v7().simple().to_string());
            let meta = before.meta.changed(self.now());
            let connection = before.with_secret(&secret_id, meta)?;
            txn.replace(tenant, &connection).await?;
            let column = client_secret_column(&secret_id);
            let address = SecretAddress::of(tenant, connection.id, &column);
            self.shared.secrets.put(txn, address, value.expose().as_bytes()).await?;
            Ok(connection)
        });
        let rotated = rotated.await?;
        self.forget_issuer(caller, request, Some(rotated.id));
        Ok(rotated)
    }

    pub async fn connection_delete(
        &self,
        caller: &Caller<ConnectionsWrite>,
        request: &RequestOptions,
        reference: &Ref,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        let mut id = None;
        let deleted = self.change(Change::of_tenant(caller, request, Length::of(options)), async |txn| {
            let tenant = caller.tenant();
            let found = txn.find_for_update::<Connection>(tenant, reference).await?;
            let Some(connection) = found_for_delete(found, || missing::<Connection>(reference), options)? else {
                return Ok(Deleted::default());
            };
            if !options.cascade {
                let dependents = txn.connection_dependents(tenant, connection.id).await?;
                refuse_in_use(&connection, dependents.uses())?;
            }
            // Links that lose their default get another, as when a credential is deleted by itself.
            let links = txn.connection_links_lock(tenant, connection.id).await?;
            let cascade = txn.connection_delete(tenant, connection.id, self.now()).await?;
            for link in links {
                self.mark_successor(txn, tenant, link).await?;
            }
            id = Some(connection.id);
            Ok(Deleted::with(cascade.counts()))
        });
        let deleted = deleted.await?;
        self.forget_issuer(caller, request, id);
        Ok(deleted)
    }

    /// Forgets what was fetched for a connection that has changed.
    fn forget_issuer(
        &self,
        caller: &Caller<ConnectionsWrite>,
        request: &RequestOptions,
        changed: Option<ConnectionId>,
    ) {
        if let Some(id) = changed.filter(|_| !request.validate_only) {
            self.shared.issuers.forget(caller.tenant(), id);
            self.shared.outbound.forget_connection(caller.tenant(), id);
            self.refresh_forget_connection(caller.tenant(), id);
        }
    }

    /// Changes the sealed client secrets as a patch says. `stored` are the ids that were stored before.
    async fn client_secrets(
        &self,
        txn: &Writer,
        tenant: TenantId,
        id: ConnectionId,
        patch: &ClientSecretsPatch,
        stored: &[String],
    ) -> Result<()> {
        let wanted = match patch {
            ClientSecretsPatch::Keep => return Ok(()),
            ClientSecretsPatch::Set(wanted) => wanted.as_slice(),
            ClientSecretsPatch::Clear => &[],
        };
        let gone = stored.iter().filter(|stored| wanted.iter().all(|wanted| wanted.secret_id != **stored));
        let gone = gone.map(|secret_id| (client_secret_column(secret_id), None));
        let set = wanted.iter().filter_map(|secret| {
            let value = secret.value.as_ref()?;
            Some((client_secret_column(&secret.secret_id), Some(value)))
        });
        // In one order for all transactions, so that two of them never wait for each other.
        for (name, value) in gone.chain(set).collect::<BTreeMap<_, _>>() {
            let address = SecretAddress::of(tenant, id, &name);
            match value {
                Some(value) => self.shared.secrets.put(txn, address, value.expose().as_bytes()).await?,
                None => txn.secret_delete(address).await?,
            }
        }
        Ok(())
    }
}

impl Listable for Connection {
    type Right = ConnectionsRead;
    const LIST: &'static str = "connections";
}

async fn connector_of(txn: &Writer, tenant: TenantId, reference: &Ref) -> Result<ConnectorId> {
    let connector = txn.find::<Connector>(tenant, reference).await?;
    connector.map(|connector| connector.id).ok_or_else(|| missing::<Connector>(reference))
}

/// The key that a connection has after a patch. It must fit the way in which the client then says who it is.
async fn client_key(
    txn: &Writer,
    tenant: TenantId,
    patch: &ConnectionPatch,
    before: Option<&Connection>,
) -> Result<Option<KeyId>> {
    let stored = before.and_then(|before| before.client_key);
    if patch.client_key.is_none() && patch.client_authentication.is_none() {
        return Ok(stored);
    }
    let reference = patch.client_key.clone().unwrap_or_else(|| stored.map(|id| Ref::Id(id.0)));
    let Some(reference) = reference else { return Ok(None) };
    let key = lock_parent::<Key>(txn, tenant, &reference).await?;
    usable_key(&key, KeyKind::ClientIdentity, CLIENT_KEY)?;
    let before = before.map(|before| before.settings.client_authentication);
    let signs = patch.client_authentication.or(before) == Some(ClientAuthentication::PrivateKeyJwt);
    let leaf = key.current.certificates.first();
    if signs && !leaf.is_some_and(|leaf| AssertionKey::signs(&leaf.public_key_algorithm)) {
        let description = "names a key that signs no assertions: they take one of RSA, P-256, P-384 or Ed25519";
        return Err(Violation::field(CLIENT_KEY, description).into());
    }
    Ok(Some(key.id))
}
