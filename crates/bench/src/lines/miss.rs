//! IssueAccessToken of a credential that is not in memory, against a tonic server that reads the row of the same credential with sea-orm.
//!
//! The cache is off, so that each call reads the row of the credential and its sealed material, and opens that.

use super::Bench;
use super::issue::{ISSUE, request};
use crate::load::Side;
use crate::table::{Line, Target};
use crate::{Result, bare, wire};

/// The number of connections, and of callers on each.
const CONNECTIONS: usize = 4;
const CALLERS: usize = 8;

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let jackfield = bench.jackfield_with(&["token_cache.max_tokens=0"]).await?;
    let pki = jackfield.pki();
    let request = request(&bench.world.credential);
    let mut ours = Side {
        clients: wire::connect_many(jackfield.address, &pki, CONNECTIONS).await?,
        callers: CALLERS,
        path: ISSUE,
        pid: jackfield.pid(),
    };
    let answer = ours.clients[0].unary(ISSUE, request.clone()).await?;

    let stored = bench.world.copy.clone();
    let baseline = bench.bare(bare::Job { pki: pki.clone(), stored, token: answer.to_vec(), ..Default::default() })?;
    let mut theirs = Side {
        clients: wire::connect_many(baseline.address()?, &pki, CONNECTIONS).await?,
        callers: CALLERS,
        path: bare::TOKEN,
        pid: baseline.pid(),
    };
    if theirs.clients[0].unary(bare::TOKEN, request.clone()).await? != answer {
        return Err("the baseline answers with another message".into());
    }
    let same = move |_, _| request.clone();
    let rounds = bench.rounds((&ours, same.clone()), (&theirs, same)).await?;
    let (name, database) = ("IssueAccessToken, not in memory", bench.world.name());
    let lines = vec![rounds.throughput(name, database, Target::AtLeast(0.8)), rounds.p99(name, database, Target::None)];
    jackfield.stop().await?;
    Ok(lines)
}
