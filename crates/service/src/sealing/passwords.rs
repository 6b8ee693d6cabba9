//! Hashes of passwords, off the threads that serve calls and a few at a time.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use jackfield_domain::user::Password;
use jackfield_domain::{Error, Result, Secret, SecretPatch};
use jackfield_vault::{password_hash, password_matches};
use tokio::sync::Semaphore;
use tokio::task;

/// The maker of hashes. Each takes a processor and [`jackfield_vault::PASSWORD_MEMORY_BYTES`] for a while. There are half as many at
/// once as there are processors, so the memory is bounded and the other processors are left to other calls. Further calls wait in
/// the order in which they came.
pub(crate) struct Passwords {
    permits: Arc<Semaphore>,
}

// === impl Passwords ===

impl Passwords {
    pub(crate) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Passwords { permits: Arc::new(Semaphore::new(processors.div_ceil(2))) }
    }

    /// The change of the stored hash that a change of a password is. It is made before a transaction, which must not wait for it.
    pub(crate) async fn hashed(&self, patch: &SecretPatch<Password>) -> Result<SecretPatch> {
        Ok(match patch {
            SecretPatch::Keep => SecretPatch::Keep,
            SecretPatch::Clear => SecretPatch::Clear,
            SecretPatch::Set(password) => {
                let password = password.duplicate();
                SecretPatch::Set(self.run(move || password_hash(&password)).await?)
            }
        })
    }

    /// Returns whether a password has a hash. Without a hash it has none, which takes as long to find out.
    pub(crate) async fn matches(&self, password: &Password, hash: Option<Secret>) -> Result<bool> {
        let password = password.duplicate();
        self.run(move || password_matches(&password, hash.as_ref())).await
    }

    /// Runs work on a thread that may be busy. The permit is returned when the work ends, even if its caller has gone.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(Error::internal)?;
        let done = task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(Error::internal)?
    }
}
