//! Applications as rows.

use jackfield_domain::application::{self, Application, PermissionGrant};
use jackfield_domain::request::schema::Schema;
use jackfield_domain::resource::Dependents;
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::ExternalId;
use jackfield_domain::{ApplicationId, Resource, Result, TenantId};
use sea_orm::ActiveValue::Set;
use sea_orm::ColumnTrait as _;
use sea_orm::sea_query::Condition;
use uuid::Uuid;

use crate::entity::application::{ActiveModel, Column, Entity};
use crate::entity::permission_grant;
use crate::list::field::FieldSource;
use crate::list::{Listed, Scope};
use crate::session::Writer;
use crate::stored::{Stored, common_parts};

impl Writer {
    /// Deletes an application, which is locked, with its permissions and sessions.
    pub async fn application_delete(&self, tenant: TenantId, id: ApplicationId) -> Result<Dependents> {
        let sessions = self.sessions_delete_of(tenant, id).await?;
        let grants = permission_grant::Column::ApplicationId.eq(id.0);
        let grants = self.delete_returning::<PermissionGrant>(tenant, grants).await?;
        self.owned_delete(tenant, Resource::Application, &[id.0]).await?;
        self.delete_row::<Application>(tenant, id.0).await?;
        Ok(Dependents { permission_grants: grants.len() as u64, sessions, ..Dependents::default() })
    }
}

impl Stored for Application {
    type Id = ApplicationId;
    type Table = Entity;

    common_parts!(TenantId);
    const NAME_KEY: Option<Column> = Some(Column::NameKey);
    const EXTERNAL_ID: Option<Column> = Some(Column::ExternalId);
    const HAS_GENERATION: bool = false;

    fn columns(&self) -> ActiveModel {
        ActiveModel {
            name_key: Set(self.name.key()),
            external_id: Set(self.external_id.as_ref().map(|id| id.as_str().to_owned())),
            enabled: Set(self.enabled),
            connector_id: Set(self.connector.map(Uuid::from)),
            ..ActiveModel::default()
        }
    }

    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.name.as_str()];
        texts.extend(self.external_id.as_ref().map(ExternalId::as_str));
        texts.extend(self.permissions.iter().flat_map(|it| [it.slug.as_str(), &it.description]));
        texts.extend(self.labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]));
        texts
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        self.external_id.iter().map(|id| ("external_id", id.as_str())).collect()
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }

    fn name(&self) -> Option<&str> {
        Some(self.name.as_str())
    }

    fn external_id(&self) -> Option<&str> {
        self.external_id.as_ref().map(ExternalId::as_str)
    }
}

impl Listed for Application {
    const SCHEMA: &'static Schema = &application::SCHEMA;

    fn scope(scope: &Scope) -> Condition {
        Condition::all().add_option(scope.connector.map(|id| Column::ConnectorId.eq(id.0)))
    }

    fn field(name: &str) -> Option<FieldSource> {
        Some(match name {
            "enabled" => FieldSource::column(Column::Enabled),
            "connector" => FieldSource::column(Column::ConnectorId),
            "labels" => FieldSource::labels(Resource::Application, Column::Id),
            _ => return None,
        })
    }
}
