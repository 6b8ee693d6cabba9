//! Configurations as rows.

use jackfield_domain::configuration::{self, Configuration};
use jackfield_domain::request::schema::Schema;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::ExternalId;
use jackfield_domain::{ConfigurationId, CredentialId, Resource, Result, TenantId};
use sea_orm::sea_query::Condition;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait};
use uuid::Uuid;

use crate::crud;
use crate::entity::configuration::{ActiveModel, Column, Entity};
use crate::list::field::FieldSource;
use crate::list::{Listed, Scope};
use crate::session::{Session, Writer};
use crate::stored::{Stored, common_parts};

impl<C: ConnectionTrait> Session<C> {
    pub async fn configuration_fetch_by_external_id(
        &self,
        tenant: TenantId,
        credential: CredentialId,
        external_id: &str,
    ) -> Result<Option<Configuration>> {
        let condition =
            Condition::all().add(Column::CredentialId.eq(credential.0)).add(Column::ExternalId.eq(external_id));
        crud::fetch(&self.conn, tenant, condition).await
    }
}

impl Writer {
    pub async fn configuration_delete(&self, tenant: TenantId, id: ConfigurationId) -> Result<()> {
        self.delete_row::<Configuration>(tenant, id.0).await
    }
}

impl Stored for Configuration {
    type Id = ConfigurationId;
    type Table = Entity;

    const RESOURCE: Resource = Resource::Configuration;
    common_parts!(TenantId);
    const HAS_GENERATION: bool = false;

    fn columns(&self) -> ActiveModel {
        ActiveModel {
            external_id: Set(self.external_id.as_ref().map(|id| id.as_str().to_owned())),
            credential_id: Set(self.credential.0),
            user_id: Set(self.user_id.as_str().to_owned()),
            connector_id: Set(self.connector.0),
            is_default: Set(self.is_default),
            ..ActiveModel::default()
        }
    }

    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.user_id.as_str()];
        texts.extend(self.external_id.as_ref().map(ExternalId::as_str));
        texts.extend(self.workflow_settings.keys().map(String::as_str));
        texts
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        let mut texts = vec![("user_id", self.user_id.as_str())];
        texts.extend(self.external_id.as_ref().map(|id| ("external_id", id.as_str())));
        texts
    }

    fn external_id(&self) -> Option<&str> {
        self.external_id.as_ref().map(ExternalId::as_str)
    }
}

impl Listed for Configuration {
    const SCHEMA: &'static Schema = &configuration::SCHEMA;
    const USER_ID: Option<Column> = Some(Column::UserId);

    fn scope(scope: &Scope) -> Condition {
        Condition::all()
            .add_option(scope.user_id.as_ref().map(|user| Column::UserId.eq(user.as_str())))
            .add_option(scope.connector.map(|id| Column::ConnectorId.eq(id.0)))
            .add_option(scope.credential.map(|id| Column::CredentialId.eq(id.0)))
    }

    fn field(name: &str) -> Option<FieldSource> {
        Some(match name {
            "external_id" => FieldSource::column(Column::ExternalId),
            "credential" => FieldSource::column(Column::CredentialId),
            "connector" => FieldSource::column(Column::ConnectorId),
            "is_default" => FieldSource::column(Column::IsDefault),
            _ => return None,
        })
    }
}
