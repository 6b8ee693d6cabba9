//! Lists on the wire: a page is read when the reader has room for it, and nothing is held in between.
//!
//! The pages come from a task, because a stream whose reader has stopped is not polled any more and could neither end
//! itself at its deadline nor when the server drains.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use jackfield_domain::{Error, Result};
use jackfield_service::{FoundPage, Listable, ListedPage, Pager};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::page_memory::{PageMemory, PageRoom};
use super::status::status;
use crate::layers::context::CallContext;

/// The rules of streams.
#[derive(Clone, Debug)]
pub struct StreamPolicy {
    /// Streams end themselves when this is cancelled.
    pub drain: CancellationToken,
    /// How long a reader may leave a page untaken.
    pub idle: Duration,
    /// How long a stream may last.
    pub total: Duration,
    /// One permit for each open stream.
    pub permits: Arc<Semaphore>,
    /// Room for the pages of all of them.
    pub memory: Arc<PageMemory>,
    /// Where the tasks of streams run.
    pub tasks: TaskTracker,
}

/// A stream of pages. They are read and rendered when the reader takes them, while the task looks for the next.
pub struct PageStream<T, M> {
    pages: mpsc::Receiver<(FoundPage<T>, PageRoom)>,
    /// The page that the reader is about to get.
    taken: Option<(FoundPage<T>, PageRoom)>,
    render: fn(ListedPage<T>) -> M,
    end: End,
}

/// Why a stream ended before its end.
type End = Arc<Mutex<Option<Error>>>;

/// When to come back after too many streams were open.
const RETRY_AFTER: Duration = Duration::from_secs(1);

// === impl StreamPolicy ===

impl StreamPolicy {
    /// Streams the pages of a list as messages.
    pub(super) fn pages<T, M>(&self, pager: Pager<T>, render: fn(ListedPage<T>) -> M) -> Result<PageStream<T, M>>
    where
        T: Listable + 'static,
        M: Message + 'static,
    {
        let permit = self.permits.clone().try_acquire_owned();
        // It is the server that is full, whoever filled it.
        let permit = permit.map_err(|_| Error::ServerUnavailable { retry_after: RETRY_AFTER })?;
        // One page may lie ready while the reader takes the one before.
        let (sender, pages) = mpsc::channel(1);
        // Until the task says otherwise it broke: a list that is cut short never looks complete.
        let end: End = Arc::new(Mutex::new(Some(Error::internal("the task of a list died"))));
        let (policy, ended) = (self.clone(), Arc::clone(&end));
        self.tasks.spawn(async move {
            let result = policy.send(pager, &sender, permit).await;
            *ended.lock().unwrap_or_else(PoisonError::into_inner) = result.err();
            // Only now does the reader see the end.
            drop(sender);
        });
        Ok(PageStream { pages, taken: None, render, end })
    }

    async fn send<T: Listable>(
        &self,
        mut pager: Pager<T>,
        sender: &mpsc::Sender<(FoundPage<T>, PageRoom)>,
        _permit: OwnedSemaphorePermit,
    ) -> Result<()> {
        let total = Instant::now() + self.total;
        loop {
            let idle = total.min(Instant::now() + self.idle);
            let room = tokio::select! {
                biased;
                () = self.drain.cancelled() => return Err(Error::ServerUnavailable { retry_after: RETRY_AFTER }),
                room = timeout_at(idle, sender.reserve()) => room.map_err(|_| Error::DeadlineExceeded)?,
            };
            // The reader has gone.
            let Ok(room) = room else { return Ok(()) };
            let memory = tokio::select! {
                biased;
                () = self.drain.cancelled() => return Err(Error::ServerUnavailable { retry_after: RETRY_AFTER }),
                () = sender.closed() => return Ok(()),
                memory = timeout_at(total, self.memory.room(pager.tenant())) => memory,
            };
            let Ok(Some(mut memory)) = memory else { return Err(Error::DeadlineExceeded) };
            // A page of a filtered list may take many statements: none is begun for nobody.
            let page = tokio::select! {
                biased;
                () = self.drain.cancelled() => return Err(Error::ServerUnavailable { retry_after: RETRY_AFTER }),
                () = sender.closed() => return Ok(()),
                page = timeout_at(total, pager.next()) => page.map_err(|_| Error::DeadlineExceeded)??,
            };
            match page {
                Some(page) => {
                    memory.shrink(page.bytes());
                    room.send((page, memory));
                }
                None => return Ok(()),
            }
        }
    }
}

// === impl PageStream ===

impl<T: Unpin, M: Message> Stream for PageStream<T, M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some((page, memory)) = self.taken.take() {
            return Poll::Ready(Some(self.render(page, memory)));
        }
        let page = ready!(self.pages.poll_recv(cx));
        if page.is_none() {
            let ended = self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Poll::Ready(ended.map(|error| Err(status(error))));
        }
        self.taken = page;
        // The task that may go on now waits behind this one, on the same thread: it is let go first, so that the database is
        // at work on the next page while this one is rendered.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<T, M: Message> PageStream<T, M> {
    fn render(&self, page: FoundPage<T>, mut memory: PageRoom) -> Result<M, Status> {
        let page = (self.render)(page.read().map_err(status)?);
        memory.shrink(page.encoded_len());
        if let Some(context) = CallContext::current() {
            context.hold(memory);
        }
        Ok(page)
    }
}
