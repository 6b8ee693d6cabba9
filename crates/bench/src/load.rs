//! Load: a number of callers, each with one call at a time, for a fixed time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{Result, machine};

/// A client that can make calls. Clones share its connections.
pub(crate) trait Call: Clone + Send + 'static {
    /// Makes a call, and reads the whole answer.
    fn call(&mut self, path: &'static str, request: Bytes) -> impl Future<Output = Result<()>> + Send;
}

/// The result of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Calls per second.
    pub(crate) rate: f64,
    /// The median of the duration of calls, in milliseconds.
    pub(crate) p50: f64,
    /// The 99th percentile of the duration of calls, in milliseconds.
    pub(crate) p99: f64,
    /// The server's CPU time per call, in microseconds.
    pub(crate) processor: f64,
}

/// The server to call, and the connections to call it on.
#[derive(Clone, Debug)]
pub(crate) struct Side<C> {
    pub(crate) clients: Vec<C>,
    /// Callers on each connection.
    pub(crate) callers: usize,
    pub(crate) path: &'static str,
    /// The process that answers.
    pub(crate) pid: u32,
}

// === impl Side ===

impl<C: Clone> Side<C> {
    /// The same with one caller on one connection.
    pub(crate) fn one_caller(&self) -> Self {
        Side { clients: self.clients[..1].to_vec(), callers: 1, ..*self }
    }
}

/// Calls for this time, with requests that a function makes from the number of the call and of the caller.
///
/// # Errors
/// Fails if any call fails.
pub(crate) async fn run<C, R>(side: &Side<C>, time: Duration, request: R) -> Result<Measured>
where
    C: Call,
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
                client.call(path, body).await?;
                times.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Result::Ok(times)
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
    let percentile =
        |percent: usize| f64::from(times.get(times.len() * percent / 100).copied().unwrap_or_default()) / 1_000.0;
    let (p50, p99) = (percentile(50), percentile(99));
    Ok(Measured { rate: calls / seconds, p50, p99, processor: used / calls * 1e6 })
}
