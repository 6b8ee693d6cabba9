//! No grant is lost by our own doing: whatever happens to callers, servers, the network and the clock while credentials are refreshed, no
//! refresh token is used twice, and each credential has the live one or says that it may not.
//!
//! The provider replaces refresh tokens, and ends a grant when one is used twice. Cases run many at a time, so that crashes meet refreshes at
//! every step.

#[path = "../it/refresh/world.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;
use jackfield_api::v1;
use jackfield_domain::{Clock, SystemClock, Timestamp};
use jackfield_testkit::proof::{self, Rng};
use jackfield_testkit::provider::Endpoint;
use jackfield_testkit::{Backend, Client, ProviderFault, ProviderOptions, TestServer};
use tokio::time::{sleep, timeout};

use self::world::{Grant, World};

/// The number of cases on each database; the variable sets another one.
const CASES_VARIABLE: &str = "PROOF_REFRESH_CASES";
const CASES: usize = 600;
/// The cases that run at once.
const AT_ONCE: usize = 200;
/// The longest time that the provider is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// The credentials that are prepared at once, so that a slow machine can keep its deadlines.
const PREPARED_AT_ONCE: usize = 20;
/// The reason of a response whose connection ended.
const CONNECTION_LOST: &str = "CONNECTION_LOST";
/// The reason of a response that did not come in time. On a slow machine there may be others than those of the faults.
const TIMEOUT: &str = "CALLER_TIMEOUT";
/// The reason of a response whose server crashed.
const PROCESS_ENDED: &str = "PROCESS_ENDED";

/// A clock that is wrong by as much as a harness says.
#[derive(Debug, Default)]
struct Skewed(AtomicI64);

/// The outcomes of cases.
#[derive(Default)]
struct Seen {
    /// The number of credentials in each state.
    states: BTreeMap<&'static str, usize>,
    /// The number of responses that count as lost, by the reason that the server gives.
    lost: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

/// The number of faults of each kind.
type Planted = Arc<Mutex<BTreeMap<&'static str, usize>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_grant_is_lost_by_our_own_doing() {
    check(Backend::Sqlite).await;
}

mod postgres {
    use jackfield_testkit::Backend;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_grant_is_lost_by_our_own_doing() {
        super::check(Backend::Postgres).await;
    }
}

async fn check(backend: Backend) {
    let _turn = proof::turn();
    let (seed, cases) = (proof::seed(), proof::setting(CASES_VARIABLE, CASES));
    let mut rng = Rng::new(seed);
    let clock = Arc::new(Skewed::default());
    let mut servers = start(backend, &clock).await;
    let mut world = World::on(&servers[0], ProviderOptions::default()).await;
    let (mut seen, mut crashes, planted) = (Seen::default(), 0, Planted::default());
    for round in 0..cases.div_ceil(AT_ONCE) {
        let count = AT_ONCE.min(cases - round * AT_ONCE);
        // After a restart it has another port.
        world.client = servers[0].client("alpha");
        let grants = stream::iter(0..count).map(|number| {
            let user = format!("user-{round}-{number}");
            let world = &world;
            async move { world.expired(&user).await }
        });
        let grants: Vec<_> = grants.buffered(PREPARED_AT_ONCE).collect().await;
        // The clock of the first server alone: those of replicas differ.
        clock.0.store(i64::try_from(rng.below(40)).expect("seconds") * 1_000_000 - 20_000_000, Ordering::Relaxed);
        let (mut faults, counts) = (rng.fork(), Arc::clone(&planted));
        world.provider.fail_by(move |endpoint, _| match endpoint {
            Endpoint::Token => {
                let (kind, fault) = fault(&mut faults);
                *counts.lock().expect("counts").entry(kind).or_default() += 1;
                fault
            }
            Endpoint::Revocation => ProviderFault::none(),
        });
        let clients: Vec<_> = servers.iter().map(|server| server.client("alpha")).collect();
        let callers = join_all(grants.iter().map(|grant| case(&world, grant, &clients, rng.fork())));
        // Every second round has a crash, at some time while the provider is asked.
        let crash = (round % 2 == 0).then(|| Duration::from_millis(rng.below(1_500)));
        match crash {
            None => drop(callers.await),
            Some(after) => {
                let _ = timeout(after, callers).await;
                let victim = usize::try_from(rng.below(servers.len() as u64)).expect("an index");
                servers[victim].crash();
                servers[victim].restart().await;
                crashes += 1;
            }
        }
        clock.0.store(0, Ordering::Relaxed);
        world.provider.fail_by(|_, _| ProviderFault::none());
        settle(&world, &servers[0], &grants, &mut seen).await;
    }
    let planted = planted.lock().expect("counts").clone();
    seen.check_lost(&planted);
    let Seen { states, lost, wrong } = seen;
    let reuses = world.provider.totals().reuses;
    proof::report(&format!(
        "refreshes on {backend:?}: seed={seed} cases={cases} crashes={crashes} uses of a spent token={reuses} wrong={} {states:?} lost={lost:?}",
        wrong.len()
    ));
    assert!(wrong.is_empty() && reuses == 0, "{}", wrong.join("\n"));
    let lost = states.get("INDETERMINATE").copied().unwrap_or_default();
    assert!(lost > 0 && states["VALID"] > cases / 6 && crashes > 0, "all ends are seen: {states:?}, {crashes} crashes");
}

/// The servers: one on SQLite, and two replicas on PostgreSQL.
async fn start(backend: Backend, clock: &Arc<Skewed>) -> Vec<TestServer> {
    let first = TestServer::start_at(backend, Arc::clone(clock) as _, |config| {
        config.reveal.enabled = true;
        config.refresh.timeout = PATIENCE;
        config.refresh.max_concurrent = 100;
        config.refresh.max_per_second = 1_000;
    });
    let first = first.await;
    let second = first.replica().await;
    std::iter::once(first).chain(second).collect()
}

