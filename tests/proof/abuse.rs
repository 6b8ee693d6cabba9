//! HTTP/2 and TLS abuse: attacks on the real binary by valid clients of another tenant and by strangers, while a client
//! makes health checks. The server has to end each attack in the way stated here, stay within 512 MiB, answer health
//! checks in time, and release the memory afterwards.
//!
//! The limit is compared with the high-water mark that the kernel keeps for the process (`VmHWM`). It misses nothing,
//! and needs neither a control group nor privileges.

mod attacks;
mod logins;
mod victim;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_testkit::fault;
use jackfield_testkit::process::Memory;
use jackfield_testkit::{Backend, Client, Identity, Process, Program, Site, collect, fixture, proof};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use rustls::client::Resumption;
use tokio::sync::watch;
use tonic::Request;

use self::attacks::{ATTACKS, Attack, EXPIRED};
use self::victim::{Times, Victim};
use self::wire::{Caller, End};

/// The memory limit of the process.
const MEMORY: u64 = 512 * MIB;
const MIB: u64 = 1024 * 1024;
/// The limit of memory growth after an attack is over.
const LEFT: u64 = 64 * MIB;
/// The time limit for an attack to end as it should, beyond its duration, and for the server to release memory after
/// that. Both only have to happen, not fast, because the load of the machine is unknown.
const PATIENCE: Duration = Duration::from_secs(60);
/// The lists at once before the attacks, more than the server reads at a time.
const READERS: usize = 32;
/// The number of tries of an attack if only health checks were too slow, for the same reason.
const TRIES: usize = 3;
/// The limit of the 99th percentile of health checks, in milliseconds. On a machine that is busy with other work, the
/// limit is [`REFERENCE_FACTOR`] times what the reference server takes at the same time, at most [`MAX_FACTOR`] times this.
const HEALTH_MILLIS: u128 = 250;
/// The same on a new connection, with its handshake.
const NEW_MILLIS: u128 = 1_000;
const REFERENCE_FACTOR: u128 = 2;
const MAX_FACTOR: u128 = 4;
/// The duration of each attack, in seconds.
const SECONDS_VARIABLE: &str = "PROOF_ABUSE_SECONDS";
const SECONDS: u64 = 3;
/// The pause between two connections of one peer.
const AGAIN: Duration = Duration::from_millis(20);
/// The limit of the server's open files in the attack on them.
const FILES: u64 = 96;

/// The validity in seconds of the certificate whose holder returns with a session ticket.
const VALID: u64 = 3;

/// The outcome of one attack.
#[derive(Debug)]
struct Outcome {
    name: &'static str,
    ends: BTreeMap<End, usize>,
    times: Times,
    /// The times of the reference server.
    reference: Times,
    peak: u64,
    resident: u64,
    faults: Vec<Fault>,
    /// The number of tries.
    tries: usize,
}

/// A deviation from the expected outcome.
#[derive(Debug)]
struct Fault {
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A connection did not end as expected.
    End,
    /// No connection ended as expected.
    NoEnd,
    /// Health checks were not answered.
    Health,
    /// Health checks took too long.
    Time,
    /// Health checks on new connections took too long or were not answered: a handshake must finish within a second.
    TimeOfNew,
    /// The server died, or used or kept too much memory or CPU time.
    Server,
}

/// A server under attack.
struct Field {
    site: Site,
    process: Process,
    caller: Caller,
    victim: Victim,
    reference: Reference,
    /// Indicates whether there are users for log-ins.
    has_users: bool,
    seconds: u64,
    /// The time limit for an expected event.
    patience: Duration,
    tries: usize,
    /// The resident memory before the attacks.
    before: u64,
    /// The peak so far.
    peak: u64,
}

