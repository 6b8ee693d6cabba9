//! Users are pinned regardless of the width and style of letters, of characters without a shape, of several blanks, and of a dot at the
//! end of a domain. The schema stays as it is.

use jackfield_domain::user::pin_key;
use sea_orm::{DbBackend, Statement};
use sea_orm_migration::prelude::*;
use uuid::Uuid;

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0014_pin_keys"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    /// Gives pins the key that log-ins look for. Of several pins with one key the plain spelling stays, or else the oldest.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let (conn, backend) = (manager.get_connection(), manager.get_database_backend());
        // The key of most texts in ASCII is the same.
        let is_wide = match backend {
            DbBackend::Sqlite => "login_key GLOB '*[^ -~]*'",
            _ => "login_key ~ '[^ -~]'",
        };
        let others = format!(
            "SELECT tenant_id, login_key FROM user_pin \
             WHERE {is_wide} OR login_key LIKE '%  %' OR login_key LIKE '%@%.' ORDER BY create_time"
        );
        for row in conn.query_all_raw(Statement::from_string(backend, others)).await? {
            let (tenant, before): (Uuid, String) = (row.try_get("", "tenant_id")?, row.try_get("", "login_key")?);
            let key = pin_key(&before);
            if key == before {
                continue;
            }
            let copy = "INSERT INTO user_pin (tenant_id, login_key, connector_id, create_time) \
                 SELECT tenant_id, $1, connector_id, create_time FROM user_pin WHERE tenant_id = $2 AND login_key = $3 \
                 ON CONFLICT DO NOTHING";
            let copy =
                Statement::from_sql_and_values(backend, copy, [key.into(), tenant.into(), before.clone().into()]);
            conn.execute_raw(copy).await?;
            let delete = "DELETE FROM user_pin WHERE tenant_id = $1 AND login_key = $2";
            let delete = Statement::from_sql_and_values(backend, delete, [tenant.into(), before.into()]);
            conn.execute_raw(delete).await?;
        }
        Ok(())
    }
}
