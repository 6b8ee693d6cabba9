//! Tenants as rows. They are the one resource that is not in a tenant; in their own methods the tenant is the row itself.

use jackfield_domain::application::{Application, PermissionGrant, Session as ApplicationSession};
use jackfield_domain::configuration::Configuration;
use jackfield_domain::connection::Connection;
use jackfield_domain::connector::{Connector, ConnectorEvent};
use jackfield_domain::credential::Credential;
use jackfield_domain::error::Use;
use jackfield_domain::key::Key;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::request::schema::Schema;
use jackfield_domain::tenant::{self, Tenant};
use jackfield_domain::user::User;
use jackfield_domain::user_connector::UserConnector;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{Resource, Result, TenantId};
use sea_orm::sea_query::{Condition, LockType, Query};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect,
};
use uuid::Uuid;

use crate::crud;
use crate::database::error;
use crate::entity::tenant::{ActiveModel, Column, Entity};
use crate::entity::{audit_event, idempotency, label, secret};
use crate::list::Listed;
use crate::list::field::FieldSource;
use crate::session::{Session, Writer};
use crate::stored::{self, Stored, common_parts, for_each_resource};

impl<C: ConnectionTrait> Session<C> {
    /// The tenant that a reference names.
    pub async fn tenant_find(&self, reference: &Ref) -> Result<Option<Tenant>> {
        let Some(condition) = stored::named::<Tenant>(reference) else { return Ok(None) };
        let select = Query::select().columns([Column::Doc, Column::Id]).from(Entity).cond_where(condition).to_owned();
        crud::one(&self.conn, &select).await
    }

    /// Returns whether there is a tenant, even if its document cannot be read.
    pub async fn tenant_exists(&self, id: TenantId) -> Result<bool> {
        let select = stored::of::<Tenant>(id).select_only().column(Column::Id).into_tuple::<Uuid>();
        Ok(!select.all(&self.conn).await.map_err(error::from_db)?.is_empty())
    }

    /// The id of the tenant with a name, even if its document cannot be read: the principals of the tenant can go on.
    pub async fn tenant_id_by_name(&self, name: &str) -> Result<Option<TenantId>> {
        #[expect(clippy::disallowed_methods, reason = "a tenant is looked up before there is one")]
        let select = Entity::find().filter(Column::NameKey.eq(name)).select_only().column(Column::Id);
        let id = select.into_tuple::<Uuid>().all(&self.conn).await.map_err(error::from_db)?.pop();
        Ok(id.map(TenantId))
    }

    /// The tenant with the next higher id, or the first one.
    pub async fn tenant_after(&self, after: Option<TenantId>) -> Result<Option<TenantId>> {
        #[expect(clippy::disallowed_methods, reason = "a walk over all tenants")]
        let mut select = Entity::find().select_only().column(Column::Id).order_by_asc(Column::Id).limit(1);
        if let Some(after) = after {
            select = select.filter(Column::Id.gt(after.0));
        }
        let id = select.into_tuple::<Uuid>().one(&self.conn).await.map_err(error::from_db)?;
        Ok(id.map(TenantId))
    }

    /// The number of tenants.
    pub async fn tenants_count(&self) -> Result<u64> {
        #[expect(clippy::disallowed_methods, reason = "a count of tenants has no tenant")]
        Entity::find().count(&self.conn).await.map_err(error::from_db)
    }

    /// The resources in a tenant, by kind.
    pub async fn tenant_contents(&self, id: TenantId) -> Result<Vec<Use>> {
        let mut held = Vec::new();
        for_each_resource!(R => {
            let count = if R::ACROSS_TENANTS { 0 } else { crud::count::<R>(&self.conn, id, Condition::all()).await? };
            if count > 0 {
                held.push(Use { resource: R::RESOURCE, count });
            }
        });
        let count = self.credential_sources_count(id).await?;
        held.extend((count > 0).then_some(Use { resource: Resource::CredentialSource, count }));
        Ok(held)
    }
}

