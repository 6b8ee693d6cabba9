//! ListConnections to the end, against a tonic server that streams the pages of the same statement as the same
//! messages, and against one that does not parse the documents. Also measures its memory, including while a reader
//! pauses, whether a late page takes longer than the first, and whether it waits for lists that are not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jackfield_api::v1;
use prost::Message as _;

use super::{Bench, unread};
use crate::table::{Line, Spread, Target, median, short};
use crate::wire::Client;
use crate::{Result, bare, machine, wire};

const LIST: &str = "/jackfield.v1.ConnectionService/ListConnections";
/// The most full streams of each side, because they are long.
const MAX_ROUNDS: usize = 3;
/// The page at which a reader pauses, and the length of the pause.
const PAUSE_AT: usize = 20;
const PAUSE: Duration = Duration::from_secs(3);
/// The size of the pages whose times are compared.
const DEEP_PAGE_SIZE: u32 = 100;
const CALLS: usize = 100;

/// The result of reading a stream.
struct Read {
    rows: usize,
    seconds: f64,
    /// The token of the last full page.
    last_token: String,
}

/// The speed of one side in each round.
struct Speeds {
    /// Rows per second.
    rates: Vec<f64>,
    /// Microseconds per row.
    cpu: Vec<f64>,
}

/// A watch over the memory of a process, from its creation until it is asked.
struct Watch {
    before: u64,
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let database = bench.world.name();
    let jackfield = bench.jackfield().await?;
    let pki = jackfield.pki();
    let mut ours = Client::new(wire::connect(jackfield.address, &pki).await?);
    // The first page is not measured, so that code and statements have run once before.
    let first = read(&mut ours, LIST, list(bench.page_size, bench.page_size, ""), None).await?;
    let (row_bytes, token_bytes) = sizes(&mut ours, bench.page_size).await?;
    let mut lines = Vec::new();

    let watch = Watch::start(jackfield.pid());
    let all = read(&mut ours, LIST, list(bench.page_size, 0, ""), None).await?;
    lines.push(memory("ListConnections: memory", database, watch.end()?));
    if all.rows != bench.world.connections || first.rows == 0 {
        return Err(format!("the list has {} rows, not {}", all.rows, bench.world.connections).into());
    }
    let watch = Watch::start(jackfield.pid());
    read(&mut ours, LIST, list(bench.page_size, 0, ""), Some(PAUSE)).await?;
    lines.push(memory("ListConnections: memory, the reader pauses", database, watch.end()?));

    let job =
        bare::Job { pki: pki.clone(), stored: bench.world.copy.clone(), row_bytes, token_bytes, ..Default::default() };
    let baseline = bench.bare(job)?;
    let mut theirs = Client::new(wire::connect(baseline.address()?, &pki).await?);
    let request = bare::ListRequest { page_size: bench.page_size, word: String::new() };
    let request = Bytes::from(request.encode_to_vec());
    let (mut sides, mut token) = ([const { Speeds::new() }; 3], String::new());
    for round in 0..bench.rounds.min(MAX_ROUNDS) {
        for turn in 0..sides.len() {
            let side = (round + turn) % sides.len();
            let pid = if side == 0 { jackfield.pid() } else { baseline.pid() };
            let used = machine::processor_seconds(pid);
            let read = match side {
                0 => read(&mut ours, LIST, list(bench.page_size, 0, ""), None).await?,
                1 => read(&mut theirs, bare::LIST, request.clone(), None).await?,
                _ => read(&mut theirs, bare::LIST_TEXT, request.clone(), None).await?,
            };
            if read.rows != bench.world.connections {
                return Err(format!("a list has {} rows", read.rows).into());
            }
            sides[side].cpu.push((machine::processor_seconds(pid) - used) / read.rows as f64 * 1e6);
            sides[side].rates.push(read.rows as f64 / read.seconds);
            if side == 0 {
                token = read.last_token;
            }
        }
    }
    let [jackfields, messages, texts] = &sides;
    let of = format!("ListConnections: {} rows, pages of {}", bench.world.connections, bench.page_size);
    for (name, theirs, target) in [
        (of.clone(), messages, Target::AtLeast(0.8)),
        (format!("{of}, baseline reads no document"), texts, Target::None),
    ] {
        let figure = Spread::of_ratios(&jackfields.rates, &theirs.rates);
        lines.push(Line {
            name,
            database,
            jackfield: jackfields.text(),
            baseline: theirs.text(),
            figure,
            target,
            unit: "",
        });
    }
    lines.push(deep(bench, &mut ours, &token).await?);
    lines.push(unread::line(bench, &jackfield).await?);
    jackfield.stop().await?;
    Ok(lines)
}

