//! Kill -9: what was acknowledged survives, what was not is there as a whole or not at all, and a repeat has its effect once.
//!
//! Many writers change objects of their own over gRPC; the server is killed in the middle of it and started again on what
//! is left; everything is read back and compared with what the writers know. `PROOF_KILLS` says how often, in place of what
//! `tests/run` does.

mod change;
mod check;
mod writer;

use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_testkit::fault::Fault;
use jackfield_testkit::fixture::a_connector;
use jackfield_testkit::postgres::{self, Crash};
use jackfield_testkit::store::{Database, PoolSettings, Store};
use jackfield_testkit::{Backend, Client, Figures, Program, Rng, Site, proof};
use tokio::task::JoinSet;

use writer::Writer;

/// How many write at once.
const WRITERS: usize = 56;
/// How many where a fault is planted: most of many wait for the one that writes, and the moment of the fault is missed.
const FEW: usize = 8;
/// On how many connections.
const CONNECTIONS: usize = 4;
/// The connector that all credentials are for.
const PARENT: &str = "parent";
/// The kills within which a planted fault has to be noticed: as many as the shortest of the runs has. A slow machine makes few
/// changes between two of them.
const NOTICE: u64 = 100;
/// The database as a whole is looked at after so many kills, and at the end.
const INTEGRITY_INTERVAL: u64 = 25;

/// A run over many kills.
struct Run {
    site: Site,
    seed: u64,
    rng: Rng,
    writers: Vec<Writer>,
    kills: u64,
    /// How often PostgreSQL went down with the server.
    database_kills: u64,
    /// Findings that belong to no ledger.
    wrong: Vec<String>,
    damaged: u64,
    slowest_start: Duration,
}