/// The way in which the provider treats a request, and the reason that a lost response has then; empty if none is lost.
fn fault(rng: &mut Rng) -> (&'static str, ProviderFault) {
    let short = Duration::from_millis(rng.below(100));
    match rng.below(20) {
        0 => (CONNECTION_LOST, ProviderFault::answer_lost()),
        1 => (CONNECTION_LOST, ProviderFault::answer_cut()),
        2 => (CONNECTION_LOST, ProviderFault::unread()),
        3 => ("", ProviderFault::status(503)),
        4 => ("STATUS_UNEXPECTED", ProviderFault::status(500)),
        5 => ("", ProviderFault::too_many(Duration::ZERO)),
        6 => ("BODY_MALFORMED", ProviderFault::web_page()),
        // Longer than the server waits, before and after it acts.
        7 => (TIMEOUT, ProviderFault::none().delayed(PATIENCE * 2)),
        8 => (TIMEOUT, ProviderFault::none().answering_after(PATIENCE * 2)),
        9 => ("", ProviderFault::members([("access_token", serde_json::Value::Null)])),
        10..=14 => ("", ProviderFault::none().answering_after(short * 5)),
        _ => ("", ProviderFault::none().delayed(short)),
    }
}

/// Some callers of one credential, at several servers. Some leave, and some change the credential meanwhile.
async fn case(world: &World, grant: &Grant, clients: &[Client], mut rng: Rng) {
    let callers = (0..rng.between(1, 4)).map(|_| {
        let (mut rng, client) = (rng.fork(), rng.pick(clients).clone());
        async move {
            sleep(Duration::from_millis(rng.below(200))).await;
            let patience = if rng.percent(30) { Duration::from_millis(rng.below(200)) } else { PATIENCE * 10 };
            let _ = timeout(patience, world.issue_by(&client, &grant.credential)).await;
        }
    });
    let callers: Vec<_> = callers.collect();
    let relabels = if rng.percent(20) { rng.between(1, 5) } else { 0 };
    let relabel = async {
        for number in 0..relabels {
            let request = world::relabelled(&grant.credential, number);
            let _ = clients[0].credentials().update_credential(request).await;
        }
    };
    tokio::join!(join_all(callers), relabel);
}

/// Waits until each credential has a token, or says that it may not have one any more, and compares it with the provider.
async fn settle(world: &World, server: &TestServer, grants: &[Grant], seen: &mut Seen) {
    let client = server.client("alpha");
    let states = join_all(grants.iter().map(|grant| settled(world, &client, grant)));
    for (grant, state) in grants.iter().zip(states.await) {
        match state {
            Ok((state, lost)) => {
                *seen.states.entry(state).or_default() += 1;
                for reason in lost {
                    *seen.lost.entry(reason).or_default() += 1;
                }
            }
            Err(what) => seen.wrong.push(format!("{}: {what}", grant.credential)),
        }
    }
}

/// The state of a credential at last, and the reasons of its lost responses.
async fn settled(world: &World, client: &Client, grant: &Grant) -> Result<(&'static str, Vec<String>), String> {
    // A lease of a server that died ends after three times the patience. The pause after a failure is longer, and was counted from a clock
    // that may have been ahead.
    for _ in 0..180 {
        let issued = world.issue_by(client, &grant.credential).await;
        let explained = world::explain_by(client, &grant.credential).await;
        let tokens = world::reveal_by(client, &grant.credential).await;
        // Calls may fail while a server starts or the machine is slow.
        let (Ok(explained), Ok(tokens)) = (explained, tokens) else {
            sleep(Duration::from_millis(500)).await;
            continue;
        };
        let live = world.provider.live(grant.family).map_err(|end| format!("the grant has ended: {end:?}"))?;
        let facts = explained.credential.unwrap_or_default();
        let lost = explained.attempts.iter().filter(|attempt| attempt.outcome() == v1::RefreshOutcome::Lost);
        let lost: Vec<_> = lost.map(|attempt| attempt.reason.clone()).collect();
        match (facts.state(), issued) {
            (v1::CredentialState::Indeterminate, _) if lost.is_empty() => {
                return Err(format!("it is indeterminate, and no response was lost: {facts:?}"));
            }
            (v1::CredentialState::Indeterminate, _) => return Ok(("INDETERMINATE", lost)),
            (v1::CredentialState::NeedsReauth, _) => return Err(format!("it is said to be refused: {facts:?}")),
            (_, Ok(issued)) if tokens.refresh_token != live.refresh_token => {
                return Err(format!(
                    "another refresh token than the live one is stored, version {}",
                    issued.credential_version
                ));
            }
            (v1::CredentialState::Valid, Ok(issued)) if issued.access_token == live.access_token => {
                return Ok(("VALID", lost));
            }
            // An access token was missing in the response, and is fetched again.
            _ => sleep(Duration::from_millis(500)).await,
        }
    }
    Err("it does not settle".to_owned())
}

// === impl Seen ===

impl Seen {
    /// Checks that each response that counts as lost has a fault that explains it.
    fn check_lost(&mut self, planted: &BTreeMap<&'static str, usize>) {
        for (reason, count) in &self.lost {
            let most = planted.get(reason.as_str()).copied().unwrap_or_default();
            if *count > most && !reason.ends_with("TIMEOUT") && reason != PROCESS_ENDED {
                self.wrong
                    .push(format!("{count} responses were lost because of {reason}, and the provider lost {most}"));
            }
        }
    }
}

// === impl Skewed ===

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_micros(self.0.load(Ordering::Relaxed))
    }
}
