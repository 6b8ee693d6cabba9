//! Connections as rows.

use jackfield_domain::connection::Connection;
use jackfield_domain::error::Taken;
use jackfield_domain::meta::Meta;
use jackfield_domain::page::OrderBy;
use jackfield_domain::reference::Ref;
use jackfield_domain::text::{CountryCode, HttpUrl, Labels, RedirectUri, Slug};
use jackfield_domain::{ConnectionId, Resource, Result, TenantId};
use sea_orm::sea_query::{Condition, Expr, IntoCondition};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait};
use uuid::Uuid;

use crate::connector::Cascade;
use crate::entity::connection::{ActiveModel, Column, Entity};
use crate::entity::credential;
use crate::filter::FieldSql;
use crate::page::{self, Page, PageQuery, Scope};
use crate::row::{self, RowTexts, Stored};
use crate::session::{Reader, Session, Writer};

impl<C: ConnectionTrait> Session<C> {
    pub async fn connection_fetch(&self, tenant: TenantId, id: ConnectionId) -> Result<Option<Connection>> {
        row::fetch(&self.conn, tenant, Column::Id.eq(id.0)).await
    }

    /// The connection that a reference names.
    pub async fn connection_find(&self, tenant: TenantId, reference: &Ref) -> Result<Option<Connection>> {
        row::fetch(&self.conn, tenant, named(reference)).await
    }

    /// What depends on a connection.
    pub async fn connection_dependents(&self, tenant: TenantId, id: ConnectionId) -> Result<Cascade> {
        let (credentials, configurations) =
            self.credentials_count(tenant, credential::Column::ConnectionId.eq(id.0)).await?;
        Ok(Cascade { credentials, configurations, ..Cascade::default() })
    }
}

impl Reader {
    pub async fn connection_page(&self, query: &PageQuery<'_>) -> Result<Page<Connection>> {
        page::page(&self.conn, query).await
    }
}

impl Writer {
    pub async fn connection_find_for_update(&self, tenant: TenantId, reference: &Ref) -> Result<Option<Connection>> {
        row::fetch_for_update(&self.conn, tenant, named(reference)).await
    }

    /// The connection that a reference names, to hang something on it.
    pub async fn connection_hold(&self, tenant: TenantId, reference: &Ref) -> Result<Option<Connection>> {
        row::fetch_held(&self.conn, tenant, named(reference)).await
    }

    pub async fn connection_insert(&self, tenant: TenantId, connection: &Connection) -> Result<()> {
        row::insert(self, tenant, connection).await
    }

    pub async fn connection_replace(&self, tenant: TenantId, connection: &Connection) -> Result<()> {
        row::replace(self, tenant, connection).await
    }

    /// Deletes a connection and the credentials that came from it.
    pub async fn connection_delete(&self, tenant: TenantId, id: ConnectionId) -> Result<Cascade> {
        let (credentials, configurations) =
            self.credentials_delete(tenant, credential::Column::ConnectionId.eq(id.0)).await?;
        self.connections_delete(tenant, Column::Id.eq(id.0)).await?;
        Ok(Cascade { credentials, configurations, ..Cascade::default() })
    }

    /// Deletes connections on which nothing hangs any more, secrets and labels included.
    pub(crate) async fn connections_delete(
        &self,
        tenant: TenantId,
        condition: impl IntoCondition + Clone,
    ) -> Result<u64> {
        let ids = row::ids_for_update::<Connection>(&self.conn, tenant, condition.clone()).await?;
        self.owned_delete(tenant, Resource::Connection, &ids).await?;
        row::delete_known::<Connection>(self, tenant, &ids, condition).await
    }
}

fn named(reference: &Ref) -> Expr {
    match reference {
        Ref::Id(id) => Column::Id.eq(*id),
        Ref::Name(name) => Column::NameKey.eq(name.key()),
        Ref::External(external) => Column::ExternalId.eq(external.as_str()),
    }
}

impl Stored for Connection {
    type Table = Entity;

