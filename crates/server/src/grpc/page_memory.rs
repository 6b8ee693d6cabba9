//! The memory of lists. A client that stops in the middle of a page leaves the rest of it here, and many such clients would
//! hold the memory of the machine. So pages are as large as there is room for, and small if there is little: a client that
//! reads always makes progress, whatever others leave unread.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jackfield_domain::TenantId;
use jackfield_domain::request::page::MAX_PAGE_BYTES;
use opentelemetry::metrics::UpDownCounter;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::config::Config;
use jackfield_transport::call::flow::{EndReason, Flow};

/// A page of this many bytes needs no room: every list may have one at any time, and the number of lists is limited.
const FREE_PAGE: usize = 4 * 1024;
/// With less room than this, in bytes, there are only free pages.
const LEAST_ROOM: usize = 32 * 1024;
/// The share of what is free that a page may take. So there is always something left for the next.
const SHARE: usize = 4;
/// The share of all room that stays free of pages which are found before their readers want them.
const AHEAD_SHARE: usize = 4;
/// The time for which a client may leave a page unread while others need its room.
const CROWDED: Duration = Duration::from_secs(1);
/// The interval at which the log says that lists wait.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The room of all lists.
#[derive(Debug)]
pub struct PageMemory {
    room: usize,
    room_per_tenant: usize,
    finds_per_tenant: usize,
    state: Mutex<State>,
    freed: Notify,
    /// The metric of lists that wait.
    waiting: UpDownCounter<i64>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    tenants: HashMap<TenantId, TenantLists>,
    /// Lists of all tenants that wait for room.
    waiting: usize,
    next_number: u64,
    logged: Option<Instant>,
}

#[derive(Debug)]
struct TenantLists {
    used: usize,
    /// Concurrent statements of lists.
    finds: Arc<Semaphore>,
    /// Lists that wait for room.
    waiting: usize,
    /// The pages that take room, in the order in which they came: their bytes, and the responses that they belong to.
    pages: BTreeMap<u64, (usize, Weak<Flow>)>,
}

/// Room for one page, given back when dropped.
#[derive(Debug)]
pub(super) struct PageRoom {
    memory: Arc<PageMemory>,
    tenant: TenantId,
    number: u64,
    bytes: usize,
}

/// Counts as a list that waits, until it is dropped.
struct Waiting<'a> {
    memory: &'a PageMemory,
    tenant: TenantId,
}

// === impl PageMemory ===

impl PageMemory {
    /// Makes as much room as the configuration allows.
    pub fn new(config: &Config, waiting: UpDownCounter<i64>) -> Arc<Self> {
        // Lists of one tenant leave connections to the database for others, unless there is only one.
        let finds_per_tenant = (config.database.max_connections as usize * 3 / 4).max(1);
        Arc::new(PageMemory {
            room: config.streams.page_memory.bytes(),
            room_per_tenant: config.streams.page_memory_per_tenant.bytes(),
            finds_per_tenant,
            state: Mutex::default(),
            freed: Notify::new(),
            waiting,
        })
    }

    /// Room for a page that a reader waits for: a share of what is free, at most that of the largest page. It may be none,
    /// which is enough for [`PageRoom::most`] bytes.
    pub(super) fn for_page(self: &Arc<Self>, tenant: TenantId, flow: &Arc<Flow>) -> PageRoom {
        let mut state = self.lock();
        let free = self.free(&state, tenant);
        // Lists that wait for room go first.
        let waiting = state.tenants.get(&tenant).is_some_and(|tenant| tenant.waiting > 0);
        let share = (free / SHARE).clamp(LEAST_ROOM, MAX_PAGE_BYTES);
        let bytes = if free < LEAST_ROOM || waiting { 0 } else { share };
        self.take(&mut state, tenant, bytes, flow)
    }

    /// Room for a page that no reader waits for yet, if plenty is left.
    pub(super) fn for_page_ahead(self: &Arc<Self>, tenant: TenantId, flow: &Arc<Flow>) -> Option<PageRoom> {
        let mut state = self.lock();
        let used = state.tenants.get(&tenant).map_or(0, |tenant| tenant.used);
        let fits = |used: usize, room: usize| used + MAX_PAGE_BYTES <= room - room / AHEAD_SHARE;
        let fits = fits(used, self.room_per_tenant) && fits(state.used, self.room) && state.waiting == 0;
        fits.then(|| self.take(&mut state, tenant, MAX_PAGE_BYTES, flow))
    }

