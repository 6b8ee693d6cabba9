//! Use cases of keys.

mod facts;
mod names;
mod public_roots;
mod x509;

use jackfield_domain::key::{Key, KeyDraft, KeyKind, PRIVATE_KEY_COLUMN};
use jackfield_domain::principal::right::{KeysRead, KeysWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{Error, KeyId, Result, SecretAddress, TenantId, Violation};
use jackfield_store::Writer;

use self::x509::CheckedKey;
use crate::caller::Caller;
use crate::change::{
    Change, DeleteOptions, Deleted, Length, RequestOptions, found_for_delete, lock_parent, missing, refuse_in_use,
};
use crate::list::Listable;
use crate::services::Services;

/// A key whose certificates were stored.
pub struct ImportedKey {
    pub key: Key,
    /// Remarks for people about certificates that are usable today.
    pub warnings: Vec<String>,
}

// === impl ImportedKey ===

impl ImportedKey {
    fn new(key: Key) -> Self {
        let warnings = match key.kind {
            KeyKind::ClientIdentity => public_roots::warning(&key.certificate_pem).into_iter().collect(),
            KeyKind::TrustBundle => Vec::new(),
        };
        ImportedKey { key, warnings }
    }
}

// === impl Services ===

impl Services {
    pub async fn key_import(
        &self,
        caller: &Caller<KeysWrite>,
        request: &RequestOptions,
        draft: KeyDraft,
    ) -> Result<ImportedKey> {
        let key = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let now = self.now();
            let KeyDraft { id, name, kind, certificate_pem, private_key_pem, labels } = draft;
            let implied = if private_key_pem.is_some() { KeyKind::ClientIdentity } else { KeyKind::TrustBundle };
            let kind = kind.unwrap_or(implied);
            let checked = x509::check(kind, &certificate_pem, private_key_pem.as_ref(), now)?;
            let CheckedKey { certificates, certificate_pem, private_key_pem } = checked;
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
                let address = SecretAddress::of(tenant, key.id, PRIVATE_KEY_COLUMN);
                self.shared.secrets.put(txn, address, private_key.expose().as_bytes()).await?;
            }
            Ok(key)
        });
        Ok(ImportedKey::new(key.await?))
    }

    pub async fn key_get(&self, caller: &Caller<KeysRead>, reference: &Ref) -> Result<Key> {
        let found = self.shared.store.read().key_find(caller.tenant(), reference).await?;
        found.ok_or_else(|| missing::<Key>(reference))
    }

    pub async fn key_delete(
        &self,
        caller: &Caller<KeysWrite>,
        request: &RequestOptions,
        reference: &Ref,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let found = txn.find_for_update::<Key>(tenant, reference).await?;
            let Some(key) = found_for_delete(found, || missing::<Key>(reference), options)? else {
                return Ok(Deleted::default());
            };
            refuse_in_use(&key, txn.key_dependents(tenant, key.id).await?)?;
            txn.key_delete(tenant, key.id).await?;
            Ok(Deleted::alone())
        })
        .await
    }
}

/// The key that another resource names in a field. It must be of a kind. No other transaction deletes it until this one ends.
pub(crate) async fn lock_key(
    txn: &Writer,
    tenant: TenantId,
    reference: &Ref,
    kind: KeyKind,
    field: &str,
) -> Result<Result<KeyId, Violation>> {
    let key = lock_parent::<Key>(txn, tenant, reference).await?;
    let description = format!("names a key of type {}, and not {}", key.kind.as_str(), kind.as_str());
    Ok(if key.kind == kind { Ok(key.id) } else { Err(Violation::field(field, description)) })
}

impl Listable for Key {
    type Right = KeysRead;
    const LIST: &'static str = "keys";
}
