//! A credential with everything that is checked before its token is issued. One statement reads it, so it is consistent.

use jackfield_domain::credential::{Credential, CredentialRef, MATERIAL_COLUMN};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Resource, Result, TenantId};
use sea_orm::sea_query::{Condition, Expr, ExprTrait, Order, Query, SelectStatement, SimpleExpr};
use sea_orm::{ColumnTrait, ConnectionTrait, QueryFilter, QuerySelect};
use uuid::Uuid;

use crate::database::error;
use crate::document;
use crate::entity::{connection, connector, credential, secret, user_connector};
use crate::session::Session;
use crate::stored;

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

impl<C: ConnectionTrait> Session<C> {
    /// The credential that a reference names, or the default one of a user for a connector.
    pub async fn credential_fetch_issuable(
        &self,
        tenant: TenantId,
        reference: &CredentialRef,
    ) -> Result<Option<IssuableCredential>> {
        let Some(named) = named(tenant, reference) else { return Ok(None) };
        let mut select = stored::of::<Credential>(tenant)
            .filter(named)
            .select_only()
            .column(credential::Column::Id)
            .column(credential::Column::Doc)
            .expr(Expr::col((connector::Entity, connector::Column::Enabled)))
            .expr(Expr::col((connection::Entity, connection::Column::Active)))
            .expr(Expr::col((secret::Entity, secret::Column::Sealed)));
        let column = |column: credential::Column| Expr::col((credential::Entity, column));
        QuerySelect::query(&mut select)
            .left_join(
                connector::Entity,
                Expr::col((connector::Entity, connector::Column::TenantId)).eq(tenant.0).and(
                    Expr::col((connector::Entity, connector::Column::Id)).eq(column(credential::Column::ConnectorId)),
                ),
            )
            .left_join(
                connection::Entity,
                Expr::col((connection::Entity, connection::Column::TenantId)).eq(tenant.0).and(
                    Expr::col((connection::Entity, connection::Column::Id))
                        .eq(column(credential::Column::ConnectionId)),
                ),
            )
            .left_join(
                secret::Entity,
                Condition::all()
                    .add(Expr::col((secret::Entity, secret::Column::TenantId)).eq(tenant.0))
                    .add(Expr::col((secret::Entity, secret::Column::Owner)).eq(Resource::Credential.as_str()))
                    .add(Expr::col((secret::Entity, secret::Column::OwnerId)).eq(column(credential::Column::Id)))
                    .add(Expr::col((secret::Entity, secret::Column::Name)).eq(MATERIAL_COLUMN)),
            );
        // At most one row is found, so there is no limit (see `crud::one`).
        let found = select.into_tuple::<Columns>().all(&self.conn).await.map_err(error::from_db)?.pop();
        let issuable = |(id, doc, connector_enabled, connection_active, material): Columns| {
            let credential = document::decode(&doc, id)?;
            Ok(IssuableCredential { credential, connector_enabled, connection_active, material })
        };
        found.map(issuable).transpose()
    }
}

/// The condition on the row of a credential; `None` if the reference can name none.
fn named(tenant: TenantId, reference: &CredentialRef) -> Option<Condition> {
    Some(match reference {
        CredentialRef::Ref(Ref::Id(id)) => Condition::all().add(credential::Column::Id.eq(*id)),
        CredentialRef::Ref(Ref::External(external)) => {
            Condition::all().add(credential::Column::ExternalId.eq(external.as_str()))
        }
        CredentialRef::Ref(Ref::Name(_)) => return None,
        CredentialRef::OfConnection { user_id, connection } => {
            let connector = Query::select().column(connection::Column::ConnectorId).from(connection::Entity).to_owned();
            let [connector, connection] =
                [connector, ids(connection::Entity, connection::Column::Id)].map(|mut select| {
                    select
                        .and_where(connection::Column::TenantId.eq(tenant.0))
                        .cond_where(named_connection(connection))
                        .take()
                });
            let link = ids(user_connector::Entity, user_connector::Column::Id)
                .and_where(user_connector::Column::TenantId.eq(tenant.0))
                .and_where(user_connector::Column::UserId.eq(user_id.as_str()))
                .and_where(user_connector::Column::ConnectorId.in_subquery(connector))
                .to_owned();
            let newest = ids(credential::Entity, credential::Column::Id)
                .and_where(credential::Column::TenantId.eq(tenant.0))
                .and_where(credential::Column::UserConnectorId.in_subquery(link))
                .and_where(credential::Column::ConnectionId.in_subquery(connection))
                .order_by_columns([
                    (credential::Column::CreateTime, Order::Desc),
                    (credential::Column::Id, Order::Desc),
                ])
                .limit(1)
                .to_owned();
            Condition::all().add(credential::Column::Id.in_subquery(newest))
        }
        CredentialRef::DefaultOf { user_id, connector } => {
            let link = ids(user_connector::Entity, user_connector::Column::Id)
                .and_where(user_connector::Column::TenantId.eq(tenant.0))
                .and_where(user_connector::Column::UserId.eq(user_id.as_str()))
                .and_where(match connector {
                    Ref::Id(id) => user_connector::Column::ConnectorId.eq(*id),
                    Ref::Name(name) => {
                        let connector = ids(connector::Entity, connector::Column::Id)
                            .and_where(connector::Column::TenantId.eq(tenant.0))
                            .and_where(connector::Column::NameKey.eq(name.key()))
                            .to_owned();
                        user_connector::Column::ConnectorId.in_subquery(connector)
                    }
                    Ref::External(_) => return None,
                })
                .to_owned();
            Condition::all()
                .add(credential::Column::UserConnectorId.in_subquery(link))
                .add(credential::Column::IsDefault.eq(true))
        }
    })
}

/// The condition on the row of a connection.
fn named_connection(reference: &Ref) -> SimpleExpr {
    match reference {
        Ref::Id(id) => connection::Column::Id.eq(*id),
        Ref::Name(name) => connection::Column::NameKey.eq(name.key()),
        Ref::External(external) => connection::Column::ExternalId.eq(external.as_str()),
    }
}

fn ids(table: impl sea_orm::sea_query::IntoTableRef, id: impl sea_orm::sea_query::IntoColumnRef) -> SelectStatement {
    Query::select().column(id).from(table).to_owned()
}
