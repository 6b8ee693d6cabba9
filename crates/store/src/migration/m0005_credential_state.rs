//! The state of a credential has the name that the contract gives it, in its column and in its document: rows are compared
//! with their documents, so both change.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0005_credential_state"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    /// This step renames a column. No step may do so once there is a release: programs that still run know only the old name.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let renamed = Table::alter()
            .table(Alias::new("credential"))
            .rename_column(Alias::new("status"), Alias::new("state"))
            .to_owned();
        manager.alter_table(renamed).await?;
        let position = match manager.get_database_backend() {
            DbBackend::Sqlite => "instr",
            _ => "strpos",
        };
        manager.get_connection().execute_unprepared(&rename_in_documents(position)).await.map(|_| ())
    }
}

/// Renames the member as text, so that the rest of a document stays as it is. Only ids and texts come before the member, and in
/// these a quotation mark is escaped: so the first occurrence of its name is the member itself.
fn rename_in_documents(position: &str) -> String {
    let [old, name] = ["status", "state"].map(|name| format!("\"{name}\":"));
    let (at, length) = (format!("{position}(doc, '{old}')"), old.len());
    format!(
        "UPDATE credential SET doc = substr(doc, 1, {at} - 1) || '{name}' || substr(doc, {at} + {length}) \
         WHERE {at} > 0 AND ({position}(doc, '{name}') = 0 OR {at} < {position}(doc, '{name}'))"
    )
}
