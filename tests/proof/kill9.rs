//! Kill -9: acknowledged changes survive, other changes are there as a whole or not at all, and a repeat takes effect
//! once.
//!
//! Many writers change their own objects over gRPC. The server is killed in the middle of this and restarted on the
//! same data. Everything is read back and compared with what the writers know. `PROOF_KILLS` sets the number of kills,
//! which `tests/run` otherwise chooses.
//!
//! With PostgreSQL, the network loses COMMITs and answers to them, and now and then the database is unreachable until
//! the outcome of a COMMIT cannot be determined. In a separate run, standbys take over (`PROOF_SWITCHES`). Changes that
//! the server then reports as not written must not be there, and those it reports as written must be.

mod change;
mod check;
mod writer;

use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_testkit::data::SecretUrl;
use jackfield_testkit::fault::Fault;
use jackfield_testkit::fixture::a_connector;
use jackfield_testkit::postgres::{self, Crash};
use jackfield_testkit::proxy::Fate;
use jackfield_testkit::store::{Database, PoolSettings, Store};
use jackfield_testkit::{Backend, Client, Figures, HaProxy, Program, Proxy, Rng, Site, proof};
use tokio::task::JoinSet;

use writer::Writer;

/// The number of concurrent writers.
const WRITERS: usize = 56;
/// The number of writers with a planted fault. With many, most wait for the one that writes, and the kill misses the
/// moment of the fault.
const FEW: usize = 8;
/// The number of their connections.
const CONNECTIONS: usize = 4;
/// The connector of all credentials.
const PARENT: &str = "parent";
/// The number of kills within which a planted fault has to be detected: as many as the shortest run has. A slow machine
/// makes few changes between two kills.
const NOTICE: u64 = 100;
/// The number of kills between two checks of the whole database; the last check is at the end.
const INTEGRITY_INTERVAL: u64 = 25;
/// The tables of the writers' statements.
const OF_WRITERS: [&str; 3] = ["\"connector\"", "\"credential\"", "\"configuration\""];
/// The percentage of their COMMITs that are lost, or whose answers are.
const LOST: u64 = 3;
/// The percentage of intervals between two kills in which the database is unreachable for a while.
const ABSENCES: u64 = 3;
/// The length of such an absence: longer than the server tries to determine an outcome.
const ABSENCE: Duration = Duration::from_secs(7);
/// The server's time limit for a database connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// A run over many kills.
struct Run {
    site: Site,
    seed: u64,
    rng: Rng,
    writers: Vec<Writer>,
    kills: u64,
    /// The number of times that PostgreSQL went down with the server.
    database_kills: u64,
    /// The network between the server and PostgreSQL.
    network: Option<Proxy>,
    /// The percentage of intervals between two kills in which PostgreSQL is unreachable for a while.
    absences: u64,
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
        run.lose_answers();
        run.until(proof::setting("PROOF_KILLS", 100), |_| false).await;
        assert!(run.network.as_ref().is_some_and(|network| network.lost() > 0), "no COMMIT was lost");
        run.end("postgres").await;
    }
}

mod nothing_acknowledged_is_lost_when_a_standby_takes_over {
    use super::*;

