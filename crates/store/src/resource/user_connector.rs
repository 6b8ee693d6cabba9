//! Links between users and connectors as rows. The state of a link is computed when it is read: it follows from its connector
//! and its credentials, and a copy of it could be stale.

use std::collections::{BTreeSet, HashMap};

use jackfield_domain::connector::Connector;
use jackfield_domain::credential::{Credential, CredentialState};
use jackfield_domain::request::schema::Schema;
use jackfield_domain::user_connector::{self, UserConnector, UserConnectorState};
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::{Name, UserId};
use jackfield_domain::{ConnectorId, Resource, Result, TenantId, Timestamp, UserConnectorId};
use sea_orm::sea_query::{CaseStatement, Condition, Expr, ExprTrait, LockType, OnConflict, Query};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect};
use uuid::Uuid;

use super::cascade::CascadeIds;
use super::credential as credentials;
use crate::database::error;
use crate::entity::user_connector::{ActiveModel, Column, Entity};
use crate::entity::{connector, credential};
use crate::list::field::{FieldSource, FilterContext};
use crate::list::{Listed, Page, PageQuery, Rows, Scope};
use crate::row;
use crate::session::{Reader, Session, Writer};
use crate::stored::{self, Stored, common_parts, unique_value};
use crate::{crud, document};

/// Connectors that are read before the size of their documents is known, and the most that are read at once: a page of links
/// could have a thousand connectors with large documents.
const FIRST_READ: usize = 16;
const LARGEST_READ: usize = 256;
/// The approximate number of bytes of these documents that are in memory at once.
const MAX_READ_BYTES: usize = 1024 * 1024;

impl<C: ConnectionTrait> Session<C> {
    pub async fn user_connector_fetch(
        &self,
        tenant: TenantId,
        id: UserConnectorId,
        now: Timestamp,
    ) -> Result<Option<UserConnector>> {
        let link = crud::fetch(&self.conn, tenant, Column::Id.eq(id.0)).await?;
        self.user_connector_with_state(tenant, link, now).await
    }

    pub async fn user_connector_fetch_pair(
        &self,
        tenant: TenantId,
        user_id: &UserId,
        connector: ConnectorId,
        now: Timestamp,
    ) -> Result<Option<UserConnector>> {
        let link = crud::fetch(&self.conn, tenant, pair(user_id, connector)).await?;
        self.user_connector_with_state(tenant, link, now).await
    }

    async fn user_connector_with_state(
        &self,
        tenant: TenantId,
        link: Option<UserConnector>,
        now: Timestamp,
    ) -> Result<Option<UserConnector>> {
        let mut links: Vec<_> = link.into_iter().collect();
        self.user_connectors_complete(tenant, &mut links, now).await?;
        Ok(links.pop())
    }

    /// Fills in the fields that are not stored: the name of the connector, the count of credentials and the state.
    async fn user_connectors_complete(
        &self,
        tenant: TenantId,
        links: &mut [UserConnector],
        now: Timestamp,
    ) -> Result<()> {
        if links.is_empty() {
            return Ok(());
        }
        let mentioned: BTreeSet<Uuid> = links.iter().map(|link| link.connector.0).collect();
        let connectors = self.connectors_named(tenant, mentioned.into_iter().collect()).await?;

        let valid = CaseStatement::new().case(usable_now(now), 1).finally(0);
        let counts = stored::of::<Credential>(tenant)
            .filter(credential::Column::UserConnectorId.is_in(links.iter().map(|link| link.id.0)))
            .select_only()
            .column(credential::Column::UserConnectorId)
            .column_as(credential::Column::Id.count(), "credentials")
            .column_as(Expr::expr(valid).max(), "valid")
            .group_by(credential::Column::UserConnectorId)
            .into_tuple::<(Uuid, i64, i32)>();
        let counts = counts.all(&self.conn).await.map_err(error::from_db)?;
        let counts: HashMap<Uuid, (i64, i32)> =
            counts.into_iter().map(|(link, credentials, valid)| (link, (credentials, valid))).collect();

        for link in links {
            let (credentials, valid) = counts.get(&link.id.0).copied().unwrap_or_default();
            let connector = connectors.get(&link.connector.0);
            if let Some((_, Some(name))) = connector {
                link.connector_name.clone_from(name);
            }
            link.credential_count = u64::try_from(credentials).unwrap_or_default();
            link.state = match (connector, credentials, valid) {
                (Some((false, _)), _, _) => UserConnectorState::Disabled,
                (_, 0, _) => UserConnectorState::Attached,
                (_, _, 0) => UserConnectorState::NeedsReauth,
                _ => UserConnectorState::Authenticated,
            };
        }
        Ok(())
    }
}