/// A second server, which is not attacked. Its health checks show how busy the machine is.
struct Reference {
    victim: Victim,
    _process: Process,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_survives_every_attack() {
    let _turn = proof::turn();
    let seconds = proof::setting(SECONDS_VARIABLE, SECONDS);
    let field = Field::prepare(Program::Jackfield, seconds, PATIENCE, TRIES).await;
    let results = field.all().await;
    let faults: Vec<_> = results.iter().flat_map(|result| &result.faults).map(|fault| &fault.text).collect();
    report("abuse", &results, seconds);
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The library's own transport has to fail, or these attacks prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_transport_fails() {
    let _turn = proof::turn();
    let seconds = proof::setting(SECONDS_VARIABLE, SECONDS).min(2);
    let field = Field::prepare(Program::Faulty(fault::Fault::StockTransport), seconds, AGAIN, 1).await;
    let results = field.all().await;
    report("abuse of the stock transport", &results, seconds);
    let noticed = |kinds: &[Kind]| {
        results.iter().filter(|result| result.faults.iter().any(|fault| kinds.contains(&fault.kind))).count()
    };
    // A wrong end does not depend on the speed of the machine, and a missing end hardly does.
    let (wrong, none) = (noticed(&[Kind::End]), noticed(&[Kind::End, Kind::NoEnd]));
    assert!(wrong >= 2 && none >= 10, "only {wrong} end wrongly and {none} do not end: {results:#?}");
}

fn report(name: &str, results: &[Outcome], seconds: u64) {
    let mut times = Times::default();
    results.iter().for_each(|result| times.add(&result.times));
    let peak = results.iter().map(|result| result.peak).max().unwrap_or_default() / MIB;
    let failed = results.iter().filter(|result| !result.faults.is_empty()).count();
    let connections: usize = results.iter().flat_map(|result| result.ends.values()).sum();
    proof::report(&format!(
        "{name}: attacks={} tried again={} seconds={seconds} connections={connections} peak={peak}MiB health: asked={} \
         failed={} p99={}ms new p99={}ms; attacks that succeed={failed}",
        results.len(),
        results.iter().map(|result| result.tries - 1).sum::<usize>(),
        times.asked(),
        times.failed + times.failed_new,
        times.p99(),
        times.p99_new(),
    ));
}

/// The limit of a time, given the usual limit and the time of the reference server.
fn limit(usual: u128, reference: u128) -> u128 {
    (reference * REFERENCE_FACTOR).clamp(usual, usual * MAX_FACTOR)
}

/// Reads the large rows with as many readers as there may be. The caches that this fills are part of the memory before the attacks.
async fn fill_caches(client: &Client) {
    let lists = (0..READERS).map(|_| {
        let (mut connectors, mut request) = (client.connectors(), Request::new(v1::ListConnectorsRequest::default()));
        request.set_timeout(PATIENCE / 2);
        async move { collect::items(connectors.list_connectors(request).await).await.expect("a list") }
    });
    futures::future::join_all(lists).await;
}

fn victim_of(site: &Site, process: &Process) -> Victim {
    let (address, ca) = (process.address(), site.pki().ca_pem());
    let leaf = site.pki().client(Identity::of("reader"));
    Victim::start(move || Client::new(address, &ca, Some(&leaf)))
}

// === impl Reference ===

impl Reference {
    async fn prepare() -> Self {
        let site = Site::new(Backend::Sqlite, Program::Jackfield);
        site.prepare().await;
        let process = site.start();
        Self { victim: victim_of(&site, &process), _process: process }
    }
}

// === impl Field ===

impl Field {
    async fn prepare(program: Program, seconds: u64, patience: Duration, tries: usize) -> Self {
        let mut site = Site::new(Backend::Sqlite, Program::Jackfield);
        site.prepare().await;
        // Large rows, so that pages of lists reach their maximum size.
        {
            let process = site.start();
            let client = process.client("beta");
            for number in 0..64 {
                let data = fixture::object([("padding", "x".repeat(48 * 1024).as_str())]);
                let connector = fixture::a_connector(&format!("connector {number}"));
                let connector = Some(v1::Connector { data: Some(data), ..connector });
                let request = v1::CreateConnectorRequest { connector, ..Default::default() };
                client.connectors().create_connector(request).await.expect("a connector");
            }
            process.stop();
        }
        let config = site.config_mut();
        // The timeout is short because the attacks are short.
        config.tls.handshake_timeout = Duration::from_secs(1);
        config.limits.write_stall_timeout = Duration::from_secs(1);
        config.streams.idle_timeout = Duration::from_secs(1);
        config.deadlines.default = Duration::from_secs(1);
        // Longer than any attack: clients that read nothing must be dropped for that, not for an unanswered PING.
        config.limits.keepalive_interval = Duration::from_secs(600);
        site.set_program(program);
        let process = site.start();
        // The library's own transport knows no caller, so it answers attacks alone.
        let has_users = program == Program::Jackfield;
        if has_users {
            logins::prepare(&process.client("beta")).await;
            fill_caches(&process.client("beta")).await;
        }
        let leaf = site.pki().client(Identity::of("beta"));
        let caller =
            Caller { server: process.address(), tls: wire::tls(&site.pki().ca_pem(), &leaf, Resumption::disabled()) };
        let reference = Reference::prepare().await;
        let victim = victim_of(&site, &process);
        tokio::time::sleep(Duration::from_millis(500)).await;
        victim.take();
        reference.victim.take();
        let Memory { resident: before, peak } = process.memory();
        Self { site, process, caller, victim, reference, has_users, seconds, patience, tries, before, peak }
    }

