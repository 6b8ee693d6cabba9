//! The permissions of users in companies as rows.

use jackfield_domain::application::{self, MAX_COMPANIES, PermissionGrant};
use jackfield_domain::request::schema::Schema;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::{CompanyId, PermissionSlug, UserId};
use jackfield_domain::{ApplicationId, PermissionGrantId, Result, TenantId};
use sea_orm::sea_query::{Condition, LockType};
use sea_orm::{ActiveValue::Set, ColumnTrait as _, ConnectionTrait};
use uuid::Uuid;

use crate::crud;
use crate::entity::permission_grant::{ActiveModel, Column, Entity};
use crate::list::field::FieldSource;
use crate::list::{Listed, Scope};
use crate::session::{Session, Writer};
use crate::stored::{Stored, common_parts};

impl<C: ConnectionTrait> Session<C> {
    /// The grants of a user in an application. There are [`MAX_COMPANIES`] at most.
    pub async fn permission_grants_of_user(
        &self,
        tenant: TenantId,
        application: ApplicationId,
        user_id: &UserId,
    ) -> Result<Vec<PermissionGrant>> {
        crud::fetch_some(&self.conn, tenant, of_user(application, user_id), MAX_COMPANIES).await
    }

    /// The number of companies in which a user has permissions in an application.
    pub async fn permission_grants_count(
        &self,
        tenant: TenantId,
        application: ApplicationId,
        user_id: &UserId,
    ) -> Result<u64> {
        crud::count::<PermissionGrant>(&self.conn, tenant, of_user(application, user_id)).await
    }
}

impl Writer {
    /// The grant of a user in a company. No other transaction changes it until this one ends.
    pub async fn permission_grant_for_update(
        &self,
        tenant: TenantId,
        application: ApplicationId,
        user_id: &UserId,
        company_id: &CompanyId,
    ) -> Result<Option<PermissionGrant>> {
        let granted = of_user(application, user_id).add(Column::CompanyId.eq(company_id.as_str()));
        crud::fetch_locked(&self.conn, tenant, granted, LockType::Update).await
    }

    /// Deletes all grants of a user.
    pub async fn permission_grants_delete_of_user(&self, tenant: TenantId, user_id: &UserId) -> Result<()> {
        let grants = Column::UserId.eq(user_id.as_str());
        self.delete_returning::<PermissionGrant>(tenant, grants).await.map(|_| ())
    }

    pub async fn permission_grant_delete(&self, tenant: TenantId, id: PermissionGrantId) -> Result<()> {
        self.delete_row::<PermissionGrant>(tenant, id.0).await
    }
}

impl Stored for PermissionGrant {
    type Id = PermissionGrantId;
    type Table = Entity;

    common_parts!(TenantId);
    const HAS_GENERATION: bool = false;

    fn columns(&self) -> ActiveModel {
        ActiveModel {
            application_id: Set(self.application.0),
            company_id: Set(self.company_id.as_str().to_owned()),
            company_name: Set(self.company_name.clone()),
            user_id: Set(self.user_id.as_str().to_owned()),
            ..ActiveModel::default()
        }
    }

    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.company_id.as_str(), &self.company_name, self.user_id.as_str()];
        texts.extend(self.permissions.iter().map(PermissionSlug::as_str));
        texts
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        let (company, user) = (self.company_id.as_str(), self.user_id.as_str());
        vec![("company_id", company), ("company_name", &self.company_name), ("user_id", user)]
    }
}

impl Listed for PermissionGrant {
    const SCHEMA: &'static Schema = &application::GRANTS;
    const USER_ID: Option<Column> = Some(Column::UserId);

    fn scope(scope: &Scope) -> Condition {
        Condition::all()
            .add_option(scope.user_id.as_ref().map(|user| Column::UserId.eq(user.as_str())))
            .add_option(scope.application.map(|id| Column::ApplicationId.eq(id.0)))
            .add_option(scope.company_id.as_ref().map(|id| Column::CompanyId.eq(id.as_str())))
    }

    fn field(name: &str) -> Option<FieldSource> {
        Some(match name {
            "application" => FieldSource::column(Column::ApplicationId),
            "company_id" => FieldSource::column(Column::CompanyId),
            "company_name" => FieldSource::column(Column::CompanyName),
            _ => return None,
        })
    }
}

fn of_user(application: ApplicationId, user_id: &UserId) -> Condition {
    Condition::all().add(Column::ApplicationId.eq(application.0)).add(Column::UserId.eq(user_id.as_str()))
}
