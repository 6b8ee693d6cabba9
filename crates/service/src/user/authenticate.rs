//! Log-ins of users whose passwords Jackfield checks itself.

use jackfield_domain::login::LoginReason;
use jackfield_domain::user::{Password, User, login_key};
use jackfield_domain::{Result, TenantId, UserUuid};
use uuid::Uuid;

use super::password_of;
use crate::services::Services;

// === impl Services ===

impl Services {
    /// The enabled user with a login id (user name, email address or phone number) and a password.
    pub async fn authenticate_local(
        &self,
        tenant: TenantId,
        login_id: &str,
        password: &Password,
    ) -> Result<Option<User>> {
        let user = self.shared.store.read().user_fetch_by_login(tenant, &login_key(login_id)).await?;
        let reason = self.check_password(tenant, user.as_ref(), password).await?;
        Ok(user.filter(|_| reason == LoginReason::PasswordRight))
    }

    /// Compares a password with that of a user. The reason of a rejection is for operators alone.
    ///
    /// An unknown user, a disabled user, a user without a password and a wrong password are the same to the caller, in time too: each
    /// takes one look-up of a secret and one hash. Only opening the secret is left out where there is none, which takes a few
    /// millionths of a second next to the hash.
    pub(crate) async fn check_password(
        &self,
        tenant: TenantId,
        user: Option<&User>,
        password: &Password,
    ) -> Result<LoginReason> {
        let id = user.map_or(UserUuid(Uuid::nil()), |user| user.id);
        let hash = self.shared.secrets.text(None, password_of(tenant, id)).await?;
        let is_right = self.shared.passwords.matches(tenant, password, hash).await?;
        Ok(match user {
            None => LoginReason::UserUnknown,
            Some(user) if !user.enabled => LoginReason::UserDisabled,
            Some(user) if !user.password_set => LoginReason::PasswordMissing,
            Some(_) if !is_right => LoginReason::PasswordWrong,
            Some(_) => LoginReason::PasswordRight,
        })
    }
}
