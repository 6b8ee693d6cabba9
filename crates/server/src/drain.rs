//! How the server stops: health says so, then connections are told, then everything is cut.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Drain;
use crate::health::HealthState;
use crate::transport::LAST_WORDS;

/// After everything was cut, tasks need a moment to be dropped.
const CUT: Duration = Duration::from_secs(1);

/// The signals of stopping, in the order they are given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    /// No new connections; those that are there are told to go away, and end their lists and calls in time.
    pub(crate) drain: CancellationToken,
    /// Everything ends at once.
    pub(crate) kill: CancellationToken,
}

// === impl Signals ===

impl Signals {
    /// Stops in order. Returns whether every connection has ended in time.
    pub(crate) async fn stop(&self, config: &Drain, health: &HealthState, connections: &TaskTracker) -> bool {
        tracing::info!(drain.delay_ms = millis(config.delay), drain.grace_ms = millis(config.grace), "draining");
        health.start_draining();
        tokio::time::sleep(config.delay).await;
        self.drain.cancel();
        connections.close();
        let ended = tokio::time::timeout(config.grace + LAST_WORDS, connections.wait()).await.is_ok();
        self.kill.cancel();
        if !ended {
            tracing::warn!(connections.left = connections.len(), "connections cut at the end of the grace");
            // Only a task that never yields can outlast this, and it must not hold up the rest.
            let _ = tokio::time::timeout(CUT, connections.wait()).await;
        }
        ended
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
