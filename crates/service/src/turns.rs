//! Turns at work that takes a processor for long, such as hashes of passwords and private keys. It is done off the threads that serve
//! calls, and a few at a time. Tenants that wait take turns, so that many calls of one delay those of others by one work each at most.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jackfield_domain::{Error, Result, TenantId};
use tokio::sync::oneshot::{self, Receiver, Sender};
use tokio::task;

/// Turns at one kind of work.
pub(crate) struct Turns(Arc<Shared>);

/// A turn. The next call has it when this is dropped.
pub(crate) struct Turn(Arc<Shared>);

struct Shared(Mutex<Waiting>);

struct Waiting {
    /// Turns that no call has. No call waits as long as there are any.
    free: usize,
    /// The calls of each tenant that wait, in the order in which they came.
    calls: HashMap<TenantId, VecDeque<Sender<Turn>>>,
    /// The tenants with calls that wait, the next one first.
    tenants: VecDeque<TenantId>,
}

// === impl Turns ===

impl Turns {
    /// Lets `at_once` works be done at the same time.
    pub(crate) fn new(at_once: usize) -> Self {
        let waiting = Waiting { free: at_once, calls: HashMap::new(), tenants: VecDeque::new() };
        Turns(Arc::new(Shared(Mutex::new(waiting))))
    }

    /// Does work for a tenant when it is its turn, on a thread that may be busy. The turn ends with the work, even if its caller has
    /// gone: a caller that leaves must not make room for another one before.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.join(tenant).await.map_err(Error::internal)?;
        let done = task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(Error::internal)?
    }

    /// Takes all turns that are free.
    #[cfg(test)]
    pub(crate) fn take_all(&self, tenant: TenantId) -> Vec<Turn> {
        std::iter::from_fn(|| self.join(tenant).try_recv().ok()).collect()
    }

    /// The number of calls that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().calls.values().map(VecDeque::len).sum()
    }

    /// Takes a place among the calls that wait, which is left if the receiver is dropped.
    pub(crate) fn join(&self, tenant: TenantId) -> Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.0.lock();
        if waiting.free == 0 {
            waiting.push(tenant, sender);
            return receiver;
        }
        waiting.free -= 1;
        drop(waiting);
        // The receiver is here.
        let _ = sender.send(Turn(Arc::clone(&self.0)));
        receiver
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Waiting {
    fn push(&mut self, tenant: TenantId, call: Sender<Turn>) {
        let calls = self.calls.entry(tenant).or_default();
        if calls.is_empty() {
            self.tenants.push_back(tenant);
        }
        // Calls that come and go must not fill the memory.
        if calls.len() == calls.capacity() {
            calls.retain(|call| !call.is_closed());
        }
        calls.push_back(call);
    }

    /// The next call, after which all other tenants that wait have their turn. Calls whose caller has gone are left out.
    fn pop(&mut self) -> Option<Sender<Turn>> {
        while let Some(tenant) = self.tenants.pop_front() {
            let Some(calls) = self.calls.get_mut(&tenant) else { continue };
            let next = loop {
                match calls.pop_front() {
                    Some(call) if call.is_closed() => {}
                    next => break next,
                }
            };
            if calls.is_empty() {
                self.calls.remove(&tenant);
            } else {
                self.tenants.push_back(tenant);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

// === impl Turn ===

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        let Some(call) = waiting.pop() else {
            waiting.free += 1;
            return;
        };
        drop(waiting);
        // If its caller leaves at this moment, the turn is dropped again, and goes to the call after it.
        let _ = call.send(Turn(Arc::clone(&self.0)));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const A: TenantId = TenantId(Uuid::from_u128(1));
    const B: TenantId = TenantId(Uuid::from_u128(2));
    const C: TenantId = TenantId(Uuid::from_u128(3));

    /// Ends one turn after the other, and returns the order in which calls got theirs.
    fn order(mut turn: Turn, mut waiting: Vec<(&'static str, Receiver<Turn>)>) -> Vec<&'static str> {
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(turn);
            let got =
                waiting.iter_mut().enumerate().find_map(|(index, (_, call))| Some((index, call.try_recv().ok()?)));
            let (index, next) = got.expect("one call is next");
            assert!(waiting.iter_mut().all(|(_, call)| call.try_recv().is_err()), "and only one");
            order.push(waiting.remove(index).0);
            turn = next;
        }
        order
    }

    #[test]
    fn tenants_take_turns() {
        let turns = Turns::new(1);
        let turn = turns.join(A).try_recv().unwrap();
        let calls = [("a1", A), ("a2", A), ("a3", A), ("a4", A), ("b1", B), ("c1", C), ("c2", C)];
        let waiting = calls.map(|(name, tenant)| (name, turns.join(tenant)));
        assert_eq!(order(turn, Vec::from(waiting)), ["a1", "b1", "c1", "a2", "c2", "a3", "a4"]);
        let waiting = turns.0.lock();
        assert_eq!((waiting.free, waiting.calls.len(), waiting.tenants.len()), (1, 0, 0));
    }

    #[test]
    fn only_so_many_have_a_turn_at_once() {
        let turns = Turns::new(2);
        let (first, second) = (turns.join(A).try_recv().unwrap(), turns.join(A).try_recv().unwrap());
        let mut third = turns.join(B);
        assert!(third.try_recv().is_err());
        drop(second);
        let third = third.try_recv().unwrap();
        drop((first, third));
        assert_eq!(turns.0.lock().free, 2);
    }

    #[test]
    fn callers_who_have_gone_keep_no_turn() {
        let turns = Turns::new(1);
        let turn = turns.join(A).try_recv().unwrap();
        let (gone, got, mut last) = (turns.join(A), turns.join(B), turns.join(B));
        drop(gone);
        drop(turn);
        assert!(last.try_recv().is_err());
        // It has its turn already, and has not looked.
        drop(got);
        drop(last.try_recv().unwrap());
        assert_eq!(turns.0.lock().free, 1);
        assert!(turns.join(C).try_recv().is_ok());
    }

    #[test]
    fn callers_who_come_and_go_take_no_room() {
        let turns = Turns::new(1);
        let _turn = turns.join(A).try_recv().unwrap();
        let _waits = turns.join(A);
        for _ in 0..10_000 {
            drop(turns.join(A));
        }
        let room = turns.0.lock().calls[&A].capacity();
        assert!(room < 100, "{room}");
    }

    #[tokio::test]
    async fn work_that_panics_ends_its_turn() {
        let turns = Turns::new(1);
        assert!(turns.run(A, || -> Result<()> { panic!("on purpose") }).await.is_err());
        assert_eq!(turns.run(B, || Ok(7)).await.unwrap(), 7);
    }
}
