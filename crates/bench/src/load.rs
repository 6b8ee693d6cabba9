//! Load: a number of callers, each with one call at a time, for a fixed time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::wire::Client;
use crate::{Result, machine};

/// The result of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Calls per second.
    pub(crate) rate: f64,
    /// The 99th percentile of the duration of calls, in milliseconds.
    pub p99: f64,
    /// The server's CPU time per call, in microseconds.
    pub(crate) processor: f64,
}

/// The server to call, and the connections to call it on.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) clients: Vec<Client>,
    /// Callers on each connection.
    pub(crate) callers: usize,
    pub(crate) path: &'static str,
    /// The process that answers.
    pub(crate) pid: u32,
}

/// Calls for this time, with requests that a function makes from the number of the call and of the caller.
///
/// # Errors
/// Fails if any call fails.
pub(crate) async fn run<R>(side: &Side, time: Duration, request: R) -> Result<Measured>
where
    R: Fn(usize, usize) -> Bytes + Clone + Send + 'static,
{
    let mut callers = JoinSet::new();
    let used = machine::processor_seconds(side.pid);
    let start = Instant::now();
    for caller in 0..side.clients.len() * side.callers {
        let mut client = side.clients[caller % side.clients.len()].clone();
        let (path, request) = (side.path, request.clone());
        callers.spawn(async move {
            let mut times = Vec::with_capacity(4096);
            while start.elapsed() < time {
                let body = request(caller, times.len());
                let begin = Instant::now();
                client.unary(path, body).await?;
                times.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok::<_, tonic::Status>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = callers.join_next().await {
        times.extend(done??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let used = machine::processor_seconds(side.pid) - used;
    times.sort_unstable();
    let calls = times.len() as f64;
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    Ok(Measured { rate: calls / seconds, p99: f64::from(p99) / 1_000.0, processor: used / calls * 1e6 })
}
