//! Columns that are derived from documents, written anew where the program derives them in another way than its predecessor.

use jackfield_domain::configuration::Configuration;
use jackfield_domain::connection::Connection;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::Credential;
use jackfield_domain::error::Taken;
use jackfield_domain::key::Key;
use jackfield_domain::tenant::Tenant;
use jackfield_domain::user_connector::UserConnector;
use jackfield_domain::{Error, TenantId};
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, EntityTrait as _, IdenStatic as _, Iterable as _,
    ModelTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Value,
};
use uuid::Uuid;

use crate::database::error;
use crate::document;
use crate::error::StoreError;
use crate::stored::{self, ColumnOf, ModelOf, Stored};

type Result<T, E = StoreError> = std::result::Result<T, E>;

/// What is derived, and what no other column follows from.
pub(crate) const DERIVED: [&str; 3] = ["name_key", "search_text", "folded"];

/// Rows that are read at once.
const BATCH: u64 = 500;

/// Writes what derived columns of all resources should hold. Documents stay as they are, and so do rows whose document cannot be
/// read. Rows are locked until the migration ends, so that nobody changes one between its being read and written.
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
        let places = places::<S>(conn, last).await?;
        let Some(end) = places.last() else { return Ok(()) };
        last = Some(*end);
        let ids = || places.iter().map(|(_, id)| *id);
        match rows::<S>(conn, ids()).await {
            Ok(models) => {
                for model in &models {
                    renew_row::<S>(conn, model).await?;
                }
            }
            // One of them holds what is no text. Which one, the database does not say.
            Err(error) if !error.retryable() => {
                for id in ids() {
                    match rows::<S>(conn, [id]).await {
                        Ok(models) => renew_row::<S>(conn, &models[0]).await?,
                        Err(error) if !error.retryable() => leave::<S>(id, document::NO_TEXT),
                        Err(error) => return Err(failed(error)),
                    }
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Where the next rows are, by tenant and id.
async fn places<S: Stored>(conn: &impl ConnectionTrait, last: Option<(Uuid, Uuid)>) -> Result<Vec<(Uuid, Uuid)>> {
    #[expect(clippy::disallowed_methods, reason = "a migration spans all tenants")]
    let mut select = S::Table::find().order_by_asc(S::TENANT_ID).order_by_asc(S::ID).limit(BATCH);
    if let Some((tenant, id)) = last {
        let place = Expr::tuple([S::TENANT_ID, S::ID].map(|column| Expr::col(column.as_column_ref())));
        select = select.filter(place.gt(Expr::tuple([Expr::val(tenant), Expr::val(id)])));
    }
    // A tenant is its own, and its column is one.
    let select = select.select_only().column_as(S::TENANT_ID, "tenant").column_as(S::ID, "id");
    select.into_tuple().all(conn).await.map_err(failed)
}

async fn rows<S: Stored>(
    conn: &impl ConnectionTrait,
    ids: impl IntoIterator<Item = Uuid>,
) -> std::result::Result<Vec<ModelOf<S>>, Error> {
    #[expect(clippy::disallowed_methods, reason = "a migration spans all tenants, and ids are of one row each")]
    let select = S::Table::find().filter(S::ID.is_in(ids)).lock_exclusive();
    select.all(conn).await.map_err(error::from_db)
}

async fn renew_row<S: Stored>(conn: &impl ConnectionTrait, model: &ModelOf<S>) -> Result<()> {
    let (Value::Uuid(Some(tenant)), Value::Uuid(Some(id))) = (model.get(S::TENANT_ID), model.get(S::ID)) else {
        return Err(failed("a row without an id"));
    };
    let Value::String(Some(doc)) = model.get(S::DOC) else { return Ok(()) };
    let value = match document::try_decode::<S>(&doc, id) {
        Ok(value) => value,
        Err(why) => {
            leave::<S>(id, &why);
            return Ok(());
        }
    };
    let written = stored::row(TenantId(tenant), &value).map_err(failed)?;
    let mut update = S::Table::update_many().filter(S::TENANT_ID.eq(tenant)).filter(S::ID.eq(id));
    let mut differs = false;
    for column in ColumnOf::<S>::iter().filter(|column| DERIVED.contains(&column.as_str())) {
        if let Some(value) = written.get(column).into_value().filter(|value| *value != model.get(column)) {
            update = update.col_expr(column, Expr::val(value));
            differs = true;
        }
    }
    if differs {
        let updated = update.exec(conn).await;
        let updated = updated.map_err(|error| error::from_write(error, S::RESOURCE, |what| value.taken(what)));
        updated.map_err(|error| refused(&error, TenantId(tenant), id))?;
    }
    Ok(())
}

fn leave<S: Stored>(id: Uuid, why: &str) {
    tracing::warn!(resource = %S::RESOURCE, %id, "a damaged row is left as it is: {why}");
}

fn refused(error: &Error, tenant: TenantId, id: Uuid) -> StoreError {
    match error {
        Error::Taken { resource, what: Taken::Name, value } => failed(format!(
            "two of the {resource}s of tenant {tenant} have the name \"{value}\", one of them {id}: how the characters of a name \
             are composed no longer counts; rename one with the former version"
        )),
        other => failed(other),
    }
}

fn failed(error: impl ToString) -> StoreError {
    StoreError::Migration(error.to_string())
}
