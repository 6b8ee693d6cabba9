//! A reference: what many services do. A lock with a lifetime of 10 s, as in Redis, and under it: read, exchange, write. It runs the same cases
//! against the same provider.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use jackfield_testkit::provider::{FamilyId, ProviderTotals};
use jackfield_testkit::{Provider, ProviderOptions, Rng};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::lost::Planted;
use super::{AT_ONCE, PATIENCE, ProviderFault, fail_at_random};

/// The lifetime of a lock.
const LOCKED: Duration = Duration::from_secs(10);
/// The wait before a lock is tried again that another process has.
const POLL: Duration = Duration::from_millis(100);
/// The processes that share rows and locks.
const PROCESSES: usize = 2;
/// The times that a row is looked at, until it has a token or is refused, and the pause between them.
const LOOKS: usize = 80;
const PAUSE: Duration = Duration::from_millis(250);

/// The rows and locks of all processes, which outlive each of them.
struct Shared {
    /// The host and port of the provider.
    host: String,
    rows: Vec<Mutex<Row>>,
    locks: Mutex<HashMap<usize, Instant>>,
}

#[derive(Clone)]
struct Row {
    family: FamilyId,
    refresh_token: String,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Expired,
    Good,
    /// The provider refused the refresh token.
    Refused,
}

/// Runs cases, and returns how many grants were lost, and what the provider counted. Callers who leave do not end anything here.
pub(super) async fn run(options: ProviderOptions, mut rng: Rng, cases: usize) -> (usize, ProviderTotals) {
    let provider = Provider::start(options).await;
    let mut lost = 0;
    for number in 0..cases.div_ceil(AT_ONCE) {
        let count = AT_ONCE.min(cases - number * AT_ONCE);
        let shared = Arc::new(Shared::with(&provider, count));
        let mut processes: Vec<_> = (0..PROCESSES).map(|_| JoinSet::new()).collect();
        fail_at_random(&provider, rng.fork(), &Planted::default(), None, false);
        for row in 0..count {
            for _ in 0..rng.between(1, 4) {
                let (shared, begin) = (Arc::clone(&shared), Duration::from_millis(rng.below(200)));
                let process = usize::try_from(rng.below(PROCESSES as u64)).expect("an index");
                processes[process].spawn(async move {
                    sleep(begin).await;
                    shared.token(row).await;
                });
            }
        }
        // The crash of one process, as in the cases of the harness. What its callers asked for ends with it.
        if number % 2 == 0 {
            sleep(Duration::from_millis(rng.below(1_500))).await;
            processes[0].abort_all();
        }
        for process in &mut processes {
            while process.join_next().await.is_some() {}
        }
        provider.fail_by(|_, _| ProviderFault::none());
        let kept = join_all((0..count).map(|row| shared.is_kept(&provider, row))).await;
        lost += kept.into_iter().filter(|kept| !kept).count();
    }
    (lost, provider.totals())
}

// === impl Shared ===

impl Shared {
    fn with(provider: &Provider, count: usize) -> Self {
        let rows = (0..count).map(|number| {
            let issued = provider.grant(&format!("user-{number}"), &["read", "write"]);
            let (family, state) = (issued.family, State::Expired);
            Mutex::new(Row { family, refresh_token: issued.refresh_token, state })
        });
        let url = provider.token_url();
        let host = url.trim_start_matches("http://").trim_end_matches("/token").to_owned();
        Shared { host, rows: rows.collect(), locks: Mutex::default() }
    }

    fn read(&self, row: usize) -> Row {
        self.rows[row].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, row: usize, change: impl FnOnce(&mut Row)) {
        change(&mut self.rows[row].lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes a lock, unless another process has it (SET NX PX).
    fn lock(&self, row: usize) -> bool {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let is_held = locks.get(&row).is_some_and(|until| *until > Instant::now());
        if !is_held {
            locks.insert(row, Instant::now() + LOCKED);
        }
        !is_held
    }

    /// Gives a lock back (DEL).
    fn unlock(&self, row: usize) {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).remove(&row);
    }

    /// The state of a row after a caller needed its token.
    async fn token(&self, row: usize) -> State {
        let until = Instant::now() + LOCKED;
        while self.read(row).state == State::Expired && Instant::now() < until {
            if !self.lock(row) {
                sleep(POLL).await;
                continue;
            }
            let present = self.read(row);
            if present.state == State::Expired {
                // Without an answer nothing is written, and the next caller sends the same token.
                match timeout(PATIENCE, self.exchange(&present.refresh_token)).await {
                    Ok(Ok((200, answer))) => self.store(row, &answer),
                    Ok(Ok((400, answer))) if answer["error"] == "invalid_grant" => {
                        self.write(row, |row| row.state = State::Refused);
                    }
                    _ => {}
                }
            }
            self.unlock(row);
            break;
        }
        self.read(row).state
    }

    fn store(&self, row: usize, answer: &Value) {
        let token = |name: &str| answer[name].as_str().map(str::to_owned);
        if let (Some(_), Some(refresh_token)) = (token("access_token"), token("refresh_token")) {
            self.write(row, |row| (row.refresh_token, row.state) = (refresh_token, State::Good));
        }
    }

    /// Sends a refresh token. Returns the status and the members of the answer.
    async fn exchange(&self, refresh_token: &str) -> std::io::Result<(u16, Value)> {
        let options = ProviderOptions::default();
        let (client, secret) = (&options.client_id, &options.client_secrets[0]);
        let body =
            format!("grant_type=refresh_token&refresh_token={refresh_token}&client_id={client}&client_secret={secret}");
        let head = format!(
            "POST /token HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.host).await?;
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let malformed = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
        Ok((status, serde_json::from_str(body).unwrap_or_default()))
    }

    /// Returns whether a row has the live tokens of its grant at last.
    async fn is_kept(&self, provider: &Provider, row: usize) -> bool {
        for _ in 0..LOOKS {
            match self.token(row).await {
                State::Good => {
                    let row = self.read(row);
                    return provider.live(row.family).is_ok_and(|live| live.refresh_token == row.refresh_token);
                }
                State::Refused => return false,
                State::Expired => sleep(PAUSE).await,
            }
        }
        false
    }
}
