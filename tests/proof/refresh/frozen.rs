//! A server that stands still while the response to a refresh comes, for longer than the refresh may take: it has the response when it goes on.

use std::time::Duration;

use jackfield_testkit::proof;
use jackfield_testkit::provider::Gate;
use jackfield_testkit::{Backend, Program, ProviderFault, ProviderOptions, Site};
use rustix::process::Signal;
use tokio::time::sleep;

use super::world::World;

const TIMEOUT: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_came_meanwhile_is_stored() {
    let _turn = proof::turn();
    let mut site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.config_mut().refresh.timeout = TIMEOUT;
    site.prepare().await;
    let process = site.start();
    let world = World::on(&process, ProviderOptions::default()).await;
    for round in 0..ROUNDS {
        let grant = world.expired(&format!("ada-{round}")).await;
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::none().held(&gate)]);
        let freeze = async {
            world.sent(round + 1).await;
            process.signal(Signal::STOP);
            gate.open();
            sleep(TIMEOUT + Duration::from_secs(1)).await;
            process.signal(Signal::CONT);
        };
        let (issued, ()) = tokio::join!(world.issue(&grant.credential), freeze);
        let live = world.provider.live(grant.family).expect("the grant has not ended");
        assert_eq!(issued.expect("a token").access_token, live.access_token, "round {round}");
    }
    proof::report(&format!("{ROUNDS} responses came while the server stood still, and each is stored"));
}
