//! Sealed values of a test server, opened without it.

use jackfield_domain::{Resource, SecretAddress, TenantId};
use jackfield_vault::provider::file;
use jackfield_vault::{DataKey, Vault, WrappedDataKey};
use uuid::Uuid;

use crate::server::TestServer;

impl TestServer {
    /// The secret of a tenant's resource, if it exists.
    ///
    /// # Panics
    /// Panics if it does not open with the keyring of the server.
    pub async fn opened(&self, tenant: TenantId, owner: Resource, owner_id: &str, name: &str) -> Option<Vec<u8>> {
        let store = self.store().await;
        let owner_id: Uuid = owner_id.parse().expect("a UUID");
        let address = SecretAddress { tenant, owner, owner_id, name };
        let sealed = store.read().secret_fetch(address).await.expect("the secret")?;
        let data_keys = store.read().data_keys_fetch(tenant).await.expect("the data keys");
        let wanted = DataKey::id_of(&sealed).expect("a sealed value");
        let row = data_keys.into_iter().find(|row| row.id == wanted).expect("its data key");
        let keyring = file::load(&self.data_dir().join("keyring.toml")).expect("the keyring");
        let wrapped = WrappedDataKey { kek_id: row.kek_id, bytes: row.wrapped };
        let key = Vault::new(keyring).data_key_open(tenant, row.id, &wrapped).await.expect("the data key opens");
        let opened = key.open(&address, &sealed).expect("the value opens").to_vec();
        store.close().await;
        Some(opened)
    }
}