    /// Waits for room for a page that cannot be smaller. Lists that have left pages unread for a while then have to end.
    pub(super) async fn for_large_page(self: &Arc<Self>, tenant: TenantId, bytes: usize, flow: &Arc<Flow>) -> PageRoom {
        let mut waiting = None;
        loop {
            let freed = self.freed.notified();
            {
                let mut state = self.lock();
                let alone = state.tenants.get(&tenant).is_none_or(|tenant| tenant.used == 0);
                if self.free(&state, tenant) >= bytes || (alone && state.used < self.room) {
                    return self.take(&mut state, tenant, bytes, flow);
                }
                waiting.get_or_insert_with(|| {
                    state.waiting += 1;
                    state.tenant(tenant, self.finds_per_tenant).waiting += 1;
                    self.waiting.add(1, &[]);
                    Waiting { memory: self, tenant }
                });
            }
            if tokio::time::timeout(CROWDED, freed).await.is_err() {
                self.crowd(tenant, bytes);
            }
        }
    }

    /// Returns the semaphore of the searches of a tenant's lists.
    pub(super) fn finds(&self, tenant: TenantId) -> Arc<Semaphore> {
        self.lock().tenant(tenant, self.finds_per_tenant).finds.clone()
    }

    /// Ends the response that has been left unread for longest: one of the tenant or, if the tenant's own room is not
    /// short, one of the tenant that takes most.
    fn crowd(&self, tenant: TenantId, bytes: usize) {
        let mut state = self.lock();
        let own = state.tenants.get(&tenant).filter(|tenant| self.room_per_tenant.saturating_sub(tenant.used) < bytes);
        let victims = own.or_else(|| state.tenants.values().max_by_key(|tenant| tenant.used));
        let pages = victims.into_iter().flat_map(|tenant| tenant.pages.values()).filter(|(bytes, _)| *bytes > 0);
        let flows: Vec<_> = pages.filter_map(|(bytes, flow)| Some((*bytes, flow.upgrade()?))).collect();
        let leave = flows.iter().filter(|(_, flow)| flow.ended().is_some()).map(|(bytes, _)| bytes).sum::<usize>();
        let stalled =
            flows.iter().filter_map(|(_, flow)| Some((flow.stalled()?, flow))).min_by_key(|(since, _)| *since);
        let now = Instant::now();
        let stalled = stalled.filter(|(since, _)| leave < bytes && now.duration_since(*since) >= CROWDED);
        if let Some((_, flow)) = stalled {
            flow.end(EndReason::Crowded);
        }
        if state.logged.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL) {
            state.logged = Some(now);
            tracing::warn!(
                lists.waiting = state.waiting,
                memory.used_bytes = state.used,
                "lists wait for memory that unread pages of other lists take"
            );
        }
    }

    fn free(&self, state: &State, tenant: TenantId) -> usize {
        let used = state.tenants.get(&tenant).map_or(0, |tenant| tenant.used);
        self.room_per_tenant.saturating_sub(used).min(self.room.saturating_sub(state.used))
    }

    fn take(self: &Arc<Self>, state: &mut State, tenant: TenantId, bytes: usize, flow: &Arc<Flow>) -> PageRoom {
        let number = state.next_number;
        state.next_number += 1;
        state.used += bytes;
        let of_tenant = state.tenant(tenant, self.finds_per_tenant);
        of_tenant.used += bytes;
        of_tenant.pages.insert(number, (bytes, Arc::downgrade(flow)));
        PageRoom { memory: Arc::clone(self), tenant, number, bytes }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn tenant(&mut self, tenant: TenantId, finds: usize) -> &mut TenantLists {
        if !self.tenants.contains_key(&tenant) {
            // Tenants without lists are not kept.
            self.tenants.retain(|_, tenant| {
                !tenant.pages.is_empty() || tenant.waiting > 0 || Arc::strong_count(&tenant.finds) > 1
            });
        }
        let new =
            || TenantLists { used: 0, waiting: 0, finds: Arc::new(Semaphore::new(finds)), pages: BTreeMap::new() };
        self.tenants.entry(tenant).or_insert_with(new)
    }
}

// === impl PageRoom ===

impl PageRoom {
    /// Returns the largest size of the page, in bytes.
    pub(super) fn most(&self) -> usize {
        self.bytes.max(FREE_PAGE)
    }

    /// Returns whether this room is enough for a page of this many bytes.
    pub(super) fn is_for(&self, bytes: usize) -> bool {
        // A row that is larger than the room of its page takes more than it was given: once, because then no more is left.
        self.bytes > 0 || bytes <= FREE_PAGE
    }

    /// Takes what a page of this many bytes needs, and gives back the rest.
    pub(super) fn resize(&mut self, bytes: usize) {
        let bytes = if bytes <= FREE_PAGE { 0 } else { bytes };
        let mut state = self.memory.lock();
        state.used = state.used - self.bytes + bytes;
        if let Some(tenant) = state.tenants.get_mut(&self.tenant) {
            tenant.used = tenant.used - self.bytes + bytes;
            if let Some((of_page, _)) = tenant.pages.get_mut(&self.number) {
                *of_page = bytes;
            }
        }
        let freed = bytes < self.bytes && state.waiting > 0;
        drop(state);
        self.bytes = bytes;
        if freed {
            self.memory.freed.notify_waiters();
        }
    }
}

