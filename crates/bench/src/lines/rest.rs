//! Credentials that no caller asks for: the memory of a process that is started when there are many, over that of one when there are few.

use std::time::Duration;

use jackfield_testkit::fixture;

use super::Bench;
use crate::credentials::{Credentials, access_token, refresh_token};
use crate::prepare::TEMPLATE;
use crate::table::{Line, Spread, Target, median, short};
use crate::{Result, machine, wire};

/// The idle time before memory is measured.
const IDLE: Duration = Duration::from_secs(5);
/// The token endpoint. It is not asked, because tokens are good for an hour.
const TOKEN_URL: &str = "https://login.example.com/token";

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let jackfield = bench.jackfield().await?;
    let channel = wire::connect(jackfield.address, &jackfield.pki()).await?;
    let credentials = Credentials::of_connection(channel, "at rest", TOKEN_URL, None).await?;
    let material = || fixture::oauth2_material(&access_token(), &refresh_token());
    // The first one is the default of its user, and there is only one such.
    credentials.create(None, material()).await?;
    credentials.create(Some(TEMPLATE), material()).await?;
    jackfield.stop().await?;

    let few = resident(bench).await?;
    bench.world.multiply_credentials(bench.credentials).await?;
    let many = resident(bench).await?;
    let added = many.iter().zip(&few).map(|(many, few)| (many - few) / 1024.0).collect();
    let mib = |resident: &[f64]| format!("{} MiB", short(median(resident) / 1024.0));
    Ok(vec![Line {
        name: format!("{} credentials at rest: memory", bench.credentials),
        database: bench.world.name(),
        jackfield: mib(&many),
        baseline: format!("{} with two", mib(&few)),
        figure: Spread::of(added),
        target: Target::AtMost(2.0),
        unit: "MiB",
    }])
}

/// The resident memory of idle processes, in KiB.
async fn resident(bench: &Bench<'_>) -> Result<Vec<f64>> {
    let mut resident = Vec::new();
    for _ in 0..bench.rounds {
        let jackfield = bench.jackfield().await?;
        tokio::time::sleep(IDLE).await;
        resident.push(machine::resident_kib(jackfield.pid()) as f64);
        jackfield.stop().await?;
    }
    Ok(resident)
}
