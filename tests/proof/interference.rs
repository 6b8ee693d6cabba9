//! Tenants do not interfere: whatever another tenant does with the same names, external ids, request ids and chosen
//! ids, and with guesses at the resources of the first, the transcript of the first is the same as without it.

#[path = "../it/isolation/authorizations.rs"]
mod authorizations;
#[path = "../it/isolation/calls.rs"]
mod calls;
#[path = "../it/isolation/compare.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod compare;
#[path = "../it/isolation/logins.rs"]
mod logins;
#[path = "../it/isolation/program.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod program;
#[path = "../it/isolation/sources.rs"]
mod sources;
#[path = "../it/isolation/wire.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod wire;

use std::cell::RefCell;

use jackfield_testkit::data::principal;
use jackfield_testkit::fault::Fault;
use jackfield_testkit::pki::Leaf;
use jackfield_testkit::{Backend, Callers, Client, Pki, Process, Program, Site, proof};
use proptest::strategy::Strategy as _;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tokio::runtime::Handle;

use self::compare::{Answered, Pair, compare};
use self::logins::{LoginSystem, limit_attempts};
use self::program::program;

/// The number of programs on each database; the variable sets another one.
const PROGRAMS_VARIABLE: &str = "PROOF_INTERFERENCE_PROGRAMS";
const PROGRAMS: u32 = 250;
/// The number of programs that run at once, each in its own tenants.
const LANES: u32 = 6;
/// The number of programs at a server with a planted fault, and the number of such servers: one of them has to show it.
const PLANTED: u32 = 60;
const SERVERS: u64 = 10;

/// The caller whose certificate the second of a pair presents.
type AsWhom = fn(String) -> String;

/// A process with pairs of tenants.
struct World {
    _site: Site,
    process: Process,
    clients: Vec<(String, Client)>,
    system: LoginSystem,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transcript_is_the_same_without_the_other_tenant() {
    check(Backend::Sqlite).await;
}

mod postgres {
    use jackfield_testkit::Backend;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_transcript_is_the_same_without_the_other_tenant() {
        super::check(Backend::Postgres).await;
    }
}

async fn check(backend: Backend) {
    let _turn = proof::turn();
    let (seed, programs) = (proof::seed(), proof::setting(PROGRAMS_VARIABLE, PROGRAMS));
    let world = World::start(backend, Program::Jackfield, |beta| beta).await;
    let Seen { answered, refused, differences } = world.run(seed, programs, 200).await;
    proof::report(&format!(
        "interference on {backend:?}: seed={seed} programs={programs} answered={answered} refused={refused} differences={}",
        differences.len()
    ));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    Answered { answered, refused }.check();
}

/// Isolation that is broken on purpose has to be detected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_isolation_is_detected() {
    let _turn = proof::turn();
    let seed = proof::seed();
    let same: AsWhom = |beta| beta;
    let cases: [(&str, Program, AsWhom); 3] = [
        // The second caller presents the certificate of the first, so both act in one tenant.
        ("one certificate for both", Program::Jackfield, |beta| beta.replace('b', "a")),
        ("errors that reveal other tenants", Program::Faulty(Fault::RevealsOtherTenants), same),
        ("cached reads shared by all", Program::Faulty(Fault::SharesCachedReads), same),
    ];
    for (name, program, beta) in cases {
        let (mut servers, mut differences) = (0, 0);
        while differences == 0 && servers < SERVERS {
            let world = World::start(Backend::Sqlite, program, beta).await;
            differences = world.run(seed.wrapping_add(servers), PLANTED, 0).await.differences.len();
            servers += 1;
        }
        proof::report(&format!(
            "interference, {name}: seed={seed} programs={PLANTED} servers={servers} differences={differences}"
        ));
        assert!(differences > 0, "{name} is not detected with seed {seed}");
    }
}

/// The results of programs.
struct Seen {
    answered: usize,
    refused: usize,
    /// The first difference of each lane.
    differences: Vec<String>,
}

// === impl World ===

impl World {
    /// Starts a process; `as_whom` chooses whose certificate the second of a pair presents.
    async fn start(backend: Backend, program: Program, as_whom: AsWhom) -> Self {
        let mut site = Site::new(backend, Program::Jackfield);
        site.prepare().await;
        for lane in 0..LANES {
            for name in [format!("a{lane}"), format!("b{lane}")] {
                site.config_mut().identity.principals.push(principal(&name, &name, &["*"]));
            }
        }
        limit_attempts(site.config_mut());
        site.set_program(program);
        let process = site.start();
        let mut clients = vec![("operator".to_owned(), process.client("operator"))];
        for lane in 0..LANES {
            let (alpha, beta) = (format!("a{lane}"), format!("b{lane}"));
            clients.push((alpha.clone(), process.client(&alpha)));
            clients.push((beta.clone(), process.client(&as_whom(beta))));
        }
        let system = LoginSystem::start((0..LANES).flat_map(|lane| [format!("a{lane}"), format!("b{lane}")])).await;
        World { _site: site, process, clients, system }
    }

    /// Runs this many programs in all lanes together. A difference is shrunk in at most `max_shrink_iters` steps.
    async fn run(self, seed: u64, programs: u32, max_shrink_iters: u32) -> Seen {
        let world = std::sync::Arc::new(self);
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let (world, handle) = (world.clone(), Handle::current());
                let programs = programs / LANES + u32::from(lane < programs % LANES);
                tokio::task::spawn_blocking(move || world.lane(&handle, lane, seed, programs, max_shrink_iters))
            })
            .collect();
        let mut seen = Seen { answered: 0, refused: 0, differences: Vec::new() };
        for lane in lanes {
            let (answered, difference) = lane.await.expect("a lane");
            seen.answered += answered.answered;
            seen.refused += answered.refused;
            seen.differences.extend(difference);
        }
        seen
    }

    fn lane(
        &self,
        handle: &Handle,
        lane: u32,
        seed: u64,
        programs: u32,
        max_shrink_iters: u32,
    ) -> (Answered, Option<String>) {
        let config = Config { cases: programs, max_shrink_iters, failure_persistence: None, ..Config::default() };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..12].copy_from_slice(&lane.to_le_bytes());
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let (alpha, beta) = (format!("a{lane}"), format!("b{lane}"));
        let pair = Pair { alpha: &alpha, beta: &beta };
        let answered = RefCell::new(Answered::default());
        let result = runner.run(&program().prop_map(compare::Program), |compare::Program(program)| {
            let (found, seen) = handle.block_on(compare(self, &self.system, pair, &program));
            answered.borrow_mut().add(seen);
            found.map_err(TestCaseError::fail)
        });
        (answered.into_inner(), result.err().map(|error| format!("lane {lane}, seed {seed}: {error}")))
    }
}

impl Callers for World {
    fn client(&self, principal: &str) -> Client {
        self.clients.iter().find(|(name, _)| name == principal).expect("a caller of the world").1.clone()
    }

    fn client_with(&self, leaf: &Leaf) -> Client {
        self.process.client_with(Some(leaf))
    }

    fn pki(&self) -> &Pki {
        self.process.pki()
    }
}
