//! A credential with everything that is checked before its token is issued. One statement reads it, so it is consistent.

use std::sync::OnceLock;

use jackfield_domain::credential::{Credential, CredentialRef, MATERIAL_COLUMN};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Resource, Result, TenantId};
use sea_orm::sea_query::{Condition, Expr, ExprTrait, Order, Query, SelectStatement, SimpleExpr, Value};
use sea_orm::{ColumnTrait as _, ConnectionTrait, DbBackend, TryGetableMany as _};
use uuid::Uuid;

use crate::database::error;
use crate::database::template::{Template, parameter};
use crate::document;
use crate::entity::{connection, connector, credential, secret, user_connector};
use crate::session::Session;

/// A credential with the state of its parents.
pub struct IssuableCredential {
    pub credential: Credential,
    /// `None` if its connector was deleted.
    pub connector_enabled: Option<bool>,
    /// `None` if it has no connection, or the connection was deleted.
    pub connection_active: Option<bool>,
    /// Its sealed material.
    pub material: Option<Vec<u8>>,
}

type Columns = (Uuid, String, Option<bool>, Option<bool>, Option<Vec<u8>>);

/// The way in which a reference names a credential. Each has a statement of its own, whose text is built once: that takes as long as reading
/// the row.
#[derive(Clone, Copy)]
enum Way {
    Id,
    ExternalId,
    DefaultOfConnectorId,
    DefaultOfConnectorName,
    OfConnection(ParentBy),
}

/// The way in which a reference names a connection.
#[derive(Clone, Copy)]
enum ParentBy {
    Id,
    Name,
    ExternalId,
}

const WAYS: usize = 7;
/// The parameters of the statements: the tenant, the user or else the credential, and the parent.
const TENANT: u8 = 0;
const NAMED: u8 = 1;
const PARENT: u8 = 2;

impl<C: ConnectionTrait> Session<C> {
    /// The credential that a reference names, or the default one of a user for a connector.
    pub async fn credential_fetch_issuable(
        &self,
        tenant: TenantId,
        reference: &CredentialRef,
    ) -> Result<Option<IssuableCredential>> {
        static TEMPLATES: [[OnceLock<Template>; WAYS]; 2] = [const { [const { OnceLock::new() }; WAYS] }; 2];
        let Some((way, named, parent)) = way_of(reference) else { return Ok(None) };
        let backend = self.conn.get_database_backend();
        let template = TEMPLATES[usize::from(backend == DbBackend::Postgres)][way.number()]
            .get_or_init(|| Template::of(backend, &select(way)));
        let statement = template.statement([tenant.0.into(), named, parent]);
        // At most one row is found, so there is no limit (see `crud::one`).
        let Some(row) = self.conn.query_all_raw(statement).await.map_err(error::from_db)?.pop() else {
            return Ok(None);
        };
        let columns = Columns::try_get_many_by_index(&row).map_err(|failed| error::from_db(failed.into()))?;
        let (id, doc, connector_enabled, connection_active, material) = columns;
        let credential = document::decode(&doc, id)?;
        Ok(Some(IssuableCredential { credential, connector_enabled, connection_active, material }))
    }
}

// === impl Way ===

impl Way {
    fn number(self) -> usize {
        match self {
            Way::Id => 0,
            Way::ExternalId => 1,
            Way::DefaultOfConnectorId => 2,
            Way::DefaultOfConnectorName => 3,
            Way::OfConnection(ParentBy::Id) => 4,
            Way::OfConnection(ParentBy::Name) => 5,
            Way::OfConnection(ParentBy::ExternalId) => 6,
        }
    }
}

/// The way of a reference, and the values of its parameters; `None` if the reference can name no credential.
fn way_of(reference: &CredentialRef) -> Option<(Way, Value, Value)> {
    // A statement without a parent does not use it.
    let none = || Value::from(false);
    Some(match reference {
        CredentialRef::Ref(Ref::Id(id)) => (Way::Id, (*id).into(), none()),
        CredentialRef::Ref(Ref::External(external)) => (Way::ExternalId, external.as_str().into(), none()),
        CredentialRef::Ref(Ref::Name(_)) => return None,
        CredentialRef::DefaultOf { user_id, connector } => match connector {
            Ref::Id(id) => (Way::DefaultOfConnectorId, user_id.as_str().into(), (*id).into()),
            Ref::Name(name) => (Way::DefaultOfConnectorName, user_id.as_str().into(), name.key().into()),
            Ref::External(_) => return None,
        },
        CredentialRef::OfConnection { user_id, connection } => {
            let (by, parent) = match connection {
                Ref::Id(id) => (ParentBy::Id, (*id).into()),
                Ref::Name(name) => (ParentBy::Name, name.key().into()),
                Ref::External(external) => (ParentBy::ExternalId, external.as_str().into()),
            };
            (Way::OfConnection(by), user_id.as_str().into(), parent)
        }
    })
}

