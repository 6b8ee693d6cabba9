//! Columns that are derived from documents. They are written again when the program derives them in another way than the
//! previous version.

use jackfield_domain::error::Taken;
use jackfield_domain::{Error, TenantId};
use sea_orm::sea_query::{Expr, ExprTrait as _, LockType};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, EntityTrait as _, FromQueryResult as _, IdenStatic as _,
    Iterable as _, ModelTrait as _, QueryFilter as _, QueryOrder as _, QueryResult, QuerySelect as _, QueryTrait as _,
    Value,
};
use uuid::Uuid;

use crate::database::error;
use crate::document;
use crate::error::StoreError;
use crate::row;
use crate::stored::{ColumnOf, ModelOf, Stored, for_each_resource, unique_value};

type Result<T, E = StoreError> = std::result::Result<T, E>;
/// The tenant and the id of a row.
type RowId = (Uuid, Uuid);

/// The derived columns from which no other column follows.
pub(crate) const DERIVED: [&str; 3] = ["name_key", "search_text", "folded"];

/// Rows that are read at once.
const BATCH: u64 = 500;

/// Writes the derived columns of all resources. Documents stay as they are, and so do rows whose document cannot be read. Rows
/// are locked until the migration ends, so that none changes between the read and the write.
///
/// # Errors
/// Two resources have one name now, or the database cannot be read or written.
pub(crate) async fn renew(conn: &impl ConnectionTrait) -> Result<()> {
    for_each_resource!(R => { renew_all::<R>(conn).await?; });
    Ok(())
}

async fn renew_all<S: Stored>(conn: &impl ConnectionTrait) -> Result<()> {
    let mut last = None;
    loop {
        let rows = rows::<S>(conn, last).await?;
        for row in &rows {
            let row_id = row_id::<S>(row)?;
            match ModelOf::<S>::from_query_result(row, "") {
                Ok(model) => renew_row::<S>(conn, row_id, &model).await?,
                // The database returned the row, so only this row is damaged.
                Err(_) => leave::<S>(row_id, document::NO_TEXT),
            }
            last = Some(row_id);
        }
        if (rows.len() as u64) < BATCH {
            return Ok(());
        }
    }
}

/// The next rows by tenant and id, locked. References to them may be added meanwhile.
async fn rows<S: Stored>(conn: &impl ConnectionTrait, last: Option<RowId>) -> Result<Vec<QueryResult>> {
    #[expect(clippy::disallowed_methods, reason = "a migration spans all tenants")]
    let mut select = S::Table::find().order_by_asc(S::TENANT_ID).order_by_asc(S::ID).limit(BATCH);
    if let Some((tenant, id)) = last {
        let key = Expr::tuple([S::TENANT_ID, S::ID].map(|column| Expr::col(column.as_column_ref())));
        select = select.filter(key.gt(Expr::tuple([Expr::val(tenant), Expr::val(id)])));
    }
    conn.query_all(&select.lock(LockType::NoKeyUpdate).into_query()).await.map_err(failed)
}

fn row_id<S: Stored>(row: &QueryResult) -> Result<RowId> {
    let id = |column: ColumnOf<S>| row.try_get::<Uuid>("", column.as_str()).map_err(failed);
    Ok((id(S::TENANT_ID)?, id(S::ID)?))
}

async fn renew_row<S: Stored>(conn: &impl ConnectionTrait, row_id: RowId, model: &ModelOf<S>) -> Result<()> {
    let (tenant, id) = row_id;
    let Value::String(Some(doc)) = model.get(S::DOC) else { return Ok(()) };
    let value = match document::try_decode::<S>(&doc, id) {
        Ok(value) => value,
        Err(why) => {
            leave::<S>(row_id, &why);
            return Ok(());
        }
    };
    let written = row::of(TenantId(tenant), &value).map_err(failed)?;
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
        let updated = updated.map_err(|error| error::from_write(error, S::RESOURCE, |what| unique_value(&value, what)));
        updated.map_err(|error| refused(&error, TenantId(tenant), id))?;
    }
    Ok(())
}

fn leave<S: Stored>((tenant, id): RowId, why: &str) {
    tracing::warn!(resource = %S::RESOURCE, tenant.id = %tenant, %id, "a damaged row is left as it is: {why}");
}

fn refused(error: &Error, tenant: TenantId, id: Uuid) -> StoreError {
    match error {
        Error::Taken { resource, what: Taken::Name, value } => failed(format!(
            "two of the {resource}s of tenant {tenant} have the name \"{value}\", one of them {id}: how the characters of a name \
             are composed no longer counts; rename one with the previous version"
        )),
        other => failed(other),
    }
}

fn failed(error: impl ToString) -> StoreError {
    StoreError::Migration(error.to_string())
}
