//! Durable creates: CreateConnector from 64 clients with a connection each, against 64 tasks that insert the same rows
//! directly with sea-orm.

use bytes::Bytes;
use jackfield_api::v1;
use prost::Message as _;

use super::Bench;
use crate::load::{self, Side};
use crate::prepare::a_connector;
use crate::process::{Baseline, Job};
use crate::table::{Line, Spread, Target, median, short};
use crate::{Result, direct, wire};

const CLIENTS: usize = 64;
const CREATE: &str = "/jackfield.v1.ConnectorService/CreateConnector";

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let jackfield = bench.jackfield().await?;
    let clients = wire::connect_many(jackfield.address, &jackfield.pki(), CLIENTS).await?;
    let side = Side { clients, callers: 1, path: CREATE, pid: jackfield.pid() };
    let job = direct::Job { stored: bench.world.copy.clone(), connector: bench.world.connector, tasks: CLIENTS };
    let mut baseline = Baseline::start(&Job::Direct(job))?;
    let turn = bench.turn.as_millis();
    let mut insert = |milliseconds: u128| -> Result<f64> { Ok(baseline.ask(&milliseconds.to_string())?.parse()?) };

    load::run(&side, bench.turn / 2, requests(usize::MAX)).await?;
    insert(turn / 2)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        for turn_of in [round % 2, 1 - round % 2] {
            if turn_of == 0 {
                ours.push(load::run(&side, bench.turn, requests(round)).await?.rate);
            } else {
                theirs.push(insert(turn)?);
            }
        }
    }
    jackfield.stop().await?;
    Ok(vec![Line {
        name: format!("Durable creates, {CLIENTS} clients"),
        database: bench.world.name(),
        jackfield: format!("{}/s", short(median(&ours))),
        baseline: format!("{}/s", short(median(&theirs))),
        figure: Spread::of_ratios(&ours, &theirs),
        target: Target::AtLeast(0.8),
        unit: "",
    }])
}

/// The requests of a round, each with a different name.
fn requests(round: usize) -> impl Fn(usize, usize) -> Bytes + Clone + Send + 'static {
    move |caller, call| {
        let connector = Some(a_connector(&format!("created {round} {caller} {call}")));
        Bytes::from(v1::CreateConnectorRequest { connector, ..Default::default() }.encode_to_vec())
    }
}
