//! Keys of clients, and the versions of what a client is made of.

use jackfield_domain::key::Key;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{Secret, TenantId};
use jackfield_upstream::client::DefinitionError;
use jackfield_upstream::clients::Revision;
use jackfield_upstream::keys::Keys;
use jackfield_upstream::tls::{Identity, IdentityError, Trust};
use uuid::Uuid;

/// The identity that a key and its private part make.
pub(super) fn identity_of(
    tenant: TenantId,
    key: Option<&Key>,
    private_key: Option<&Secret>,
    keys: &Keys,
) -> Result<Option<Identity>, DefinitionError> {
    let Some(key) = key else { return Ok(None) };
    let private_key = private_key.ok_or(IdentityError::NoPrivateKey)?;
    let read = || Identity::from_pem(&key.current.certificate_pem, private_key);
    Ok(Some(keys.identity((tenant, Revision::of(key_versions(key))), read)?))
}

/// The trust that a key makes; that in the public CAs if there is none.
pub(super) fn trust_of(tenant: TenantId, key: Option<&Key>, keys: &Keys) -> Result<Trust, DefinitionError> {
    Ok(match key {
        Some(key) => {
            keys.bundle((tenant, Revision::of(key_versions(key))), || Trust::from_pem(&key.current.certificate_pem))?
        }
        None => Trust::public(),
    })
}

/// The versions of a row. The time of creation distinguishes it from a deleted one with the same id.
pub(super) fn versions(id: Uuid, meta: &Meta) -> [(Uuid, i64); 2] {
    [(id, meta.create_time.0), (id, meta.version)]
}

/// The versions of a key. The number of the material says what the clocks of two replicas may disagree about.
pub(super) fn key_versions(key: &Key) -> [(Uuid, i64); 3] {
    let [created, changed] = versions(key.id.0, &key.meta);
    [created, changed, (key.id.0, key.current.number.into())]
}
