//! Connections that are kept for the next call: those of one client, and the places of all.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::Connection;
use crate::egress::Target;

/// The places for connections that are kept, of all clients together. A connection has its place until it ends, also while a
/// call has it. If there is no place for a new one, an idle one gives way, of the client whose turn it is.
pub struct Places {
    free: Arc<Semaphore>,
    /// The pools with idle connections, in turn.
    turns: Mutex<VecDeque<Weak<Mutex<Kept>>>>,
}

/// The idle connections of a client.
pub(super) struct Pool {
    kept: Arc<Mutex<Kept>>,
    max: usize,
    places: Arc<Places>,
}

#[derive(Default)]
struct Kept {
    idle: Vec<Idle>,
    /// It is among those whose turn comes.
    has_turn: bool,
}

struct Idle {
    target: Target,
    connection: Connection,
}

/// The most connections that are closed to make place for one. Others may take the places meanwhile.
const MAX_CLOSED: usize = 8;

// === impl Places ===

impl Places {
    /// Makes this many places.
    pub fn new(count: usize) -> Self {
        let free = Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Places { free, turns: Mutex::default() }
    }

    /// The number of places that no connection has.
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Forgets the pools of clients that are gone.
    pub(crate) fn sweep(&self) {
        lock(&self.turns).retain(|turn| turn.strong_count() > 0);
    }

    /// A place, if there is one or an idle connection can be closed for it.
    fn take(&self) -> Option<OwnedSemaphorePermit> {
        for _ in 0..MAX_CLOSED {
            if let Ok(place) = self.free.clone().try_acquire_owned() {
                return Some(place);
            }
            self.close_one()?;
        }
        None
    }

    /// Closes the connection that the pool whose turn it is has kept longest. `None`: there are no idle connections.
    fn close_one(&self) -> Option<()> {
        loop {
            let turn = lock(&self.turns).pop_front()?;
            let Some(pool) = turn.upgrade() else { continue };
            let mut kept = lock(&pool);
            kept.has_turn = kept.idle.len() > 1;
            let closed = (!kept.idle.is_empty()).then(|| kept.idle.remove(0));
            if kept.has_turn {
                lock(&self.turns).push_back(turn);
            }
            drop(kept);
            if closed.is_some() {
                return Some(());
            }
        }
    }
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(max: usize, places: Arc<Places>) -> Self {
        Pool { kept: Arc::default(), max, places }
    }

    /// Takes the connection that was used last, if one can be used for a target, with the target that it was made for.
    pub(super) fn take(&self, target: &Target) -> Option<(Target, Connection)> {
        let mut kept = lock(&self.kept);
        while let Some(index) = kept.idle.iter().rposition(|idle| idle.target.origin() == target.origin()) {
            let Idle { target, mut connection } = kept.idle.remove(index);
            if connection.is_reusable() {
                return Some((target, connection));
            }
        }
        None
    }

    /// Keeps a connection for the next call, if it can be used again and there is room.
    pub(super) fn put(&self, target: Target, mut connection: Connection) {
        if self.max == 0 || !connection.is_reusable() {
            return;
        }
        if connection.place.is_none() {
            connection.place = self.places.take();
        }
        if connection.place.is_none() {
            return;
        }
        let mut kept = lock(&self.kept);
        if kept.idle.len() >= self.max {
            kept.idle.remove(0);
        }
        kept.idle.push(Idle { target, connection });
        if !std::mem::replace(&mut kept.has_turn, true) {
            lock(&self.places.turns).push_back(Arc::downgrade(&self.kept));
        }
    }

    /// Closes connections that can no longer be used.
    pub(super) fn sweep(&self) {
        lock(&self.kept).idle.retain_mut(|idle| idle.connection.is_reusable());
    }

    /// The number of idle connections.
    pub(super) fn len(&self) -> usize {
        lock(&self.kept).idle.len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
