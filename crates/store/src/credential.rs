//! Credentials as rows.

use jackfield_domain::configuration::Configuration;
use jackfield_domain::credential::{Credential, CredentialState};
use jackfield_domain::error::Taken;
use jackfield_domain::meta::Meta;
use jackfield_domain::page::OrderBy;
use jackfield_domain::reference::Ref;
use jackfield_domain::text::{ExternalId, Labels};
use jackfield_domain::user_connector::UserConnector;
use jackfield_domain::{ConnectionId, CredentialId, Resource, Result, TenantId, Timestamp, UserConnectorId};
use sea_orm::sea_query::{CaseStatement, Condition, Expr, ExprTrait, IntoCondition, Query};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use crate::entity::credential::{ActiveModel, Column, Entity};
use crate::entity::{configuration, user_connector};
use crate::error;
use crate::filter::{FieldSql, FilterContext};
use crate::page::{self, Page, PageQuery, Scope};
use crate::row::{self, RowTexts, Stored};
use crate::session::{Reader, Session, Writer};

impl<C: ConnectionTrait> Session<C> {
    pub async fn credential_fetch(&self, tenant: TenantId, id: CredentialId) -> Result<Option<Credential>> {
        row::fetch(&self.conn, tenant, Column::Id.eq(id.0)).await
    }

    /// The credential that a reference names. Credentials have no name.
    pub async fn credential_find(&self, tenant: TenantId, reference: &Ref) -> Result<Option<Credential>> {
        match reference {
            Ref::Id(id) => self.credential_fetch(tenant, CredentialId(*id)).await,
            Ref::External(external) => row::fetch(&self.conn, tenant, Column::ExternalId.eq(external.as_str())).await,
            Ref::Name(_) => Ok(None),
        }
    }

    /// The credential of a link that is used when none is named.
    pub async fn credential_fetch_default(
        &self,
        tenant: TenantId,
        link: UserConnectorId,
    ) -> Result<Option<Credential>> {
        row::fetch(&self.conn, tenant, default_of(link)).await
    }

    /// Counts the credentials that fit a condition, and their configurations.
    pub(crate) async fn credentials_count(
        &self,
        tenant: TenantId,
        condition: impl IntoCondition,
    ) -> Result<(u64, u64)> {
        let condition = condition.into_condition();
        let configurations = of_credentials(tenant, condition.clone());
        Ok((
            row::count::<Credential>(&self.conn, tenant, condition).await?,
            row::count::<Configuration>(&self.conn, tenant, configurations).await?,
        ))
    }

    /// The youngest credential of a link, to inherit the mark of a deleted default.
    pub async fn credential_fetch_newest(&self, tenant: TenantId, link: UserConnectorId) -> Result<Option<Credential>> {
        row::fetch_last(&self.conn, tenant, Column::UserConnectorId.eq(link.0), Column::CreateTime).await
    }
}

impl Reader {
    pub async fn credential_page(&self, query: &PageQuery<'_>) -> Result<Page<Credential>> {
        page::page(&self.conn, query).await
    }
}

impl Writer {
    /// Locks the links of all credentials that came from a connection; returns those whose default is among them, in order.
    pub async fn connection_links_lock(&self, tenant: TenantId, id: ConnectionId) -> Result<Vec<UserConnectorId>> {
        let links = Query::select()
            .column(Column::UserConnectorId)
            .from(Entity)
            .and_where(Column::TenantId.eq(tenant.0))
            .and_where(Column::ConnectionId.eq(id.0))
            .to_owned();
        let links = user_connector::Column::Id.in_subquery(links);
        row::ids_for_update::<UserConnector>(&self.conn, tenant, links).await?;
        let defaults = Condition::all().add(Column::ConnectionId.eq(id.0)).add(Column::IsDefault.eq(true));
        let select = row::of::<Credential>(tenant).filter(defaults).order_by_asc(Column::UserConnectorId);
        let links = select.select_only().column(Column::UserConnectorId).into_tuple::<Uuid>().all(&self.conn).await;
        Ok(links.map_err(error::from_db)?.into_iter().map(UserConnectorId).collect())
    }

    pub async fn credential_fetch_for_update(&self, tenant: TenantId, id: CredentialId) -> Result<Option<Credential>> {
        row::fetch_for_update(&self.conn, tenant, Column::Id.eq(id.0)).await
    }

    pub async fn credential_fetch_default_for_update(
        &self,
        tenant: TenantId,
        link: UserConnectorId,
    ) -> Result<Option<Credential>> {
        row::fetch_for_update(&self.conn, tenant, default_of(link)).await
    }

    /// A credential that was found, to hang configurations on it, which also belong to its connector: locked from the top
    /// down, and as it is then. (SQLite has one writer: it is as it was found.)
    pub async fn credential_hold_with_connector(
        &self,
        tenant: TenantId,
        found: &Credential,
    ) -> Result<Option<Credential>> {
        if self.conn.get_database_backend() == DbBackend::Sqlite {
            return Ok(Some(found.clone()));
        }
        self.connector_hold(tenant, &Ref::Id(found.connector.0)).await?;
        row::fetch_held(&self.conn, tenant, Column::Id.eq(found.id.0)).await
    }

