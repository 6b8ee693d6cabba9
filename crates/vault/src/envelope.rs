//! Data keys. They seal the secrets of one tenant and serve everything else that needs a secret key of the tenant.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jackfield_domain::{Error, Result, SecretAddress, TenantId};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::cipher::{self, Cipher, Purpose};

/// The unwrapped key of one tenant. It holds only subkeys, not the key itself, and wipes them when it is dropped. It is
/// meant to be shared: `Arc<DataKey>`.
pub struct DataKey {
    id: Uuid,
    tenant: TenantId,
    seal: Cipher,
    token: Cipher,
    fingerprint: hmac::Key,
}

// === impl DataKey ===

impl DataKey {
    pub(crate) fn from_secret(tenant: TenantId, id: Uuid, secret: &[u8]) -> Result<Self, Unspecified> {
        Ok(DataKey {
            id,
            tenant,
            seal: Cipher::derive(secret, Purpose::Seal)?,
            token: Cipher::derive(secret, Purpose::Token)?,
            fingerprint: cipher::hmac_key(secret, Purpose::Fingerprint)?,
        })
    }

    /// The id that sealed values carry.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The tenant that the key belongs to.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Seals a secret for its address. The result is 78 bytes longer than the secret.
    ///
    /// # Errors
    /// `Internal` if the address belongs to another tenant, or if the machine has no random numbers.
    pub fn seal(&self, address: &SecretAddress<'_>, plaintext: &[u8]) -> Result<Vec<u8>> {
        if address.tenant != self.tenant {
            return Err(Error::internal("data key of another tenant"));
        }
        let _span = tracing::info_span!("seal a secret").entered();
        self.seal.seal(self.id.as_bytes(), &aad(address), plaintext).map_err(|_| seal_failed())
    }

    /// Opens what [`seal`](Self::seal) made for this address.
    ///
    /// # Errors
    /// `DecryptFailed` if the value was altered, was sealed for another address, or was sealed with another data key.
    pub fn open(&self, address: &SecretAddress<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let _span = tracing::info_span!("open a secret").entered();
        let failed = || Error::DecryptFailed { resource: address.owner, id: address.owner_id.to_string() };
        self.seal.open(self.id.as_bytes(), &aad(address), sealed).ok_or_else(failed)
    }

    /// The id of the data key that sealed a value; `None` if the bytes are not a sealed value of a known format.
    /// Nothing is verified: the bytes may still not open.
    pub fn id_of(sealed: &[u8]) -> Option<Uuid> {
        let (_, rest) = cipher::split_suite(sealed)?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        (rest.len() >= cipher::min_len_after_head()).then(|| Uuid::from_bytes(*id))
    }

    /// HMAC-SHA-256 of a list of byte strings, to recognise something without storing it. Two fingerprints are equal
    /// only if purpose, parts and data key are.
    pub fn fingerprint(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.fingerprint);
        for part in [purpose.as_bytes()].iter().chain(parts) {
            context.update(&cipher::length_prefix(part));
            context.update(part);
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.sign().as_ref());
        fingerprint
    }

    /// Seals a payload as a token: URL-safe text without padding, 83 characters for an empty payload. The holder learns
    /// only the length of the payload. The context is authenticated but not included.
    ///
    /// # Errors
    /// `Internal` if the machine has no random numbers.
    pub fn seal_token(&self, context: &[&[u8]], payload: &[u8]) -> Result<String> {
        let sealed = self.token.seal(b"", &self.token_aad(context), payload).map_err(|_| seal_failed())?;
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// The payload of a token; `None` for any text that [`seal_token`](Self::seal_token) did not return for this key
    /// and context.
    pub fn open_token(&self, context: &[&[u8]], token: &str) -> Option<Zeroizing<Vec<u8>>> {
        let sealed = URL_SAFE_NO_PAD.decode(token).ok()?;
        self.token.open(b"", &self.token_aad(context), &sealed)
    }

    fn token_aad<'a>(&'a self, context: &[&'a [u8]]) -> Vec<&'a [u8]> {
        let owner: [&[u8]; 2] = [self.id.as_bytes(), self.tenant.0.as_bytes()];
        owner.into_iter().chain(context.iter().copied()).collect()
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataKey").field("id", &self.id).field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

fn seal_failed() -> Error {
    Error::internal("sealing failed")
}

/// The associated data of a sealed value besides its header: the parts of its address.
fn aad<'a>(address: &'a SecretAddress<'_>) -> [&'a [u8]; 4] {
    let SecretAddress { tenant, owner, owner_id, name } = address;
    [tenant.0.as_bytes(), owner.as_str().as_bytes(), name.as_bytes(), owner_id.as_bytes()]
}
