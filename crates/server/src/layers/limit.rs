//! Load shedding: beyond a number of calls at work the server says so at once instead of queueing.

use std::time::Duration;

use jackfield_domain::Error;
use tokio::sync::Semaphore;

use super::context::CallContext;
use super::{Answer, Call, Handler, Layer, refused};
use crate::grpc::status::status;
use crate::methods::Kind;
use crate::metrics::Metrics;

/// What shed clients are told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Probes at work at once. They must not be shed when others fill the server, but their callers are nobody: they have room
/// of their own, and no more.
pub(super) const MAX_HEALTH_CALLS: usize = 64;

/// Counts a call until its headers are sent. Streams that go on after that have a limit of their own.
pub(super) struct LimitLayer {
    pub(super) permits: Semaphore,
    pub(super) health_permits: Semaphore,
    pub(super) metrics: Metrics,
}

// === impl LimitLayer ===

impl Layer for LimitLayer {
    async fn handle<H: Handler>(&self, call: Call, inner: &H) -> Answer {
        let health = CallContext::of(&call).method.as_ref().is_some_and(|method| method.kind == Kind::Health);
        let permits = if health { &self.health_permits } else { &self.permits };
        match permits.try_acquire() {
            Ok(_permit) => inner.handle(call).await,
            Err(_) => {
                self.metrics.call_shed();
                refused(status(Error::ServerUnavailable { retry_after: RETRY_AFTER }))
            }
        }
    }
}