mod nothing_acknowledged_is_lost {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sqlite() {
        let _turn = proof::turn();
        let mut run = Run::new(Site::new(Backend::Sqlite, Program::Jackfield), WRITERS).await;
        run.until(proof::setting("PROOF_KILLS", 300), |_| false).await;
        run.end("sqlite").await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres() {
        let _turn = proof::turn();
        let mut run = Run::new(Site::on_own_postgres(postgres::fresh_server(), Program::Jackfield), WRITERS).await;
        run.until(proof::setting("PROOF_KILLS", 100), |_| false).await;
        run.end("postgres").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_the_commit_is_noticed() {
    notices(Fault::AnswerBeforeCommit, |run| run.figures().lost > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_in_several_transactions_is_noticed() {
    // What is left may look like the state before the last change, too.
    notices(Fault::SeveralTransactions, |run| !run.figures().is_clean()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_kept_apart_from_their_change_are_noticed() {
    let twice =
        |run: &Run| run.findings().iter().any(|wrong| wrong.contains("its repeat refused") || wrong.contains("twice"));
    notices(Fault::RepeatsApart, twice).await;
}

/// Checks that a run with a planted fault finds what the fault does.
async fn notices(fault: Fault, noticed: impl Fn(&Run) -> bool) {
    let _turn = proof::turn();
    let mut run = Run::new(Site::new(Backend::Sqlite, Program::Jackfield), FEW).await;
    run.site.set_program(Program::Faulty(fault));
    run.until(NOTICE, &noticed).await;
    let (seed, kills, figures) = (run.seed, run.kills, run.figures());
    assert!(noticed(&run), "{fault:?} went unnoticed for {kills} kills: seed={seed} {figures} {:#?}", run.findings());
    proof::report(&format!("kill9 planted={} noticed after kills={kills} seed={seed} {figures}", fault.as_str()));
}

// === impl Run ===

impl Run {
    async fn new(site: Site, writers: usize) -> Self {
        site.prepare().await;
        let process = site.start();
        let connector = Some(a_connector(PARENT));
        let request = v1::CreateConnectorRequest { connector, ..Default::default() };
        let parent = process.client("alpha").connectors().create_connector(request).await.expect("the parent");
        let parent = parent.into_inner().connector.unwrap_or_default().id;
        let seed = proof::seed();
        let mut rng = Rng::new(seed);
        let writers: Vec<_> = (0..writers).map(|index| Writer::new(index, &parent, rng.fork())).collect();
        let client = process.client("alpha");
        for user_id in writers.iter().flat_map(Writer::users) {
            let request = v1::AddUserConnectorRequest { user_id, connector: parent.clone(), ..Default::default() };
            client.user_connectors().add_user_connector(request).await.expect("a link");
        }
        process.stop();
        Self {
            writers,
            site,
            seed,
            rng,
            kills: 0,
            database_kills: 0,
            wrong: Vec::new(),
            damaged: 0,
            slowest_start: Duration::ZERO,
        }
    }

    /// So many kills, or until something shows.
    async fn until(&mut self, kills: u64, over: impl Fn(&Run) -> bool) {
        while self.kills < kills && !over(self) {
            self.cycle().await;
        }
        // What the last kill left behind.
        let process = self.site.start();
        self.read_back(&process.client("alpha"), 100).await;
        process.stop();
    }

    /// Starts, reads back, writes, kills.
    async fn cycle(&mut self) {
        if self.rng.percent(12) {
            // A kill while it starts: what recovers is killed, too.
            let mut starting =
                self.site.command(&["serve"]).stderr(std::process::Stdio::null()).spawn().expect("a server");
            tokio::time::sleep(Duration::from_micros(self.rng.between(0, 25_000))).await;
            starting.kill().expect("a kill");
            starting.wait().expect("an end");
            self.kills += 1;
        }
        let process = self.site.start();
        self.slowest_start = self.slowest_start.max(process.start_time());
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| process.client("alpha")).collect();
        self.read_back(&clients[0], 10).await;
        if self.kills % INTEGRITY_INTERVAL == INTEGRITY_INTERVAL - 1 {
            self.look_at_database().await;
        }

        let mut tasks = JoinSet::new();
        for (index, writer) in self.writers.drain(..).enumerate() {
            tasks.spawn(writer.run(clients[index % CONNECTIONS].clone()));
        }
        tokio::time::sleep(Duration::from_micros(self.rng.between(5_000, 250_000))).await;
        let crash = self.site.backend() == Backend::Postgres && self.kills / 10 > self.database_kills;
        if crash && self.site.postgres().is_ours() {
            let how = if self.rng.percent(50) { Crash::Kill } else { Crash::Immediate };
            self.site.postgres().crash(how);
            self.database_kills += 1;
            tokio::time::sleep(Duration::from_micros(self.rng.between(0, 30_000))).await;
        }
        process.kill();
        self.kills += 1;
        while let Some(writer) = tasks.join_next().await {
            self.writers.push(writer.expect("a writer"));
        }
        self.writers.sort_by(|one, other| one.prefix.cmp(&other.prefix));
        if self.site.backend() == Backend::Postgres {
            // What the killed server had begun is over before the next one looks.
            self.site.postgres().await_quiet();
        }
    }

    async fn read_back(&mut self, client: &Client, percent: u64) {
        self.wrong.extend(check::check(client, &mut self.writers, &mut self.rng, percent).await);
    }

    /// What the database says of itself.
    async fn look_at_database(&mut self) {
        if self.site.backend() == Backend::Postgres {
            return;
        }
        let settings = PoolSettings { max_connections: 1, acquire_timeout: Duration::from_secs(30) };
        let store = Store::connect(&Database::Sqlite(self.site.sqlite_file()), settings).await.expect("the database");
        for (check, sound) in [("PRAGMA integrity_check", &["ok"][..]), ("PRAGMA foreign_key_check", &[])] {
            let said = store.raw_read(check).await.expect("an answer of the database");
            if said != sound {
                self.damaged += 1;
                self.wrong.push(format!("{check} after {} kills: {said:?}", self.kills));
            }
        }
        store.close().await;
    }

    /// Whether all secrets open, those included that no call gives out: a backup is refused if one does not.
    fn back_up(&mut self) {
        if self.site.backend() == Backend::Sqlite {
            let output = self.site.run(&["backup", "--to", "backup.sqlite3"]);
            if !output.status.success() {
                self.damaged += 1;
                self.wrong.push(format!("no backup: {}", String::from_utf8_lossy(&output.stderr)));
            }
        }
    }

    fn figures(&self) -> Figures {
        let mut sum = Figures::default();
        self.writers.iter().for_each(|writer| sum.add(writer.ledger.figures));
        sum
    }

    fn findings(&self) -> Vec<&str> {
        let of_writers = self.writers.iter().flat_map(|writer| &writer.wrong);
        of_writers.chain(&self.wrong).map(String::as_str).collect()
    }

    /// The line of figures, and the verdict.
    async fn end(mut self, database: &str) {
        let begin = Instant::now();
        let process = self.site.start();
        self.look_at_database().await;
        self.back_up();
        process.stop();
        let repeated: u64 = self.writers.iter().map(|writer| writer.repeated).sum();
        let (findings, figures) = (self.findings(), self.figures());
        proof::report(&format!(
            "kill9 database={database} seed={} kills={} database_kills={} writers={WRITERS} {figures} repeated={repeated} \
             damaged={} findings={} slowest_start={:?} fdatasync={:?} end={:?}",
            self.seed,
            self.kills,
            self.database_kills,
            self.damaged,
            findings.len(),
            self.slowest_start,
            proof::sync_latency(self.site.directory()),
            begin.elapsed(),
        ));
        assert!(
            figures.is_clean() && findings.is_empty(),
            "seed {}: {:#?}",
            self.seed,
            &findings[..findings.len().min(5)]
        );
        assert!(
            figures.acknowledged > self.kills && figures.unknown > 0 && repeated > 0,
            "the kills hit nothing: {figures}"
        );
    }
}
