//! The search for one page, in a task of its own: the database works while the stream is at another page. A page that is
//! found before its reader wants it is not kept for long.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jackfield_domain::Error;
use jackfield_service::{FoundPage, Listable, Pager, Position};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, Span};

use super::policy::StreamPolicy;
use crate::grpc::page_memory::PageRoom;
use jackfield_transport::call::flow::Flow;

/// A page that is being searched for.
pub(super) struct Finding<T> {
    slot: Arc<Slot<T>>,
    /// Dropping it ends the search.
    _task: AbortOnDropHandle<()>,
}

/// The outcome of a search.
pub(super) enum Found<T> {
    /// A page, and the list behind it.
    Page(Box<Pager<T>>, FoundPage<T>, PageRoom),
    /// A page was found but not taken in time. The list is before it again.
    GivenUp(Box<Pager<T>>),
    /// The list has no more pages.
    End,
    Failed(Error),
}

/// The place where the task puts its outcome.
struct Slot<T> {
    content: Mutex<Content<T>>,
    taken: Notify,
}

enum Content<T> {
    /// The task that waits for it.
    Nothing(Option<Waker>),
    Found(Box<Found<T>>),
    Taken,
}

/// Puts an error into a slot that is left empty: a list that is cut short never looks complete.
struct FillOnDrop<T>(Arc<Slot<T>>);

/// The time that a page stays that was found before its reader wants it.
const KEPT: Duration = Duration::from_secs(1);

// === impl Finding ===

impl<T: Listable + 'static> Finding<T> {
    /// Looks for the page that a reader waits for.
    pub(super) fn begin(policy: &StreamPolicy, flow: &Arc<Flow>, pager: Box<Pager<T>>) -> Self {
        let room = policy.memory.for_page(pager.tenant(), flow);
        Self::spawn(policy, flow, pager, room)
    }

    /// Looks for a page before it is wanted, if there is one and plenty of room is left.
    pub(super) fn begin_ahead(
        policy: &StreamPolicy,
        flow: &Arc<Flow>,
        pager: Box<Pager<T>>,
    ) -> Result<Self, Box<Pager<T>>> {
        let room = if pager.is_done() { None } else { policy.memory.for_page_ahead(pager.tenant(), flow) };
        match room {
            Some(room) => Ok(Self::spawn(policy, flow, pager, room)),
            None => Err(pager),
        }
    }

    fn spawn(policy: &StreamPolicy, flow: &Arc<Flow>, mut pager: Box<Pager<T>>, room: PageRoom) -> Self {
        let slot = Arc::new(Slot { content: Mutex::new(Content::Nothing(None)), taken: Notify::new() });
        let (policy, flow, filling) = (policy.clone(), Arc::clone(flow), FillOnDrop(Arc::clone(&slot)));
        // The search is part of the call, if the call is traced.
        let call = Span::current();
        let task = policy.tasks.clone().spawn(async move {
            let before = pager.position();
            let found = match find(&policy, &flow, &mut pager, room).instrument(call).await {
                Ok(Some((page, room))) => Found::Page(pager, page, room),
                Ok(None) => Found::End,
                Err(error) => Found::Failed(error),
            };
            let slot = &filling.0;
            slot.fill(found);
            if tokio::time::timeout(KEPT, slot.taken.notified()).await.is_err() {
                slot.give_up(before);
            }
        });
        Finding { slot, _task: AbortOnDropHandle::new(task) }
    }

    /// Returns what was found.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Found<T>> {
        let mut content = self.slot.lock();
        match &mut *content {
            Content::Nothing(waiting) => {
                *waiting = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => match std::mem::replace(&mut *content, Content::Taken) {
                Content::Found(found) => {
                    self.slot.taken.notify_one();
                    Poll::Ready(*found)
                }
                // A list that is cut short must not look complete.
                Content::Nothing(_) | Content::Taken => {
                    Poll::Ready(Found::Failed(Error::internal("a page was taken twice")))
                }
            },
        }
    }
}

/// Finds the next page in this room, or in as much as it needs.
async fn find<T: Listable>(
    policy: &StreamPolicy,
    flow: &Arc<Flow>,
    pager: &mut Pager<T>,
    mut room: PageRoom,
) -> Result<Option<(FoundPage<T>, PageRoom)>, Error> {
    let tenant = pager.tenant();
    let finds = policy.memory.finds(tenant);
    loop {
        let before = pager.position();
        let page = {
            let _turn = finds.acquire().await.map_err(Error::internal)?;
            pager.next(room.most()).await?
        };
        let Some(page) = page else { return Ok(None) };
        let bytes = page.bytes();
        if room.is_for(bytes) {
            room.resize(bytes);
            return Ok(Some((page, room)));
        }
        // The page is one row, for which there is no room yet. It is not kept while it waits.
        drop(page);
        pager.go_back(before);
        room = policy.memory.for_large_page(tenant, bytes, flow).await;
    }
}

// === impl Slot ===

impl<T> Slot<T> {
    fn fill(&self, found: Found<T>) {
        let mut content = self.lock();
        if let Content::Nothing(waiting) = &mut *content {
            let waiting = waiting.take();
            *content = Content::Found(Box::new(found));
            drop(content);
            if let Some(waiting) = waiting {
                waiting.wake();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content<T>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Listable> Slot<T> {
    /// Drops a page that was not taken.
    fn give_up(&self, before: Position) {
        let mut content = self.lock();
        match std::mem::replace(&mut *content, Content::Taken) {
            Content::Found(found) => {
                let kept = match *found {
                    Found::Page(mut pager, page, room) => {
                        drop((page, room));
                        pager.go_back(before);
                        Found::GivenUp(pager)
                    }
                    other => other,
                };
                *content = Content::Found(Box::new(kept));
            }
            other => *content = other,
        }
    }
}

impl<T> Drop for FillOnDrop<T> {
    fn drop(&mut self) {
        self.0.fill(Found::Failed(Error::internal("the task of a list died")));
    }
}
