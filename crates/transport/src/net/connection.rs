//! One HTTP/2 connection, with every limit set and every cause that can end it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::activity::{ActiveCall, Activity};
use super::frames::{FrameMeter, WireState};
use super::http2::{ConnectionError, Http2};
use super::io::{GuardedIo, SharedIo};
use super::state::NetState;
use super::stream::{self, CallParts, OutgoingBytes, ShutdownPhase};
use crate::call::peer::ConnectInfo;
use crate::call::stack::Stack;
use crate::config::Limits;

/// The longest time between two checks of what no event reports.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Clients that came together must not all be sent away together.
const AGE_JITTER: f64 = 0.1;
/// The time that a connection stays open after its calls have ended, so that their clients receive the end.
pub(crate) const CLOSE_DELAY: Duration = Duration::from_secs(1);

/// A connection that is about to be served.
pub(super) struct ServedConnection<'a, C> {
    pub(super) shared: &'a Arc<NetState>,
    pub(super) info: ConnectInfo,
    pub(super) stack: Stack,
    /// Returns the reason once the client's certificate is no longer valid.
    pub(super) certificate_ends: C,
}

/// Notices that none of the data to be sent has been sent for a while.
struct Progress {
    written: u64,
    resets: u64,
    /// Bytes that were counted as handed over but will not be written, because their streams were reset.
    lost: u64,
    since: Instant,
}

/// The graceful shutdown of a connection: its cause, and the time that lists and calls have.
struct Shutdown {
    cause: &'static str,
    lists: Duration,
    calls: Duration,
    end: ShutdownPhase,
}

// === impl ServedConnection ===