    pub async fn credential_insert(&self, tenant: TenantId, credential: &Credential) -> Result<()> {
        // What its link gives when no credential is named may be another one from now on.
        self.touch(tenant, credential.user_connector.0);
        row::insert(self, tenant, credential).await
    }

    pub async fn credential_replace(&self, tenant: TenantId, credential: &Credential) -> Result<()> {
        self.touch(tenant, credential.user_connector.0);
        row::replace(self, tenant, credential).await
    }

    /// Deletes a credential with its configurations and its material; says how many configurations.
    pub async fn credential_delete(&self, tenant: TenantId, id: CredentialId) -> Result<u64> {
        let (_, configurations) = self.credentials_delete(tenant, Column::Id.eq(id.0)).await?;
        Ok(configurations)
    }

    /// Deletes the credentials that fit a condition, with their configurations, material and labels; says how many
    /// credentials and configurations.
    pub(crate) async fn credentials_delete(
        &self,
        tenant: TenantId,
        condition: impl IntoCondition,
    ) -> Result<(u64, u64)> {
        let condition = condition.into_condition();
        let ids = row::ids_for_update::<Credential>(&self.conn, tenant, condition.clone()).await?;
        let configurations =
            row::delete_many::<Configuration>(self, tenant, of_credentials(tenant, condition.clone())).await?;
        self.owned_delete(tenant, Resource::Credential, &ids).await?;
        let credentials = row::delete_known::<Credential>(self, tenant, &ids, condition).await?;
        Ok((credentials, configurations))
    }
}

impl Stored for Credential {
    type Table = Entity;

    const RESOURCE: Resource = Resource::Credential;
    const TENANT_ID: Column = Column::TenantId;
    const ID: Column = Column::Id;
    const DOC: Column = Column::Doc;
    const SEARCH_TEXT: Column = Column::SearchText;
    const FOLDED: Column = Column::Folded;
    const VERSION: Column = Column::Version;
    const UNIQUE: &'static [&'static str] = &["id", "external_id"];

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
            user_id: Set(self.user_id.as_str().to_owned()),
            connector_id: Set(self.connector.0),
            connection_id: Set(self.connection.map(Uuid::from)),
            user_connector_id: Set(self.user_connector.0),
            key_id: Set(self.key.map(Uuid::from)),
            kind: Set(self.kind.as_str().to_owned()),
            state: Set(self.state.as_str().to_owned()),
            expire_time: Set(self.expire_time.map(|time| time.0)),
            provider_account_id: Set(self.provider_account_id.clone()),
            is_default: Set(self.is_default),
            refreshable: Set(self.refreshable),
            doc: Set(doc),
            search_text: Set(search_text),
            folded: Set(folded),
            version: Set(self.meta.version),
            create_time: Set(self.meta.create_time.0),
            update_time: Set(self.meta.update_time.0),
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
            .add_option(scope.connection.map(|id| Column::ConnectionId.eq(id.0)))
    }

    fn field(name: &str) -> Option<FieldSql> {
        Some(match name {
            "id" => FieldSql::column(Column::Id),
            "external_id" => FieldSql::column(Column::ExternalId),
            "user_id" => FieldSql::column(Column::UserId),
            "connector" => FieldSql::column(Column::ConnectorId),
            "connection" => FieldSql::column(Column::ConnectionId),
            "user_connector" => FieldSql::column(Column::UserConnectorId),
            "kind" => FieldSql::column(Column::Kind),
            "state" => FieldSql::computed(|context: &FilterContext| state(context.now)),
            "expire_time" => FieldSql::column(Column::ExpireTime),
            "provider_account_id" => FieldSql::column(Column::ProviderAccountId),
            "is_default" => FieldSql::column(Column::IsDefault),
            "refreshable" => FieldSql::column(Column::Refreshable),
            "labels" => FieldSql::labels(Resource::Credential, Column::Id),
            "create_time" => FieldSql::column(Column::CreateTime),
            "update_time" => FieldSql::column(Column::UpdateTime),
            _ => return None,
        })
    }
}

/// The state at a time as an expression. It says the same as `Credential::state_at`.
pub(crate) fn state(now: Timestamp) -> Expr {
    let column = |column: Column| Expr::col((Entity, column));
    let run_out = Condition::all()
        .add(column(Column::State).eq(CredentialState::Valid.as_str()))
        .add(column(Column::ExpireTime).lte(now.0));
    CaseStatement::new().case(run_out, CredentialState::Expired.as_str()).finally(column(Column::State)).into()
}

fn default_of(link: UserConnectorId) -> Condition {
    Condition::all().add(Column::UserConnectorId.eq(link.0)).add(Column::IsDefault.eq(true))
}

/// The configurations of the credentials that fit a condition.
fn of_credentials(tenant: TenantId, condition: Condition) -> Condition {
    let ids = Query::select()
        .column(Column::Id)
        .from(Entity)
        .and_where(Column::TenantId.eq(tenant.0))
        .cond_where(condition)
        .to_owned();
    Condition::all().add(configuration::Column::CredentialId.in_subquery(ids))
}
