//! Many connectors, each with an identity of its own, in use in one process: the memory that each takes, and whether a
//! log-in takes longer when there are many.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jackfield_api::v1;
use prost::Message as _;

use super::Bench;
use super::login::{LOGIN, request};
use crate::load::{self, Measured, Side};
use crate::system::System;
use crate::table::{Line, Spread, Target, median, short};
use crate::wire::Client;
use crate::{Result, machine, wire};

/// Creates and first log-ins at a time.
const AT_ONCE: usize = 32;

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let system = System::start(Duration::ZERO)?;
    let connectors = create(bench, &system).await?;
    let [first, .., last] = &connectors[..] else { return Err("there are fewer than two connectors".into()) };

    // A process that has made no client yet.
    let jackfield = bench.jackfield().await?;
    let client = Client::new(wire::connect(jackfield.address, &jackfield.pki()).await?);
    let side = Side { clients: vec![client.clone()], callers: 1, path: LOGIN, pid: jackfield.pid() };
    let of_first = measure(bench, &side, first).await?;
    let before = machine::resident_kib(jackfield.pid());
    stream::iter(&connectors)
        .map(|connector| log_in(client.clone(), connector))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    let after = machine::resident_kib(jackfield.pid());
    let of_last = measure(bench, &side, last).await?;
    jackfield.stop().await?;

    let p50 = |rounds: &[Measured]| rounds.iter().map(|measured| measured.p50).collect::<Vec<_>>();
    let (of_first, of_last) = (p50(&of_first), p50(&of_last));
    let count = connectors.len();
    Ok(vec![
        Line {
            name: format!("{count} connectors in use, each with its identity: memory of each"),
            database: bench.world.name(),
            jackfield: format!("{} MiB", short(after as f64 / 1024.0)),
            baseline: format!("{} MiB with one", short(before as f64 / 1024.0)),
            figure: Spread::of(vec![after.saturating_sub(before) as f64 / count as f64]),
            target: Target::AtMost(64.0),
            unit: "KiB",
        },
        Line {
            name: format!("AuthenticateUser: p50 with {count} connectors in use over one"),
            database: bench.world.name(),
            jackfield: format!("{} ms", short(median(&of_last))),
            baseline: format!("{} ms", short(median(&of_first))),
            figure: Spread::of_ratios(&of_last, &of_first),
            target: Target::AtMost(1.2),
            unit: "",
        },
    ])
}

/// Creates the connectors, and returns their ids.
async fn create(bench: &Bench<'_>, system: &System) -> Result<Vec<String>> {
    let jackfield = bench.jackfield().await?;
    let channel = wire::connect(jackfield.address, &jackfield.pki()).await?;
    let trust = system.import_trust(&channel).await?;
    let (channel, trust) = (&channel, &trust);
    let connectors = stream::iter(0..bench.clients)
        .map(async |number| system.connector(channel, trust, &format!("client {number}")).await)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    jackfield.stop().await?;
    Ok(connectors)
}

/// The rounds of log-ins through one connector.
async fn measure(bench: &Bench<'_>, side: &Side<Client>, connector: &str) -> Result<Vec<Measured>> {
    let request = request(connector, "ada");
    let same = move |_, _| request.clone();
    load::run(side, bench.turn / 2, same.clone()).await?;
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        rounds.push(load::run(side, bench.turn, same.clone()).await?);
    }
    Ok(rounds)
}

async fn log_in(mut client: Client, connector: &str) -> Result<()> {
    let answer = client.unary(LOGIN, request(connector, "ada")).await?;
    match v1::AuthenticateUserResponse::decode(answer)?.outcome() {
        v1::LoginOutcome::Accepted => Ok(()),
        other => Err(format!("the log-in is {}", other.as_str_name()).into()),
    }
}
