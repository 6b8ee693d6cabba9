//! The rotation of keys: the next material is stored beside the current one, and replaces it at a time.

use jackfield_domain::error::Violation;
use jackfield_domain::key::{Key, KeyGeneration, KeyKind, KeyMaterial, NextMaterial};
use jackfield_domain::principal::right::KeysWrite;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{KeyId, Result, Secret, SecretAddress, TenantId, Timestamp};
use jackfield_store::Writer;

use super::generate::{GENERATION, Generated};
use super::x509::Given;
use super::{StoredKey, imported};
use crate::caller::Caller;
use crate::change::{Change, Expected, Length, RequestOptions, found_for_update, missing};
use crate::services::Services;

/// The next material of a key.
#[derive(Debug)]
pub struct Rotation {
    pub material: NewMaterial,
    /// The time at which it replaces the current material; `None` is now, or the time that was chosen before if this is the certificate of
    /// a signing request.
    pub activate_time: Option<Timestamp>,
}

/// Material that is given or generated.
#[derive(Debug)]
pub enum NewMaterial {
    Given { certificate_pem: String, private_key_pem: Option<Secret> },
    Generated(KeyGeneration),
}

/// Material that is ready to be stored.
enum Material {
    Given { certificate_pem: String, private_key_pem: Option<Secret> },
    Generated(Generated),
}

const CERTIFICATES: &str = "imported.certificate_pem";
const PRIVATE_KEY: &str = "imported.private_key_pem";
const ACTIVATE_TIME: &str = "activate_time";

/// Keys whose next material is activated in one round of maintenance.
const ACTIVATION_BATCH: u64 = 500;

// === impl Services ===

impl Services {
    pub async fn key_rotate(
        &self,
        caller: &Caller<KeysWrite>,
        request: &RequestOptions,
        reference: &Ref,
        etag: String,
        rotation: Rotation,
    ) -> Result<StoredKey> {
        let Rotation { material, activate_time } = rotation;
        let tenant = caller.tenant();
        let change = Change::of_tenant(caller, request, Length::Short);
        let prepared = match material {
            NewMaterial::Given { certificate_pem, private_key_pem } => {
                Some(Material::Given { certificate_pem, private_key_pem }).into()
            }
            NewMaterial::Generated(generation) => {
                let generated = async {
                    // A key that is missing is reported below: a repeat gets its answer even if the key is gone.
                    let found = self.shared.store.read().find::<Key>(tenant, reference).await?;
                    let Some(key) = found else { return Ok(None) };
                    let turns = (&self.shared.key_turns, tenant);
                    Generated::generate(turns, generation, &key.name, self.now(), request.validate_only)
                        .await
                        .map(Material::Generated)
                        .map(Some)
                };
                self.shared.changes.prepare(change, generated).await?
            }
        };
        let key = self.change(change, async |txn| {
            let found = self.key_lock(txn, tenant, reference).await?;
            let expected = Expected { etag, id: None };
            let mut key = found_for_update(found, || missing::<Key>(reference), &expected)?;
            let prepared = prepared.get()?.ok_or_else(|| missing::<Key>(reference))?;
            let (material, private_key) = self.next_material(txn, tenant, &key, prepared).await?;
            let is_replaced = key.next.as_ref().filter(|next| next.material.number != material.number);
            if let Some(replaced) = is_replaced {
                self.private_key_delete(txn, tenant, key.id, &replaced.material).await?;
            }
            let stored = key.next.as_ref().filter(|next| next.material.number == material.number);
            let activate_time = activate_time.or(stored.map(|next| next.activate_time)).unwrap_or(self.now());
            let activate_time = activate_time.max(self.now());
            check_activation(&material, activate_time)?;
            if let Some(private_key) = private_key {
                self.private_key_put(txn, tenant, key.id, &material, &private_key).await?;
            }
            key.next = Some(NextMaterial { activate_time, material });
            key.meta = key.meta.changed(self.now());
            txn.replace(tenant, &key).await?;
            self.key_activate(txn, tenant, &mut key).await?;
            key.used_by = txn.key_dependents(tenant, key.id).await?.iter().map(|(_, count)| count).sum();
            Ok(key)
        });
        Ok(self.stored_key(key.await?, |key| key.next.as_ref().map_or(&key.current, |next| &next.material)))
    }

