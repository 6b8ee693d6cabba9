//! The lines of the table, one file for each group.

pub(crate) mod clients;
pub(crate) mod create;
pub(crate) mod filter;
pub(crate) mod get;
pub(crate) mod issue;
pub(crate) mod layers;
pub(crate) mod list;
pub(crate) mod login;
pub(crate) mod miss;
pub(crate) mod rest;
pub(crate) mod start;
pub(crate) mod tokens;
mod unread;
pub(crate) mod wait;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use crate::load::{self, Call, Measured, Side};
use crate::prepare::World;
use crate::process::{Baseline, Jackfield, Job};
use crate::sink::Sink;
use crate::table::{Line, Spread, Target, median, short};
use crate::{Result, bare};

/// The context that all lines share.
pub(crate) struct Bench<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) world: &'a World,
    /// The collector of Jackfield's traces and metrics.
    pub(crate) sink: &'a Sink,
    /// The number of rounds.
    pub(crate) rounds: usize,
    /// The duration of a turn.
    pub(crate) turn: Duration,
    pub(crate) page_size: u32,
    /// The number of connectors that are in use at once.
    pub(crate) clients: usize,
    /// The number of credentials at rest.
    pub(crate) credentials: usize,
}

/// The measurements of both sides in all rounds.
pub(crate) struct Rounds {
    ours: Vec<Measured>,
    theirs: Vec<Measured>,
}

// === impl Bench ===

impl Bench<'_> {
    pub(crate) async fn jackfield(&self) -> Result<Jackfield> {
        self.jackfield_with(&[]).await
    }

    /// Jackfield with settings that differ from the ordinary ones.
    pub(crate) async fn jackfield_with(&self, settings: &[&str]) -> Result<Jackfield> {
        let World { data, stored, .. } = self.world;
        Jackfield::start_ready_with(self.binary, data, stored, Some(self.sink.address), settings).await
    }

    pub(crate) fn bare(&self, job: bare::Job) -> Result<Baseline> {
        Baseline::start(&Job::Bare(job))
    }

    /// Measures both sides in turns, each with the same requests. Each first has half a turn that does not count.
    pub(crate) async fn rounds<O: Call, T: Call, A, B>(
        &self,
        ours: (&Side<O>, A),
        theirs: (&Side<T>, B),
    ) -> Result<Rounds>
    where
        A: Fn(usize, usize) -> Bytes + Clone + Send + 'static,
        B: Fn(usize, usize) -> Bytes + Clone + Send + 'static,
    {
        load::run(ours.0, self.turn / 2, ours.1.clone()).await?;
        load::run(theirs.0, self.turn / 2, theirs.1.clone()).await?;
        let mut rounds = Rounds { ours: Vec::new(), theirs: Vec::new() };
        for round in 0..self.rounds {
            // The sides take turns in going first, so that a machine that slows down favours neither.
            for side in [round % 2, 1 - round % 2] {
                if side == 0 {
                    rounds.ours.push(load::run(ours.0, self.turn, ours.1.clone()).await?);
                } else {
                    rounds.theirs.push(load::run(theirs.0, self.turn, theirs.1.clone()).await?);
                }
            }
        }
        Ok(rounds)
    }
}

// === impl Rounds ===

impl Rounds {
    /// The line for calls per second.
    pub(crate) fn throughput(&self, name: &str, database: &'static str, target: Target) -> Line {
        let rates = |side: &[Measured]| side.iter().map(|measured| measured.rate).collect::<Vec<_>>();
        let processor = |side: &[Measured]| median(&side.iter().map(|measured| measured.processor).collect::<Vec<_>>());
        let (ours, theirs) = (rates(&self.ours), rates(&self.theirs));
        let text = |rates: &[f64], side| format!("{}/s, {} µs of CPU", short(median(rates)), short(processor(side)));
        Line {
            name: format!("{name}: throughput"),
            database,
            jackfield: text(&ours, &self.ours),
            baseline: text(&theirs, &self.theirs),
            figure: Spread::of_ratios(&ours, &theirs),
            target,
            unit: "",
        }
    }

    /// The line for the 99th percentile of the duration of calls.
    pub(crate) fn p99(&self, name: &str, database: &'static str, target: Target) -> Line {
        let p99 = |side: &[Measured]| side.iter().map(|measured| measured.p99).collect::<Vec<_>>();
        let (ours, theirs) = (p99(&self.ours), p99(&self.theirs));
        let figure = Spread::of_ratios(&ours, &theirs);
        times(format!("{name}: p99"), database, (&ours, &theirs), figure, target, "")
    }

    /// The line for the time by which the median of the duration of calls is longer.
    pub(crate) fn added_p50(&self, name: &str, database: &'static str, target: Target) -> Line {
        let p50 = |side: &[Measured]| side.iter().map(|measured| measured.p50).collect::<Vec<_>>();
        let (ours, theirs) = (p50(&self.ours), p50(&self.theirs));
        let figure = Spread::of(ours.iter().zip(&theirs).map(|(ours, theirs)| ours - theirs).collect());
        times(format!("{name}: added p50"), database, (&ours, &theirs), figure, target, "ms")
    }
}

/// A line of durations in milliseconds.
fn times(
    name: String,
    database: &'static str,
    (ours, theirs): (&[f64], &[f64]),
    figure: Spread,
    target: Target,
    unit: &'static str,
) -> Line {
    let text = |times| format!("{} ms", short(median(times)));
    Line { name, database, jackfield: text(ours), baseline: text(theirs), figure, target, unit }
}
