//! Columns that are derived from documents. They are written again when the program derives them in another way than the
//! previous version.

use jackfield_domain::TenantId;
use sea_orm::sea_query::{Expr, ExprTrait as _, LockType};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, EntityTrait as _, FromQueryResult as _, IdenStatic as _,
    Iterable as _, ModelTrait as _, QueryFilter as _, QueryOrder as _, QueryResult, QuerySelect as _, QueryTrait as _,
    Value,
};
use uuid::Uuid;

use super::same_name::{self, Renamed, Settled};
use crate::document;
use crate::error::StoreError;
use crate::row;
use crate::stored::{ColumnOf, ModelOf, Stored, for_each_resource};

pub(super) type Result<T, E = StoreError> = std::result::Result<T, E>;
/// The tenant and the id of a row.
pub(super) type RowId = (Uuid, Uuid);

/// The derived columns from which no other column follows.
const DERIVED: [&str; 7] =
    ["name_key", "username_key", "email_key", "search_text", "folded", "valid_until", "renewal_time"];

/// Rows that are read at once.
const BATCH: u64 = 500;

/// The most pairs with the same name that an error names.
const MOST: usize = 100;

/// Writes the derived columns of all resources. Documents stay as they are, and so do rows whose document cannot be read. Rows
/// are locked until the migration ends, so that none changes between the read and the write. Returns the resources that got
/// another name.
///
/// # Errors
/// Two resources that callers can rename have one name now, or the database cannot be read or written.
pub(crate) async fn renew(conn: &impl ConnectionTrait) -> Result<Vec<Renamed>> {
    let (mut renamed, mut refused) = (Vec::new(), Vec::new());
    for_each_resource!(R => {
        // A free name is known only when the names of all other rows are written.
        for row_id in renew_all::<R>(conn).await? {
            match same_name::settle::<R>(conn, row_id).await? {
                Some(Settled::Renamed(resource)) => renamed.push(resource),
                Some(Settled::Refused(pair)) => refused.push(pair),
                None => {}
            }
        }
    });
    if refused.is_empty() {
        return Ok(renamed);
    }
    if refused.len() > MOST {
        let rest = format!("and {} more pairs", refused.len() - MOST);
        refused.truncate(MOST);
        refused.push(rest);
    }
    Err(failed(format!(
        "how the characters of a name are composed no longer counts, so these have the same name: {}; rename one of each with the \
         previous version",
        refused.join("; ")
    )))
}

/// Writes the derived columns of a resource. Returns the rows that are left because another row has their name.
async fn renew_all<S: Stored>(conn: &impl ConnectionTrait) -> Result<Vec<RowId>> {
    let (mut last, mut left) = (None, Vec::new());
    loop {
        let rows = rows::<S>(conn, last).await?;
        for row in &rows {
            let row_id = row_id::<S>(row)?;
            match ModelOf::<S>::from_query_result(row, "") {
                Ok(model) => {
                    if !renew_row::<S>(conn, row_id, &model).await? {
                        left.push(row_id);
                    }
                }
                // The database returned the row, so only this row is damaged.
                Err(_) => leave::<S>(row_id, document::NO_TEXT),
            }
            last = Some(row_id);
        }
        if (rows.len() as u64) < BATCH {
            return Ok(left);
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

/// Writes the derived columns of a row. Returns false if another row has its name; then nothing is written.
pub(super) async fn renew_row<S: Stored>(
    conn: &impl ConnectionTrait,
    row_id: RowId,
    model: &ModelOf<S>,
) -> Result<bool> {
    let Value::String(Some(doc)) = model.get(S::DOC) else { return Ok(true) };
    let value = match document::try_decode::<S>(&doc, row_id.1) {
        Ok(value) => value,
        Err(why) => {
            leave::<S>(row_id, &why);
            return Ok(true);
        }
    };
    if same_name::other::<S>(conn, row_id, model, &value).await?.is_some() {
        return Ok(false);
    }
    write::<S>(conn, row_id, model, &value, |column| DERIVED.contains(&column.as_str())).await.map(|()| true)
}

/// Writes the columns of a row that differ.
pub(super) async fn write<S: Stored>(
    conn: &impl ConnectionTrait,
    (tenant, id): RowId,
    model: &ModelOf<S>,
    value: &S,
    is_written: impl Fn(&ColumnOf<S>) -> bool,
) -> Result<()> {
    let written = row::of(TenantId(tenant), value).map_err(failed)?;
    let mut update = S::Table::update_many().filter(S::TENANT_ID.eq(tenant)).filter(S::ID.eq(id));
    let mut differs = false;
    for column in ColumnOf::<S>::iter().filter(is_written) {
        if let Some(value) = written.get(column).into_value().filter(|value| *value != model.get(column)) {
            update = update.col_expr(column, Expr::val(value));
            differs = true;
        }
    }
    if differs {
        update.exec(conn).await.map_err(failed)?;
    }
    Ok(())
}

fn leave<S: Stored>((tenant, id): RowId, why: &str) {
    tracing::warn!(resource = %S::RESOURCE, tenant.id = %tenant, %id, "a damaged row is left as it is: {why}");
}

pub(super) fn failed(error: impl ToString) -> StoreError {
    StoreError::Migration(error.to_string())
}
