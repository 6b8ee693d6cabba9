//! The state of a credential has the name that the contract gives it: in its column, in its document, and in the answers that
//! are stored for repeated requests. Rows are compared with their documents, and answers are read as documents, so all change.

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
        let conn = manager.get_connection();
        conn.execute_unprepared(&rename_in("credential", "doc", position)).await?;
        let answers = format!("{} AND {ANSWERED_WITH_CREDENTIAL}", rename_in("idempotency", "answer", position));
        conn.execute_unprepared(&answers).await.map(|_| ())
    }
}

/// The rows whose answer is the document of a credential.
const ANSWERED_WITH_CREDENTIAL: &str = "method IN ('CreateCredential', 'UpdateCredential')";

/// Renames the member as text, so that the rest of a document stays as it is. Only ids and texts come before the member, and in
/// these a quotation mark is escaped: so the first occurrence of its name is the member itself.
fn rename_in(table: &str, document: &str, position: &str) -> String {
    let [old, name] = ["status", "state"].map(|name| format!("\"{name}\":"));
    let (at, length) = (format!("{position}({document}, '{old}')"), old.len());
    format!(
        "UPDATE {table} SET {document} = substr({document}, 1, {at} - 1) || '{name}' || substr({document}, {at} + {length}) \
         WHERE {at} > 0 AND ({position}({document}, '{name}') = 0 OR {at} < {position}({document}, '{name}'))"
    )
}