impl<C: ConnectionTrait> Session<C> {
    /// Returns whether connectors are enabled, and their names. There is no name where the document cannot be read: the links
    /// of that connector keep the name that it had when they were made.
    async fn connectors_named(
        &self,
        tenant: TenantId,
        mentioned: Vec<Uuid>,
    ) -> Result<HashMap<Uuid, (bool, Option<Name>)>> {
        let mut connectors = HashMap::with_capacity(mentioned.len());
        let mut read = FIRST_READ;
        let mut left = &mentioned[..];
        while !left.is_empty() {
            let (these, others) = left.split_at(left.len().min(read));
            let select = stored::of::<Connector>(tenant)
                .filter(connector::Column::Id.is_in(these.iter().copied()))
                .select_only()
                .column(connector::Column::Id)
                .column(connector::Column::Enabled)
                .expr_as(document::bytes_of::<Connector>(self.conn.get_database_backend()), "bytes");
            let found = select.into_tuple::<(Uuid, bool, Vec<u8>)>().all(&self.conn).await.map_err(error::from_db)?;
            let bytes: usize = found.iter().map(|(_, _, doc)| doc.len()).sum();
            connectors.extend(
                found.into_iter().map(|(id, enabled, doc)| (id, (enabled, document::connector_name(&doc, id)))),
            );
            let average = (bytes / these.len()).max(1);
            read = (MAX_READ_BYTES / average).clamp(1, LARGEST_READ);
            left = others;
        }
        Ok(connectors)
    }
}

/// The bytes of the names of the connectors.
fn connector_name_bytes(links: &[UserConnector]) -> usize {
    links.iter().map(|link| link.connector_name.as_str().len()).sum()
}

impl Writer {
    /// Adds a link unless the pair is linked already. Returns whether it was added.
    pub async fn user_connector_insert(&self, tenant: TenantId, link: &UserConnector) -> Result<bool> {
        let row = row::of(tenant, link)?;
        let keep = OnConflict::columns([Column::TenantId, Column::UserId, Column::ConnectorId]).do_nothing().to_owned();
        let inserted = Entity::insert(row).on_conflict(keep).exec_without_returning(&self.conn).await;
        let inserted = inserted
            .map_err(|error| error::from_write(error, Resource::UserConnector, |what| unique_value(link, what)))?;
        Ok(inserted == 1)
    }

    /// The link of a pair. No other transaction changes it until this one ends.
    pub async fn user_connector_lock_pair(
        &self,
        tenant: TenantId,
        user_id: &UserId,
        connector: ConnectorId,
    ) -> Result<Option<UserConnector>> {
        crud::fetch_locked(&self.conn, tenant, pair(user_id, connector), LockType::Update).await
    }

    /// Deletes a link, which is locked, with its credentials and their configurations, and with the source of the user if it is the last
    /// link.
    pub async fn user_connector_delete(&self, tenant: TenantId, link: &UserConnector) -> Result<CascadeIds> {
        let deleted = self.credentials_delete(tenant, credential::Column::UserConnectorId.eq(link.id.0)).await?;
        let sources = self.credential_source_lock(tenant, &link.user_id).await?;
        self.delete_row::<UserConnector>(tenant, link.id.0).await?;
        let credential_sources = self.credential_sources_release(tenant, &sources).await?;
        Ok(CascadeIds { credential_sources, ..deleted })
    }
}

