//! The rules of streams.

use std::sync::Arc;

use jackfield_domain::TenantId;
use jackfield_transport::call::fair_semaphore::FairSemaphore;
use tokio_util::task::TaskTracker;

use crate::grpc::page_memory::PageMemory;

/// The limits of all streams of a server.
#[derive(Clone, Debug)]
pub struct StreamPolicy {
    /// Permits for all open streams, by principal and tenant.
    pub(crate) permits: Arc<FairSemaphore<String, TenantId>>,
    /// Room for the pages of all of them.
    pub(crate) memory: Arc<PageMemory>,
    /// The tracker of the tasks of streams.
    pub(crate) tasks: TaskTracker,
}
