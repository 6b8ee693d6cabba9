//! ListConnections beside four lists of the same tenant that were opened on the same connection and stay unread until
//! it is done, as with a client that reads its lists one after the other: it must not wait for them.

use std::time::Instant;

use jackfield_api::v1;
use jackfield_testkit::http2::{Answer, Http2, USUAL_WINDOW};

use super::Bench;
use crate::process::Jackfield;
use crate::table::{Line, Spread, Target, median, short};
use crate::{Result, wire};

const LIST: &str = "/jackfield.v1.ConnectionService/ListConnections";
/// The number of lists that are opened first and read last.
const OPENED: usize = 4;
/// The most pages of each list.
const PAGES: u32 = 20;

/// The line for a list beside others over the same list alone.
pub(super) async fn line(bench: &Bench<'_>, jackfield: &Jackfield) -> Result<Line> {
    let pki = jackfield.pki();
    let read = |file: &str| std::fs::read_to_string(pki.join(file));
    let (authority, certificate, key) = (read("ca.pem")?, read("client.pem")?, read("client-key.pem")?);
    let connection = Http2::connect(jackfield.address, &authority, (&certificate, &key), USUAL_WINDOW).await;
    let rows = bench.world.connections.min((PAGES * bench.page_size) as usize);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        alone.push(timed(bench, &connection, rows).await?);
        let mut opened = Vec::new();
        for _ in 0..OPENED {
            let mut list = open(bench, &connection).await?;
            // By then, the part of its first page that has arrived fills the window.
            list.fill().await;
            opened.push(list);
        }
        beside.push(timed(bench, &connection, rows).await?);
        for list in opened {
            check(list, rows).await?;
        }
    }
    Ok(Line {
        name: format!("ListConnections: beside {OPENED} lists that are read after it, over alone"),
        database: bench.world.name(),
        jackfield: format!("{} ms", short(median(&beside))),
        baseline: format!("{} ms", short(median(&alone))),
        figure: Spread::of_ratios(&beside, &alone),
        target: Target::AtMost(2.0),
        unit: "",
    })
}

/// The time to read a list to its end, in milliseconds.
async fn timed(bench: &Bench<'_>, connection: &Http2, rows: usize) -> Result<f64> {
    let start = Instant::now();
    check(open(bench, connection).await?, rows).await?;
    Ok(start.elapsed().as_secs_f64() * 1_000.0)
}

async fn open(bench: &Bench<'_>, connection: &Http2) -> Result<Answer> {
    let request = v1::ListConnectionsRequest {
        page_size: i32::try_from(bench.page_size).unwrap_or(i32::MAX),
        limit: i32::try_from(PAGES * bench.page_size).unwrap_or(i32::MAX),
        ..Default::default()
    };
    Ok(connection.call(LIST, &request).await?)
}

/// Reads a list to its end, and checks its rows and status.
async fn check(list: Answer, rows: usize) -> Result<()> {
    let (pages, status) = list.read().await;
    let read: usize = pages.iter().map(|page| wire::rows(page)).sum();
    if status.code() != tonic::Code::Ok || read != rows {
        return Err(format!("a list of {rows} rows ended after {read}: {status}").into());
    }
    Ok(())
}