impl Drop for PageRoom {
    fn drop(&mut self) {
        let mut state = self.memory.lock();
        state.used -= self.bytes;
        if let Some(tenant) = state.tenants.get_mut(&self.tenant) {
            tenant.used -= self.bytes;
            tenant.pages.remove(&self.number);
        }
        let freed = state.waiting > 0;
        drop(state);
        if freed {
            self.memory.freed.notify_waiters();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.memory.waiting.add(-1, &[]);
        let mut state = self.memory.lock();
        state.waiting -= 1;
        if let Some(tenant) = state.tenants.get_mut(&self.tenant) {
            tenant.waiting -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::config::Size;

    const ONE: TenantId = TenantId(Uuid::from_u128(1));
    const OTHER: TenantId = TenantId(Uuid::from_u128(2));

    fn memory() -> Arc<PageMemory> {
        let mut config = Config::default();
        (config.streams.page_memory, config.streams.page_memory_per_tenant) = (Size::mib(16), Size::mib(4));
        PageMemory::new(&config, opentelemetry::global::meter("test").i64_up_down_counter("waiting").build())
    }

    #[tokio::test]
    async fn pages_become_small_and_never_wait_for_those_that_nobody_reads() {
        let (memory, flow) = (memory(), Arc::default());
        let rooms: Vec<_> = (0..1_000).map(|_| memory.for_page(ONE, &flow)).collect();
        assert_eq!(rooms[0].most(), 1 << 20, "a quarter of what is free");
        assert_eq!(rooms[1].most(), 3 << 18, "and of what is left");
        let last = rooms.last().unwrap();
        assert_eq!(last.most(), FREE_PAGE);
        assert!(last.is_for(FREE_PAGE) && !last.is_for(FREE_PAGE + 1));
        assert!(memory.lock().used <= 4 << 20);
        assert_eq!(memory.for_page(OTHER, &flow).most(), 1 << 20, "of its own");
        assert!(memory.for_page_ahead(ONE, &flow).is_none());
        drop(rooms);
        assert_eq!(memory.lock().used, 0);
        assert_eq!(memory.for_page_ahead(ONE, &flow).map(|room| room.most()), Some(MAX_PAGE_BYTES));
        memory.finds(TenantId(Uuid::from_u128(3)));
        assert_eq!(memory.lock().tenants.len(), 1, "tenants without lists are not kept");
    }

    #[tokio::test]
    async fn a_page_takes_what_it_is_and_a_short_one_nothing() {
        let (memory, flow) = (memory(), Arc::default());
        let mut room = memory.for_page(ONE, &flow);
        room.resize(10_000);
        assert_eq!(memory.lock().used, 10_000);
        room.resize(5 << 20);
        assert_eq!(memory.for_page(ONE, &flow).most(), FREE_PAGE, "a row that is larger than its room takes it all");
        room.resize(FREE_PAGE);
        assert_eq!(memory.lock().used, 0);
    }

    #[tokio::test]
    async fn a_large_row_gets_the_room_of_who_has_not_read_for_longest() {
        let memory = memory();
        let flows: [Arc<Flow>; 3] = std::array::from_fn(|_| Arc::default());
        let mut rooms: Vec<_> = flows.iter().map(|flow| memory.for_page(ONE, flow)).collect();
        rooms.iter_mut().for_each(|room| room.resize(4 << 18));
        let mut rest = memory.for_page(ONE, &Arc::default());
        rest.resize(1 << 20);
        let now = Instant::now();
        // The first moves, the second has stopped after the third.
        for (flow, stalled) in flows[1..].iter().zip([5, 9]) {
            flow.set_stalled(now.checked_sub(Duration::from_secs(stalled)));
        }
        let flow = Arc::default();
        let mut large = std::pin::pin!(memory.for_large_page(ONE, 100_000, &flow));
        tokio::select! {
            _ = &mut large => panic!("there is no room"),
            end = std::future::poll_fn(|cx| flows[2].poll_end(cx)) => assert_eq!(end, EndReason::Crowded),
        }
        assert_eq!(memory.lock().waiting, 1);
        assert_eq!(memory.for_page(ONE, &flow).most(), FREE_PAGE, "who waits goes first");
        assert_eq!(memory.for_page(OTHER, &flow).most(), 1 << 20, "others do not wait");
        drop(rooms.pop());
        let large = large.await;
        assert_eq!((large.most(), memory.lock().waiting), (100_000, 0));
        assert_eq!((flows[0].ended(), flows[1].ended()), (None, None), "one of them was enough");
    }
}
