//! A lossy network between a server and its PostgreSQL. It forwards everything, and knows enough of the protocol to
//! lose a COMMIT or the answer to it. Connections through it are not encrypted.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::proof::Rng;

/// A proxy in front of one address. It stops when this value is dropped.
pub struct Proxy {
    address: SocketAddr,
    url: String,
    shared: Arc<Shared>,
}

/// The fate of a COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The COMMIT arrives and is answered, but the answer is lost together with the connection.
    AnswerLost,
    /// As before, and from then on the database is unreachable.
    AnswerLostAndAway,
    /// The connection is lost before the COMMIT arrives.
    Lost,
    /// The connection to the client is lost, and the COMMIT reaches the server only after [`Proxy::release`].
    Held,
}

struct Shared {
    server: SocketAddr,
    plan: Mutex<Plan>,
    lost: AtomicU64,
    reachable: AtomicBool,
    ended: AtomicBool,
    /// Both ends of all connections, to cut them, with the numbers of the connections.
    streams: Mutex<Vec<(u64, TcpStream)>>,
    /// Connections to the server whose COMMIT is held.
    held: Mutex<Vec<(TcpStream, Vec<u8>)>>,
}

/// The COMMITs to interfere with: those of transactions with a statement that contains a text.
#[derive(Default)]
struct Plan {
    next: Option<(String, Fate)>,
    share: Option<Share>,
}

/// A percentage of such COMMITs.
struct Share {
    about: Vec<String>,
    rng: Rng,
    percent: u64,
    fates: Vec<Fate>,
}

/// One connection through the proxy.
struct Link {
    number: u64,
    /// The answer to the COMMIT under way is not passed on.
    swallow: AtomicBool,
    then_away: AtomicBool,
}

// === impl Proxy ===

impl Proxy {
    /// Starts in front of the database of a URL.
    ///
    /// # Panics
    /// Panics if the URL names no host and port, or if no port is free.
    pub fn before(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let (authority, database) = rest.split_once('/').expect("a URL with a database");
        let (user, host) = authority.rsplit_once('@').expect("a URL with a user");
        let server = host.replace("localhost", "127.0.0.1").parse().expect("an address and a port");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let separator = if database.contains('?') { '&' } else { '?' };
        let url = format!("{scheme}://{user}@{address}/{database}{separator}sslmode=disable");
        let shared = Arc::new(Shared {
            server,
            plan: Mutex::default(),
            lost: AtomicU64::new(0),
            reachable: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            streams: Mutex::default(),
            held: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting));
        Self { address, url, shared }
    }

    /// The URL through the proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Gives this fate to the next COMMIT of a transaction with a statement that contains this text.
    pub fn lose(&self, about: &str, fate: Fate) {
        lock(&self.shared.plan).next = Some((about.to_owned(), fate));
    }

    /// Gives one of these fates to a percentage of the COMMITs of transactions with a statement that contains one of
    /// these texts.
    pub fn lose_some(&self, about: &[&str], rng: Rng, percent: u64, fates: &[Fate]) {
        let about = about.iter().map(|&text| text.to_owned()).collect();
        lock(&self.shared.plan).share = Some(Share { about, rng, percent, fates: fates.to_vec() });
    }

    /// Stops losing anything.
    pub fn lose_nothing(&self) {
        *lock(&self.shared.plan) = Plan::default();
    }