/// The line for the last page over the first.
async fn deep(bench: &Bench<'_>, client: &mut Client, token: &str) -> Result<Line> {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            near.push(read(client, LIST, list(DEEP_PAGE_SIZE, DEEP_PAGE_SIZE, ""), None).await?.seconds);
            far.push(read(client, LIST, list(DEEP_PAGE_SIZE, DEEP_PAGE_SIZE, token), None).await?.seconds);
        }
        first.push(median(&near) * 1_000.0);
        last.push(median(&far) * 1_000.0);
    }
    Ok(Line {
        name: format!(
            "ListConnections: the last page over the first, {} pages",
            bench.world.connections / DEEP_PAGE_SIZE as usize
        ),
        database: bench.world.name(),
        jackfield: format!("{} ms", short(median(&last))),
        baseline: format!("{} ms", short(median(&first))),
        figure: Spread::of_ratios(&last, &first),
        target: Target::AtMost(1.2),
        unit: "",
    })
}

/// Reads a list to its end or, with a pause, a few pages past it.
async fn read(client: &mut Client, path: &'static str, request: Bytes, pause: Option<Duration>) -> Result<Read> {
    let start = Instant::now();
    let mut stream = client.stream(path, request).await?;
    let (mut rows, mut pages, mut last_token) = (0, 0, String::new());
    while let Some(page) = stream.message().await? {
        rows += wire::rows(&page);
        pages += 1;
        let token = wire::next_page_token(&page);
        if !token.is_empty() {
            last_token = token;
        }
        if let Some(pause) = pause {
            if pages == PAUSE_AT {
                tokio::time::sleep(pause).await;
            } else if pages == 2 * PAUSE_AT {
                break;
            }
        }
    }
    Ok(Read { rows, seconds: start.elapsed().as_secs_f64(), last_token })
}

/// The sizes of a row and of a token on the wire, taken from a page.
async fn sizes(client: &mut Client, page_size: u32) -> Result<(usize, usize)> {
    let mut stream = client.stream(LIST, list(page_size, page_size, "")).await?;
    let page = stream.message().await?.ok_or("an empty list")?;
    let message = v1::ListConnectionsResponse::decode(page.clone())?;
    let bytes: usize = message.connections.iter().map(prost::Message::encoded_len).sum();
    Ok((bytes / message.connections.len().max(1), message.next_page_token.len()))
}

fn list(page_size: u32, limit: u32, page_token: &str) -> Bytes {
    let request = v1::ListConnectionsRequest {
        page_size: i32::try_from(page_size).unwrap_or(i32::MAX),
        limit: i32::try_from(limit).unwrap_or(i32::MAX),
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    Bytes::from(request.encode_to_vec())
}

fn memory(name: &str, database: &'static str, (before, most): (f64, f64)) -> Line {
    Line {
        name: name.to_owned(),
        database,
        jackfield: format!("{} MiB at most", short(most)),
        baseline: format!("{} MiB before", short(before)),
        figure: Spread::of(vec![most - before]),
        target: Target::AtMost(16.0),
        unit: "MiB",
    }
}

// === impl Speeds ===

impl Speeds {
    const fn new() -> Self {
        Speeds { rates: Vec::new(), cpu: Vec::new() }
    }

    fn text(&self) -> String {
        format!("{} rows/s, {} µs of CPU", short(median(&self.rates)), short(median(&self.cpu)))
    }
}

// === impl Watch ===

impl Watch {
    fn start(pid: u32) -> Self {
        let before = machine::resident_kib(pid);
        let (most, stop) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
        let (seen, until) = (most.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                seen.fetch_max(machine::resident_kib(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Watch { before, most, stop, thread }
    }

    /// The initial and the peak memory, in MiB.
    fn end(self) -> Result<(f64, f64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the watch of memory panicked")?;
        let mib = |kib: u64| kib as f64 / 1024.0;
        Ok((mib(self.before), mib(self.most.load(Ordering::Relaxed))))
    }
}
