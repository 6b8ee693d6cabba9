//! Many callers who wait for one refresh: the time from the answer of the provider to the last of theirs. The baseline is a tonic server where
//! as many callers wait for nothing but another call.

use std::time::{Duration, Instant};

use bytes::Bytes;
use jackfield_testkit::provider::Gate;
use jackfield_testkit::{Provider, ProviderFault, ProviderOptions};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Bench;
use super::issue::{ISSUE, request};
use crate::credentials::Credentials;
use crate::table::{Line, Spread, Target, median};
use crate::wire::Client;
use crate::{Result, bare, wire};

/// The number of connections, and of callers on each.
const CONNECTIONS: usize = 10;
const CALLERS: usize = 100;
/// So many calls of one client are more than a server takes by default.
const SETTINGS: [&str; 3] =
    ["limits.max_calls=2000", "limits.max_calls_per_identity=1500", "limits.max_calls_per_tenant=1500"];
/// The time for which the answer is held back after the provider was asked, so that all callers wait. A refresh may take 10 s.
const HELD: Duration = Duration::from_secs(2);
/// The longest time until the provider is asked.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time from the end of the wait to the last answer, of each round.
#[derive(Default)]
struct Times(Vec<f64>);

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let jackfield = bench.jackfield_with(&SETTINGS).await?;
    let pki = jackfield.pki();
    let provider = Provider::start(ProviderOptions::default()).await;
    let channel = wire::connect(jackfield.address, &pki).await?;
    let credentials = Credentials::of_provider(channel, "waiting", &provider).await?;
    let clients = wire::connect_many(jackfield.address, &pki, CONNECTIONS).await?;

    let mut known = clients[0].clone();
    let token = known.unary(ISSUE, request(&bench.world.credential)).await?.to_vec();
    let baseline = bench.bare(bare::Job { pki: pki.clone(), token, ..Default::default() })?;
    let theirs = wire::connect_many(baseline.address()?, &pki, CONNECTIONS + 1).await?;

    let (mut ours, mut theirs_last) = (Times::default(), Times::default());
    for _ in 0..bench.rounds {
        ours.add(timed(&credentials, &provider, &clients).await?);
        theirs_last.add(opened(&theirs).await?);
    }
    jackfield.stop().await?;
    let name = format!("IssueAccessToken: {} callers wait for one refresh, the last answer", CONNECTIONS * CALLERS);
    let line = |figure, target, unit| Line {
        name: name.clone(),
        database: bench.world.name(),
        jackfield: format!("{:.1} ms", median(&ours.0)),
        baseline: format!("{:.1} ms without a refresh", median(&theirs_last.0)),
        figure,
        target,
        unit,
    };
    // What a bare server needs for as many callers depends on the machine.
    let against_a_server = line(Spread::of_ratios(&ours.0, &theirs_last.0), Target::None, "");
    Ok(vec![line(Spread::of(ours.0.clone()), Target::AtMost(20.0), "ms"), against_a_server])
}

/// Callers who wait.
fn callers(clients: &[Client], path: &'static str, request: &Bytes) -> JoinSet<Result<Instant>> {
    let mut callers = JoinSet::new();
    for caller in 0..CONNECTIONS * CALLERS {
        let (mut client, request) = (clients[caller % CONNECTIONS].clone(), request.clone());
        callers.spawn(async move {
            client.unary(path, request).await?;
            Ok(Instant::now())
        });
    }
    callers
}

/// The time from the end of the wait to the last answer.
async fn last(answered: Instant, mut callers: JoinSet<Result<Instant>>) -> Result<Duration> {
    let mut last = answered;
    while let Some(done) = callers.join_next().await {
        let done = done??;
        if done < answered {
            return Err("a caller did not wait".into());
        }
        last = last.max(done);
    }
    Ok(last - answered)
}

/// The time from the answer of the provider to the last answer to a caller.
async fn timed(credentials: &Credentials, provider: &Provider, clients: &[Client]) -> Result<Duration> {
    let gate = Gate::closed();
    provider.fail([ProviderFault::none().held(&gate)]);
    let asked = provider.requests().len();
    let request = request(&credentials.create_expired(provider).await?);
    let callers = callers(clients, ISSUE, &request);
    let start = Instant::now();
    while provider.requests().len() == asked {
        if start.elapsed() > PATIENCE {
            return Err("the provider is not asked".into());
        }
        sleep(Duration::from_millis(1)).await;
    }
    sleep(HELD).await;
    let answered = Instant::now();
    gate.open();
    let last = last(answered, callers).await?;
    match provider.requests().len() - asked {
        1 => Ok(last),
        requests => Err(format!("the provider was asked {requests} times").into()),
    }
}

/// The same time at a server whose callers wait for nothing but a call.
async fn opened(clients: &[Client]) -> Result<Duration> {
    let request = request("");
    let callers = callers(clients, bare::WAIT, &request);
    sleep(HELD).await;
    let answered = Instant::now();
    clients[CONNECTIONS].clone().unary(bare::OPEN, request).await?;
    last(answered, callers).await
}

// === impl Times ===

impl Times {
    fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1_000.0);
    }
}
