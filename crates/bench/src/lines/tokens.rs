//! Tokens in memory: the bytes of each. The same process without a cache is asked for the same tokens, so that only the cache counts.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jackfield_testkit::fixture;

use super::Bench;
use super::issue::{ISSUE, request};
use crate::credentials::{Credentials, access_token, refresh_token};
use crate::table::{Line, Spread, Target, median, short};
use crate::wire::Client;
use crate::{Result, machine, wire};

/// The number of tokens: half of those that the cache holds by default.
const TOKENS: usize = 5_000;
/// Creates and first calls at a time.
const AT_ONCE: usize = 32;
/// The idle time before memory is measured.
const IDLE: Duration = Duration::from_secs(2);

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let jackfield = bench.jackfield().await?;
    let credentials = Credentials::of(wire::connect(jackfield.address, &jackfield.pki()).await?, "cached").await?;
    let created = stream::iter(0..TOKENS)
        .map(|_| credentials.create(None, fixture::oauth2_material(&access_token(), &refresh_token())))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    jackfield.stop().await?;

    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        with.push(resident(bench, &created, &[]).await?);
        without.push(resident(bench, &created, &["token_cache.max_tokens=0"]).await?);
    }
    let of_each = with.iter().zip(&without).map(|(with, without)| (with - without) / TOKENS as f64).collect();
    let mib = |resident: &[f64]| format!("{} MiB", short(median(resident) / 1024.0));
    Ok(vec![Line {
        name: format!("{TOKENS} tokens of {} bytes in memory: memory of each", access_token().len()),
        database: bench.world.name(),
        jackfield: mib(&with),
        baseline: format!("{} without a cache", mib(&without)),
        figure: Spread::of(of_each),
        target: Target::AtMost(2.0),
        unit: "KiB",
    }])
}

/// The resident memory of a process that has issued each token once, in KiB.
async fn resident(bench: &Bench<'_>, credentials: &[String], settings: &[&str]) -> Result<f64> {
    let jackfield = bench.jackfield_with(settings).await?;
    let client = Client::new(wire::connect(jackfield.address, &jackfield.pki()).await?);
    stream::iter(credentials)
        .map(|credential| issue(client.clone(), credential))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    tokio::time::sleep(IDLE).await;
    let resident = machine::resident_kib(jackfield.pid()) as f64;
    jackfield.stop().await?;
    Ok(resident)
}

async fn issue(mut client: Client, credential: &str) -> Result<()> {
    client.unary(ISSUE, request(credential)).await?;
    Ok(())
}