    /// The key that a reference names, locked until the transaction ends, with the material that is current now.
    pub(super) async fn key_lock(&self, txn: &Writer, tenant: TenantId, reference: &Ref) -> Result<Option<Key>> {
        let Some(mut key) = txn.find_for_update::<Key>(tenant, reference).await? else { return Ok(None) };
        self.key_activate(txn, tenant, &mut key).await?;
        Ok(Some(key))
    }

    /// Activates the next material of all keys whose time has come, so that replaced private keys are destroyed even if no call uses the
    /// keys.
    pub(crate) async fn keys_activate(&self) -> Result<()> {
        let due = self.shared.store.read().keys_to_activate(self.now(), ACTIVATION_BATCH).await?;
        for (tenant, id) in due {
            let activated = self.change(Change::by_system(Length::Short), async |txn| {
                let Some(mut key) = txn.fetch_for_update::<Key>(tenant, id).await? else { return Ok(false) };
                self.key_activate(txn, tenant, &mut key).await
            });
            match activated.await {
                Ok(true) => {
                    tracing::info!(tenant.id = %tenant, key.id = %id, "the next material of a key is the current one")
                }
                Ok(false) => {}
                // Others can be activated, and maintenance has more to do.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, tenant.id = %tenant, key.id = %id, "the next material of a key cannot be activated");
                }
            }
        }
        Ok(())
    }

    /// Stores that the next material is the current one if its time has come, and destroys the private key that it replaces. Returns
    /// whether it has come.
    async fn key_activate(&self, txn: &Writer, tenant: TenantId, key: &mut Key) -> Result<bool> {
        let Some(replaced) = key.activate(self.now()) else { return Ok(false) };
        txn.replace(tenant, key).await?;
        self.private_key_delete(txn, tenant, key.id, &replaced).await?;
        Ok(true)
    }

    async fn private_key_delete(
        &self,
        txn: &Writer,
        tenant: TenantId,
        id: KeyId,
        material: &KeyMaterial,
    ) -> Result<()> {
        txn.secret_delete(SecretAddress::of(tenant, id, &material.private_key_column())).await
    }

    /// The next material, and its private key if that is not stored yet.
    async fn next_material(
        &self,
        txn: &Writer,
        tenant: TenantId,
        key: &Key,
        prepared: Material,
    ) -> Result<(KeyMaterial, Option<Secret>)> {
        if key.current.is_pending() {
            let description = "names a key whose certificate is missing: UpdateKey takes it";
            return Err(Violation::field("reference", description).into());
        }
        match prepared {
            Material::Generated(_) if key.kind == KeyKind::TrustBundle => {
                Err(Violation::field(GENERATION, "must not be given for a trust bundle").into())
            }
            Material::Generated(generated) => {
                let (material, private_key) = generated.into_material(key.next_number(), self.now())?;
                Ok((material, Some(private_key)))
            }
            Material::Given { certificate_pem, private_key_pem } => {
                let given = Given { field: CERTIFICATES, pem: &certificate_pem };
                match (&key.next, &private_key_pem) {
                    (Some(next), None) if key.kind == KeyKind::ClientIdentity => {
                        Ok((self.certified(txn, tenant, key, &next.material, given).await?, None))
                    }
                    (_, None) if key.kind == KeyKind::ClientIdentity => {
                        let description = "is required: there is no next material that the certificate could belong to \
                                           (UpdateKey takes another certificate of the current private key)";
                        Err(Violation::field(PRIVATE_KEY, description).into())
                    }
                    _ => {
                        let private_key = (PRIVATE_KEY, private_key_pem.as_ref());
                        imported(key.kind, given, private_key, key.next_number(), self.now())
                    }
                }
            }
        }
    }
}

/// Material must be valid when it becomes the current one.
fn check_activation(material: &KeyMaterial, activate_time: Timestamp) -> Result<(), Violation> {
    if let Some(not_before) = material.not_before().filter(|not_before| *not_before > activate_time) {
        let description = format!("must not be before the certificates are valid, at {not_before}");
        return Err(Violation::field(ACTIVATE_TIME, description));
    }
    if let Some(not_after) = material.not_after.filter(|not_after| *not_after <= activate_time) {
        let description = format!("must be before the certificates expire, at {not_after}");
        return Err(Violation::field(ACTIVATE_TIME, description));
    }
    Ok(())
}