    /// The number of COMMITs that had such a fate.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::SeqCst)
    }

    /// Cuts all connections and refuses new ones, or accepts them again.
    pub fn set_reachable(&self, reachable: bool) {
        self.shared.set_reachable(reachable, None);
    }

    /// Returns whether it accepts connections.
    pub fn is_reachable(&self) -> bool {
        self.shared.reachable.load(Ordering::SeqCst)
    }

    /// Lets the held COMMITs arrive.
    pub fn release(&self) {
        for (mut server, commit) in std::mem::take(&mut *lock(&self.shared.held)) {
            let _ = server.write_all(&commit);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.set_reachable(false, None);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

// === impl Shared ===

impl Shared {
    /// Cuts the named connection last: when its owner notices the loss, the others must already be gone.
    fn set_reachable(&self, reachable: bool, last: Option<u64>) {
        self.reachable.store(reachable, Ordering::SeqCst);
        if !reachable {
            let mut streams = std::mem::take(&mut *lock(&self.streams));
            streams.sort_by_key(|(number, _)| Some(*number) == last);
            for (_, stream) in streams {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// The fate of the COMMIT of a transaction with these statements.
    fn fate(&self, statements: &[Arc<str>]) -> Option<Fate> {
        let is_about = |text: &String| statements.iter().any(|statement| statement.contains(text.as_str()));
        let mut plan = lock(&self.plan);
        let next = plan.next.take_if(|(text, _)| is_about(text)).map(|(_, fate)| fate);
        let fate = next.or_else(|| {
            let share = plan.share.as_mut().filter(|share| share.about.iter().any(is_about))?;
            share.rng.percent(share.percent).then(|| *share.rng.pick(&share.fates))
        });
        self.lost.fetch_add(u64::from(fate.is_some()), Ordering::SeqCst);
        fate
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, client) in (0..).zip(listener.incoming()) {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        if !shared.reachable.load(Ordering::SeqCst) {
            continue;
        }
        // If the server is unreachable, the client sees its connection end.
        let Ok(server) = TcpStream::connect(shared.server) else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ends = [&client, &client, &server, &server].map(TcpStream::try_clone);
        let [Ok(client_end), Ok(client_cut), Ok(server_end), Ok(server_cut)] = ends else { continue };
        lock(&shared.streams).extend([(number, client_cut), (number, server_cut)]);
        if !shared.reachable.load(Ordering::SeqCst) {
            shared.set_reachable(false, None);
        }
        let link = Arc::new(Link { number, swallow: AtomicBool::new(false), then_away: AtomicBool::new(false) });
        let (one, other) = ((Arc::clone(shared), Arc::clone(&link)), (Arc::clone(shared), link));
        std::thread::spawn(move || {
            let ended = requests(&client, &server, &one.0, &one.1);
            if !matches!(ended, Ok(Kept::Server)) {
                let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            }
        });
        std::thread::spawn(move || {
            let _ = answers(&server_end, &client_end, &other.0, &other.1);
            let _ = (client_end.shutdown(Shutdown::Both), server_end.shutdown(Shutdown::Both));
        });
    }
}

/// The end of the request direction.
enum Kept {
    Nothing,
    /// The connection to the server stays open.
    Server,
}

/// Forwards what the client sends.
fn requests(mut client: &TcpStream, mut server: &TcpStream, shared: &Shared, link: &Link) -> io::Result<Kept> {
    // The first message has no type.
    let mut head = [0; 4];
    client.read_exact(&mut head)?;
    server.write_all(&[&head[..], &rest(client, head)?].concat())?;
    let mut prepared: HashMap<Vec<u8>, Arc<str>> = HashMap::new();
    let mut statements: Vec<Arc<str>> = Vec::new();
    loop {
        let (kind, message) = message(client)?;
        let body = &message[5..];
        match kind {
            b'P' => {
                let mut parts = body.splitn(3, |byte| *byte == 0);
                let (name, sql) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                prepared.insert(name.to_vec(), String::from_utf8_lossy(sql).into());
            }
            b'B' => {
                let name = body.splitn(3, |byte| *byte == 0).nth(1).unwrap_or_default();
                statements.extend(prepared.get(name).cloned());
            }
            b'Q' => {
                let sql = String::from_utf8_lossy(body).trim_end_matches('\0').trim().to_owned();
                if sql.eq_ignore_ascii_case("COMMIT") {
                    let fate = shared.fate(&std::mem::take(&mut statements));
                    match fate {
                        Some(Fate::Lost) => return Ok(Kept::Nothing),
                        Some(Fate::Held) => {
                            lock(&shared.held).push((server.try_clone()?, message));
                            client.shutdown(Shutdown::Both)?;
                            return Ok(Kept::Server);
                        }
                        Some(Fate::AnswerLost | Fate::AnswerLostAndAway) => {
                            link.then_away.store(fate == Some(Fate::AnswerLostAndAway), Ordering::SeqCst);
                            link.swallow.store(true, Ordering::SeqCst);
                        }
                        None => {}
                    }
                } else if sql.to_ascii_uppercase().starts_with("BEGIN") {
                    statements.clear();
                } else {
                    statements.push(sql.into());
                }
            }
            _ => {}
        }
        server.write_all(&message)?;
    }
}

/// Forwards what the server answers.
fn answers(mut server: &TcpStream, mut client: &TcpStream, shared: &Shared, link: &Link) -> io::Result<()> {
    loop {
        let (kind, message) = message(&mut server)?;
        if !link.swallow.load(Ordering::SeqCst) {
            client.write_all(&message)?;
        } else if kind == b'Z' {
            // Ready for the next statement: the transaction is over.
            if link.then_away.load(Ordering::SeqCst) {
                shared.set_reachable(false, Some(link.number));
            }
            return Ok(());
        }
    }
}

/// The next message, with its type and its length.
fn message(mut stream: impl io::Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let length = [head[1], head[2], head[3], head[4]];
    Ok((head[0], [&head[..], &rest(stream, length)?].concat()))
}

/// The rest of a message after its length.
fn rest(mut stream: impl io::Read, length: [u8; 4]) -> io::Result<Vec<u8>> {
    let mut rest = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(4)];
    stream.read_exact(&mut rest)?;
    Ok(rest)
}
