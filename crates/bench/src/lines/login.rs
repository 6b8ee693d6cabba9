//! AuthenticateUser over a warm pool to a system that demands a client certificate, against a program that asks the system itself,
//! and against a tonic server that asks it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jackfield_api::v1;
use prost::Message as _;

use super::Bench;
use crate::https::{self, Https, Peer};
use crate::load::Side;
use crate::process::pki;
use crate::system::System;
use crate::table::{Line, Target};
use crate::wire::Client;
use crate::{Result, bare, wire};

/// The time that a system takes. Checking a password takes longer: a hash of it is made to be slow.
const THINKS: Duration = Duration::from_millis(10);
/// The number of connections, and of callers on each.
const CONNECTIONS: usize = 4;
const CALLERS: usize = 8;
/// The number of users that log in.
const USERS: usize = 1_000;
pub(crate) const LOGIN: &str = "/jackfield.v1.ConnectorService/AuthenticateUser";

const PASSWORD: &str = "correct horse";

/// The same request for each user.
#[derive(Clone)]
struct Requests(Arc<[Bytes]>);

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let jackfield = bench.jackfield().await?;
    let pki = jackfield.pki();
    let channel = wire::connect(jackfield.address, &pki).await?;
    let mut lines = Vec::new();
    for thinks in [THINKS, Duration::ZERO] {
        let system = System::start(thinks)?;
        let trust = system.import_trust(&channel).await?;
        let connector = system.connector(&channel, &trust, &format!("login, {thinks:?}")).await?;
        let mut ours = Side {
            clients: wire::connect_many(jackfield.address, &pki, CONNECTIONS).await?,
            callers: CALLERS,
            path: LOGIN,
            pid: jackfield.pid(),
        };
        let peer = system.peer("baseline")?;
        let requests = Requests::of(|user| request(&connector, user));
        let answer = ours.clients[0].unary(LOGIN, requests.at(0, 0)).await?;
        if v1::AuthenticateUserResponse::decode(answer.clone())?.outcome() != v1::LoginOutcome::Accepted {
            return Err("the log-in is not accepted".into());
        }
        let mut name = "AuthenticateUser, the system answers at once";
        if !thinks.is_zero() {
            name = "AuthenticateUser, against a server";
            lines.extend(against_the_call(bench, &ours, &peer, requests.clone()).await?);
        }
        lines.extend(against_a_server(bench, name, &ours, &peer, requests, answer).await?);
    }
    jackfield.stop().await?;
    Ok(lines)
}

/// The lines for a system that takes as long as one that checks a password. The baseline is a program that asks it itself.
async fn against_the_call(
    bench: &Bench<'_>,
    ours: &Side<Client>,
    peer: &Peer,
    requests: Requests,
) -> Result<[Line; 3]> {
    let theirs =
        Side { clients: vec![Https::new(peer)?], callers: CONNECTIONS * CALLERS, path: "", pid: std::process::id() };
    let (name, database) = ("AuthenticateUser", bench.world.name());
    let bodies = Requests::of(|user| https::body(user, PASSWORD));
    let request = move |caller, number| requests.at(caller, number);
    let body = move |caller, number| bodies.at(caller, number);
    let all = bench.rounds((ours, request.clone()), (&theirs, body.clone())).await?;
    let one = bench.rounds((&ours.one_caller(), request), (&theirs.one_caller(), body)).await?;
    Ok([
        all.throughput(name, database, Target::AtLeast(0.85)),
        all.added_p50(name, database, Target::AtMost(1.0)),
        one.added_p50("AuthenticateUser, one caller", database, Target::AtMost(1.0)),
    ])
}

/// The lines against a bare gRPC server that asks the system. They show what Jackfield adds to what any server costs; with a system that
/// answers at once, all work is that of the two sides.
async fn against_a_server(
    bench: &Bench<'_>,
    name: &str,
    ours: &Side<Client>,
    peer: &Peer,
    requests: Requests,
    answer: Bytes,
) -> Result<[Line; 2]> {
    let pki = pki(&bench.world.data);
    let job = bare::Job { pki: pki.clone(), login: Some((peer.clone(), answer.to_vec())), ..Default::default() };
    let baseline = bench.bare(job)?;
    let mut theirs = Side {
        clients: wire::connect_many(baseline.address()?, &pki, CONNECTIONS).await?,
        callers: CALLERS,
        path: bare::LOGIN,
        pid: baseline.pid(),
    };
    if theirs.clients[0].unary(bare::LOGIN, requests.at(0, 0)).await? != answer {
        return Err("the baseline answers with another message".into());
    }
    let database = bench.world.name();
    let same = move |caller, number| requests.at(caller, number);
    let all = bench.rounds((ours, same.clone()), (&theirs, same.clone())).await?;
    let one = bench.rounds((&ours.one_caller(), same.clone()), (&theirs.one_caller(), same)).await?;
    Ok([
        all.throughput(name, database, Target::None),
        one.added_p50(&format!("{name}, one caller"), database, Target::None),
    ])
}

/// The request of a user's log-in through a connector.
pub(crate) fn request(connector: &str, user: &str) -> Bytes {
    let request = v1::AuthenticateUserRequest {
        connector: connector.to_owned(),
        login_id: user.to_owned(),
        password: PASSWORD.to_owned(),
        ..Default::default()
    };
    Bytes::from(request.encode_to_vec())
}

// === impl Requests ===

impl Requests {
    fn of(request: impl Fn(&str) -> Bytes) -> Self {
        Requests((0..USERS).map(|user| request(&format!("ada-{user}"))).collect())
    }

    /// The request of a caller at a number. Users log in one after the other.
    fn at(&self, caller: usize, number: usize) -> Bytes {
        self.0[(number * CONNECTIONS * CALLERS + caller) % USERS].clone()
    }
}
