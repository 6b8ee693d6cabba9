//! Connectors as rows.

use jackfield_domain::configuration::Configuration;
use jackfield_domain::connection::Connection;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::Credential;
use jackfield_domain::error::Taken;
use jackfield_domain::meta::Meta;
use jackfield_domain::page::OrderBy;
use jackfield_domain::reference::Ref;
use jackfield_domain::text::{HttpUrl, Labels};
use jackfield_domain::user_connector::UserConnector;
use jackfield_domain::{ConnectorId, Resource, Result, TenantId};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{Condition, Expr};
use sea_orm::{ColumnTrait, ConnectionTrait};
use uuid::Uuid;

use crate::entity::connector::{ActiveModel, Column, Entity};
use crate::entity::{configuration, connection, credential, user_connector};
use crate::filter::FieldSql;
use crate::page::{self, Page, PageQuery, Scope};
use crate::row::{self, RowTexts, Stored};
use crate::session::{Reader, Session, Writer};

/// What a cascade took with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cascade {
    pub connections: u64,
    pub user_connectors: u64,
    pub credentials: u64,
    pub configurations: u64,
}

impl<C: ConnectionTrait> Session<C> {
    pub async fn connector_fetch(&self, tenant: TenantId, id: ConnectorId) -> Result<Option<Connector>> {
        row::fetch(&self.conn, tenant, Column::Id.eq(id.0)).await
    }

    /// The connector that a reference names. Connectors have no external id.
    pub async fn connector_find(&self, tenant: TenantId, reference: &Ref) -> Result<Option<Connector>> {
        match named(reference) {
            Some(condition) => row::fetch(&self.conn, tenant, condition).await,
            None => Ok(None),
        }
    }

    /// What depends on a connector.
    pub async fn connector_dependents(&self, tenant: TenantId, id: ConnectorId) -> Result<Cascade> {
        Ok(Cascade {
            connections: row::count::<Connection>(&self.conn, tenant, connection::Column::ConnectorId.eq(id.0)).await?,
            user_connectors: {
                let condition = user_connector::Column::ConnectorId.eq(id.0);
                row::count::<UserConnector>(&self.conn, tenant, condition).await?
            },
            credentials: row::count::<Credential>(&self.conn, tenant, credential::Column::ConnectorId.eq(id.0)).await?,
            configurations: {
                let condition = configuration::Column::ConnectorId.eq(id.0);
                row::count::<Configuration>(&self.conn, tenant, condition).await?
            },
        })
    }
}

impl Reader {
    pub async fn connector_page(&self, query: &PageQuery<'_>) -> Result<Page<Connector>> {
        page::page(&self.conn, query).await
    }
}

impl Writer {
    pub async fn connector_find_for_update(&self, tenant: TenantId, reference: &Ref) -> Result<Option<Connector>> {
        match named(reference) {
            Some(condition) => row::fetch_for_update(&self.conn, tenant, condition).await,
            None => Ok(None),
        }
    }

    /// The connector that a reference names, to hang something on it.
    pub async fn connector_hold(&self, tenant: TenantId, reference: &Ref) -> Result<Option<Connector>> {
        match named(reference) {
            Some(condition) => row::fetch_held(&self.conn, tenant, condition).await,
            None => Ok(None),
        }
    }

    pub async fn connector_insert(&self, tenant: TenantId, connector: &Connector) -> Result<()> {
        row::insert(self, tenant, connector).await
    }

    pub async fn connector_replace(&self, tenant: TenantId, connector: &Connector) -> Result<()> {
        row::replace(self, tenant, connector).await
    }