    async fn all(mut self) -> Vec<Outcome> {
        let mut results = Vec::new();
        for attack in ATTACKS {
            results.push(self.attack(attack, self.caller.clone(), &[]).await);
        }
        // Repeats the attacks with a client whose certificate belongs to no principal.
        let leaf = self.site.pki().client(Identity::of("stranger"));
        let tls = wire::tls(&self.site.pki().ca_pem(), &leaf, Resumption::disabled());
        let stranger = Caller { tls, ..self.caller.clone() };
        for attack in ATTACKS.into_iter().filter(Attack::is_of_anybody) {
            eprintln!("by a stranger: {}", attack.name);
            results.push(self.attack(attack, stranger.clone(), &[]).await);
        }
        results.push(self.without_files().await);
        results.push(self.with_an_expired_certificate().await);
        if self.has_users {
            results.push(self.with_wrong_passwords().await);
        }
        for result in &results {
            let Outcome { name, ends, times, reference, peak, resident, faults, .. } = result;
            eprintln!(
                "{name}: {ends:?} health p99={}ms ({}) new={}ms ({}) failed={} peak={}MiB resident={}MiB {faults:?}",
                times.p99(),
                reference.p99(),
                times.p99_new(),
                reference.p99_new(),
                times.failed,
                peak / MIB,
                resident / MIB
            );
        }
        results
    }

    /// Runs an attack, and repeats it if only times are wrong. Some faults are allowed.
    async fn attack(&mut self, attack: Attack, caller: Caller, allowed: &[Kind]) -> Outcome {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut result = self.attack_once(attack, caller.clone()).await;
            result.faults.retain(|fault| !allowed.contains(&fault.kind));
            let is_time = |fault: &Fault| matches!(fault.kind, Kind::Time | Kind::TimeOfNew);
            if result.faults.is_empty() || tries == self.tries || !result.faults.iter().all(is_time) {
                return Outcome { tries, ..result };
            }
            eprintln!("{}: again, because of {:?}", result.name, result.faults);
        }
    }

    /// Runs the peers for the duration of an attack and until it has ended as it should, and then checks the aftermath.
    async fn attack_once(&mut self, attack: Attack, caller: Caller) -> Outcome {
        let end = tokio::time::Instant::now() + attack.least().max(Duration::from_secs(self.seconds));
        let last = end + self.patience;
        let shown = watch::Sender::new(!attack.has_to_end());
        let peers = (0..attack.peers).map(|peer| {
            let (caller, shown) = (caller.clone(), shown.clone());
            tokio::spawn(async move {
                let mut ends = BTreeMap::new();
                let trying = AtomicBool::new(true);
                let over = async {
                    tokio::time::sleep_until(end).await;
                    let _ = tokio::time::timeout_at(last, shown.subscribe().wait_for(|shown| *shown)).await;
                };
                let attacks = async {
                    loop {
                        trying.store(true, Ordering::Relaxed);
                        let ended = (attack.run)(caller.clone(), peer).await;
                        trying.store(false, Ordering::Relaxed);
                        if ended == attack.ends[0] {
                            shown.send_replace(true);
                        }
                        *ends.entry(ended).or_insert(0) += 1;
                        tokio::time::sleep(AGAIN).await;
                    }
                };
                tokio::select! {
                    () = over => {}
                    () = attacks => {}
                }
                if trying.into_inner() {
                    *ends.entry(End::Held).or_insert(0) += 1;
                }
                ends
            })
        });
        let mut ends = BTreeMap::new();
        for of_peer in futures::future::join_all(peers).await {
            for (end, count) in of_peer.expect("a peer") {
                *ends.entry(end).or_insert(0) += count;
            }
        }
        let mut result = self.result(attack.name, ends).await;
        result.expect_ends(&attack);
        result
    }

