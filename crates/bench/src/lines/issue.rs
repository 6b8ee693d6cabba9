//! Repeated IssueAccessToken of one credential, against a tonic server that answers the same request with the same
//! message and does nothing else.

use bytes::Bytes;
use jackfield_api::v1;
use prost::Message as _;

use super::{Bench, Rounds};
use crate::load::Side;
use crate::table::{Line, Target};
use crate::{Result, bare, wire};

/// The number of connections, and of callers on each.
const CONNECTIONS: usize = 4;
const CALLERS: usize = 8;
pub(crate) const ISSUE: &str = "/jackfield.v1.CredentialsService/IssueAccessToken";

pub(crate) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    let rounds = rounds(bench, &[], bare::Job::default(), bare::ECHO).await?;
    let (name, database) = ("IssueAccessToken", bench.world.name());
    Ok(vec![rounds.throughput(name, database, Target::AtLeast(0.75)), rounds.p99(name, database, Target::AtMost(1.5))])
}

/// Measures repeated IssueAccessToken of one credential, by Jackfield with these settings, and by a baseline that gives the same answer to
/// the same request at a path.
pub(super) async fn rounds(bench: &Bench<'_>, settings: &[&str], job: bare::Job, path: &'static str) -> Result<Rounds> {
    let jackfield = bench.jackfield_with(settings).await?;
    let pki = jackfield.pki();
    let request = request(&bench.world.credential);
    let mut ours = Side {
        clients: wire::connect_many(jackfield.address, &pki, CONNECTIONS).await?,
        callers: CALLERS,
        path: ISSUE,
        pid: jackfield.pid(),
    };
    let answer = ours.clients[0].unary(ISSUE, request.clone()).await?;

    let baseline = bench.bare(bare::Job { pki: pki.clone(), token: answer.to_vec(), ..job })?;
    let mut theirs = Side {
        clients: wire::connect_many(baseline.address()?, &pki, CONNECTIONS).await?,
        callers: CALLERS,
        path,
        pid: baseline.pid(),
    };
    if theirs.clients[0].unary(path, request.clone()).await? != answer {
        return Err("the baseline answers with another message".into());
    }
    let same = move |_, _| request.clone();
    let traces = bench.sink.traces();
    let rounds = bench.rounds((&ours, same.clone()), (&theirs, same)).await?;
    if bench.sink.traces() == traces {
        return Err("no trace of a call has arrived".into());
    }
    jackfield.stop().await?;
    Ok(rounds)
}

/// The request for the token of a credential.
pub(crate) fn request(credential: &str) -> Bytes {
    let request = v1::IssueAccessTokenRequest { reference: credential.to_owned(), ..Default::default() };
    Bytes::from(request.encode_to_vec())
}