impl<C: Future<Output = String>> ServedConnection<'_, C> {
    /// Serves until the end; returns its cause, one of a few words.
    pub(super) async fn serve(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> &'static str {
        let (wire, activity) = (Arc::new(WireState::default()), Arc::new(Activity::new()));
        gathered(self.serve_now(io, wire.clone(), activity.clone()), &wire.turns, || activity.has_several()).await
    }

    async fn serve_now(
        self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        wire: Arc<WireState>,
        activity: Arc<Activity>,
    ) -> &'static str {
        let ServedConnection { shared, info, stack, certificate_ends } = self;
        let limits = &shared.config.limits;
        let (phase, phases) = watch::channel(ShutdownPhase::Open);
        let parts = Arc::new(CallParts {
            stack,
            info: info.clone(),
            outgoing: OutgoingBytes::default(),
            shared: shared.clone(),
        });
        // However this function ends, the calls of the connection end with the sender of the phase.
        let mut begin = |request, respond| {
            let open = ActiveCall::new(activity.clone());
            shared.tasks.spawn(stream::serve(parts.clone(), request, respond, phases.clone(), open));
        };

        let meter = FrameMeter::new(limits);
        let io = SharedIo::new(GuardedIo::new(io, meter, wire.clone(), limits.write_stall_timeout));
        let mut http = Http2::new(io.clone(), limits, wire.clone());

        let start = Instant::now();
        let mut age = pin!(sleep_until(start + jittered(limits.connection_age)));
        let mut certificate_ends = pin!(certificate_ends);
        let (mut lists_end, mut calls_end) = (pin!(sleep_until(start)), pin!(sleep_until(start)));
        let mut close_delay = pin!(sleep_until(start));
        let mut silence = pin!(sleep_until(start));
        let mut last_moves = 0;
        let mut leaving: Option<Shutdown> = None;
        let mut check = tokio::time::interval(check_interval(limits, shared.config.tls.handshake_timeout));
        let mut progress = Progress { written: 0, resets: 0, lost: 0, since: start };
        let (mut certificate_ended, mut draining) = (false, false);

        loop {
            let reached = *phase.borrow();
            let shutdown = tokio::select! {
                ended = poll_fn(|cx| turn(cx, &io, |cx| http.poll_serve(cx, &mut begin))) => {
                    return match (leaving, ended) {
                        (Some(shutdown), _) => shutdown.cause,
                        (None, Err(_)) if wire.flood.load(Ordering::Relaxed) => {
                            tracing::info!(
                                client.address = info.peer().ip().map(display), client.port = info.peer().port(),
                                jackfield.principal = info.principal(),
                                "connection ended: the client floods it"
                            );
                            "flood"
                        }
                        (None, Ok(())) => "client",
                        (None, Err(error)) => {
                            tracing::debug!(client.address = info.peer().ip().map(display), client.port = info.peer().port(), error.message = %error, "connection broke");
                            "error"
                        }
                    };
                }
                // If everything ends at once, lists end as calls do.
                () = lists_end.as_mut(), if leaving.is_some() && reached < ShutdownPhase::ListsEnd
                    && lists_end.deadline() < calls_end.deadline() => {
                    phase.send_replace(ShutdownPhase::ListsEnd);
                    continue;
                }
                // Calls that did not end in their grace get a status, and then the connection is closed.
                () = calls_end.as_mut(), if leaving.is_some() && reached < ShutdownPhase::CallsEnd => {
                    if activity.is_empty() {
                        shared.count_silent();
                    }
                    phase.send_replace(leaving.as_ref().map_or(ShutdownPhase::CallsEnd, |shutdown| shutdown.end));
                    close_delay.as_mut().reset(Instant::now() + CLOSE_DELAY);
                    continue;
                }
                () = close_delay.as_mut(), if reached >= ShutdownPhase::CallsEnd => {
                    return leaving.map_or("cut", |shutdown| shutdown.cause);
                }
                // A client without calls that does not answer, not even the PING that comes with the GOAWAY, is not waited
                // for. Data on its way to it is lost, as if its network had failed.
                () = silence.as_mut(), if leaving.is_some() && reached < ShutdownPhase::CallsEnd => {
                    let (now, moves) = (Instant::now(), wire.moves());
                    if last_moves == moves && activity.idle(now, limits.keepalive_timeout) {
                        shared.count_silent();
                        return leaving.map_or("cut", |shutdown| shutdown.cause);
                    }
                    last_moves = moves;
                    silence.as_mut().reset(now + limits.keepalive_timeout);
                    continue;
                }
                why = certificate_ends.as_mut(), if !certificate_ended => {
                    certificate_ended = true;
                    info.withdraw();
                    tracing::info!(
                        client.address = info.peer().ip().map(display), client.port = info.peer().port(),
                        jackfield.principal = info.principal(),
                        why,
                        "client certificate is no longer valid"
                    );
                    let grace = shared.config.tls.revoked_grace;
                    Shutdown { cause: "certificate", lists: grace, calls: grace, end: ShutdownPhase::Withdrawn }
                }
                () = shared.drain.cancelled(), if !draining => {
                    draining = true;
                    Shutdown::in_order("drain", shared.config.drain.grace)
                }
                () = age.as_mut(), if leaving.is_none() => {
                    Shutdown::in_order("age", limits.connection_age_grace)
                }
                _ = check.tick() => {
                    let now = Instant::now();
                    wire.scrub.store(true, Ordering::Relaxed);
                    if !wire.preface_seen.load(Ordering::Relaxed) && now - start >= shared.config.tls.handshake_timeout {
                        return "no_preface";
                    }
                    // By then streams have ended. What remains belongs to a peer that reads nothing at all.
                    let stall = shared.config.streams.idle_timeout + limits.write_stall_timeout;
                    if progress.stalled(&wire, &parts.outgoing, now, stall) {
                        return "stalled";
                    }
                    if leaving.is_some() || !activity.idle(now, limits.connection_idle_timeout) {
                        continue;
                    }
                    Shutdown::in_order("idle", limits.keepalive_timeout)
                }
            };
            if draining && !wire.preface_seen.load(Ordering::Relaxed) {
                // A client that has not sent its preface has nothing to lose.
                return shutdown.cause;
            }
            http.graceful_shutdown();
            // A second cause can only shorten the time that is left.
            let now = Instant::now();
            for (end, grace) in [(&mut lists_end, shutdown.lists), (&mut calls_end, shutdown.calls)] {
                if leaving.is_none() || now + grace < end.deadline() {
                    end.as_mut().reset(now + grace);
                }
            }
            if leaving.is_none() {
                last_moves = wire.moves();
                silence.as_mut().reset(now + limits.keepalive_timeout);
            }
            leaving = match leaving {
                Some(first) => Some(Shutdown { cause: first.cause, end: first.end.max(shutdown.end), ..first }),
                None => Some(shutdown),
            };
        }
    }
}

// === impl Shutdown ===

impl Shutdown {
    /// Lists can be continued elsewhere, so they end after half of the grace period. The other half is for the page that
    /// each is at: a client that reads it gets all of it, with its token.
    fn in_order(cause: &'static str, grace: Duration) -> Self {
        Shutdown { cause, lists: grace / 2, calls: grace, end: ShutdownPhase::CallsEnd }
    }
}

