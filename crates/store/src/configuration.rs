//! Configurations as rows.

use jackfield_domain::configuration::Configuration;
use jackfield_domain::error::Taken;
use jackfield_domain::meta::Meta;
use jackfield_domain::page::OrderBy;
use jackfield_domain::text::ExternalId;
use jackfield_domain::{ConfigurationId, CredentialId, Resource, Result, TenantId};
use sea_orm::sea_query::Condition;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait};
use uuid::Uuid;

use crate::entity::configuration::{ActiveModel, Column, Entity};
use crate::filter::FieldSql;
use crate::page::{self, Page, PageQuery, Scope};
use crate::row::{self, RowTexts, Stored};
use crate::session::{Reader, Session, Writer};

impl<C: ConnectionTrait> Session<C> {
    pub async fn configuration_fetch(&self, tenant: TenantId, id: ConfigurationId) -> Result<Option<Configuration>> {
        row::fetch(&self.conn, tenant, Column::Id.eq(id.0)).await
    }

    pub async fn configuration_fetch_by_external_id(
        &self,
        tenant: TenantId,
        credential: CredentialId,
        external_id: &str,
    ) -> Result<Option<Configuration>> {
        let condition =
            Condition::all().add(Column::CredentialId.eq(credential.0)).add(Column::ExternalId.eq(external_id));
        row::fetch(&self.conn, tenant, condition).await
    }
}

impl Reader {
    pub async fn configuration_page(&self, query: &PageQuery<'_>) -> Result<Page<Configuration>> {
        page::page(&self.conn, query).await
    }
}

impl Writer {
    pub async fn configuration_fetch_for_update(
        &self,
        tenant: TenantId,
        id: ConfigurationId,
    ) -> Result<Option<Configuration>> {
        row::fetch_for_update(&self.conn, tenant, Column::Id.eq(id.0)).await
    }

    pub async fn configuration_insert(&self, tenant: TenantId, configuration: &Configuration) -> Result<()> {
        row::insert(self, tenant, configuration).await
    }

    pub async fn configuration_replace(&self, tenant: TenantId, configuration: &Configuration) -> Result<()> {
        row::replace(self, tenant, configuration).await
    }

    pub async fn configuration_delete(&self, tenant: TenantId, id: ConfigurationId) -> Result<()> {
        row::delete::<Configuration>(self, tenant, id.0).await?;
        Ok(())
    }
}

impl Stored for Configuration {
    type Table = Entity;

    const RESOURCE: Resource = Resource::Configuration;
    const TENANT_ID: Column = Column::TenantId;
    const ID: Column = Column::Id;
    const DOC: Column = Column::Doc;
    const SEARCH_TEXT: Column = Column::SearchText;
    const FOLDED: Column = Column::Folded;
    const VERSION: Column = Column::Version;
    const STAMPED: bool = false;

    fn id(&self) -> Uuid {
        self.id.0
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn row(&self, tenant: TenantId, texts: RowTexts) -> ActiveModel {
        let RowTexts { doc, search_text, folded } = texts;
        ActiveModel {
            tenant_id: Set(tenant.0),
            id: Set(self.id.0),
            external_id: Set(self.external_id.as_ref().map(|id| id.as_str().to_owned())),
            credential_id: Set(self.credential.0),
            user_id: Set(self.user_id.as_str().to_owned()),
            connector_id: Set(self.connector.0),
            is_default: Set(self.is_default),
            doc: Set(doc),
            search_text: Set(search_text),
            folded: Set(folded),
            version: Set(self.meta.version),
            create_time: Set(self.meta.create_time.0),
            update_time: Set(self.meta.update_time.0),
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

    fn taken(&self, what: Taken) -> String {
        match what {
            Taken::Id => self.id.to_string(),
            Taken::Name | Taken::ExternalId => self.external_id.as_ref().map(ExternalId::to_string).unwrap_or_default(),
        }
    }

    fn order_column(by: OrderBy) -> Option<Column> {
        match by {
            OrderBy::CreateTime => Some(Column::CreateTime),
            OrderBy::UserId => Some(Column::UserId),
            OrderBy::Id | OrderBy::Name => None,
        }
    }

    fn scope(scope: &Scope) -> Condition {
        Condition::all()
            .add_option(scope.user_id.as_ref().map(|user| Column::UserId.eq(user.as_str())))
            .add_option(scope.connector.map(|id| Column::ConnectorId.eq(id.0)))
            .add_option(scope.credential.map(|id| Column::CredentialId.eq(id.0)))
    }

    fn field(name: &str) -> Option<FieldSql> {
        Some(match name {
            "id" => FieldSql::column(Column::Id),
            "external_id" => FieldSql::column(Column::ExternalId),
            "credential" => FieldSql::column(Column::CredentialId),
            "user_id" => FieldSql::column(Column::UserId),
            "connector" => FieldSql::column(Column::ConnectorId),
            "is_default" => FieldSql::column(Column::IsDefault),
            "create_time" => FieldSql::column(Column::CreateTime),
            "update_time" => FieldSql::column(Column::UpdateTime),
            _ => return None,
        })
    }
}
