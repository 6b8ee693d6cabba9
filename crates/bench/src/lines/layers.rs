//! A health check, against a tonic server that answers with an empty message: the cost of transport, layers, traces and
//! metrics in every call. It has no target; it shows where the time of the other lines goes.

use bytes::Bytes;

use super::Bench;
use crate::load::Side;
use crate::table::{Line, Target};
use crate::{Result, bare, wire};

/// The number of connections, and of callers on each: fewer than the probes that one caller may have pending at once.
const CONNECTIONS: usize = 4;
const CALLERS: usize = 3;
const CHECK: &str = "/grpc.health.v1.Health/Check";

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let jackfield = bench.jackfield().await?;
    let pki = jackfield.pki();
    let baseline = bench.bare(bare::Job { pki: pki.clone(), ..Default::default() })?;
    let ours = Side {
        clients: wire::connect_many(jackfield.address, &pki, CONNECTIONS).await?,
        callers: CALLERS,
        path: CHECK,
        pid: jackfield.pid(),
    };
    let theirs = Side {
        clients: wire::connect_many(baseline.address()?, &pki, CONNECTIONS).await?,
        callers: CALLERS,
        path: bare::ECHO,
        pid: baseline.pid(),
    };
    let empty = |_, _| Bytes::new();
    let rounds = bench.rounds((&ours, empty), (&theirs, empty)).await?;
    let lines = vec![rounds.throughput("Health check", bench.world.name(), Target::None)];
    jackfield.stop().await?;
    Ok(lines)
}