/// Polls a connection once, and sends what it has written.
fn turn<I: AsyncRead + AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    io: &SharedIo<I>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<Result<(), ConnectionError>>,
) -> Poll<Result<(), ConnectionError>> {
    let polled = poll(cx);
    match io.poll_turn_end(cx) {
        Poll::Ready(Err(error)) if polled.is_pending() => Poll::Ready(Err(error.into())),
        _ => polled,
    }
}

/// Polls a connection once per turn of the scheduler while it has several calls. Responses that are ready at the same time are
/// then written with one system call: each wakes the connection, which would otherwise go before the next of them and write
/// the first one alone. The response to a lone call, or to the last one of several, waits for nothing. Turns are counted.
async fn gathered<F: Future>(connection: F, turns: &AtomicU64, has_several: impl Fn() -> bool) -> F::Output {
    let mut connection = pin!(connection);
    let mut others_went = false;
    std::future::poll_fn(|cx| {
        if !others_went && has_several() {
            others_went = true;
            // A task that wakes itself goes to the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        others_went = false;
        turns.fetch_add(1, Ordering::Relaxed);
        connection.as_mut().poll(cx)
    })
    .await
}

fn jittered(age: Duration) -> Duration {
    // The low bits of a fresh UUID are random; nothing here needs more than that.
    let random = (uuid::Uuid::now_v7().as_u128() & 0xffff) as f64 / f64::from(0xffff_u16);
    age.mul_f64(1.0 - AGE_JITTER + 2.0 * AGE_JITTER * random)
}

/// Returns an interval that is short enough to observe each of these times to within a quarter.
fn check_interval(limits: &Limits, handshake_timeout: Duration) -> Duration {
    let shortest = limits.connection_idle_timeout.min(limits.write_stall_timeout).min(handshake_timeout);
    (shortest / 4).clamp(Duration::from_millis(20), CHECK_INTERVAL)
}

// === impl Progress ===

impl Progress {
    /// Returns whether bodies have handed over data, and none of it was written for `timeout`. Its client opened calls and
    /// keeps its windows closed: the server is done with the calls, but still keeps their responses.
    fn stalled(&mut self, wire: &WireState, outgoing: &OutgoingBytes, now: Instant, timeout: Duration) -> bool {
        let written = wire.data_written.load(Ordering::Relaxed);
        let resets = wire.resets_read.load(Ordering::Relaxed) + outgoing.abandoned();
        let outgoing = outgoing.bytes();
        if resets != self.resets {
            // The rest of those streams is gone; how much it was cannot be seen from here.
            self.resets = resets;
            self.lost = outgoing.saturating_sub(written);
        }
        let pending = outgoing.saturating_sub(written).saturating_sub(self.lost) > 0;
        if written != self.written || !pending {
            self.written = written;
            self.since = now;
        }
        pending && now.saturating_duration_since(self.since) >= timeout
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::oneshot;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn a_lone_call_does_not_wait_for_another_turn() {
        for (has_several, turns_before) in [(false, 0), (true, 1)] {
            let turns = AtomicU64::new(0);
            let mut connection = pin!(gathered(std::future::ready(()), &turns, || has_several));
            for _ in 0..turns_before {
                assert!(futures::poll!(connection.as_mut()).is_pending());
            }
            assert!(futures::poll!(connection).is_ready());
        }
    }

    #[tokio::test]
    async fn what_is_ready_goes_before_the_connection_that_is_woken() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |who: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().unwrap().push(who)
        };
        let ((wake, woken), (answer, answered)) = (oneshot::channel(), oneshot::channel());
        let (begins, goes_on, stream) = (note("connection begins"), note("connection goes on"), note("stream"));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let turns = AtomicU64::new(0);
            let connection = async move {
                begins();
                woken.await.unwrap();
                goes_on();
            };
            gathered(connection, &turns, || true).await;
            assert_eq!(turns.into_inner(), 2);
        });
        tasks.spawn(async move {
            answered.await.unwrap();
            stream();
        });
        // By then the stream waits: it was there before the connection had its second turn.
        while order.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        wake.send(()).unwrap();
        answer.send(()).unwrap();
        tasks.join_all().await;
        assert_eq!(*order.lock().unwrap(), ["connection begins", "stream", "connection goes on"]);
    }
}
