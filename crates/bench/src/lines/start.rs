//! The cost of Jackfield before any call: the time until it is ready on an existing database, and its memory.

use std::time::Duration;

use super::Bench;
use crate::process::Jackfield;
use crate::table::{Line, Spread, Target};
use crate::{Result, machine};

/// The idle time before its memory is measured.
const IDLE: Duration = Duration::from_secs(3);

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let (mut ready, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let mut jackfield =
            Jackfield::start(bench.binary, &bench.world.data, &bench.world.stored, Some(bench.sink.address))?;
        ready.push(jackfield.ready().await?.as_secs_f64() * 1_000.0);
        tokio::time::sleep(IDLE).await;
        resident.push(machine::resident_kib(jackfield.pid()) as f64 / 1024.0);
        jackfield.stop().await?;
    }
    let line = |name: &str, values, target, unit| Line {
        name: name.to_owned(),
        database: bench.world.name(),
        jackfield: String::new(),
        baseline: String::new(),
        figure: Spread::of(values),
        target: Target::AtMost(target),
        unit,
    };
    Ok(vec![line("Start until ready", ready, 300.0, "ms"), line("Idle resident memory", resident, 40.0, "MiB")])
}
