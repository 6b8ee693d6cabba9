//! The index of words (see [`search`](super::search)).

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;

use super::search::WordIndex;

pub(super) struct Step;

/// The tables of a tenant, each with its number in the index.
const TABLES: [(&str, i64); 6] =
    [("key", 1), ("connector", 2), ("connection", 3), ("user_connector", 4), ("credential", 5), ("configuration", 6)];

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0004_search"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let is_sqlite = manager.get_database_backend() == DbBackend::Sqlite;
        let words = WordIndex::open(manager).await?;
        if is_sqlite {
            let index = "CREATE VIRTUAL TABLE search_index USING fts5(search_text, content = '', columnsize = 0, detail = none, \
                         tokenize = 'trigram case_sensitive 1')";
            manager.get_connection().execute_unprepared(index).await?;
            // The numbers of rows begin with those of their tenants.
            words.add_tenants().await?;
        }
        for (table, number) in TABLES {
            words.add_table(table, number).await?;
        }
        if !is_sqlite {
            words.add_tenants().await?;
        }
        Ok(())
    }
}
