//! The SQLite file itself: looked at without a change, copied while it is in use, checked as a whole.

use std::path::Path;

use jackfield_domain::{Result, TenantId};
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Statement};
use uuid::Uuid;

use crate::data_key::DataKeyRow;
use crate::entity::{data_key, secret};
use crate::secret::SecretRow;
use crate::session::{Session, Store, StoreError};
use crate::{backend, error, migration};

impl Store {
    /// Opens an SQLite file to look at it, without changing anything of it.
    ///
    /// # Errors
    /// It is not there, or no database.
    pub async fn look(path: &Path) -> Result<Self, StoreError> {
        Ok(Store::read_only(backend::open_sqlite_read_only(path).await?))
    }

    /// Refuses a schema that is newer than this program. Returns the newest migration that was applied, if any was.
    ///
    /// # Errors
    /// The schema is newer, or cannot be read.
    pub async fn schema_known(&self) -> Result<Option<String>, StoreError> {
        migration::known(&self.reader).await
    }

    /// Copies an SQLite database, as it is at this moment, into an empty file, which need not be durable afterwards. Others
    /// go on reading and writing.
    ///
    /// # Errors
    /// The disk is full, or the file is not empty.
    pub async fn copy_to(path: &Path, to: &Path) -> Result<(), StoreError> {
        backend::copy_sqlite(path, to).await
    }

    /// What is wrong with an SQLite file as a whole: its pages and indexes, and rows that point to nothing. Empty: nothing.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn faults(&self) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        for (check, sound) in [("PRAGMA integrity_check", Some("ok")), ("PRAGMA foreign_key_check", None)] {
            let statement = Statement::from_string(self.reader.get_database_backend(), check);
            for row in self.reader.query_all_raw(statement).await.map_err(error::from_db)? {
                // The first column is the finding, or the table with the row that points to nothing.
                let finding: String = row.try_get_by_index(0).map_err(error::from_db)?;
                if Some(finding.as_str()) != sound {
                    faults.push(format!("{check}: {finding}"));
                }
            }
        }
        Ok(faults)
    }
}

impl<C: ConnectionTrait> Session<C> {
    /// Data keys of all tenants by tenant and id, those after a given one, at most `limit`.
    pub async fn data_keys_after(&self, after: Option<(TenantId, Uuid)>, limit: u64) -> Result<Vec<DataKeyRow>> {
        use data_key::Column::{Id, TenantId as Tenant};
        #[expect(clippy::disallowed_methods, reason = "a check of the whole spans all tenants")]
        let mut select = data_key::Entity::find().order_by_asc(Tenant).order_by_asc(Id).limit(limit);
        if let Some((tenant, id)) = after {
            let place = Expr::tuple([Expr::col(Tenant.as_column_ref()), Expr::col(Id.as_column_ref())]);
            select = select.filter(place.gt(Expr::tuple([Expr::val(tenant.0), Expr::val(id)])));
        }
        let rows = select.all(&self.conn).await.map_err(error::from_db)?;
        Ok(rows.into_iter().map(DataKeyRow::from).collect())
    }

    /// Secrets of a tenant by their place, those after a given one, at most `limit`.
    pub async fn secrets_after(
        &self,
        tenant: TenantId,
        after: Option<&SecretRow>,
        limit: u64,
    ) -> Result<Vec<SecretRow>> {
        use secret::Column::{Name, Owner, OwnerId};
        let mut select = secret::of(tenant);
        for column in [Owner, OwnerId, Name] {
            select = select.order_by_asc(column);
        }
        if let Some(after) = after {
            let place = Expr::tuple([Owner, OwnerId, Name].map(|column| Expr::col(column.as_column_ref())));
            let last = [Expr::val(after.owner.as_str()), Expr::val(after.owner_id), Expr::val(after.name.as_str())];
            select = select.filter(place.gt(Expr::tuple(last)));
        }
        let rows = select.limit(limit).all(&self.conn).await.map_err(error::from_db)?;
        rows.into_iter().map(SecretRow::try_from).collect()
    }
}
