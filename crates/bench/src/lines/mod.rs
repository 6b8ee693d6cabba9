//! The lines of the table, one file for each group.

pub(crate) mod create;
pub(crate) mod filter;
pub(crate) mod get;
pub(crate) mod issue;
pub(crate) mod layers;
pub(crate) mod list;
pub(crate) mod start;
mod unread;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use crate::load::{self, Measured, Side};
use crate::prepare::World;
use crate::process::{Baseline, Jackfield, Job};
use crate::sink::Sink;
use crate::table::{Line, Spread, Target, median, short};
use crate::{Result, bare};

/// What all lines need.
pub(crate) struct Bench<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) world: &'a World,
    /// Where Jackfield's traces and metrics go.
    pub(crate) sink: &'a Sink,
    /// How often both sides take turns.
    pub(crate) rounds: usize,
    /// How long a turn is.
    pub(crate) turn: Duration,
    pub(crate) page_size: u32,
}

/// What both sides did in all rounds.
pub(crate) struct Rounds {
    ours: Vec<Measured>,
    theirs: Vec<Measured>,
}

// === impl Bench ===

impl Bench<'_> {
    pub(crate) async fn jackfield(&self) -> Result<Jackfield> {
        Jackfield::start_ready(self.binary, &self.world.data, &self.world.stored, Some(self.sink.address)).await
    }

    pub(crate) fn bare(&self, job: bare::Job) -> Result<Baseline> {
        Baseline::start(&Job::Bare(job))
    }

    /// Both sides in turns, each with the same requests; before that each has half a turn that does not count.
    pub(crate) async fn rounds<A, B>(&self, ours: (&Side, A), theirs: (&Side, B)) -> Result<Rounds>
    where
        A: Fn(usize, usize) -> Bytes + Clone + Send + 'static,
        B: Fn(usize, usize) -> Bytes + Clone + Send + 'static,
    {
        load::run(ours.0, self.turn / 2, ours.1.clone()).await?;
        load::run(theirs.0, self.turn / 2, theirs.1.clone()).await?;
        let mut rounds = Rounds { ours: Vec::new(), theirs: Vec::new() };
        for round in 0..self.rounds {
            // Who goes first changes, so that a machine that gets slower favours nobody.
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
    /// The line of calls a second.
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

    /// The line of what all but one in a hundred calls keep within.
    pub(crate) fn p99(&self, name: &str, database: &'static str, target: Target) -> Line {
        let p99 = |side: &[Measured]| side.iter().map(|measured| measured.p99).collect::<Vec<_>>();
        let (ours, theirs) = (p99(&self.ours), p99(&self.theirs));
        Line {
            name: format!("{name}: p99"),
            database,
            jackfield: format!("{} ms", short(median(&ours))),
            baseline: format!("{} ms", short(median(&theirs))),
            figure: Spread::of_ratios(&ours, &theirs),
            target,
            unit: "",
        }
    }
}
