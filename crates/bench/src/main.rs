//! `jackfield-bench`: compares Jackfield with baselines that do the minimum for the same work, in the same run, on the
//! same machine, with the same build profile, number of threads, transport and message sizes. It prints a table.
//!
//! Jackfield is the real binary with its ordinary configuration in a separate process, which sends its traces and
//! metrics here; the baselines are further processes of this program. This process makes the load. Both sides take
//! turns several times, and a figure is the median of the ratios of all rounds.
#![forbid(unsafe_code)]

mod bare;
mod credentials;
mod direct;
mod https;
mod lines;
mod load;
mod machine;
mod prepare;
mod process;
mod sink;
mod stored;
mod system;
mod table;
mod wire;

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};
use jackfield_testkit::postgres;

use crate::lines::Bench;
use crate::prepare::{Kind, World};
use crate::process::Job;
use crate::sink::Sink;
use crate::table::Line;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures Jackfield against baselines and prints a table.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Hidden>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// Runs a baseline; reads its job from standard input.
    #[command(hide = true)]
    Baseline,
}

#[derive(Clone, Debug, Args)]
struct Options {
    /// Groups to measure [default: all but rest].
    #[arg(value_enum)]
    only: Vec<What>,
    /// Number of connections in the lists.
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// Items per page of the streamed lists.
    #[arg(long, default_value_t = 100)]
    page_size: u32,
    /// Number of connectors that are in use at once.
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// Number of credentials at rest.
    #[arg(long, default_value_t = 1_000_000)]
    credentials: usize,
    /// Number of rounds in which both sides take turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of a turn in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Leave SQLite out.
    #[arg(long)]
    no_sqlite: bool,
    /// Leave PostgreSQL out.
    #[arg(long)]
    no_postgres: bool,
    /// Use the existing binary of Jackfield without building it.
    #[arg(long)]
    no_build: bool,
    /// Directory for the databases while it runs [default: the directory for temporary files].
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// Groups of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// A health check: the cost of every call.
    Layers,
    /// IssueAccessToken of a hot credential.
    Issue,
    /// IssueAccessToken of a credential that is not in memory.
    Miss,
    /// Callers who wait for one refresh.
    Wait,
    /// Tokens in memory: the bytes of each.
    Tokens,
    /// GetConnector.
    Get,
    /// ListConnections: rows per second, memory, deep pages.
    List,
    /// A bare-word filter.
    Filter,
    /// Durable creates.
    Create,
    /// AuthenticateUser.
    Login,
    /// Many connectors in use: memory, time of a log-in.
    Clients,
    /// Memory and time of a start.
    Start,
    /// Many credentials that no caller asks for: memory. It takes minutes, so only if it is named.
    Rest,
}

fn main() -> ExitCode {
    let Arguments { command, options } = Arguments::parse();
    let run = || -> Result<()> {
        // The same size as the runtimes of the servers.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        match command {
            Some(Hidden::Baseline) => runtime.block_on(baseline()),
            None => runtime.block_on(measure(options)),
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "jackfield-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn baseline() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    match serde_json::from_str(&line)? {
        Job::Bare(job) => bare::serve(job).await,
        Job::Direct(job) => direct::serve(job).await,
        Job::System(job) => system::serve(job).await,
    }
}

