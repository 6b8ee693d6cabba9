//! How much of lists is in memory at a time. A reader that stops holds what was read for it: its page, and the one that lies
//! ready behind it. Many such readers would hold the memory of the machine, so pages are read only when there is room, and
//! no tenant takes the room of the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jackfield_domain::TenantId;
use jackfield_domain::page::MAX_PAGE_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Streams;

/// Room is counted in these bytes.
const UNIT: usize = 1024;

/// The room of all lists.
#[derive(Debug)]
pub struct PageMemory {
    total: Arc<Semaphore>,
    of_tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
    per_tenant: usize,
}

/// Room for one page, given back when dropped.
#[derive(Debug)]
pub(super) struct PageRoom {
    total: OwnedSemaphorePermit,
    of_tenant: OwnedSemaphorePermit,
}

// === impl PageMemory ===

impl PageMemory {
    /// As much as the configuration allows.
    pub fn new(streams: &Streams) -> Arc<Self> {
        Arc::new(PageMemory {
            total: Arc::new(Semaphore::new(streams.page_memory.bytes() / UNIT)),
            of_tenants: Mutex::default(),
            per_tenant: streams.page_memory_per_tenant.bytes() / UNIT,
        })
    }

    /// Waits for room for a page of any size; `None` never happens, for the room is never closed.
    pub(super) async fn room(&self, tenant: TenantId) -> Option<PageRoom> {
        let page = u32::try_from(MAX_PAGE_BYTES / UNIT).ok()?;
        // A tenant waits for itself first, so that it does not hold the room of all meanwhile.
        let of_tenant = self.of(tenant).acquire_many_owned(page).await.ok()?;
        let total = self.total.clone().acquire_many_owned(page).await.ok()?;
        Some(PageRoom { total, of_tenant })
    }

    fn of(&self, tenant: TenantId) -> Arc<Semaphore> {
        let mut rooms = self.of_tenants.lock().unwrap_or_else(PoisonError::into_inner);
        // Rooms that are all free are not kept: the map is as large as the number of streams.
        rooms.retain(|_, room| Arc::strong_count(room) > 1 || room.available_permits() < self.per_tenant);
        rooms.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(self.per_tenant))).clone()
    }
}

// === impl PageRoom ===

impl PageRoom {
    /// Gives back what a page of so many bytes does not need.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let needed = bytes.div_ceil(UNIT);
        for permit in [&mut self.total, &mut self.of_tenant] {
            drop(permit.split(permit.num_permits().saturating_sub(needed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jackfield_domain::TenantId;
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;
    use crate::config::Size;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_tenant_waits_for_itself_and_not_for_others() {
        let settings =
            Streams { page_memory: Size::mib(12), page_memory_per_tenant: Size::mib(6), ..Streams::default() };
        let memory = PageMemory::new(&settings);
        let tenant = |number| TenantId(Uuid::from_u128(number));
        let mut first = memory.room(tenant(1)).await.unwrap();
        let second = memory.room(tenant(1)).await.unwrap();
        assert!(timeout(SHORT, memory.room(tenant(1))).await.is_err(), "the room of the tenant is taken");
        let _others = (memory.room(tenant(2)).await.unwrap(), memory.room(tenant(2)).await.unwrap());
        assert!(timeout(SHORT, memory.room(tenant(3))).await.is_err(), "all room is taken");
        first.shrink(0);
        timeout(SHORT, memory.room(tenant(3))).await.expect("small pages leave room").unwrap();
        drop(first);
        drop(second);
        timeout(SHORT, memory.room(tenant(1))).await.expect("room is given back").unwrap();
        assert_eq!(memory.of_tenants.lock().unwrap().len(), 2, "rooms of nobody are not kept");
    }
}
