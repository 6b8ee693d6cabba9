//! Tenants as rows. They are the one resource without a tenant around it.

use jackfield_domain::configuration::Configuration;
use jackfield_domain::connection::Connection;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::Credential;
use jackfield_domain::error::{Taken, Use};
use jackfield_domain::key::Key;
use jackfield_domain::meta::Meta;
use jackfield_domain::page::OrderBy;
use jackfield_domain::reference::Ref;
use jackfield_domain::tenant::Tenant;
use jackfield_domain::user_connector::UserConnector;
use jackfield_domain::{Resource, Result, TenantId};
use sea_orm::sea_query::{Condition, LockType};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect,
};
use uuid::Uuid;

use crate::entity::tenant::{ActiveModel, Column, Entity};
use crate::entity::{audit_event, idempotency, label, secret};
use crate::error;
use crate::filter::FieldSql;
use crate::page::{self, Page, PageQuery, Scope};
use crate::row::{self, RowTexts, Stored};
use crate::session::{Reader, Session, Writer};

impl<C: ConnectionTrait> Session<C> {
    pub async fn tenant_fetch(&self, id: TenantId) -> Result<Option<Tenant>> {
        row::fetch(&self.conn, id, Condition::all()).await
    }

    /// The tenant that a reference names. Tenants have no external id.
    pub async fn tenant_find(&self, reference: &Ref) -> Result<Option<Tenant>> {
        match reference {
            Ref::Id(id) => self.tenant_fetch(TenantId(*id)).await,
            Ref::Name(name) => self.tenant_fetch_by_name(&name.key()).await,
            Ref::External(_) => Ok(None),
        }
    }

    pub async fn tenant_fetch_by_name(&self, name: &str) -> Result<Option<Tenant>> {
        #[expect(clippy::disallowed_methods, reason = "a tenant is looked up before there is one")]
        let select = Entity::find().filter(Column::NameKey.eq(name));
        let row = select.all(&self.conn).await.map_err(error::from_db)?.pop();
        row.map(|row| row::from_doc(&row.doc, row.id)).transpose()
    }

    /// Whether there is a tenant, be its document readable or not.
    pub async fn tenant_is_there(&self, id: TenantId) -> Result<bool> {
        let select = row::of::<Tenant>(id).select_only().column(Column::Id).into_tuple::<Uuid>();
        Ok(!select.all(&self.conn).await.map_err(error::from_db)?.is_empty())
    }

    /// The id of the tenant of a name, be its document readable or not: whoever belongs to it can go on.
    pub async fn tenant_id_by_name(&self, name: &str) -> Result<Option<TenantId>> {
        #[expect(clippy::disallowed_methods, reason = "a tenant is looked up before there is one")]
        let select = Entity::find().filter(Column::NameKey.eq(name)).select_only().column(Column::Id);
        let id = select.into_tuple::<Uuid>().all(&self.conn).await.map_err(error::from_db)?.pop();
        Ok(id.map(TenantId))
    }

    /// The tenant whose id comes next after one, or the first one.
    pub async fn tenant_after(&self, after: Option<TenantId>) -> Result<Option<TenantId>> {
        #[expect(clippy::disallowed_methods, reason = "a walk over all tenants")]
        let mut select = Entity::find().select_only().column(Column::Id).order_by_asc(Column::Id).limit(1);
        if let Some(after) = after {
            select = select.filter(Column::Id.gt(after.0));
        }
        let id = select.into_tuple::<Uuid>().one(&self.conn).await.map_err(error::from_db)?;
        Ok(id.map(TenantId))
    }

    /// A page of all tenants; the tenant of the query does not matter.
    pub async fn tenants_count(&self) -> Result<u64> {
        #[expect(clippy::disallowed_methods, reason = "a count of tenants has no tenant")]
        Entity::find().count(&self.conn).await.map_err(error::from_db)
    }

    /// What a tenant holds.
    pub async fn tenant_contents(&self, id: TenantId) -> Result<Vec<Use>> {
        let all = Condition::all;
        let counts = [
            (Resource::Key, row::count::<Key>(&self.conn, id, all()).await?),
            (Resource::Connector, row::count::<Connector>(&self.conn, id, all()).await?),
            (Resource::Connection, row::count::<Connection>(&self.conn, id, all()).await?),
            (Resource::UserConnector, row::count::<UserConnector>(&self.conn, id, all()).await?),
            (Resource::Credential, row::count::<Credential>(&self.conn, id, all()).await?),
            (Resource::Configuration, row::count::<Configuration>(&self.conn, id, all()).await?),
        ];
        let held = counts.into_iter().filter(|(_, count)| *count > 0);
        Ok(held.map(|(resource, count)| Use { resource, count }).collect())
    }
}

