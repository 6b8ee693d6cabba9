//! Credentials as rows.

use jackfield_domain::configuration::Configuration;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::{self, Credential, CredentialKind, CredentialState};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::request::schema::Schema;
use jackfield_domain::user_connector::UserConnector;
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::ExternalId;
use jackfield_domain::{
    ConfigurationId, ConnectionId, CredentialId, Resource, Result, TenantId, Timestamp, UserConnectorId,
};
use sea_orm::sea_query::{CaseStatement, Condition, Expr, ExprTrait, IntoCondition, LockType, Query};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::cascade::CascadeIds;
use crate::crud;
use crate::database::error;
use crate::entity::credential::{ActiveModel, Column, Entity};
use crate::entity::{configuration, user_connector};
use crate::list::field::{FieldSource, FilterContext};
use crate::list::{Listed, Scope};
use crate::session::{Session, Writer};
use crate::stored::{self, Stored, common_parts};

impl<C: ConnectionTrait> Session<C> {
    /// The newest credential of a link, which becomes the default after the default was deleted.
    pub async fn credential_fetch_newest(&self, tenant: TenantId, link: UserConnectorId) -> Result<Option<Credential>> {
        crud::fetch_last(&self.conn, tenant, Column::UserConnectorId.eq(link.0), Column::CreateTime).await
    }

    /// The default credential of a link.
    pub async fn credential_fetch_default(
        &self,
        tenant: TenantId,
        link: UserConnectorId,
    ) -> Result<Option<Credential>> {
        crud::fetch(&self.conn, tenant, default_of(link)).await
    }

    /// At most `limit` credentials of a link.
    pub async fn credentials_fetch_of_link(
        &self,
        tenant: TenantId,
        link: UserConnectorId,
        limit: u64,
    ) -> Result<Vec<Credential>> {
        crud::fetch_some(&self.conn, tenant, Column::UserConnectorId.eq(link.0), limit).await
    }
}

impl Writer {
    /// Locks the links of all credentials that came from a connection. Returns those whose default is among them, in order.
    pub async fn connection_links_lock(&self, tenant: TenantId, id: ConnectionId) -> Result<Vec<UserConnectorId>> {
        let links = Query::select()
            .column(Column::UserConnectorId)
            .from(Entity)
            .and_where(Column::TenantId.eq(tenant.0))
            .and_where(Column::ConnectionId.eq(id.0))
            .to_owned();
        let links = user_connector::Column::Id.in_subquery(links);
        crud::ids_for_update::<UserConnector>(&self.conn, tenant, links).await?;
        let defaults = Condition::all().add(Column::ConnectionId.eq(id.0)).add(Column::IsDefault.eq(true));
        let select = stored::of::<Credential>(tenant).filter(defaults).order_by_asc(Column::UserConnectorId);
        let links = select.select_only().column(Column::UserConnectorId).into_tuple::<Uuid>().all(&self.conn).await;
        Ok(links.map_err(error::from_db)?.into_iter().map(UserConnectorId).collect())
    }

    /// The default credential of a link. No other transaction changes it until this one ends.
    pub async fn credential_fetch_default_for_update(
        &self,
        tenant: TenantId,
        link: UserConnectorId,
    ) -> Result<Option<Credential>> {
        crud::fetch_locked(&self.conn, tenant, default_of(link), LockType::Update).await
    }

    /// A credential that was found, locked so that configurations can be added to it. They also belong to its connector, so
    /// both are locked, from the top down. Returns the credential as it is then. (SQLite has one writer, so the credential is
    /// as it was found.)
    pub async fn credential_lock_shared(&self, tenant: TenantId, found: &Credential) -> Result<Option<Credential>> {
        if self.conn.get_database_backend() == DbBackend::Sqlite {
            return Ok(Some(found.clone()));
        }
        self.lock_shared::<Connector>(tenant, &Ref::Id(found.connector.0)).await?;
        self.lock_shared(tenant, &Ref::Id(found.id.0)).await
    }

    /// Deletes a credential with its configurations and its material.
    pub async fn credential_delete(&self, tenant: TenantId, id: CredentialId) -> Result<CascadeIds> {
        self.credentials_delete(tenant, Column::Id.eq(id.0)).await
    }

    /// Deletes the credentials that fit a condition, with their configurations, material and labels.
    pub(super) async fn credentials_delete(
        &self,
        tenant: TenantId,
        condition: impl IntoCondition,
    ) -> Result<CascadeIds> {
        let condition = condition.into_condition();
        let ids = crud::ids_for_update::<Credential>(&self.conn, tenant, condition.clone()).await?;
        let configurations = configurations_of(tenant, condition.clone());
        let configurations = self.delete_returning::<Configuration>(tenant, configurations).await?;
        self.owned_delete(tenant, Resource::Credential, &ids).await?;
        self.refreshes_delete(tenant, &ids).await?;
        self.delete_rows::<Credential>(tenant, &ids, condition).await?;
        Ok(CascadeIds {
            credentials: ids.into_iter().map(CredentialId).collect(),
            configurations: configurations.into_iter().map(ConfigurationId).collect(),
            ..CascadeIds::default()
        })
    }
}