impl Stored for UserConnector {
    type Id = UserConnectorId;
    type Table = Entity;

    common_parts!(TenantId);

    fn columns(&self) -> ActiveModel {
        ActiveModel {
            user_id: Set(self.user_id.as_str().to_owned()),
            connector_id: Set(self.connector.0),
            ..ActiveModel::default()
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![self.user_id.as_str()]
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        vec![("user_id", self.user_id.as_str())]
    }
}

impl Listed for UserConnector {
    const SCHEMA: &'static Schema = &user_connector::SCHEMA;
    const USER_ID: Option<Column> = Some(Column::UserId);

    async fn completed(read: &Reader, query: &PageQuery<'_>, page: Page<UserConnector>) -> Result<Page<UserConnector>> {
        let Page { rows, next, hints } = page;
        let bytes = rows.bytes();
        let (mut links, left_out) = rows.read_unlogged();
        let stored = connector_name_bytes(&links);
        read.user_connectors_complete(query.tenant, &mut links, query.now).await?;
        // A connector may have a longer name now than when it was linked.
        let longer = connector_name_bytes(&links).saturating_sub(stored);
        Ok(Page { rows: Rows::of(links, bytes + longer, left_out), next, hints })
    }

    fn scope(scope: &Scope) -> Condition {
        Condition::all()
            .add_option(scope.user_id.as_ref().map(|user| Column::UserId.eq(user.as_str())))
            .add_option(scope.connector.map(|id| Column::ConnectorId.eq(id.0)))
    }

    fn field(name: &str) -> Option<FieldSource> {
        Some(match name {
            "connector" => FieldSource::column(Column::ConnectorId),
            "state" => FieldSource::Computed(state),
            _ => return None,
        })
    }
}

fn pair(user_id: &UserId, connector: ConnectorId) -> Condition {
    Condition::all().add(Column::UserId.eq(user_id.as_str())).add(Column::ConnectorId.eq(connector.0))
}

/// The condition that a credential needs nothing of its user at a time: it is valid, or has expired and can be refreshed.
fn usable_now(now: Timestamp) -> Condition {
    let is = |state: CredentialState| credentials::state(now).eq(state.as_str());
    let renewable = credentials::refreshes().add(is(CredentialState::Expired));
    Condition::any().add(is(CredentialState::Valid)).add(renewable)
}

/// The state of a link as an expression, for filters. It gives the same as `user_connectors_complete`.
fn state(context: &FilterContext) -> Expr {
    let link = (Entity, Column::Id);
    let of_link = |table: &mut sea_orm::sea_query::SelectStatement| {
        table
            .expr(Expr::val(1))
            .from(credential::Entity)
            .and_where(Expr::col((credential::Entity, credential::Column::TenantId)).eq(context.tenant.0))
            .and_where(Expr::col((credential::Entity, credential::Column::UserConnectorId)).equals(link))
            .to_owned()
    };
    let disabled = Query::select()
        .expr(Expr::val(1))
        .from(connector::Entity)
        .and_where(Expr::col((connector::Entity, connector::Column::TenantId)).eq(context.tenant.0))
        .and_where(Expr::col((connector::Entity, connector::Column::Id)).equals((Entity, Column::ConnectorId)))
        .and_where(Expr::col((connector::Entity, connector::Column::Enabled)).eq(false))
        .to_owned();
    let any = of_link(&mut Query::select());
    let valid = of_link(&mut Query::select()).cond_where(usable_now(context.now)).to_owned();
    CaseStatement::new()
        .case(Expr::exists(disabled), UserConnectorState::Disabled.as_str())
        .case(Expr::exists(valid), UserConnectorState::Authenticated.as_str())
        .case(Expr::exists(any), UserConnectorState::NeedsReauth.as_str())
        .finally(UserConnectorState::Attached.as_str())
        .into()
}
