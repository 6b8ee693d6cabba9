//! The state that all listeners and connections of a server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jackfield_domain::Clock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Admission;
use crate::call::identity::Principals;
use crate::call::methods::Methods;
use crate::config::TransportConfig;
use crate::observe::metrics::Metrics;

/// The state of one server.
pub(super) struct NetState {
    pub(super) config: TransportConfig,
    pub(super) metrics: Metrics,
    pub(super) methods: Arc<Methods>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: TaskTracker,
    pub(super) drain: CancellationToken,
    pub(super) kill: CancellationToken,
    pub(super) cut: CutShort,
    pub(super) principals: Principals,
    pub(super) admission: Admission,
    pub(super) health_admission: Admission,
}

/// The counts of what a stop had to end because it did not end by itself.
#[derive(Debug, Default)]
pub(crate) struct CutShort {
    /// Calls without their response. Streams can be continued elsewhere and do not count.
    pub(crate) calls: AtomicUsize,
    /// Connections without calls whose clients do not answer.
    pub(crate) connections: AtomicUsize,
}

// === impl NetState ===

impl NetState {
    /// Counts a connection without calls that ends because its client does not answer, if the server is stopping.
    pub(super) fn count_silent(&self) {
        if self.drain.is_cancelled() {
            self.cut.connections.fetch_add(1, Ordering::Relaxed);
        }
    }
}
