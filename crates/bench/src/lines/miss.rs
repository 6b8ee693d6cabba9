//! IssueAccessToken of a credential that is not in memory, against a tonic server that reads the row of the same credential with sea-orm.
//!
//! The cache is off, so that each call reads the row of the credential and its sealed material, and opens that.

use super::Bench;
use super::issue::rounds;
use crate::table::{Line, Target};
use crate::{Result, bare};

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let job = bare::Job { stored: bench.world.copy.clone(), ..Default::default() };
    let rounds = rounds(bench, &["token_cache.max_tokens=0"], job, bare::TOKEN).await?;
    let (name, database) = ("IssueAccessToken, not in memory", bench.world.name());
    Ok(vec![rounds.throughput(name, database, Target::AtLeast(0.8)), rounds.p99(name, database, Target::None)])
}
