//! Five hundred callers at each of three processes on one database, who ask for the same expired token at once: one exchange.

use std::time::{Duration, Instant};

use futures::future::join_all;
use jackfield_testkit::proof;
use jackfield_testkit::provider::Gate;
use jackfield_testkit::{Backend, Client, Process, Program, ProviderFault, ProviderOptions, Site};
use tokio::time::sleep;

use super::world::{self, World};

const PROCESSES: usize = 3;
/// The callers of each process: so many connections, and so many callers on each.
const CONNECTIONS: usize = 10;
const CALLERS: usize = 50;
/// The time for which the answer is held back after all calls have begun, so that all wait for it.
const HELD: Duration = Duration::from_secs(2);

mod postgres {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn callers_of_several_processes_have_one_exchange() {
        super::check().await;
    }
}

async fn check() {
    let _turn = proof::turn();
    let mut site = Site::new(Backend::Postgres, Program::Jackfield);
    // By default one principal has at most 250 calls.
    site.config_mut().limits.max_calls_per_identity = 750;
    site.prepare().await;
    let processes: Vec<Process> = (0..PROCESSES).map(|_| site.start()).collect();
    let world = World::on(&processes[0], ProviderOptions::default()).await;
    let grant = world.expired("ada").await;
    let clients: Vec<Client> =
        processes.iter().flat_map(|process| (0..CONNECTIONS).map(move |_| process.client("alpha"))).collect();
    // Connections are made before the calls that count.
    for explained in join_all(clients.iter().map(|client| world::explain_by(client, &grant.credential))).await {
        explained.expect("an explanation");
    }

    let gate = Gate::closed();
    let held = gate.clone();
    world.provider.fail_by(move |_, _| ProviderFault::none().held(&held));
    let callers = clients.iter().flat_map(|client| std::iter::repeat_n(client, CALLERS));
    let calls = join_all(callers.map(|client| world.issue_by(client, &grant.credential)));
    let opening = async {
        world.sent(1).await;
        sleep(HELD).await;
        gate.open();
        Instant::now()
    };
    let (issued, opened) = tokio::join!(calls, opening);
    let (last, asked) = (opened.elapsed(), world.provider.requests().len());

    let live = world.provider.live(grant.family).expect("the grant has not ended");
    let totals = world.provider.totals();
    let calls = issued.len();
    let good = issued.iter().flatten().filter(|issued| issued.access_token == live.access_token).count();
    proof::report(&format!(
        "{calls} callers at {PROCESSES} processes: exchanges={} requests={asked} the live token={good}; the last answer {} ms after the \
         provider's",
        totals.exchanges,
        last.as_millis(),
    ));
    let refusals: Vec<_> = issued.iter().filter_map(|issued| issued.as_ref().err()).take(3).collect();
    assert_eq!((totals.exchanges, asked, totals.reuses), (1, 1, 0));
    assert_eq!(good, PROCESSES * CONNECTIONS * CALLERS, "{refusals:?}");
}
