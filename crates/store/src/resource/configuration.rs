//! Configurations as rows.

use jackfield_domain::configuration::{self, Configuration};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::request::schema::Schema;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::ExternalId;
use jackfield_domain::{ConfigurationId, CredentialId, Result, TenantId};
use sea_orm::sea_query::{Condition, LockType};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait};
use uuid::Uuid;

use crate::crud;
use crate::entity::configuration::{ActiveModel, Column, Entity};
use crate::list::field::FieldSource;
use crate::list::{Listed, Scope};
use crate::session::{Session, Writer};
use crate::stored::{Stored, common_parts};

impl<C: ConnectionTrait> Session<C> {
    /// The configuration that a reference names. One that belongs to another credential than a given one is not found.
    pub async fn configuration_find(
        &self,
        tenant: TenantId,
        reference: &Ref,
        credential: Option<CredentialId>,
    ) -> Result<Option<Configuration>> {
        crud::fetch(&self.conn, tenant, named(reference, credential)).await
    }
}

impl Writer {
    /// As [`Session::configuration_find`]. No other transaction changes it until this one ends.
    pub async fn configuration_find_for_update(
        &self,
        tenant: TenantId,
        reference: &Ref,
        credential: Option<CredentialId>,
    ) -> Result<Option<Configuration>> {
        crud::fetch_locked(&self.conn, tenant, named(reference, credential), LockType::Update).await
    }

    pub async fn configuration_delete(&self, tenant: TenantId, id: ConfigurationId) -> Result<()> {
        self.delete_row::<Configuration>(tenant, id.0).await
    }
}

impl Stored for Configuration {
    type Id = ConfigurationId;
    type Table = Entity;

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

/// The condition on the configuration that a reference names. It has no name, and external ids are unique within a credential.
fn named(reference: &Ref, credential: Option<CredentialId>) -> Condition {
    let named = match reference {
        Ref::Id(id) => Column::Id.eq(*id),
        Ref::External(external) => Column::ExternalId.eq(external.as_str()),
        Ref::Name(_) => Column::Id.is_null(),
    };
    Condition::all().add(named).add_option(credential.map(|id| Column::CredentialId.eq(id.0)))
}
