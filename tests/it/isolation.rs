//! Two tenants never affect each other: not in what is listed, counted, taken, found or refused.

mod authorizations;
mod calls;
mod compare;
mod logins;
mod matrix;
mod program;
mod sources;
mod texts;
mod wire;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tokio::runtime::Handle;

use jackfield_testkit::{TestServer, on_both};

use compare::{Answered, PAIR, Program, compare};
use logins::{LoginSystem, limit_attempts};
use program::{METHODS, program};
use wire::Wire;

/// The number of programs; the variable sets another one.
const PROGRAMS: u32 = 48;
const PROGRAMS_VARIABLE: &str = "JACKFIELD_ISOLATION_PROGRAMS";

on_both! {
    /// The answers of one tenant are the same with and without another, whatever both do with the same names, external
    /// ids, request ids, chosen ids and login ids, and with references to each other's ids, page tokens and sessions.
    async fn a_tenant_cannot_tell_whether_there_is_another(backend: Backend) {
        let server = TestServer::start_with(backend, limit_attempts).await;
        let system = LoginSystem::start([PAIR.alpha.to_owned(), PAIR.beta.to_owned()]).await;
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
            // The strategy is sampled here instead of by `run`, so that answers can be counted as well.
            let counted = std::cell::RefCell::new(&mut answered);
            let result = runner.run(&program().prop_map(Program), |Program(program)| {
                let (found, seen) = handle.block_on(compare(&server, &system, PAIR, &program));
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

#[test]
fn programs_have_every_method_of_tenants() {
    let wire = Wire::new();
    let missing: Vec<_> = wire.methods().filter(|method| !METHODS.contains(&method.name())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[expect(clippy::disallowed_methods, reason = "a variable of the tests, not of the server")]
fn programs() -> u32 {
    std::env::var(PROGRAMS_VARIABLE).ok().and_then(|count| count.parse().ok()).unwrap_or(PROGRAMS)
}
