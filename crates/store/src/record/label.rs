//! Labels and tags: rows of their own, so that filters find them by index.

use jackfield_domain::value::maps::Labels;
use jackfield_domain::{Resource, Result, TenantId};
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use crate::database::error;
use crate::entity::label;
use crate::transaction::Transaction;

/// Adds the labels of a resource that has none yet.
pub(crate) async fn put(
    txn: &Transaction,
    tenant: TenantId,
    owner: Resource,
    owner_id: Uuid,
    labels: &Labels,
) -> Result<()> {
    let rows: Vec<_> = labels
        .iter()
        .map(|(key, value)| label::ActiveModel {
            tenant_id: Set(tenant.0),
            owner: Set(owner.as_str().to_owned()),
            owner_id: Set(owner_id),
            label_key: Set(key.to_owned()),
            label_value: Set(value.to_owned()),
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    label::Entity::insert_many(rows).exec_without_returning(txn).await.map_err(error::from_db)?;
    Ok(())
}

/// Deletes the labels of resources.
pub(crate) async fn delete(txn: &Transaction, tenant: TenantId, owner: Resource, owner_ids: &[Uuid]) -> Result<()> {
    for owner_ids in owner_ids.chunks(500) {
        label::Entity::delete_many()
            .filter(label::Column::TenantId.eq(tenant.0))
            .filter(label::Column::Owner.eq(owner.as_str()))
            .filter(label::Column::OwnerId.is_in(owner_ids.iter().copied()))
            .exec(txn)
            .await
            .map_err(error::from_db)?;
    }
    Ok(())
}