async fn measure(options: Options) -> Result<()> {
    let start = Instant::now();
    let binary = binary(options.no_build)?;
    let directory = match &options.directory {
        Some(directory) => tempfile::Builder::new().prefix("jackfield-bench-").tempdir_in(directory)?,
        None => tempfile::Builder::new().prefix("jackfield-bench-").tempdir()?,
    };
    let wanted = |what: What| match options.only.is_empty() {
        true => what != What::Rest,
        false => options.only.contains(&what),
    };
    let sink = Sink::start()?;
    let load_before = machine::load_average();
    let fdatasync = machine::fdatasync_p50(directory.path())?;
    let have_postgres = !options.no_postgres && postgres::is_available();

    let mut lines: Vec<Line> = Vec::new();
    let mut skipped: Vec<String> = Vec::new();
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let groups: &[What] = match kind {
            Kind::Sqlite => &[
                What::Start,
                What::Layers,
                What::Issue,
                What::Miss,
                What::Wait,
                What::Tokens,
                What::Get,
                What::Create,
                What::List,
                What::Filter,
                What::Login,
                What::Clients,
                // The last: it fills the database.
                What::Rest,
            ],
            Kind::Postgres => {
                &[What::Miss, What::Wait, What::Get, What::Create, What::List, What::Filter, What::Login, What::Rest]
            }
        };
        let groups: Vec<What> = groups.iter().copied().filter(|what| wanted(*what)).collect();
        if groups.is_empty() || (kind == Kind::Sqlite && options.no_sqlite) {
            continue;
        }
        if kind == Kind::Postgres && !have_postgres {
            skipped.extend(groups.iter().map(|what| format!("{what:?} on PostgreSQL")));
            continue;
        }
        let lists = groups.iter().any(|what| matches!(what, What::List | What::Filter));
        let connections = if lists { options.rows } else { 1 };
        progress(&format!("filling {} with {connections} connections", kind.name()));
        let directory = directory.path().join(kind.name());
        std::fs::create_dir_all(&directory)?;
        let world = World::create(kind, &binary, &directory, 10_000, connections).await?;
        let bench = Bench {
            binary: &binary,
            world: &world,
            sink: &sink,
            rounds: options.rounds.max(1),
            turn: Duration::from_secs_f64(options.seconds),
            page_size: options.page_size,
            clients: options.clients,
            credentials: options.credentials,
        };
        for what in groups {
            progress(&format!("{what:?} on {}", kind.name()));
            let of_group = match what {
                What::Layers => lines::layers::run(&bench).await?,
                What::Issue => lines::issue::run(&bench).await?,
                What::Miss => lines::miss::run(&bench).await?,
                What::Wait => lines::wait::run(&bench).await?,
                What::Tokens => lines::tokens::run(&bench).await?,
                What::Get => lines::get::run(&bench).await?,
                What::List => lines::list::run(&bench).await?,
                What::Filter => lines::filter::run(&bench).await?,
                What::Create => lines::create::run(&bench).await?,
                What::Login => lines::login::run(&bench).await?,
                What::Clients => lines::clients::run(&bench).await?,
                What::Start => lines::start::run(&bench).await?,
                What::Rest => lines::rest::run(&bench).await?,
            };
            lines.extend(of_group);
        }
    }

    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", table::render(&lines))?;
    writeln!(
        stdout,
        "{} cores ({}), load average {} before and {} after, fdatasync p50 {:.2} ms, {} profile, {:.0} s in all.",
        machine::cores(),
        machine::processor(),
        load_before,
        machine::load_average(),
        fdatasync.as_secs_f64() * 1_000.0,
        if cfg!(debug_assertions) { "debug" } else { "release" },
        start.elapsed().as_secs_f64(),
    )?;
    for line in skipped {
        writeln!(stdout, "Skipped: {line}: PostgreSQL is not available or was left out.")?;
    }
    Ok(())
}

fn progress(text: &str) {
    // Errors are ignored: standard error may be closed.
    let _ = writeln!(std::io::stderr(), "jackfield-bench: {text}");
}

/// The binary of Jackfield next to this one, with the same profile. It is built if it is missing or out of date.
fn binary(as_it_is: bool) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let directory = own.parent().ok_or("this program is in no directory")?;
    let binary = directory.join("jackfield");
    if !as_it_is {
        let profile = match directory.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let target = directory.parent().ok_or("this program is in no target directory")?;
        progress("building jackfield");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--package", "jackfield-server", "--profile", profile, "--target-dir"])
            .arg(target)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .status()?;
        if !built.success() {
            return Err("jackfield does not build".into());
        }
    }
    if binary.is_file() { Ok(binary) } else { Err(format!("there is no {}", binary.display()).into()) }
}
