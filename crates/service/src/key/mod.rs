//! Use cases of keys.

mod expiring;
mod generate;
mod public_roots;
mod rotate;
mod x509;

use jackfield_domain::key::{Key, KeyDraft, KeyGeneration, KeyKind, KeyMaterial, KeyPatch};
use jackfield_domain::principal::right::{KeysRead, KeysWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::Name;
use jackfield_domain::{Error, KeyId, Result, Secret, SecretAddress, TenantId, Timestamp, Violation};
use jackfield_store::Writer;

use self::generate::Generated;
use self::x509::{Given, PrivateKey};
use crate::caller::Caller;
use crate::change::{
    Change, DeleteOptions, Deleted, Expected, Length, RequestOptions, found_for_delete, found_for_update, lock_parent,
    missing, refuse_in_use, unchanged,
};
use crate::list::Listable;
use crate::services::Services;

pub(crate) use self::generate::AT_ONCE;
pub use self::public_roots::PublicRoots;
pub use self::rotate::{NewMaterial, Rotation};

/// The field of a key that has its certificates.
const CERTIFICATES: &str = "key.certificate_pem";
/// The field of an import that has the private key.
const PRIVATE_KEY: &str = "private_key_pem";

/// A key whose certificates were stored.
pub struct StoredKey {
    pub key: Key,
    /// Remarks for people about certificates that are usable today.
    pub warnings: Vec<String>,
}

/// A key to be generated.
#[derive(Debug)]
pub struct GeneratedKey {
    pub id: Option<KeyId>,
    pub name: Name,
    pub labels: Labels,
    pub generation: KeyGeneration,
}

// === impl Services ===

impl Services {
    pub async fn key_import(
        &self,
        caller: &Caller<KeysWrite>,
        request: &RequestOptions,
        draft: KeyDraft,
    ) -> Result<StoredKey> {
        let key = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let KeyDraft { id, name, kind, certificate_pem, private_key_pem, labels } = draft;
            let implied = if private_key_pem.is_some() { KeyKind::ClientIdentity } else { KeyKind::TrustBundle };
            let kind = kind.unwrap_or(implied);
            let given = Given { field: CERTIFICATES, pem: &certificate_pem };
            let (current, private_key) = imported(kind, given, (PRIVATE_KEY, private_key_pem.as_ref()), 0, self.now())?;
            let id = id.unwrap_or_else(KeyId::generate);
            let (next, meta) = (None, Meta::new(self.now()));
            self.key_insert(
                txn,
                caller.tenant(),
                Key { id, name, kind, current, next, used_by: 0, labels, meta },
                private_key,
            )
            .await
        });
        Ok(self.stored_key(key.await?, |key| &key.current))
    }

    pub async fn key_generate(
        &self,
        caller: &Caller<KeysWrite>,
        request: &RequestOptions,
        draft: GeneratedKey,
    ) -> Result<Key> {
        let GeneratedKey { id, name, labels, generation } = draft;
        let change = Change::of_tenant(caller, request, Length::Short);
        let turns = (&self.shared.key_turns, caller.tenant());
        let generated = Generated::generate(turns, generation, &name, self.now(), request.validate_only);
        let generated = self.shared.changes.prepare(change, generated).await?;
        self.change(change, async |txn| {
            let (current, private_key) = generated.get()?.into_material(0, self.now())?;
            let (id, kind) = (id.unwrap_or_else(KeyId::generate), KeyKind::ClientIdentity);
            let (next, meta) = (None, Meta::new(self.now()));
            let key = Key { id, name, kind, current, next, used_by: 0, labels, meta };
            self.key_insert(txn, caller.tenant(), key, Some(private_key)).await
        })
        .await
    }

    /// A key with the warnings about the material that was stored.
    fn stored_key(&self, key: Key, material: impl FnOnce(&Key) -> &KeyMaterial) -> StoredKey {
        let warning = match key.kind {
            KeyKind::ClientIdentity => self.shared.facts.public_roots.warning(&material(&key).certificate_pem),
            KeyKind::TrustBundle => None,
        };
        StoredKey { key, warnings: warning.into_iter().collect() }
    }

    async fn key_insert(&self, txn: &Writer, tenant: TenantId, key: Key, private_key: Option<Secret>) -> Result<Key> {
        txn.insert(tenant, &key).await?;
        if let Some(private_key) = private_key {
            self.private_key_put(txn, tenant, key.id, &key.current, &private_key).await?;
        }
        Ok(key)
    }

    pub async fn key_get(&self, caller: &Caller<KeysRead>, reference: &Ref) -> Result<Key> {
        let found = self.shared.store.read().key_find(caller.tenant(), reference).await?;
        let mut key = found.ok_or_else(|| missing::<Key>(reference))?;
        key.settle(self.now());
        Ok(key)
    }

    pub async fn key_update(
        &self,
        caller: &Caller<KeysWrite>,
        request: &RequestOptions,
        reference: &Ref,
        expected: &Expected,
        patch: KeyPatch,
    ) -> Result<StoredKey> {
        let key = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let found = self.key_lock(txn, tenant, reference).await?;
            let before = found_for_update(found, || missing::<Key>(reference), expected)?;
            let mut key = before.clone();
            key.apply(&patch).map_err(Error::Invalid)?;
            match &patch.certificate_pem {
                Some(Some(pem)) if *pem != key.current.certificate_pem => {
                    let given = Given { field: CERTIFICATES, pem };
                    key.current = self.certified(txn, tenant, &key, &key.current, given).await?;
                }
                Some(None) if !key.current.is_pending() => {
                    return Err(Violation::field(CERTIFICATES, "is required").into());
                }
                _ => {}
            }
            if !unchanged(&before, &key) {
                key.meta = before.meta.changed(self.now());
                txn.replace(tenant, &key).await?;
            }
            key.used_by = txn.key_dependents(tenant, key.id).await?.iter().map(|(_, count)| count).sum();
            Ok(key)
        });
        Ok(self.stored_key(key.await?, |key| &key.current))
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
            let found = self.key_lock(txn, tenant, reference).await?;
            let Some(key) = found_for_delete(found, || missing::<Key>(reference), options)? else {
                return Ok(Deleted::default());
            };
            refuse_in_use(&key, txn.key_dependents(tenant, key.id).await?)?;
            txn.key_delete(tenant, key.id).await?;
            Ok(Deleted::alone())
        })
        .await
    }

    /// Material with other certificates, which must belong to its private key.
    async fn certified(
        &self,
        txn: &Writer,
        tenant: TenantId,
        key: &Key,
        material: &KeyMaterial,
        given: Given<'_>,
    ) -> Result<KeyMaterial> {
        let checked = match key.kind {
            KeyKind::ClientIdentity => {
                let column = material.private_key_column();
                let private_key =
                    self.shared.secrets.text(Some(txn), SecretAddress::of(tenant, key.id, &column)).await?;
                let private_key = private_key.ok_or_else(|| Error::internal("a key lacks its private key"))?;
                x509::check_identity(given, PrivateKey::Stored(&private_key), self.now())?.0
            }
            KeyKind::TrustBundle => x509::check_bundle(given, self.now())?,
        };
        Ok(KeyMaterial::of(material.number, checked.certificate_pem, checked.certificates))
    }

    async fn private_key_put(
        &self,
        txn: &Writer,
        tenant: TenantId,
        id: KeyId,
        material: &KeyMaterial,
        private_key: &Secret,
    ) -> Result<()> {
        let column = material.private_key_column();
        self.shared.secrets.put(txn, SecretAddress::of(tenant, id, &column), private_key.expose().as_bytes()).await
    }
}