    mod postgres {
        use super::*;
        use jackfield_testkit::postgres;

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn haproxy() {
            let _turn = proof::turn();
            let primary = postgres::fresh_server();
            assert!(primary.is_ours(), "the programs of PostgreSQL are missing, or one of them");
            let proxy = HaProxy::before(&primary);
            let mut servers = vec![primary.standby()];
            let mut site = Site::on_own_postgres(primary, Program::Jackfield);
            site.config_mut().database.url = SecretUrl::new(proxy.url().to_owned());
            site.config_mut().database.acquire_timeout = ACQUIRE_TIMEOUT;
            let mut run = Run::new(site, WRITERS).await;
            for switch in 0..proof::setting("PROOF_SWITCHES", 3_usize) {
                let previous = switch.checked_sub(1).map(|previous| &servers[previous]);
                run.switch_over(previous, &servers[switch], &proxy, switch + 1).await;
                let next = servers[switch].standby();
                servers.push(next);
            }
            run.until(0, |_| false).await;
            run.end("postgres, standbys take over").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_the_commit_is_detected() {
    notices(Fault::AnswerBeforeCommit, |run| run.figures().lost > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_in_several_transactions_is_detected() {
    // The remaining state may also look like the one before the last change.
    notices(Fault::SeveralTransactions, |run| !run.figures().is_clean()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_stored_apart_from_their_change_are_detected() {
    let twice =
        |run: &Run| run.findings().iter().any(|wrong| wrong.contains("its repeat refused") || wrong.contains("twice"));
    notices(Fault::RepeatsApart, twice).await;
}

mod an_unknown_outcome_reported_as_failure_is_detected {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres() {
        let _turn = proof::turn();
        let mut run = Run::new(Site::on_own_postgres(postgres::fresh_server(), Program::Jackfield), FEW).await;
        run.lose_answers();
        run.absences = 100;
        run.notices(Fault::UnknownReportedAsFailure, |run| !run.figures().is_clean()).await;
    }
}

/// Checks that a run with a planted fault detects it.
async fn notices(fault: Fault, noticed: impl Fn(&Run) -> bool) {
    let _turn = proof::turn();
    Run::new(Site::new(Backend::Sqlite, Program::Jackfield), FEW).await.notices(fault, noticed).await;
}

// === impl Run ===

impl Run {
    async fn notices(mut self, fault: Fault, noticed: impl Fn(&Run) -> bool) {
        let run = &mut self;
        run.site.set_program(Program::Faulty(fault));
        run.until(NOTICE, &noticed).await;
        let (seed, kills, figures) = (run.seed, run.kills, run.figures());
        assert!(
            noticed(run),
            "{fault:?} went undetected for {kills} kills: seed={seed} {figures} {:#?}",
            run.findings()
        );
        proof::report(&format!("kill9 planted={} detected after kills={kills} seed={seed} {figures}", fault.as_str()));
    }

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
            network: None,
            absences: 0,
            wrong: Vec::new(),
            damaged: 0,
            slowest_start: Duration::ZERO,
        }
    }

    /// Makes the network between the server and PostgreSQL lose COMMITs and answers to them from now on.
    fn lose_answers(&mut self) {
        let database = &mut self.site.config_mut().database;
        let network = Proxy::before(database.url.expose());
        network.lose_some(&OF_WRITERS, self.rng.fork(), LOST, &[Fate::AnswerLost, Fate::AnswerLost, Fate::Lost]);
        (database.url, database.acquire_timeout) = (SecretUrl::new(network.url().to_owned()), ACQUIRE_TIMEOUT);
        (self.network, self.absences) = (Some(network), ABSENCES);
    }

    /// Runs this many kills, or until `over` holds.
    async fn until(&mut self, kills: u64, over: impl Fn(&Run) -> bool) {
        while self.kills < kills && !over(self) {
            self.cycle().await;
        }
        // Checks what the last kill left behind.
        let process = self.site.start();
        self.read_back(&process.client("alpha"), 100).await;
        process.stop();
    }

    /// Starts, reads back, writes, kills.
    async fn cycle(&mut self) {
        if self.rng.percent(12) {
            // A kill during the start interrupts recovery as well.
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

        let tasks = self.write(&clients);
        if self.network.is_some() && self.rng.percent(self.absences) {
            self.absence().await;
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
        self.collect(tasks).await;
        if self.site.backend() == Backend::Postgres {
            // The killed server's transactions must end before the next server reads.
            self.site.postgres().await_quiet();
        }
    }

    /// Starts all writers.
    fn write(&mut self, clients: &[Client]) -> JoinSet<Writer> {
        let writers = self.writers.drain(..).enumerate();
        writers.map(|(index, writer)| writer.run(clients[index % clients.len()].clone())).collect()
    }

    /// Waits until all writers have ended.
    async fn collect(&mut self, mut tasks: JoinSet<Writer>) {
        while let Some(writer) = tasks.join_next().await {
            self.writers.push(writer.expect("a writer"));
        }
        self.writers.sort_by(|one, other| one.prefix.cmp(&other.prefix));
    }

    /// Loses an answer to COMMIT together with the database, until the server stops asking for the outcome.
    async fn absence(&self) {
        let Some(network) = &self.network else { return };
        network.lose(self.rng.clone().pick::<&str>(&OF_WRITERS), Fate::AnswerLostAndAway);
        let begin = Instant::now();
        while network.is_reachable() && begin.elapsed() < ABSENCE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(ABSENCE).await;
        network.set_reachable(true);
    }

    /// Starts, reads back and writes. Meanwhile the primary ends and its standby takes over. Then kills the server.
    async fn switch_over(
        &mut self,
        primary: Option<&postgres::Database>,
        standby: &postgres::Database,
        proxy: &HaProxy,
        place: usize,
    ) {
        let process = self.site.start();
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| process.client("alpha")).collect();
        self.read_back(&clients[0], 100).await;
        let tasks = self.write(&clients);
        tokio::time::sleep(Duration::from_micros(self.rng.between(100_000, 1_000_000))).await;
        tokio::task::block_in_place(|| {
            primary.unwrap_or_else(|| self.site.postgres()).stop();
            standby.promote();
        });
        proxy.lead_to(place, standby);
        self.database_kills += 1;
        tokio::time::sleep(Duration::from_micros(self.rng.between(500_000, 3_000_000))).await;
        process.kill();
        self.kills += 1;
        self.collect(tasks).await;
        standby.await_quiet();
    }

    async fn read_back(&mut self, client: &Client, percent: u64) {
        self.wrong.extend(check::check(client, &mut self.writers, &mut self.rng, percent).await);
    }

    /// Runs the database's own integrity checks.
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

    /// Checks with a backup that all secrets open, including those that no call returns: a backup fails if one does
    /// not.
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

    /// Prints the figures and asserts the verdict.
    async fn end(mut self, database: &str) {
        let begin = Instant::now();
        let process = self.site.start();
        self.look_at_database().await;
        self.back_up();
        process.stop();
        let repeated: u64 = self.writers.iter().map(|writer| writer.repeated).sum();
        let outcome_unknown: u64 = self.writers.iter().map(|writer| writer.outcome_unknown).sum();
        let lost = self.network.as_ref().map_or(0, Proxy::lost);
        let (findings, figures) = (self.findings(), self.figures());
        proof::report(&format!(
            "kill9 database={database} seed={} kills={} database_kills={} writers={WRITERS} {figures} repeated={repeated} \
             commits_lost={lost} outcome_unknown={outcome_unknown} damaged={} findings={} slowest_start={:?} fdatasync={:?} end={:?}",
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