impl Reader {
    pub async fn tenant_page(&self, query: &PageQuery<'_>) -> Result<Page<Tenant>> {
        page::page(&self.conn, query).await
    }
}

impl Writer {
    /// Keeps a tenant from being deleted until the transaction ends; says whether it is there. What every change of its rows
    /// begins with: all lock from the top down, tenant, connector, connection, link, credential, configuration. On SQLite
    /// there is one writer, and it is not looked.
    pub async fn tenant_hold(&self, id: TenantId) -> Result<bool> {
        if self.conn.get_database_backend() == DbBackend::Sqlite {
            return Ok(true);
        }
        let select = row::of::<Tenant>(id).lock(LockType::KeyShare).select_only().column(Column::Id);
        let found = select.into_tuple::<Uuid>().all(&self.conn).await.map_err(error::from_db)?;
        Ok(!found.is_empty())
    }

    pub async fn tenant_fetch_for_update(&self, id: TenantId) -> Result<Option<Tenant>> {
        row::fetch_for_update(&self.conn, id, Condition::all()).await
    }

    pub async fn tenant_insert(&self, tenant: &Tenant) -> Result<()> {
        row::insert(self, tenant.id, tenant).await
    }

    /// Deletes a tenant with everything in it and its data keys. Audit records of it go too: without the tenant there is
    /// nobody who could read them.
    pub async fn tenant_delete(&self, id: TenantId) -> Result<()> {
        let all = Condition::all;
        // The tenant is locked, and so is every change under it out of the way; only the re-wrap does not ask for it.
        self.data_keys_lock(id).await?;
        row::delete_many::<Configuration>(self, id, all()).await?;
        row::delete_many::<Credential>(self, id, all()).await?;
        row::delete_many::<Connection>(self, id, all()).await?;
        row::delete_many::<UserConnector>(self, id, all()).await?;
        row::delete_many::<Connector>(self, id, all()).await?;
        row::delete_many::<Key>(self, id, all()).await?;
        let conn = &self.conn;
        let failed = error::from_db;
        secret::Entity::delete_many().filter(secret::Column::TenantId.eq(id.0)).exec(conn).await.map_err(failed)?;
        label::Entity::delete_many().filter(label::Column::TenantId.eq(id.0)).exec(conn).await.map_err(failed)?;
        let requests = idempotency::Entity::delete_many().filter(idempotency::Column::TenantId.eq(id.0));
        requests.exec(conn).await.map_err(failed)?;
        let events = audit_event::Entity::delete_many().filter(audit_event::Column::TenantId.eq(id.0));
        events.exec(conn).await.map_err(failed)?;
        self.data_keys_delete(id, None).await?;
        row::delete_many::<Tenant>(self, id, all()).await?;
        Ok(())
    }
}

impl Stored for Tenant {
    type Table = Entity;

    const RESOURCE: Resource = Resource::Tenant;
    const TENANT_ID: Column = Column::Id;
    const ID: Column = Column::Id;
    const DOC: Column = Column::Doc;
    const SEARCH_TEXT: Column = Column::SearchText;
    const FOLDED: Column = Column::Folded;
    const VERSION: Column = Column::Version;
    const UNIQUE: &'static [&'static str] = &["id", "name"];
    const ACROSS_TENANTS: bool = true;

    fn id(&self) -> Uuid {
        self.id.0
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn row(&self, _: TenantId, texts: RowTexts) -> ActiveModel {
        let RowTexts { doc, search_text, folded } = texts;
        ActiveModel {
            id: Set(self.id.0),
            name_key: Set(self.name.as_str().to_owned()),
            display_name: Set(self.display_name.clone()),
            doc: Set(doc),
            search_text: Set(search_text),
            folded: Set(folded),
            version: Set(self.meta.version),
            create_time: Set(self.meta.create_time.0),
            update_time: Set(self.meta.update_time.0),
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![self.name.as_str(), &self.display_name]
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        vec![("display_name", &self.display_name)]
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
            "display_name" => FieldSql::column(Column::DisplayName),
            "create_time" => FieldSql::column(Column::CreateTime),
            "update_time" => FieldSql::column(Column::UpdateTime),
            _ => return None,
        })
    }
}
