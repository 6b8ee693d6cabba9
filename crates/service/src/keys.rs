//! Use cases of keys.

use std::future::Future;

use jackfield_domain::error::Use;
use jackfield_domain::key::{Key, KeyDraft, KeyKind, PRIVATE_KEY_COLUMN};
use jackfield_domain::principal::right::{KeysRead, KeysWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{Error, KeyId, Resource, Result};
use jackfield_store::{Page, PageQuery, Reader};

use crate::caller::Caller;
use crate::mutation::{Deletion, Mutation, Weight, check_etag};
use crate::open::Services;
use crate::pager::Listable;
use crate::secrets::SecretPlace;
use crate::x509::{self, Checked};

// === impl Services ===

impl Services {
    pub async fn key_import(&self, caller: &Caller<KeysWrite>, mutation: &Mutation, draft: KeyDraft) -> Result<Key> {
        self.change(caller, mutation, Weight::Light, async |txn| {
            let tenant = caller.tenant();
            let now = self.now();
            let KeyDraft { id, name, kind, certificate_pem, private_key_pem, labels } = draft;
            let told = if private_key_pem.is_some() { KeyKind::ClientIdentity } else { KeyKind::TrustBundle };
            let kind = kind.unwrap_or(told);
            let checked = x509::check(kind, &certificate_pem, private_key_pem.as_ref(), now)?;
            let Checked { certificates, certificate_pem, private_key_pem } = checked;
            let not_after = certificates.iter().map(|certificate| certificate.not_after).min();
            let key = Key {
                id: id.unwrap_or_else(KeyId::generate),
                name,
                kind,
                certificate_pem,
                not_after: not_after.ok_or_else(|| Error::internal("a key without certificates"))?,
                certificates,
                used_by: 0,
                labels,
                meta: Meta::new(now),
            };
            txn.insert(tenant, &key).await?;
            if let Some(private_key) = &private_key_pem {
                let place = SecretPlace { tenant, owner: Resource::Key, owner_id: key.id.0, name: PRIVATE_KEY_COLUMN };
                self.secret_put(txn, place, private_key.expose().as_bytes()).await?;
            }
            Ok(key)
        })
        .await
    }

    pub async fn key_get(&self, caller: &Caller<KeysRead>, reference: &Ref) -> Result<Key> {
        let found = self.shared.store.read().key_find(caller.tenant(), reference).await?;
        found.ok_or_else(|| Error::not_found(Resource::Key, reference))
    }

    /// Deletes a key. Says whether there was one.
    pub async fn key_delete(
        &self,
        caller: &Caller<KeysWrite>,
        mutation: &Mutation,
        reference: &Ref,
        deletion: &Deletion,
    ) -> Result<bool> {
        self.change(caller, mutation, Weight::Light, async |txn| {
            let tenant = caller.tenant();
            let found = txn.find_for_update::<Key>(tenant, reference).await?;
            let Some(key) = found else {
                if deletion.allow_missing {
                    return Ok(false);
                }
                return Err(Error::not_found(Resource::Key, reference));
            };
            check_etag(&key.meta, &deletion.etag, Resource::Key, key.id)?;
            let uses = txn.key_uses(tenant, vec![key.id]).await?;
            let (connectors, credentials) = uses.get(&key.id.0).copied().unwrap_or_default();
            let counts = [(Resource::Connector, connectors), (Resource::Credential, credentials)];
            let by: Vec<Use> = counts
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(resource, count)| Use { resource, count })
                .collect();
            if !by.is_empty() {
                return Err(Error::InUse { resource: Resource::Key, id: key.id.to_string(), by });
            }
            txn.key_delete(tenant, key.id).await?;
            Ok(true)
        })
        .await
    }
}

impl Listable for Key {
    type Right = KeysRead;
    const LIST: &'static str = "keys";

    fn page(read: &Reader, query: &PageQuery<'_>) -> impl Future<Output = Result<Page<Self>>> + Send {
        read.page(query)
    }
}
