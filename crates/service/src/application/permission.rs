//! The permissions of users in companies.

use jackfield_domain::application::{Application, MAX_COMPANIES, PermissionChange, PermissionGrant};
use jackfield_domain::principal::right::{ApplicationsRead, ApplicationsWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{Error, PermissionGrantId, Result};

use crate::caller::Caller;
use crate::change::{Change, Length, RequestOptions, missing, unchanged};
use crate::list::Listable;
use crate::services::Services;

// === impl Services ===

impl Services {
    /// Replaces the permissions of a user in a company. Returns the grant, or `None` if there is none any more.
    pub async fn permissions_set(
        &self,
        caller: &Caller<ApplicationsWrite>,
        request: &RequestOptions,
        application: &Ref,
        change: PermissionChange,
    ) -> Result<Option<PermissionGrant>> {
        self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let PermissionChange { company_id, company_name, user_id, permissions } = change;
            // The lock protects the vocabulary and the number of companies of a user.
            let found = txn.find_for_update::<Application>(tenant, application).await?;
            let application = found.ok_or_else(|| missing::<Application>(application))?;
            application.check_known("permissions", &permissions).map_err(Error::Invalid)?;
            let before = txn.permission_grant_for_update(tenant, application.id, &user_id, &company_id).await?;
            let Some(before) = before else {
                if permissions.is_empty() {
                    return Ok(None);
                }
                if txn.permission_grants_count(tenant, application.id, &user_id).await? >= MAX_COMPANIES {
                    return Err(Error::QuotaExceeded { what: COMPANIES, limit: MAX_COMPANIES });
                }
                let grant = PermissionGrant {
                    id: PermissionGrantId::generate(),
                    application: application.id,
                    company_name: company_name.unwrap_or_else(|| company_id.as_str().to_owned()),
                    company_id,
                    user_id,
                    permissions,
                    meta: Meta::new(self.now()),
                };
                txn.insert(tenant, &grant).await?;
                return Ok(Some(grant));
            };
            if permissions.is_empty() {
                txn.permission_grant_delete(tenant, before.id).await?;
                return Ok(None);
            }
            let mut grant = PermissionGrant { permissions, meta: before.meta.changed(self.now()), ..before.clone() };
            grant.company_name = company_name.unwrap_or(grant.company_name);
            if unchanged(&before, &grant) {
                return Ok(Some(before));
            }
            txn.replace(tenant, &grant).await?;
            Ok(Some(grant))
        })
        .await
    }
}

impl Listable for PermissionGrant {
    type Right = ApplicationsRead;
    const LIST: &'static str = "permissions";
}

const COMPANIES: &str = "number of companies in which a user has permissions";