    /// Deletes a connector and everything that depends on it, secrets and labels included.
    pub async fn connector_delete(&self, tenant: TenantId, id: ConnectorId) -> Result<Cascade> {
        // From the top down, as everybody locks: the connector is locked already.
        row::ids_for_update::<Connection>(&self.conn, tenant, connection::Column::ConnectorId.eq(id.0)).await?;
        row::ids_for_update::<UserConnector>(&self.conn, tenant, user_connector::Column::ConnectorId.eq(id.0)).await?;
        let (credentials, configurations) =
            self.credentials_delete(tenant, credential::Column::ConnectorId.eq(id.0)).await?;
        let connections = self.connections_delete(tenant, connection::Column::ConnectorId.eq(id.0)).await?;
        let user_connectors =
            row::delete_many::<UserConnector>(self, tenant, user_connector::Column::ConnectorId.eq(id.0)).await?;
        self.owned_delete(tenant, Resource::Connector, &[id.0]).await?;
        row::delete::<Connector>(self, tenant, id.0).await?;
        Ok(Cascade { connections, user_connectors, credentials, configurations })
    }
}

/// The connector that a reference names. Connectors have no external id.
fn named(reference: &Ref) -> Option<Expr> {
    match reference {
        Ref::Id(id) => Some(Column::Id.eq(*id)),
        Ref::Name(name) => Some(Column::NameKey.eq(name.key())),
        Ref::External(_) => None,
    }
}

impl Stored for Connector {
    type Table = Entity;

    const RESOURCE: Resource = Resource::Connector;
    const TENANT_ID: Column = Column::TenantId;
    const ID: Column = Column::Id;
    const DOC: Column = Column::Doc;
    const SEARCH_TEXT: Column = Column::SearchText;
    const FOLDED: Column = Column::Folded;
    const VERSION: Column = Column::Version;
    const UNIQUE: &'static [&'static str] = &["id", "name"];

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
            name_key: Set(self.name.key()),
            kind: Set(self.kind.as_str().to_owned()),
            enabled: Set(self.enabled),
            debug: Set(self.debug),
            description: Set(self.description.clone()),
            url: Set(self.url().map(HttpUrl::as_str).unwrap_or_default().to_owned()),
            client_identity_key: Set(self.client_identity_key.map(Uuid::from)),
            trust_bundle_key: Set(self.trust_bundle_key.map(Uuid::from)),
            doc: Set(doc),
            search_text: Set(search_text),
            folded: Set(folded),
            version: Set(self.meta.version),
            create_time: Set(self.meta.create_time.0),
            update_time: Set(self.meta.update_time.0),
        }
    }

    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.name.as_str(), &self.description, self.kind.as_str()];
        texts.extend(self.kind.texts());
        texts.extend(self.headers.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
        texts.extend(self.secret_header_names.iter().map(String::as_str));
        texts.extend(self.labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]));
        texts
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        let mut texts = vec![("description", self.description.as_str())];
        texts.extend(self.url().map(|url| ("url", url.as_str())));
        texts
    }

    fn taken(&self, what: Taken) -> String {
        match what {
            Taken::Id => self.id.to_string(),
            Taken::Name | Taken::ExternalId => self.name.to_string(),
        }
    }

    fn order_column(by: OrderBy) -> Option<Column> {
        match by {
            OrderBy::CreateTime => Some(Column::CreateTime),
            OrderBy::Name => Some(Column::NameKey),
            OrderBy::Id | OrderBy::UserId => None,
        }
    }

    fn scope(_: &Scope) -> Condition {
        Condition::all()
    }

    fn field(name: &str) -> Option<FieldSql> {
        Some(match name {
            "id" => FieldSql::column(Column::Id),
            "name" => FieldSql::column(Column::NameKey),
            "description" => FieldSql::column(Column::Description),
            "kind" => FieldSql::column(Column::Kind),
            "enabled" => FieldSql::column(Column::Enabled),
            "debug" => FieldSql::column(Column::Debug),
            "url" => FieldSql::column(Column::Url),
            "labels" => FieldSql::labels(Resource::Connector, Column::Id),
            "client_identity_key" => FieldSql::column(Column::ClientIdentityKey),
            "trust_bundle_key" => FieldSql::column(Column::TrustBundleKey),
            "create_time" => FieldSql::column(Column::CreateTime),
            "update_time" => FieldSql::column(Column::UpdateTime),
            _ => return None,
        })
    }
}
