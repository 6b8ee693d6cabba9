//! Hashes of passwords, a few at a time.

use std::num::NonZero;
use std::thread;

use jackfield_domain::user::Password;
use jackfield_domain::{Result, Secret, SecretPatch, TenantId};
use jackfield_vault::{password_hash, password_matches};

use crate::turns::Turns;

/// The maker of hashes. Each takes a processor and [`jackfield_vault::PASSWORD_MEMORY_BYTES`] for a while. There are half as many at
/// once as there are processors, so the memory is bounded and the other processors are left to other calls.
pub(crate) struct Passwords {
    pub(crate) turns: Turns,
}

// === impl Passwords ===

impl Passwords {
    pub(crate) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Passwords { turns: Turns::new(processors.div_ceil(2)) }
    }

    /// The change of the stored hash that a change of a password is. It is made before a transaction, which must not wait for it.
    pub(crate) async fn hashed(&self, tenant: TenantId, patch: &SecretPatch<Password>) -> Result<SecretPatch> {
        Ok(match patch {
            SecretPatch::Keep => SecretPatch::Keep,
            SecretPatch::Clear => SecretPatch::Clear,
            SecretPatch::Set(password) => {
                let password = password.duplicate();
                SecretPatch::Set(self.turns.run(tenant, move || password_hash(&password)).await?)
            }
        })
    }

    /// Returns whether a password has a hash. Without a hash it has none, which takes as long to find out.
    pub(crate) async fn matches(&self, tenant: TenantId, password: &Password, hash: Option<Secret>) -> Result<bool> {
        let password = password.duplicate();
        self.turns.run(tenant, move || password_matches(&password, hash.as_ref())).await
    }
}