fn default_of(link: UserConnectorId) -> Condition {
    Condition::all().add(Column::UserConnectorId.eq(link.0)).add(Column::IsDefault.eq(true))
}

impl Stored for Credential {
    type Id = CredentialId;
    type Table = Entity;

    common_parts!(TenantId);
    const EXTERNAL_ID: Option<Column> = Some(Column::ExternalId);

    fn columns(&self) -> ActiveModel {
        ActiveModel {
            external_id: Set(self.external_id.as_ref().map(|id| id.as_str().to_owned())),
            user_id: Set(self.user_id.as_str().to_owned()),
            connector_id: Set(self.connector.0),
            connection_id: Set(self.connection.map(Uuid::from)),
            user_connector_id: Set(self.user_connector.0),
            key_id: Set(self.key.map(Uuid::from)),
            kind: Set(self.kind.as_str().to_owned()),
            state: Set(self.state.as_str().to_owned()),
            expire_time: Set(self.expire_time.map(|time| time.0)),
            authorization_expire_time: Set(self.authorization_expire_time.map(|time| time.0)),
            provider_account_id: Set(self.provider_account_id.clone()),
            email_digest: Set(self.email_digest.as_ref().map(|digest| digest.as_str().to_owned())),
            is_default: Set(self.is_default),
            refreshable: Set(self.refreshable),
            next_refresh_time: Set(self.next_refresh_time.map(|time| time.0)),
            ..ActiveModel::default()
        }
    }

    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.user_id.as_str(), self.kind.as_str(), &self.provider_account_id];
        texts.extend(self.external_id.as_ref().map(ExternalId::as_str));
        texts.extend(self.scopes.iter().map(String::as_str));
        texts.extend(self.labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]));
        texts
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        let mut texts = vec![("user_id", self.user_id.as_str()), ("provider_account_id", &self.provider_account_id)];
        texts.extend(self.external_id.as_ref().map(|id| ("external_id", id.as_str())));
        texts
    }

    fn external_id(&self) -> Option<&str> {
        self.external_id.as_ref().map(ExternalId::as_str)
    }

    /// The link of the credential: its default credential may be another one now.
    fn also_advances(&self) -> Option<Uuid> {
        Some(self.user_connector.0)
    }
}

impl Listed for Credential {
    const SCHEMA: &'static Schema = &credential::SCHEMA;
    const USER_ID: Option<Column> = Some(Column::UserId);

    fn scope(scope: &Scope) -> Condition {
        Condition::all()
            .add_option(scope.user_id.as_ref().map(|user| Column::UserId.eq(user.as_str())))
            .add_option(scope.connector.map(|id| Column::ConnectorId.eq(id.0)))
            .add_option(scope.connection.map(|id| Column::ConnectionId.eq(id.0)))
    }

    fn field(name: &str) -> Option<FieldSource> {
        Some(match name {
            "connector" => FieldSource::column(Column::ConnectorId),
            "connection" => FieldSource::column(Column::ConnectionId),
            "user_connector" => FieldSource::column(Column::UserConnectorId),
            "kind" => FieldSource::column(Column::Kind),
            "state" => FieldSource::Computed(|context: &FilterContext| state(context.now)),
            "expire_time" => FieldSource::column(Column::ExpireTime),
            "authorization_expire_time" => FieldSource::column(Column::AuthorizationExpireTime),
            "provider_account_id" => FieldSource::column(Column::ProviderAccountId),
            "is_default" => FieldSource::column(Column::IsDefault),
            "refreshable" => FieldSource::Computed(|_: &FilterContext| refreshable()),
            "labels" => FieldSource::labels(Resource::Credential, Column::Id),
            _ => return None,
        })
    }
}

/// The condition that the server can refresh a credential. It gives the same as `Credential::refreshes`.
pub(super) fn refreshes() -> Condition {
    let column = |column: Column| Expr::col((Entity, column));
    Condition::all()
        .add(column(Column::Refreshable).eq(true))
        .add(column(Column::ConnectionId).is_not_null())
        .add(column(Column::Kind).eq(CredentialKind::OAuth2.as_str()))
}

fn refreshable() -> Expr {
    CaseStatement::new().case(refreshes(), true).finally(false).into()
}

/// The state at a time as an expression. It gives the same as `Credential::state_at`.
pub(super) fn state(now: Timestamp) -> Expr {
    let column = |column: Column| Expr::col((Entity, column));
    let run_out = Condition::all()
        .add(column(Column::State).eq(CredentialState::Valid.as_str()))
        .add(column(Column::ExpireTime).lte(now.0));
    CaseStatement::new().case(run_out, CredentialState::Expired.as_str()).finally(column(Column::State)).into()
}

/// The condition on the configurations of the credentials that fit a condition.
pub(super) fn configurations_of(tenant: TenantId, condition: Condition) -> Condition {
    let ids = Query::select()
        .column(Column::Id)
        .from(Entity)
        .and_where(Column::TenantId.eq(tenant.0))
        .cond_where(condition)
        .to_owned();
    Condition::all().add(configuration::Column::CredentialId.in_subquery(ids))
}