impl Writer {
    /// Keeps a tenant from being deleted until the transaction ends. Returns whether it exists. Every change of the rows of a
    /// tenant begins with this, because all transactions lock from the top down: tenant, connector, connection, link,
    /// credential, configuration. On SQLite there is one writer, and nothing is checked.
    pub async fn tenant_lock_shared(&self, id: TenantId) -> Result<bool> {
        if self.conn.get_database_backend() == DbBackend::Sqlite {
            return Ok(true);
        }
        let select = stored::of::<Tenant>(id).lock(LockType::KeyShare).select_only().column(Column::Id);
        let found = select.into_tuple::<Uuid>().all(&self.conn).await.map_err(error::from_db)?;
        Ok(!found.is_empty())
    }

    /// Keeps other transactions that take this lock from going on until this one ends: those that give login ids to users of the
    /// tenant, set its routing policy for the first time, or set credential sources. Other changes of the rows of the tenant go on. On SQLite there is one
    /// writer.
    pub(crate) async fn tenant_lock_exclusive(&self, id: TenantId) -> Result<()> {
        if self.conn.get_database_backend() == DbBackend::Sqlite {
            return Ok(());
        }
        let select = stored::of::<Tenant>(id).lock(LockType::NoKeyUpdate).select_only().column(Column::Id);
        select.into_tuple::<Uuid>().all(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }

    /// Deletes a tenant with everything in it and its data keys. Its audit records go too: without the tenant no principal
    /// could read them.
    pub async fn tenant_delete(&self, id: TenantId) -> Result<()> {
        // The tenant is locked, so no other change of its rows is under way, except for a re-wrap, which takes no such lock.
        self.data_keys_lock(id).await?;
        self.delete_all::<User>(id).await?;
        self.routing_delete(id).await?;
        self.delete_all::<Configuration>(id).await?;
        self.refreshes_delete_all(id).await?;
        self.delete_all::<Credential>(id).await?;
        self.authorizations_delete(id).await?;
        self.delete_all::<Connection>(id).await?;
        self.delete_all::<UserConnector>(id).await?;
        self.delete_all::<ApplicationSession>(id).await?;
        self.delete_all::<PermissionGrant>(id).await?;
        self.delete_all::<Application>(id).await?;
        self.delete_all::<ConnectorEvent>(id).await?;
        self.delete_all::<Connector>(id).await?;
        self.credential_sources_delete(id).await?;
        self.delete_all::<Key>(id).await?;
        let conn = &self.conn;
        let failed = error::from_db;
        secret::Entity::delete_many().filter(secret::Column::TenantId.eq(id.0)).exec(conn).await.map_err(failed)?;
        label::Entity::delete_many().filter(label::Column::TenantId.eq(id.0)).exec(conn).await.map_err(failed)?;
        let requests = idempotency::Entity::delete_many().filter(idempotency::Column::TenantId.eq(id.0));
        requests.exec(conn).await.map_err(failed)?;
        let events = audit_event::Entity::delete_many().filter(audit_event::Column::TenantId.eq(id.0));
        events.exec(conn).await.map_err(failed)?;
        self.data_keys_delete(id).await?;
        // Late, because log-ins wait for the rows.
        self.login_attempts_delete(id).await?;
        self.delete_all::<Tenant>(id).await
    }
}

impl Stored for Tenant {
    type Id = TenantId;
    type Table = Entity;

    common_parts!(Id);
    const NAME_KEY: Option<Column> = Some(Column::NameKey);

    fn columns(&self) -> ActiveModel {
        ActiveModel {
            name_key: Set(self.name.as_str().to_owned()),
            display_name: Set(self.display_name.clone()),
            ..ActiveModel::default()
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![self.name.as_str(), &self.display_name]
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        vec![("display_name", &self.display_name)]
    }

    fn name(&self) -> Option<&str> {
        Some(self.name.as_str())
    }
}

impl Listed for Tenant {
    const SCHEMA: &'static Schema = &tenant::SCHEMA;
    const ACROSS_TENANTS: bool = true;

    fn field(name: &str) -> Option<FieldSource> {
        Some(match name {
            "display_name" => FieldSource::column(Column::DisplayName),
            _ => return None,
        })
    }
}
