//! Many callers who wait for one refresh: the time from the answer of the provider to the last of theirs.

use std::time::{Duration, Instant};

use jackfield_testkit::provider::Gate;
use jackfield_testkit::{Provider, ProviderFault, ProviderOptions};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Bench;
use super::issue::{ISSUE, request};
use crate::credentials::Credentials;
use crate::table::{Line, Spread, Target};
use crate::wire::Client;
use crate::{Result, wire};

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

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let jackfield = bench.jackfield_with(&SETTINGS).await?;
    let pki = jackfield.pki();
    let provider = Provider::start(ProviderOptions::default()).await;
    let channel = wire::connect(jackfield.address, &pki).await?;
    let credentials = Credentials::of_provider(channel, "waiting", &provider).await?;
    let clients = wire::connect_many(jackfield.address, &pki, CONNECTIONS).await?;
    let mut times = Vec::new();
    for _ in 0..bench.rounds {
        times.push(timed(&credentials, &provider, &clients).await?.as_secs_f64() * 1_000.0);
    }
    jackfield.stop().await?;
    Ok(vec![Line {
        name: format!("IssueAccessToken: {} callers wait for one refresh, the last answer", CONNECTIONS * CALLERS),
        database: bench.world.name(),
        jackfield: String::new(),
        baseline: String::new(),
        figure: Spread::of(times),
        target: Target::AtMost(20.0),
        unit: "ms",
    }])
}

/// The time from the answer of the provider to the last answer to a caller.
async fn timed(credentials: &Credentials, provider: &Provider, clients: &[Client]) -> Result<Duration> {
    let gate = Gate::closed();
    provider.fail([ProviderFault::none().held(&gate)]);
    let asked = provider.requests().len();
    let request = request(&credentials.create_expired(provider).await?);
    let mut callers = JoinSet::new();
    for caller in 0..CONNECTIONS * CALLERS {
        let (mut client, request) = (clients[caller % clients.len()].clone(), request.clone());
        callers.spawn(async move {
            client.unary(ISSUE, request).await?;
            Result::Ok(Instant::now())
        });
    }
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
    let mut last = answered;
    while let Some(done) = callers.join_next().await {
        let done = done??;
        if done < answered {
            return Err("a caller did not wait".into());
        }
        last = last.max(done);
    }
    match provider.requests().len() - asked {
        1 => Ok(last - answered),
        requests => Err(format!("the provider was asked {requests} times").into()),
    }
}
