//! Helpers that the tests share.

use futures::executor::block_on;
use jackfield_domain::{Resource, SecretAddress, TenantId};
use jackfield_vault::{DataKey, Keyring, Vault};
use uuid::Uuid;

pub(crate) const TENANT: TenantId = TenantId(Uuid::from_bytes([0x11; 16]));
pub(crate) const OTHER_TENANT: TenantId = TenantId(Uuid::from_bytes([0x12; 16]));
pub(crate) const ROW: Uuid = Uuid::from_bytes([0x33; 16]);

/// The text form of a keyring with one key, whose secret is the bytes 0 to 31.
pub(crate) const KEYRING: &str = r#"
active = "kek-1"

[[key]]
id = "kek-1"
state = "active"
created = 2026-01-02T03:04:05Z
secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
"#;

/// The secret in [`KEYRING`].
pub(crate) const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

pub(crate) fn address(tenant: TenantId) -> SecretAddress<'static> {
    SecretAddress { tenant, owner: Resource::Credential, owner_id: ROW, name: "material" }
}

pub(crate) fn keyring() -> Keyring {
    Keyring::parse(KEYRING).expect("the keyring is valid")
}

pub(crate) fn data_key(tenant: TenantId) -> DataKey {
    block_on(Vault::new(keyring()).data_key_create(tenant)).expect("a keyring is always there").0
}
