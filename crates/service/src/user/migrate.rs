//! Users that are migrated from the system of a connector: it accepted them once, and is not asked again.

use jackfield_domain::error::Taken;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::user::{ExternalUser, Password, User, UserPatch};
use jackfield_domain::{ConnectorId, Error, Resource, Result, UserUuid};

use crate::caller::Caller;
use crate::change::Change;
use crate::services::Services;

// === impl Services ===

impl Services {
    /// Stores a user whom the system of a connector has accepted, with the password that it accepted. The user's id in that system
    /// becomes the `user_id`. A user that was migrated from the same connector before is brought up to date; whether the user is
    /// enabled, and the labels, stay.
    ///
    /// # Errors
    /// [`Error::Taken`] if the `user_id` belongs to a user who did not come from this connector, or a login id to another user:
    /// a system must not take over users that are not its own. [`Error::Invalid`] if the user cannot be one here.
    pub async fn user_migrate<R>(
        &self,
        caller: &Caller<R>,
        connector: ConnectorId,
        user: ExternalUser,
        password: &Password,
    ) -> Result<User> {
        let patch = UserPatch::of_external(user, connector, password.duplicate()).map_err(Error::Invalid)?;
        let hash = self.shared.passwords.hashed(&patch.password).await?;
        self.change(Change::on_behalf_of(caller), async |txn| {
            let tenant = caller.tenant();
            let user_id = patch.user_id.as_ref().ok_or_else(|| Error::internal("a migrated user without an id"))?;
            let reference = Ref::External(user_id.as_str().to_owned());
            match txn.find_for_update::<User>(tenant, &reference).await? {
                None => self.user_insert(txn, tenant, UserUuid::generate(), &patch, &hash).await,
                Some(before) if before.connector == Some(connector) => {
                    self.user_replace(txn, tenant, before, &patch, &hash).await
                }
                Some(_) => {
                    let value = user_id.as_str().to_owned();
                    Err(Error::Taken { resource: Resource::User, what: Taken::ExternalId, value })
                }
            }
        })
        .await
    }
}
