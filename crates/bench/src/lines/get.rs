//! GetConnector of thousands of connectors in turn, against a tonic server that reads the same row with sea-orm.

use bytes::Bytes;
use jackfield_api::v1;
use prost::Message as _;

use super::Bench;
use crate::load::Side;
use crate::prepare::row_id;
use crate::table::{Line, Target};
use crate::{Result, bare, wire};

/// The number of connections, and of callers on each.
const CONNECTIONS: usize = 4;
const CALLERS: usize = 8;
const GET: &str = "/jackfield.v1.ConnectorService/GetConnector";
/// A prime step by which callers go through the rows, so that no two neighbours follow each other.
const STRIDE: usize = 7_919;

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let jackfield = bench.jackfield().await?;
    let pki = jackfield.pki();
    let requests: Vec<Bytes> = (1..=bench.world.connectors).map(|number| request(row_id(number))).collect();
    let mut ours = Side {
        clients: wire::connect_many(jackfield.address, &pki, CONNECTIONS).await?,
        callers: CALLERS,
        path: GET,
        pid: jackfield.pid(),
    };
    let answer = ours.clients[0].unary(GET, requests[0].clone()).await?;

    let stored = bench.world.copy.clone();
    let job = bare::Job { pki: pki.clone(), stored, connector: answer.to_vec(), ..Default::default() };
    let baseline = bench.bare(job)?;
    let mut theirs = Side {
        clients: wire::connect_many(baseline.address()?, &pki, CONNECTIONS).await?,
        callers: CALLERS,
        path: bare::GET,
        pid: baseline.pid(),
    };
    if theirs.clients[0].unary(bare::GET, requests[0].clone()).await?.len() != answer.len() {
        return Err("the baseline answers with a message of another size".into());
    }
    let next = move |caller: usize, call: usize| requests[(caller + call * STRIDE) % requests.len()].clone();
    let rounds = bench.rounds((&ours, next.clone()), (&theirs, next)).await?;
    let (name, database) = ("GetConnector", bench.world.name());
    let lines = vec![rounds.throughput(name, database, Target::AtLeast(0.9)), rounds.p99(name, database, Target::None)];
    jackfield.stop().await?;
    Ok(lines)
}

fn request(reference: String) -> Bytes {
    Bytes::from(v1::GetConnectorRequest { reference }.encode_to_vec())
}
