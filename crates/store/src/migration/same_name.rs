//! Rows of a tenant whose names have become the same. Callers rename most resources themselves, so those are refused. They cannot
//! rename keys, so the younger of two keys gets another name.

use jackfield_domain::value::text::{MAX_NAME, Name};
use jackfield_domain::{Clock as _, Resource, SystemClock, TenantId};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, FromQueryResult as _, IdenStatic as _, ModelTrait as _, QueryFilter as _,
    QuerySelect as _, QueryTrait as _, Value,
};
use uuid::Uuid;

use super::derived::{Result, RowId, failed, renew_row, write};
use crate::document;
use crate::stored::{self, ModelOf, Stored};

/// The id of another row that has the name of a resource, if the key of its name changes.
pub(super) async fn other<S: Stored>(
    conn: &impl ConnectionTrait,
    (tenant, id): RowId,
    model: &ModelOf<S>,
    value: &S,
) -> Result<Option<Uuid>> {
    let (Some(column), Some(name)) = (S::NAME_KEY, value.name()) else { return Ok(None) };
    let name = Name::stored(name.to_owned());
    if model.get(column) == Value::from(name.key()) {
        return Ok(None);
    }
    Ok(holders::<S>(conn, tenant, &name).await?.into_iter().find(|holder| *holder != id))
}

/// The rows of a tenant with a name, of which there is one at most.
async fn holders<S: Stored>(conn: &impl ConnectionTrait, tenant: Uuid, name: &Name) -> Result<Vec<Uuid>> {
    let Some(column) = S::NAME_KEY else { return Ok(Vec::new()) };
    let select = stored::of::<S>(TenantId(tenant)).filter(column.eq(name.key())).select_only().column(S::ID);
    select.into_tuple::<Uuid>().all(conn).await.map_err(failed)
}

/// The outcome for two rows with the same name.
pub(super) enum Settled {
    Renamed(Renamed),
    /// Callers can rename the resources, so both are named here.
    Refused(String),
}

/// A resource that got another name.
pub(crate) struct Renamed {
    resource: Resource,
    row_id: RowId,
    from: String,
    to: Name,
}

impl Renamed {
    /// Reports it, once the migration is committed.
    pub(crate) fn log(&self) {
        let Renamed { resource, row_id: (tenant, id), from, to } = self;
        tracing::warn!(%resource, tenant.id = %tenant, %id, %from, %to, "another {resource} has its name, so it is renamed");
    }
}

/// Gives a row or the other one with its name another name, unless callers can do so. `None` if there is no other.
pub(super) async fn settle<S: Stored>(conn: &impl ConnectionTrait, row_id: RowId) -> Result<Option<Settled>> {
    let (tenant, id) = row_id;
    let Some((model, value)) = read::<S>(conn, row_id).await? else { return Ok(None) };
    let Some(other) = other::<S>(conn, row_id, &model, &value).await? else {
        return renew_row::<S>(conn, row_id, &model).await.map(|_| None);
    };
    let other_id = (tenant, other);
    // A document that cannot be read stays as it is.
    let other_row = read::<S>(conn, other_id).await?;
    let age = |value: &S| (value.meta().create_time, value.id());
    let renamed = match other_row {
        Some((other_model, other)) if age(&other) > age(&value) => {
            let renamed = rename::<S>(conn, other_id, &other_model, &other).await?;
            let is_free = renamed.is_some() && renew_row::<S>(conn, row_id, &model).await?;
            renamed.filter(|_| is_free)
        }
        _ => rename::<S>(conn, row_id, &model, &value).await?,
    };
    let name = value.name().unwrap_or_default();
    let refused = || format!("the {}s {other} and {id} of tenant {tenant} (\"{name}\")", S::RESOURCE);
    Ok(Some(renamed.map_or_else(|| Settled::Refused(refused()), Settled::Renamed)))
}

/// A row and its document, if these can be read.
async fn read<S: Stored>(conn: &impl ConnectionTrait, (tenant, id): RowId) -> Result<Option<(ModelOf<S>, S)>> {
    let select = stored::of::<S>(TenantId(tenant)).filter(S::ID.eq(id)).into_query();
    let row = conn.query_one(&select).await.map_err(failed)?;
    let Some(model) = row.and_then(|row| ModelOf::<S>::from_query_result(&row, "").ok()) else { return Ok(None) };
    let Value::String(Some(doc)) = model.get(S::DOC) else { return Ok(None) };
    Ok(document::try_decode::<S>(&doc, id).ok().map(|value| (model, value)))
}

/// Gives a resource the first free name among "<name> 2", "<name> 3" and so on. `None` if callers can rename it.
async fn rename<S: Stored>(
    conn: &impl ConnectionTrait,
    row_id: RowId,
    model: &ModelOf<S>,
    value: &S,
) -> Result<Option<Renamed>> {
    let from = value.name().unwrap_or_default();
    let (mut number, mut to) = (2, numbered(from, 2));
    while !holders::<S>(conn, row_id.0, &to).await?.is_empty() {
        number += 1;
        to = numbered(from, number);
    }
    let Some(renamed) = value.renamed(to.clone(), SystemClock.now()) else { return Ok(None) };
    let is_key = |column: &str| column == S::TENANT_ID.as_str() || column == S::ID.as_str();
    write::<S>(conn, row_id, model, &renamed, |column| !is_key(column.as_str())).await?;
    Ok(Some(Renamed { resource: S::RESOURCE, row_id, from: from.to_owned(), to }))
}

fn numbered(name: &str, number: u64) -> Name {
    let number = format!(" {number}");
    let kept: String = name.chars().take(MAX_NAME - number.len()).collect();
    Name::stored(kept.trim_end().to_owned() + &number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_fits_into_the_longest_name() {
        assert_eq!(numbered("ké", 2).as_str(), "ké 2");
        let long = format!("{} {}", "é".repeat(188), "é".repeat(2));
        assert_eq!(numbered(&long, 3).as_str(), format!("{} 3", "é".repeat(188)));
        assert_eq!(numbered(&"é".repeat(191), 10).as_str().chars().count(), MAX_NAME);
    }
}