    const RESOURCE: Resource = Resource::Connection;
    const TENANT_ID: Column = Column::TenantId;
    const ID: Column = Column::Id;
    const DOC: Column = Column::Doc;
    const SEARCH_TEXT: Column = Column::SearchText;
    const FOLDED: Column = Column::Folded;
    const VERSION: Column = Column::Version;
    const UNIQUE: &'static [&'static str] = &["id", "name", "external_id"];

    fn id(&self) -> Uuid {
        self.id.0
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn row(&self, tenant: TenantId, texts: RowTexts) -> ActiveModel {
        let RowTexts { doc, search_text, folded } = texts;
        let settings = &self.settings;
        let url = |url: &Option<HttpUrl>| url.as_ref().map(HttpUrl::as_str).unwrap_or_default().to_owned();
        ActiveModel {
            tenant_id: Set(tenant.0),
            id: Set(self.id.0),
            name_key: Set(settings.name.key()),
            external_id: Set(settings.external_id.as_ref().map(|id| id.as_str().to_owned())),
            connector_id: Set(self.connector.0),
            kind: Set(settings.kind.as_str().to_owned()),
            active: Set(settings.active),
            client_id: Set(settings.client_id.clone()),
            issuer_url: Set(settings.issuer_url.clone()),
            authentication_url: Set(url(&settings.authentication_url)),
            token_url: Set(url(&settings.token_url)),
            provider_tenant_id: Set(settings.provider_tenant_id.clone()),
            doc: Set(doc),
            search_text: Set(search_text),
            folded: Set(folded),
            version: Set(self.meta.version),
            create_time: Set(self.meta.create_time.0),
            update_time: Set(self.meta.update_time.0),
        }
    }

    /// Every text field but the certificate in PEM, as the Authress filter searches them.
    fn texts(&self) -> Vec<&str> {
        let settings = &self.settings;
        let mut texts = vec![
            settings.name.as_str(),
            settings.kind.as_str(),
            &settings.issuer_url,
            &settings.client_id,
            &settings.provider_tenant_id,
            &settings.developer_account_id,
            &settings.user_id_expression,
            &settings.scope,
        ];
        texts.extend(settings.external_id.as_ref().map(Slug::as_str));
        texts.extend(settings.user_data_location.as_ref().map(CountryCode::as_str));
        texts.extend(settings.redirect_uris.iter().map(RedirectUri::as_str));
        texts.extend(self.client_secrets.iter().map(|secret| secret.secret_id.as_str()));
        let urls = [
            &settings.authentication_url,
            &settings.token_url,
            &settings.oidc_user_endpoint_url,
            &settings.revocation_url,
            &settings.jwks_url,
            &settings.device_authorization_url,
        ];
        texts.extend(urls.into_iter().flatten().map(HttpUrl::as_str));
        texts.extend(settings.tags.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]));
        texts.extend(settings.parameters.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
        texts
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.settings.tags)
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        let settings = &self.settings;
        let mut texts = vec![
            ("client_id", settings.client_id.as_str()),
            ("issuer_url", &settings.issuer_url),
            ("provider_tenant_id", &settings.provider_tenant_id),
        ];
        texts.extend(settings.external_id.as_ref().map(|id| ("external_id", id.as_str())));
        texts.extend(settings.authentication_url.as_ref().map(|url| ("authentication_url", url.as_str())));
        texts.extend(settings.token_url.as_ref().map(|url| ("token_url", url.as_str())));
        texts
    }

    fn taken(&self, what: Taken) -> String {
        match what {
            Taken::Id => self.id.to_string(),
            Taken::Name => self.settings.name.to_string(),
            Taken::ExternalId => self.settings.external_id.as_ref().map(Slug::to_string).unwrap_or_default(),
        }
    }

    fn order_column(by: OrderBy) -> Option<Column> {
        match by {
            OrderBy::CreateTime => Some(Column::CreateTime),
            OrderBy::Name => Some(Column::NameKey),
            OrderBy::Id | OrderBy::UserId => None,
        }
    }

    fn scope(scope: &Scope) -> Condition {
        Condition::all().add_option(scope.connector.map(|id| Column::ConnectorId.eq(id.0)))
    }

    fn field(name: &str) -> Option<FieldSql> {
        Some(match name {
            "id" => FieldSql::column(Column::Id),
            "name" => FieldSql::column(Column::NameKey),
            "external_id" => FieldSql::column(Column::ExternalId),
            "connector" => FieldSql::column(Column::ConnectorId),
            "type" => FieldSql::column(Column::Kind),
            "active" => FieldSql::column(Column::Active),
            "client_id" => FieldSql::column(Column::ClientId),
            "issuer_url" => FieldSql::column(Column::IssuerUrl),
            "authentication_url" => FieldSql::column(Column::AuthenticationUrl),
            "token_url" => FieldSql::column(Column::TokenUrl),
            "provider_tenant_id" => FieldSql::column(Column::ProviderTenantId),
            "tags" => FieldSql::labels(Resource::Connection, Column::Id),
            "create_time" => FieldSql::column(Column::CreateTime),
            "update_time" => FieldSql::column(Column::UpdateTime),
            _ => return None,
        })
    }
}
