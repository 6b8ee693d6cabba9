//! AuthenticateUser over a warm pool to a system that demands a client certificate, against a tonic server that asks the
//! same system by one call, and against that call alone.

use bytes::Bytes;
use jackfield_api::v1;
use prost::Message as _;

use super::Bench;
use crate::https::{self, Https};
use crate::load::Side;
use crate::system::System;
use crate::table::{Line, Target};
use crate::{Result, bare, wire};

/// The number of connections, and of callers on each.
const CONNECTIONS: usize = 4;
const CALLERS: usize = 8;
pub(crate) const LOGIN: &str = "/jackfield.v1.ConnectorService/AuthenticateUser";

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let jackfield = bench.jackfield().await?;
    let (pki, system) = (jackfield.pki(), System::start()?);
    let channel = wire::connect(jackfield.address, &pki).await?;
    let trust = system.import_trust(&channel).await?;
    let connector = system.connector(&channel, &trust, "login").await?;
    let request = request(&connector);
    let mut ours = Side {
        clients: wire::connect_many(jackfield.address, &pki, CONNECTIONS).await?,
        callers: CALLERS,
        path: LOGIN,
        pid: jackfield.pid(),
    };
    let answer = ours.clients[0].unary(LOGIN, request.clone()).await?;
    if v1::AuthenticateUserResponse::decode(answer.clone())?.outcome() != v1::LoginOutcome::Accepted {
        return Err("the log-in is not accepted".into());
    }

    let peer = system.peer("baseline")?;
    let job = bare::Job { pki: pki.clone(), login: Some((peer.clone(), answer.to_vec())), ..Default::default() };
    let baseline = bench.bare(job)?;
    let mut theirs = Side {
        clients: wire::connect_many(baseline.address()?, &pki, CONNECTIONS).await?,
        callers: CALLERS,
        path: bare::LOGIN,
        pid: baseline.pid(),
    };
    if theirs.clients[0].unary(bare::LOGIN, request.clone()).await? != answer {
        return Err("the baseline answers with another message".into());
    }
    let alone =
        Side { clients: vec![Https::new(&peer)?], callers: CONNECTIONS * CALLERS, path: "", pid: std::process::id() };

    let same = move |_, _| request.clone();
    let body = https::body("ada", "correct horse");
    let call = move |_, _| body.clone();
    let (name, database) = ("AuthenticateUser", bench.world.name());
    let rounds = bench.rounds((&ours, same.clone()), (&theirs, same.clone())).await?;
    let mut lines = vec![
        rounds.throughput(name, database, Target::AtLeast(0.85)),
        rounds.added_p50(name, database, Target::AtMost(1.0)),
    ];
    let (mut one, mut other) = (ours.clone(), theirs.clone());
    for side in [&mut one, &mut other] {
        side.clients.truncate(1);
        side.callers = 1;
    }
    let rounds = bench.rounds((&one, same.clone()), (&other, same.clone())).await?;
    lines.push(rounds.added_p50("AuthenticateUser, one caller", database, Target::AtMost(1.0)));
    let of = "AuthenticateUser, baseline is the call alone";
    let rounds = bench.rounds((&ours, same.clone()), (&alone, call.clone())).await?;
    lines.push(rounds.throughput(of, database, Target::None));
    let alone = Side { callers: 1, ..alone };
    let rounds = bench.rounds((&one, same), (&alone, call)).await?;
    lines.push(rounds.added_p50("AuthenticateUser, one caller, baseline is the call alone", database, Target::None));
    jackfield.stop().await?;
    Ok(lines)
}

/// The request of a log-in through a connector.
pub(crate) fn request(connector: &str) -> Bytes {
    let request = v1::AuthenticateUserRequest {
        connector: connector.to_owned(),
        login_id: "ada".to_owned(),
        password: "correct horse".to_owned(),
        ..Default::default()
    };
    Bytes::from(request.encode_to_vec())
}
