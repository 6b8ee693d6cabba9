//! Events of connectors. Calls put them into a queue and go on; one task writes what is in it. When the queue is full, or the database
//! fails, events are dropped and counted: a log-in never waits for its event.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jackfield_domain::connector::{Cause, Connector, ConnectorEvent, EventOperation, EventOutcome, MAX_EVENTS};
use jackfield_domain::login::{LoginAttempt, LoginReason};
use jackfield_domain::principal::right::ConnectorsRead;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{Clock, ConnectorEventId, ConnectorId, Error, Result, TenantId, Timestamp};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::Instant;

use crate::caller::Caller;
use crate::change::{Change, Length};
use crate::gauges::GaugeSources;
use crate::list::Listable;
use crate::services::Services;

/// The way of events into the database.
pub(crate) struct ConnectorEvents {
    queue: Sender<Queued>,
    /// Taken by the task that writes.
    queued: Mutex<Option<Receiver<Queued>>>,
    /// The number of events that wait, by tenant.
    waiting: Mutex<HashMap<TenantId, usize>>,
    clock: Arc<dyn Clock>,
    counts: Arc<GaugeSources>,
}

/// The result of a log-in through a connector.
pub(crate) struct CheckedLogin<'a> {
    pub(crate) operation: EventOperation,
    pub(crate) connector: &'a Connector,
    pub(crate) attempt: &'a LoginAttempt,
    /// The application, as it was named to the system.
    pub(crate) application_id: Option<&'a str>,
    pub(crate) start: Instant,
    pub(crate) outcome: EventOutcome,
    pub(crate) finding: Finding,
}

/// The part of a result that only operators learn.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) reason: &'static str,
    /// The status of the system's response.
    pub(crate) http_status: Option<u16>,
    pub(crate) cause: Cause,
}

/// An event that waits to be written.
struct Queued {
    target: Target,
    event: ConnectorEvent,
}

/// A connector. The time of its creation distinguishes it from one that is created later with the same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    tenant: TenantId,
    connector: ConnectorId,
    create_time: Timestamp,
}

/// The drops that the log has, and when it got the last of them.
#[derive(Default)]
struct DropLog {
    reported: u64,
    last: Option<Instant>,
}

/// The most events that wait. They take 4 MiB at most.
const QUEUE: usize = 1_000;
/// The most of them that are of one tenant, so that the others have room.
const SHARE: usize = QUEUE / 4 * 3;
/// The most events that are written in one transaction.
const BATCH: usize = 200;
/// The interval at which drops are logged, if there are any.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

// === impl ConnectorEvents ===

impl ConnectorEvents {
    pub(crate) fn new(clock: Arc<dyn Clock>, counts: Arc<GaugeSources>) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE);
        ConnectorEvents { queue, queued: Mutex::new(Some(queued)), waiting: Mutex::default(), clock, counts }
    }

    /// Records a log-in, if its connector debugs now.
    pub(crate) fn record<R>(&self, caller: &Caller<R>, login: CheckedLogin<'_>) {
        let now = self.clock.now();
        if !login.connector.debugs(now) {
            return;
        }
        let CheckedLogin { operation, connector, attempt, application_id, start, outcome, finding } = login;
        let Finding { reason, http_status, cause } = finding;
        let event = ConnectorEvent {
            id: ConnectorEventId::generate(),
            connector: connector.id,
            operation,
            outcome,
            reason: reason.to_owned(),
            cause,
            http_status,
            duration: start.elapsed(),
            request_id: caller.request_id(),
            login_id: attempt.login_id.as_str().to_owned(),
            application_id: application_id.unwrap_or_default().to_owned(),
            meta: Meta::new(now),
        };
        let create_time = connector.meta.create_time;
        let target = Target { tenant: caller.tenant(), connector: connector.id, create_time };
        if !self.enqueue(Queued { target, event }) {
            self.counts.events_dropped(1);
        }
    }

    /// Returns whether there was room.
    fn enqueue(&self, queued: Queued) -> bool {
        let tenant = queued.target.tenant;
        let mut waiting = lock(&self.waiting);
        let count = waiting.get(&tenant).copied().unwrap_or_default();
        let has_room = count < SHARE && self.queue.try_send(queued).is_ok();
        if has_room {
            waiting.insert(tenant, count + 1);
        }
        has_room
    }

    /// Notes that events do not wait any more.
    fn dequeued(&self, batch: &[Queued]) {
        let mut waiting = lock(&self.waiting);
        for Queued { target, .. } in batch {
            let count = waiting.remove(&target.tenant).unwrap_or_default();
            if count > 1 {
                waiting.insert(target.tenant, count - 1);
            }
        }
    }
}

