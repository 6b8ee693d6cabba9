//! Users that are migrated from the system of a connector: it accepted them once, and is not asked again.

use jackfield_domain::error::Taken;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::user::{ExternalUser, Password, User, UserOrigin, UserPatch};
use jackfield_domain::{Error, Resource, Result, UserUuid};

use crate::caller::Caller;
use crate::change::Change;
use crate::services::Services;

/// A user who was migrated.
#[derive(Debug)]
pub(crate) enum Migrated {
    Now(User),
    /// The user was stored before, and was left as it is.
    Before(User),
}

// === impl Services ===

impl Services {
    /// Stores a user whom the system of a connector has accepted, with the password that it accepted. The user's id in that system
    /// becomes the `user_id`. A user that was migrated from the same connector before stays: it may have been changed since.
    ///
    /// # Errors
    /// [`Error::Taken`] if the `user_id` belongs to a user who did not come from this connector, or a login id to another user:
    /// a system must not take over users that are not its own. [`Error::Invalid`] if the user cannot be one here.
    pub(crate) async fn user_migrate<R>(
        &self,
        caller: &Caller<R>,
        origin: UserOrigin,
        user: ExternalUser,
        password: &Password,
    ) -> Result<Migrated> {
        let patch = UserPatch::of_external(user, origin, password.duplicate()).map_err(Error::Invalid)?;
        let hash = self.shared.passwords.hashed(caller.tenant(), &patch.password).await?;
        let mut is_known = false;
        let user = self.change(Change::on_behalf_of(caller), async |txn| {
            let tenant = caller.tenant();
            let user_id = patch.user_id.as_ref().ok_or_else(|| Error::internal("a migrated user without an id"))?;
            let reference = Ref::External(user_id.as_str().to_owned());
            let found = txn.find_for_update::<User>(tenant, &reference).await?;
            is_known = found.is_some();
            match found {
                None => self.user_insert(txn, tenant, UserUuid::generate(), &patch, &hash).await,
                Some(found) if found.is_from(&origin) => Ok(found),
                Some(_) => {
                    let value = user_id.as_str().to_owned();
                    Err(Error::Taken { resource: Resource::User, what: Taken::ExternalId, value })
                }
            }
        });
        let user = user.await?;
        Ok(if is_known { Migrated::Before(user) } else { Migrated::Now(user) })
    }
}