/// The statement of a way.
fn select(way: Way) -> SelectStatement {
    let tenant = || parameter(TENANT);
    let column = |column: credential::Column| Expr::col((credential::Entity, column));
    Query::select()
        .expr(column(credential::Column::Id))
        .expr(column(credential::Column::Doc))
        .expr(Expr::col((connector::Entity, connector::Column::Enabled)))
        .expr(Expr::col((connection::Entity, connection::Column::Active)))
        .expr(Expr::col((secret::Entity, secret::Column::Sealed)))
        .from(credential::Entity)
        .and_where(credential::Column::TenantId.eq(tenant()))
        .cond_where(named(way))
        .left_join(
            connector::Entity,
            Expr::col((connector::Entity, connector::Column::TenantId))
                .eq(tenant())
                .and(Expr::col((connector::Entity, connector::Column::Id)).eq(column(credential::Column::ConnectorId))),
        )
        .left_join(
            connection::Entity,
            Expr::col((connection::Entity, connection::Column::TenantId)).eq(tenant()).and(
                Expr::col((connection::Entity, connection::Column::Id)).eq(column(credential::Column::ConnectionId)),
            ),
        )
        .left_join(
            secret::Entity,
            Condition::all()
                .add(Expr::col((secret::Entity, secret::Column::TenantId)).eq(tenant()))
                .add(Expr::col((secret::Entity, secret::Column::Owner)).eq(Resource::Credential.as_str()))
                .add(Expr::col((secret::Entity, secret::Column::OwnerId)).eq(column(credential::Column::Id)))
                .add(Expr::col((secret::Entity, secret::Column::Name)).eq(MATERIAL_COLUMN)),
        )
        .take()
}

/// The condition on the row of a credential.
fn named(way: Way) -> Condition {
    let (tenant, named, parent) = (|| parameter(TENANT), parameter(NAMED), || parameter(PARENT));
    let link = |of_connector: SimpleExpr| {
        ids(user_connector::Entity, user_connector::Column::Id)
            .and_where(user_connector::Column::TenantId.eq(tenant()))
            .and_where(user_connector::Column::UserId.eq(named.clone()))
            .and_where(of_connector)
            .take()
    };
    let default_of = |of_connector: SimpleExpr| {
        Condition::all()
            .add(credential::Column::UserConnectorId.in_subquery(link(of_connector)))
            .add(credential::Column::IsDefault.eq(true))
    };
    match way {
        Way::Id => Condition::all().add(credential::Column::Id.eq(named)),
        Way::ExternalId => Condition::all().add(credential::Column::ExternalId.eq(named)),
        Way::DefaultOfConnectorId => default_of(user_connector::Column::ConnectorId.eq(parent())),
        Way::DefaultOfConnectorName => {
            let connector = ids(connector::Entity, connector::Column::Id)
                .and_where(connector::Column::TenantId.eq(tenant()))
                .and_where(connector::Column::NameKey.eq(parent()))
                .take();
            default_of(user_connector::Column::ConnectorId.in_subquery(connector))
        }
        Way::OfConnection(by) => {
            let of_parent = |mut select: SelectStatement| {
                select
                    .and_where(connection::Column::TenantId.eq(tenant()))
                    .and_where(match by {
                        ParentBy::Id => connection::Column::Id.eq(parent()),
                        ParentBy::Name => connection::Column::NameKey.eq(parent()),
                        ParentBy::ExternalId => connection::Column::ExternalId.eq(parent()),
                    })
                    .take()
            };
            let connector = of_parent(ids(connection::Entity, connection::Column::ConnectorId));
            let connection = of_parent(ids(connection::Entity, connection::Column::Id));
            let newest = ids(credential::Entity, credential::Column::Id)
                .and_where(credential::Column::TenantId.eq(tenant()))
                .and_where(
                    credential::Column::UserConnectorId
                        .in_subquery(link(user_connector::Column::ConnectorId.in_subquery(connector))),
                )
                .and_where(credential::Column::ConnectionId.in_subquery(connection))
                .order_by_columns([
                    (credential::Column::CreateTime, Order::Desc),
                    (credential::Column::Id, Order::Desc),
                ])
                .limit(1)
                .take();
            Condition::all().add(credential::Column::Id.in_subquery(newest))
        }
    }
}

fn ids(table: impl sea_orm::sea_query::IntoTableRef, id: impl sea_orm::sea_query::IntoColumnRef) -> SelectStatement {
    Query::select().column(id).from(table).to_owned()
}
