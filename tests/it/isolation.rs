//! Two tenants never notice each other: not by what is listed, counted, taken, found or refused.

mod calls;
mod matrix;
mod program;
mod wire;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tokio::runtime::Handle;

use jackfield_api::v1;
use jackfield_testkit::{TestServer, fixture, on_both};

use program::{Op, Player, Who, program};
use wire::Wire;

/// How many programs are run; the variable asks for more.
const PROGRAMS: u32 = 48;
const PROGRAMS_VARIABLE: &str = "JACKFIELD_ISOLATION_PROGRAMS";

on_both! {
    /// Whatever two tenants do, with the same names, external ids, request ids and chosen ids, and with references to each
    /// other's ids and page tokens: the answers of one are the same as without the other.
    async fn a_tenant_cannot_tell_whether_there_is_another(server) {
        let handle = Handle::current();
        let run = move || {
            let config = Config {
                cases: programs(),
                max_shrink_iters: 200,
                failure_persistence: None,
                ..Config::default()
            };
            let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[17; 32]);
            let mut answered = Answered::default();
            let mut runner = TestRunner::new_with_rng(config, rng);
            // The strategy is drawn from here and not by `run`, so that what was answered can be counted beside.
            let counted = std::cell::RefCell::new(&mut answered);
            let result = runner.run(&program().prop_map(Program), |Program(program)| {
                let (found, seen) = handle.block_on(compare(&server, &program));
                counted.borrow_mut().add(seen);
                found.map_err(TestCaseError::fail)
            });
            result.unwrap_or_else(|error| panic!("{error}"));
            answered.check();
        };
        if let Err(failed) = tokio::task::spawn_blocking(run).await {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
}

/// A program, shown in short when it fails.
#[derive(Clone)]
struct Program(Vec<(Who, Op)>);

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(who, op)| writeln!(f, "{who:?} {op:?}"))
    }
}

/// How many calls were answered and refused: programs in which nothing succeeds would prove nothing.
#[derive(Default)]
struct Answered {
    answered: usize,
    refused: usize,
}

impl Answered {
    fn add(&mut self, other: Answered) {
        self.answered += other.answered;
        self.refused += other.refused;
    }

    fn check(&self) {
        let all = self.answered + self.refused;
        assert!(self.answered > all / 4 && self.refused > all / 8, "{} of {all} were answered", self.answered);
    }
}

#[expect(clippy::disallowed_methods, reason = "a variable of the tests, not of the server")]
fn programs() -> u32 {
    std::env::var(PROGRAMS_VARIABLE).ok().and_then(|count| count.parse().ok()).unwrap_or(PROGRAMS)
}

/// Runs what the tenant alpha does, alone and amid what beta does, each time in tenants that are new.
async fn compare(server: &TestServer, program: &[(Who, Op)]) -> (Result<(), String>, Answered) {
    let wire = Wire::new();
    let player = |name| Player::new(server.client(name), server.pki().ca_pem());
    renew(server).await;
    let (mut alone, nobody) = (player("alpha"), player("beta"));
    for (_, op) in program.iter().filter(|(who, _)| *who == Who::Alpha) {
        alone.step(&wire, op, &nobody).await;
    }

    renew(server).await;
    let (mut alpha, mut beta) = (player("alpha"), player("beta"));
    for (who, op) in program {
        match who {
            Who::Alpha => alpha.step(&wire, op, &beta).await,
            Who::Beta => beta.step(&wire, op, &alpha).await,
        }
    }
    let seen = Answered { answered: alpha.answered, refused: alpha.transcript.len() - alpha.answered };
    for (at, (without, with)) in alone.transcript.iter().zip(&alpha.transcript).enumerate() {
        if without != with {
            return (Err(format!("call {at} differs\n  alone: {without}\n  amid:  {with}")), seen);
        }
    }
    let common = alpha.listed_all(&wire).await.intersection(&beta.made()).cloned().collect::<Vec<_>>();
    if !common.is_empty() {
        return (Err(format!("alpha lists what beta made: {common:?}")), seen);
    }
    (Ok(()), seen)
}

/// Deletes both tenants with all that they hold, and creates them anew, with the same names.
async fn renew(server: &TestServer) {
    let mut admin = server.client("operator").admin();
    for name in ["alpha", "beta"] {
        let request =
            v1::DeleteTenantRequest { reference: format!("name:{name}"), cascade: true, ..Default::default() };
        admin.delete_tenant(request).await.unwrap();
        let request = v1::CreateTenantRequest { tenant: Some(fixture::a_tenant(name)), ..Default::default() };
        admin.create_tenant(request).await.unwrap();
    }
}
