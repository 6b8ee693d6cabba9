//! Idle connections of one client.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::connection::Connection;
use crate::egress::Target;

/// The idle connections of a client. All clients together have a limited number of places for them.
pub(super) struct Pool {
    idle: Mutex<Vec<Idle>>,
    max: usize,
    shared: Arc<Semaphore>,
}

struct Idle {
    target: Target,
    connection: Connection,
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(max: usize, shared: Arc<Semaphore>) -> Self {
        Pool { idle: Mutex::new(Vec::new()), max, shared }
    }

    /// Takes the connection that was used last, if one can be used for a target, with the target that it was made for.
    pub(super) fn take(&self, target: &Target) -> Option<(Target, Connection)> {
        let mut idle = self.idle();
        while let Some(index) = idle.iter().rposition(|idle| idle.target.origin() == target.origin()) {
            let Idle { target, mut connection } = idle.remove(index);
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
        let mut idle = self.idle();
        if idle.len() >= self.max {
            idle.remove(0);
        }
        if connection.place.is_none() {
            connection.place = self.shared.clone().try_acquire_owned().ok();
        }
        if connection.place.is_some() {
            idle.push(Idle { target, connection });
        }
    }

    /// Closes connections that can no longer be used.
    pub(super) fn sweep(&self) {
        self.idle().retain_mut(|idle| idle.connection.is_reusable());
    }

    /// The number of idle connections.
    pub(super) fn len(&self) -> usize {
        self.idle().len()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
