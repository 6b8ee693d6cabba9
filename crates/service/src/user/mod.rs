//! Use cases of users.

mod authenticate;
mod migrate;
#[cfg(test)]
pub(crate) mod tests;

use jackfield_domain::error::Taken;
use jackfield_domain::principal::right::{UsersRead, UsersWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::user::{PASSWORD_COLUMN, Password, User, UserPatch};
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{Error, Resource, Result, Secret, SecretAddress, SecretPatch, TenantId, UserUuid};
use jackfield_store::Writer;

use crate::caller::Caller;
use crate::change::{
    Change, DeleteOptions, Deleted, Expected, Length, Prepared, RequestOptions, found_for_delete, found_for_update,
    missing, unchanged,
};
use crate::list::Listable;
use crate::services::Services;

pub(crate) use migrate::Migrated;

// === impl Services ===

impl Services {
    pub async fn user_create(
        &self,
        caller: &Caller<UsersWrite>,
        request: &RequestOptions,
        id: Option<UserUuid>,
        patch: UserPatch,
    ) -> Result<User> {
        let change = Change::of_tenant(caller, request, Length::Short);
        let hash = self.password_hash(change, caller.tenant(), &patch.password).await?;
        self.change(change, async |txn| {
            let hash = hash.get()?;
            let id = id.unwrap_or_else(UserUuid::generate);
            self.user_insert(txn, caller.tenant(), id, &patch, &hash).await
        })
        .await
    }

    pub async fn user_get(&self, caller: &Caller<UsersRead>, reference: &Ref) -> Result<User> {
        self.find::<User>(caller.tenant(), reference).await
    }

    pub async fn user_update(
        &self,
        caller: &Caller<UsersWrite>,
        request: &RequestOptions,
        reference: &Ref,
        expected: &Expected,
        patch: UserPatch,
    ) -> Result<User> {
        let change = Change::of_tenant(caller, request, Length::Short);
        let hash = self.password_hash(change, caller.tenant(), &patch.password).await?;
        self.change(change, async |txn| {
            let (tenant, hash) = (caller.tenant(), hash.get()?);
            let found = txn.find_for_update::<User>(tenant, reference).await?;
            let before = found_for_update(found, || missing::<User>(reference), expected)?;
            let user = self.user_replace(txn, tenant, before, &patch, &hash).await?;
            if !matches!(patch.password, SecretPatch::Keep) {
                // Someone may know the previous password, and have sessions.
                txn.sessions_delete_of_user(tenant, &user.user_id).await?;
            }
            Ok(user)
        })
        .await
    }

    /// Deletes a user with the permissions and sessions in applications: another user may get the same id later.
    pub async fn user_delete(
        &self,
        caller: &Caller<UsersWrite>,
        request: &RequestOptions,
        reference: &Ref,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        // A user has up to 100 sessions in each application.
        self.change(Change::of_tenant(caller, request, Length::Long), async |txn| {
            let tenant = caller.tenant();
            let found = txn.find_for_update::<User>(tenant, reference).await?;
            let Some(user) = found_for_delete(found, || missing::<User>(reference), options)? else {
                return Ok(Deleted::default());
            };
            txn.sessions_delete_of_user(tenant, &user.user_id).await?;
            txn.permission_grants_delete_of_user(tenant, &user.user_id).await?;
            txn.user_delete(tenant, user.id).await?;
            txn.user_pins_delete_of(tenant, &user.login_ids()).await?;
            Ok(Deleted::alone())
        })
        .await
    }

    /// The change of the stored hash that a change of a password is.
    async fn password_hash(
        &self,
        change: Change<'_>,
        tenant: TenantId,
        patch: &SecretPatch<Password>,
    ) -> Result<Prepared<SecretPatch>> {
        let hash = self.shared.passwords.hashed(tenant, patch);
        match patch {
            // It is never committed, so it need not be a hash.
            SecretPatch::Set(_) if change.validates_only() => {
                Ok(Prepared::from(SecretPatch::Set(Secret::new("no hash".to_owned()))))
            }
            SecretPatch::Set(_) => self.shared.changes.prepare(change, hash).await,
            // There is nothing to wait for.
            SecretPatch::Keep | SecretPatch::Clear => hash.await.map(Prepared::from),
        }
    }

    async fn user_insert(
        &self,
        txn: &Writer,
        tenant: TenantId,
        id: UserUuid,
        patch: &UserPatch,
        hash: &SecretPatch,
    ) -> Result<User> {
        let user = User::create(id, patch, Meta::new(self.now())).map_err(Error::Invalid)?;
        refuse_taken(txn, tenant, &user).await?;
        txn.insert(tenant, &user).await?;
        self.shared.secrets.patch(txn, password_of(tenant, id), hash).await?;
        Ok(user)
    }

    async fn user_replace(
        &self,
        txn: &Writer,
        tenant: TenantId,
        before: User,
        patch: &UserPatch,
        hash: &SecretPatch,
    ) -> Result<User> {
        let user = before.clone().patched(patch, before.meta.changed(self.now())).map_err(Error::Invalid)?;
        if !patch.sets_secrets() && unchanged(&before, &user) {
            return Ok(before);
        }
        if user.login_ids() != before.login_ids() {
            refuse_taken(txn, tenant, &user).await?;
        }
        txn.replace(tenant, &user).await?;
        self.shared.secrets.patch(txn, password_of(tenant, user.id), hash).await?;
        Ok(user)
    }
}

impl Listable for User {
    type Right = UsersRead;
    const LIST: &'static str = "users";
}

/// The address of the sealed hash of a user's password.
fn password_of(tenant: TenantId, id: UserUuid) -> SecretAddress<'static> {
    SecretAddress::of(tenant, id, PASSWORD_COLUMN)
}

/// Refuses login ids that another user has.
async fn refuse_taken(txn: &Writer, tenant: TenantId, user: &User) -> Result<()> {
    match txn.user_login_id_taken(tenant, user.id, &user.login_ids()).await? {
        Some(value) => Err(Error::Taken { resource: Resource::User, what: Taken::LoginId, value: value.to_owned() }),
        None => Ok(()),
    }
}
