//! The first page of a filter for one word that a few rows have, against a scan of all rows by the database.

use std::time::Instant;

use bytes::Bytes;
use jackfield_api::v1;
use prost::Message as _;

use super::Bench;
use crate::prepare::{RARE, RARE_ROWS};
use crate::table::{Line, Spread, Target, median, short};
use crate::{Result, bare, wire};

const LIST: &str = "/jackfield.v1.ConnectionService/ListConnections";
const PAGE: u32 = 100;

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let jackfield = bench.jackfield().await?;
    let pki = jackfield.pki();
    let job = bare::Job { pki: pki.clone(), stored: bench.world.copy.clone(), ..Default::default() };
    let baseline = bench.bare(job)?;
    let mut ours = wire::Client::new(wire::connect(jackfield.address, &pki).await?);
    let mut theirs = wire::Client::new(wire::connect(baseline.address()?, &pki).await?);
    let filtered = v1::ListConnectionsRequest {
        page_size: i32::try_from(PAGE)?,
        limit: i32::try_from(PAGE)?,
        filter: RARE.to_owned(),
        ..Default::default()
    };
    let filtered = Bytes::from(filtered.encode_to_vec());
    let scanned = bare::ListRequest { page_size: PAGE, word: RARE.to_owned() };
    let scanned = Bytes::from(scanned.encode_to_vec());

    let expected = RARE_ROWS.min(bench.world.connections);
    let (mut fast, mut slow) = (Vec::new(), Vec::new());
    // The first round does not count.
    for round in 0..=bench.rounds {
        let start = Instant::now();
        let mut pages = ours.stream(LIST, filtered.clone()).await?;
        let mut found = 0;
        while let Some(page) = pages.message().await? {
            found += wire::rows(&page);
        }
        let indexed = start.elapsed();
        let start = Instant::now();
        let page = theirs.unary(bare::SCAN, scanned.clone()).await?;
        let scan = start.elapsed();
        if (found, wire::rows(&page)) != (expected, expected) {
            return Err(format!("{found} rows and {} by scan, not {expected}", wire::rows(&page)).into());
        }
        if round > 0 {
            fast.push(indexed.as_secs_f64() * 1_000.0);
            slow.push(scan.as_secs_f64() * 1_000.0);
        }
    }
    jackfield.stop().await?;
    Ok(vec![Line {
        name: format!("Filter by a word of {RARE_ROWS} in {} rows: first page", bench.world.connections),
        database: bench.world.name(),
        jackfield: format!("{} ms", short(median(&fast))),
        baseline: format!("{} ms", short(median(&slow))),
        figure: Spread::of_ratios(&slow, &fast),
        target: Target::AtLeast(20.0),
        unit: "",
    }])
}