// === impl Finding ===

impl Finding {
    /// A log-in that was checked.
    pub(crate) fn checked(reason: LoginReason, http_status: Option<u16>) -> Self {
        Finding { reason: reason.as_str(), http_status, cause: Cause::default() }
    }

    /// A log-in that could not be checked.
    pub(crate) fn fault(
        reason: &'static str,
        http_status: Option<u16>,
        fault: &(dyn std::error::Error + 'static),
    ) -> Self {
        Finding { reason, http_status, cause: Cause::of(fault) }
    }
}

// === impl Services ===

impl Services {
    /// Writes events until the services stop, and then those that wait.
    pub(crate) async fn write_events(&self) {
        let Some(mut queued) = lock(&self.shared.events.queued).take() else { return };
        let (mut batch, mut drops) = (Vec::new(), DropLog::default());
        loop {
            let received = self.shared.stop.run_until_cancelled(queued.recv_many(&mut batch, BATCH)).await;
            let is_last = received.is_none();
            if is_last {
                // Those that wait can still be received.
                queued.close();
                if queued.recv_many(&mut batch, BATCH).await == 0 {
                    return;
                }
            }
            self.shared.events.dequeued(&batch);
            let failed = self.write_batch(batch.drain(..)).await;
            let gives_up = is_last && failed.is_some();
            if gives_up {
                // The stop must not wait for a database that is away.
                self.shared.gauge_sources.events_dropped(queued.len() as u64);
            }
            drops.report(self.shared.gauge_sources.events().dropped, failed.as_ref());
            if gives_up {
                return;
            }
        }
    }

    /// Writes events. Returns the last failure, if there was one.
    async fn write_batch(&self, batch: impl Iterator<Item = Queued>) -> Option<Error> {
        let mut by_connector: BTreeMap<Target, Vec<ConnectorEvent>> = BTreeMap::new();
        for Queued { target, event } in batch {
            by_connector.entry(target).or_default().push(event);
        }
        let (counts, mut failed) = (&self.shared.gauge_sources, None);
        for (target, events) in by_connector {
            let count = events.len() as u64;
            match self.write_events_of(target, &events).await {
                Ok(true) => counts.events_written(count),
                // The connector is gone, and so are events that were written before.
                Ok(false) => {}
                Err(error) => {
                    counts.events_dropped(count);
                    failed = Some(error);
                }
            }
        }
        failed
    }

    async fn write_events_of(&self, target: Target, events: &[ConnectorEvent]) -> Result<bool> {
        let Target { tenant, connector, create_time } = target;
        self.change(Change::by_system(Length::Short), async |txn| {
            // A row that a change of this tenant holds must not keep the events of others waiting.
            txn.give_way().await?;
            if !txn.tenant_lock_shared(tenant).await? {
                return Ok(false);
            }
            txn.connector_events_insert(tenant, (connector, create_time), events, MAX_EVENTS).await
        })
        .await
    }
}

impl Listable for ConnectorEvent {
    type Right = ConnectorsRead;
    const LIST: &'static str = "connector_events";
}

// === impl DropLog ===

impl DropLog {
    /// Logs how many events were dropped since the last time, unless that was a moment ago.
    fn report(&mut self, dropped: u64, failed: Option<&Error>) {
        let count = dropped - self.reported;
        let now = Instant::now();
        if count == 0 || self.last.is_some_and(|last| now.duration_since(last) < LOG_INTERVAL) {
            return;
        }
        (self.reported, self.last) = (dropped, Some(now));
        let error = failed.map(|error| error as &dyn std::error::Error);
        tracing::warn!(error, events.dropped = count, "events of connectors were not written");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