    /// Evaluates the victim's measurements and the memory.
    async fn result(&mut self, name: &'static str, ends: BTreeMap<End, usize>) -> Outcome {
        let (times, reference) = (self.victim.take(), self.reference.victim.take());
        let mut faults = Vec::new();
        let mut fault =
            |kind, bad: bool, text: String| faults.extend(bad.then(|| Fault { kind, text: format!("{name}: {text}") }));
        fault(Kind::Server, !self.process.is_running(), "the server has ended".to_owned());
        fault(Kind::Health, times.failed > 0, format!("{} health checks were not answered", times.failed));
        fault(
            Kind::Time,
            times.p99() > limit(HEALTH_MILLIS, reference.p99()),
            format!("health checks took {} ms", times.p99()),
        );
        fault(Kind::TimeOfNew, times.failed_new > 0, format!("{} new connections were not answered", times.failed_new));
        fault(
            Kind::TimeOfNew,
            times.p99_new() > limit(NEW_MILLIS, reference.p99_new()),
            format!("health checks took {} ms on a new connection", times.p99_new()),
        );
        let begin = Instant::now();
        let limit = self.before + LEFT;
        while self.process.memory().resident > limit && begin.elapsed() < self.patience {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let memory = self.process.memory();
        fault(Kind::Server, memory.peak > MEMORY.max(self.peak), format!("the server took {} MiB", memory.peak / MIB));
        fault(
            Kind::Server,
            memory.resident > limit,
            format!("{} MiB were not released", (memory.resident - self.before.min(memory.resident)) / MIB),
        );
        self.peak = memory.peak;
        Outcome { name, ends, times, reference, peak: memory.peak, resident: memory.resident, faults, tries: 1 }
    }
}

// === impl Outcome ===

impl Outcome {
    fn expect_ends(&mut self, attack: &Attack) {
        let name = self.name;
        let mut fault = |kind, text: String| self.faults.push(Fault { kind, text: format!("{name}: {text}") });
        let judged = |end: &&End| !matches!(end, End::Held | End::NotBegun);
        for end in self.ends.keys().filter(judged).filter(|end| !attack.ends.contains(end)) {
            fault(Kind::End, format!("it ends by {end:?}"));
        }
        if attack.has_to_end() && !self.ends.contains_key(&attack.ends[0]) {
            fault(Kind::NoEnd, format!("it does not end by {:?}", attack.ends[0]));
        }
    }
}

/// Attacks that need more than peers.
impl Field {
    /// Opens more connections than the server may have open files.
    async fn without_files(&mut self) -> Outcome {
        let silent = ATTACKS.into_iter().find(|attack| attack.name == "silent TCP").expect("an attack");
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        let few = Rlimit { current: Some(FILES), maximum: getrlimit(Resource::Nofile).maximum };
        let before = prlimit(pid, Resource::Nofile, few).expect("fewer open files for the server");
        let (ticks, begin) = (self.process.ticks(), Instant::now());
        // Existing connections stay, but new ones fail.
        let allowed = [Kind::TimeOfNew];
        let attack = Attack { name: "no file descriptors", ..silent };
        let mut result = self.attack(attack, self.caller.clone(), &allowed).await;
        let (spent, seconds) = (self.process.ticks() - ticks, begin.elapsed().as_secs());
        prlimit(pid, Resource::Nofile, before).expect("as many open files as before");
        if spent > seconds * 50 {
            let text = format!("{}: {spent} ticks of CPU time in {seconds} s", result.name);
            result.faults.push(Fault { kind: Kind::Server, text });
        }
        result
    }

    /// A client whose certificate has expired, and which has tickets from before that.
    async fn with_an_expired_certificate(&mut self) -> Outcome {
        let leaf = self.site.pki().client_for(Identity::of("beta"), Duration::from_secs(VALID));
        let resumption = Resumption::in_memory_sessions(16);
        let caller = Caller { tls: wire::tls(&self.site.pki().ca_pem(), &leaf, resumption), ..self.caller.clone() };
        let begin = Instant::now();
        let welcome = (EXPIRED.run)(caller.clone(), 0).await;
        while begin.elapsed() < Duration::from_secs(VALID + 1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.victim.take();
        self.reference.victim.take();
        let mut result = self.attack(EXPIRED, caller, &[]).await;
        if welcome != End::Answered {
            let text = format!("{}: it was refused before it had expired: {welcome:?}", result.name);
            result.faults.push(Fault { kind: Kind::End, text });
        }
        result
    }
}
