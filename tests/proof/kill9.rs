//! Kill -9: what was acknowledged survives.

use jackfield_testkit::{Backend, Process, Program, Site, proof};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_again_on_what_a_kill_left_behind() {
    let _turn = proof::turn();
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let mut times = Vec::new();
    for _ in 0..10 {
        let process: Process = site.start();
        times.push(process.start_time());
        process.kill();
    }
    proof::report(&format!("{times:?} {:?}", proof::sync_latency(site.directory())));
}
