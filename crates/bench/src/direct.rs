//! The baseline of creates: 64 tasks insert with sea-orm the rows that one CreateConnector writes, in one transaction
//! each, without gRPC, TLS, checks or encryption. The documents and texts are those that Jackfield wrote; only id and
//! name change from row to row. It runs in a separate process.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jackfield_testkit::store::test_support::entity::{connector, label, secret};
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, DatabaseConnection, DbErr, EntityTrait, IntoActiveModel as _,
    QueryFilter as _, SqliteTransactionMode, TransactionOptions, TransactionTrait as _,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Result;
use crate::stored::{self, Stored};

/// The job of a baseline process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) stored: Stored,
    /// The connector whose rows are inserted repeatedly.
    pub(crate) connector: Uuid,
    pub(crate) tasks: usize,
}

/// All rows of one connector.
struct Rows {
    connector: connector::Model,
    labels: Vec<label::Model>,
    secrets: Vec<secret::Model>,
}

/// Reads durations in milliseconds from standard input. Inserts for each of them and prints the rows per second.
pub(crate) async fn serve(job: Job) -> Result<()> {
    let conn = stored::connect(&job.stored).await?.writer;
    let rows = Arc::new(Rows::read(&conn, job.stored.tenant, job.connector).await?);
    let count = Arc::new(AtomicU64::new(0));
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    for line in std::io::stdin().lock().lines() {
        let time = Duration::from_millis(line?.trim().parse()?);
        let rate = insert_for(&conn, &rows, &count, job.tasks, time).await?;
        writeln!(stdout, "{rate}")?;
        stdout.flush()?;
    }
    Ok(())
}

async fn insert_for(
    conn: &DatabaseConnection,
    rows: &Arc<Rows>,
    count: &Arc<AtomicU64>,
    tasks: usize,
    time: Duration,
) -> Result<f64> {
    let start = Instant::now();
    let before = count.load(Ordering::Relaxed);
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let (conn, rows, count) = (conn.clone(), rows.clone(), count.clone());
        running.spawn(async move {
            while start.elapsed() < time {
                rows.insert(&conn).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, DbErr>(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok((count.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64())
}

// === impl Rows ===

impl Rows {
    #[expect(clippy::disallowed_methods, reason = "every condition begins with the tenant")]
    async fn read(conn: &DatabaseConnection, tenant: Uuid, id: Uuid) -> Result<Self> {
        let connector = connector::Entity::find_by_id((tenant, id)).one(conn).await?;
        let labels = label::Entity::find()
            .filter(label::Column::TenantId.eq(tenant))
            .filter(label::Column::Owner.eq("connector"))
            .filter(label::Column::OwnerId.eq(id));
        let secrets = secret::Entity::find()
            .filter(secret::Column::TenantId.eq(tenant))
            .filter(secret::Column::Owner.eq("connector"))
            .filter(secret::Column::OwnerId.eq(id));
        let rows = Rows {
            connector: connector.ok_or("there is no connector to copy")?,
            labels: labels.all(conn).await?,
            secrets: secrets.all(conn).await?,
        };
        if rows.labels.is_empty() || rows.secrets.is_empty() {
            return Err("the connector to copy has no label or no secret".into());
        }
        Ok(rows)
    }

    async fn insert(&self, conn: &DatabaseConnection) -> std::result::Result<(), DbErr> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let id = Uuid::now_v7();
        let txn = conn.begin_with_options(options).await?;
        let mut row = self.connector.clone().into_active_model();
        (row.id, row.name_key) = (Set(id), Set(id.to_string()));
        connector::Entity::insert(row.reset_all()).exec_without_returning(&txn).await?;
        let labels = self.labels.iter().map(|label| {
            let mut row = label.clone().into_active_model();
            row.owner_id = Set(id);
            row.reset_all()
        });
        label::Entity::insert_many(labels).exec_without_returning(&txn).await?;
        for secret in &self.secrets {
            let mut row = secret.clone().into_active_model();
            row.owner_id = Set(id);
            secret::Entity::insert(row.reset_all()).exec_without_returning(&txn).await?;
        }
        txn.commit().await
    }
}
