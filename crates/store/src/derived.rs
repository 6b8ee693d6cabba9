//! Columns that are derived from documents, written anew where the program derives them in another way than its predecessor.

use jackfield_domain::configuration::Configuration;
use jackfield_domain::connection::Connection;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::Credential;
use jackfield_domain::key::Key;
use jackfield_domain::tenant::Tenant;
use jackfield_domain::user_connector::UserConnector;
use jackfield_domain::{Error, TenantId};
use sea_orm::DbErr;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, EntityTrait as _, IdenStatic as _, Iterable as _,
    ModelTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Value,
};
use uuid::Uuid;

use crate::error;
use crate::row::{self, ColumnOf, RowTexts, Stored};
use crate::session::StoreError;

type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Rows that are read at once.
const BATCH: u64 = 500;

/// Writes what columns of all resources should hold. Documents stay as they are, and so do rows whose document cannot be read.
///
/// # Errors
/// Two resources have one name now, or the database cannot be written.
pub(crate) async fn renew(conn: &impl ConnectionTrait) -> Result<()> {
    renew_all::<Tenant>(conn).await?;
    renew_all::<Key>(conn).await?;
    renew_all::<Connector>(conn).await?;
    renew_all::<Connection>(conn).await?;
    renew_all::<UserConnector>(conn).await?;
    renew_all::<Credential>(conn).await?;
    renew_all::<Configuration>(conn).await
}

async fn renew_all<S: Stored>(conn: &impl ConnectionTrait) -> Result<()> {
    let mut last: Option<(Uuid, Uuid)> = None;
    loop {
        #[expect(clippy::disallowed_methods, reason = "a migration spans all tenants")]
        let mut select = S::Table::find().order_by_asc(S::TENANT_ID).order_by_asc(S::ID).limit(BATCH);
        if let Some((tenant, id)) = last {
            let place = Expr::tuple([S::TENANT_ID, S::ID].map(|column| Expr::col(column.as_column_ref())));
            select = select.filter(place.gt(Expr::tuple([Expr::val(tenant), Expr::val(id)])));
        }
        let models = select.all(conn).await.map_err(failed)?;
        for model in &models {
            let (Value::Uuid(Some(tenant)), Value::Uuid(Some(id))) = (model.get(S::TENANT_ID), model.get(S::ID)) else {
                return Err(failed("a row without an id"));
            };
            last = Some((tenant, id));
            renew_row::<S>(conn, (TenantId(tenant), id), model).await?;
        }
        if models.is_empty() {
            return Ok(());
        }
    }
}

async fn renew_row<S: Stored>(
    conn: &impl ConnectionTrait,
    (tenant, id): (TenantId, Uuid),
    model: &<S::Table as sea_orm::EntityTrait>::Model,
) -> Result<()> {
    let Value::String(Some(doc)) = model.get(S::DOC) else { return Ok(()) };
    let Ok(value) = row::read::<S>(&doc) else {
        tracing::warn!(resource = %S::RESOURCE, %id, "a row is left as it is: its document cannot be read");
        return Ok(());
    };
    let written = value.row(tenant, RowTexts::of(&value).map_err(failed)?);
    let columns = ColumnOf::<S>::iter().filter(|column| column.as_str() != S::DOC.as_str());
    let mut update = S::Table::update_many().filter(S::TENANT_ID.eq(tenant.0)).filter(S::ID.eq(id));
    let mut differs = false;
    for column in columns {
        if let Some(value) = written.get(column).into_value().filter(|value| *value != model.get(column)) {
            update = update.col_expr(column, Expr::val(value));
            differs = true;
        }
    }
    if differs {
        update.exec(conn).await.map_err(|error| refused(&error_of(error, &value), tenant, id))?;
    }
    Ok(())
}

fn error_of<S: Stored>(error: DbErr, value: &S) -> Error {
    error::from_write(error, S::RESOURCE, |what| value.taken(what))
}

fn refused(error: &Error, tenant: TenantId, id: Uuid) -> StoreError {
    match error {
        Error::Taken { resource, value, .. } => failed(format!(
            "two of the {resource}s of tenant {tenant} have the name \"{value}\", one of them {id}: how the characters of a name \
             are composed no longer counts; rename one with the former version"
        )),
        other => failed(other),
    }
}

fn failed(error: impl ToString) -> StoreError {
    StoreError::Migration(error.to_string())
}
