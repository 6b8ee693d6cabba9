//! The shutdown of the server: health reports it, then clients get a GOAWAY, then everything is cut.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Drain;
use crate::net::{CLOSE_DELAY, CutShort};
use crate::standard::health::HealthState;

/// The time that tasks have to end after they were asked to, and again after they were cut.
const CUT: Duration = Duration::from_secs(1);

/// The signals of a shutdown, in the order in which they are given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    /// No new connections are accepted. The open ones get a GOAWAY, and end their lists and calls in time.
    pub(crate) drain: CancellationToken,
    /// Everything ends at once.
    pub(crate) kill: CancellationToken,
}

// === impl Signals ===

impl Signals {
    /// Stops in order. Returns whether every call could end by itself. Clients without calls that do not answer do not
    /// count, because they lose nothing.
    pub(crate) async fn stop(
        &self,
        config: &Drain,
        health: &HealthState,
        connections: &TaskTracker,
        cut: &CutShort,
    ) -> bool {
        tracing::info!(drain.delay_ms = millis(config.delay), drain.grace_ms = millis(config.grace), "draining");
        health.start_draining();
        tokio::time::sleep(config.delay).await;
        self.drain.cancel();
        connections.close();
        // By then, connections have ended by themselves.
        let _ = tokio::time::timeout(config.grace + CLOSE_DELAY + CUT, connections.wait()).await;
        self.kill.cancel();
        // Only a task that never yields can outlast this, and it must not hold up the rest.
        let all = tokio::time::timeout(CUT, connections.wait()).await.is_ok();
        let calls = cut.calls.load(Ordering::Relaxed);
        if calls > 0 || !all {
            tracing::warn!(
                calls.cut = calls,
                tasks.left = connections.len(),
                "calls cut at the end of the grace period"
            );
        }
        let closed = cut.connections.load(Ordering::Relaxed);
        if closed > 0 {
            tracing::info!(
                connections.closed = closed,
                "connections without calls closed because their clients do not answer"
            );
        }
        calls == 0 && all
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