/// Material that was given with its private key, which is in a field of the request, or as a trust bundle without one.
fn imported(
    kind: KeyKind,
    given: Given<'_>,
    (field, private_key): (&'static str, Option<&Secret>),
    number: u32,
    now: Timestamp,
) -> Result<(KeyMaterial, Option<Secret>)> {
    let (checked, private_key) = match (kind, private_key) {
        (KeyKind::ClientIdentity, Some(private_key)) => {
            let (checked, private_key) = x509::check_identity(given, PrivateKey::Given(field, private_key), now)?;
            (checked, Some(private_key))
        }
        (KeyKind::TrustBundle, None) => (x509::check_bundle(given, now)?, None),
        (KeyKind::ClientIdentity, None) => {
            return Err(Violation::field(field, "is required for a client identity").into());
        }
        (KeyKind::TrustBundle, Some(_)) => {
            return Err(Violation::field(field, "must not be given for a trust bundle").into());
        }
    };
    Ok((KeyMaterial::of(number, checked.certificate_pem, checked.certificates), private_key))
}

/// The key that another resource names in a field. It must be of a kind, and have its certificate. No other transaction deletes it until
/// this one ends.
pub(crate) async fn lock_key(
    txn: &Writer,
    tenant: TenantId,
    reference: &Ref,
    kind: KeyKind,
    field: &str,
) -> Result<Result<KeyId, Violation>> {
    let key = lock_parent::<Key>(txn, tenant, reference).await?;
    Ok(usable_key(&key, kind, field).map(|()| key.id))
}

/// Refuses a key of another kind, and one without its certificate. `field` names it.
pub(crate) fn usable_key(key: &Key, kind: KeyKind, field: &str) -> Result<(), Violation> {
    if key.kind != kind {
        let description = format!("names a key of type {}, and not {}", key.kind.as_str(), kind.as_str());
        return Err(Violation::field(field, description));
    }
    if key.current.is_pending() {
        return Err(Violation::field(field, "names a key whose certificate is missing: UpdateKey takes it"));
    }
    Ok(())
}

impl Listable for Key {
    type Right = KeysRead;
    const LIST: &'static str = "keys";

    fn settle(&mut self, now: Timestamp) {
        self.activate(now);
    }
}
