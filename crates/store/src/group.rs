//! Group commit on SQLite: writers that wait for the one connection share a transaction, and so its one synchronisation
//! with the disk, which costs more than all the rest of a small change.
//!
//! A task holds the transaction and gives it to one member after the other; each writes behind a savepoint of its own. When
//! nobody waits any more, or the group is large or old enough, the task commits, and only then tells the members. A writer
//! that is alone commits at once. A member that fails is rolled back to its savepoint; a group that fails, fails for all.
//!
//! Statements that begin and end anything run in the task and never in a caller's future: a caller that leaves in the middle
//! of one would leave it unknown what state the transaction of all is in.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jackfield_domain::Result;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait,
};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::error;
use crate::transaction::{Answer, End, Transaction, Turn};

/// The write transactions of an SQLite file, one after the other.
#[derive(Clone)]
pub(crate) struct Groups(Arc<Shared>);

struct Shared {
    pool: DatabaseConnection,
    guard: Arc<Guard>,
    /// How long a writer waits for its turn.
    patience: Duration,
    /// How long a group takes members: [`LONGEST`], unless a test has set it.
    longest: OnceLock<Duration>,
    queue: Mutex<Queue>,
    tasks: TaskTracker,
    commits: AtomicU64,
    members: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    /// Whether a task serves the queue.
    served: bool,
}

/// A writer that waits for its turn.
struct Request {
    /// Wants a transaction of its own.
    alone: bool,
    turn: oneshot::Sender<Result<Transaction>>,
}

/// Watches over the connection from below, by hooks of the database: when the disk is full, SQLite rolls a transaction back by
/// itself, and the next savepoint would begin another one, whose release commits it.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// A group is at work: nothing may be committed.
    closed: AtomicBool,
    /// The transaction of the group is no more.
    broken: AtomicBool,
    /// The last write failed: the disk is full, say.
    failing: AtomicBool,
}

/// A transaction and its members.
struct Group<'a> {
    shared: &'a Shared,
    txn: Arc<DatabaseTransaction>,
    /// How many have written what stays.
    kept: u64,
    mark: Mark,
    /// Those who wait for the end.
    answers: Vec<Waiting>,
}

/// A member that waits for the end.
enum Waiting {
    /// It has written what the group commits.
    Kept(Answer),
    /// It has read, and written nothing.
    Undone(Answer),
}

/// The savepoint that the next member falls back to.
#[derive(Clone, Copy)]
enum Mark {
    /// There is none: the first member falls back to the beginning.
    None,
    /// It stands where the next member begins.
    Set,
    /// It stands before the last member.
    Passed,
}

/// Sees to it that the queue is served again if the task that serves it does not get to its end.
struct Serving<'a> {
    shared: &'a Shared,
    done: bool,
}

/// A group takes no more members after so many, or after so long: what its first member waits for stays bounded.
const MOST_MEMBERS: u32 = 100;
const LONGEST: Duration = Duration::from_millis(20);

// === impl Groups ===

impl Groups {
    /// For a pool of one connection that reports to the guard. `patience` is how long a writer waits for its turn.
    pub(crate) fn new(pool: DatabaseConnection, guard: Arc<Guard>, patience: Duration) -> Self {
        Groups(Arc::new(Shared {
            pool,
            guard,
            patience,
            longest: OnceLock::new(),
            queue: Mutex::default(),
            tasks: TaskTracker::new(),
            commits: AtomicU64::new(0),
            members: AtomicU64::new(0),
        }))
    }

    /// Waits for a turn, in a group or alone.
    pub(crate) async fn turn(&self, alone: bool) -> Result<Transaction> {
        let (turn, given) = oneshot::channel();
        self.enqueue(Request { alone, turn });
        match tokio::time::timeout(self.0.patience, given).await {
            Ok(given) => given.unwrap_or_else(|_| Err(error::gone("the queue of the writers is gone"))),
            Err(_) => Err(error::gone("too many writers wait, or one takes too long")),
        }
    }

    fn enqueue(&self, request: Request) {
        let mut queue = self.0.queue();
        queue.waiting.push_back(request);
        if !queue.served {
            queue.served = true;
            let shared = Arc::clone(&self.0);
            self.0.tasks.spawn(async move { shared.serve().await });
        }
    }

    /// Whether the last write succeeded.
    pub(crate) fn succeed(&self) -> bool {
        !self.0.guard.failing.load(Ordering::Relaxed)
    }

    /// Waits for the group that is at work.
    pub(crate) async fn close(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// How many transactions were committed, and for how many members.
    #[cfg(feature = "test-support")]
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.0.commits.load(Ordering::Relaxed), self.0.members.load(Ordering::Relaxed))
    }

    /// Sets how long a group takes members. Only the first time counts.
    #[cfg(feature = "test-support")]
    pub(crate) fn set_longest(&self, longest: Duration) {
        let _ = self.0.longest.set(longest);
    }

    /// How many wait for their turn.
    #[cfg(feature = "test-support")]
    pub(crate) fn waiting(&self) -> usize {
        self.0.queue().waiting.len()
    }
}

// === impl Shared ===

impl Shared {
    /// Serves the queue until it is empty.
    async fn serve(&self) {
        let mut serving = Serving { shared: self, done: false };
        while let Some(first) = self.next() {
            self.group(first).await;
        }
        serving.done = true;
    }

    async fn group(&self, first: Request) {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        let txn = match self.pool.begin_with_options(options).await {
            Ok(txn) => Arc::new(txn),
            Err(failed) => {
                // Another process holds the file, or it cannot be opened. Whoever waits would wait as long in vain.
                let text = failed.to_string();
                self.guard.failing.store(true, Ordering::Relaxed);
                let _ = first.turn.send(Err(error::from_db(failed)));
                for request in std::mem::take(&mut self.queue().waiting) {
                    let _ = request.turn.send(Err(error::gone(&text)));
                }
                return;
            }
        };
        self.guard.close();
        let mut group = Group { shared: self, txn, kept: 0, mark: Mark::None, answers: Vec::new() };
        let served = group.serve(first).await;
        group.end(served).await;
    }

    /// The next writer, or the end.
    fn next(&self) -> Option<Request> {
        let mut queue = self.queue();
        let next = queue.next(|_| true);
        if next.is_none() {
            queue.served = false;
        }
        next
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Group ===

impl Group<'_> {
    /// Gives the transaction to one member after the other.
    async fn serve(&mut self, first: Request) -> Result<(), DbErr> {
        let (since, longest) = (Instant::now(), *self.shared.longest.get().unwrap_or(&LONGEST));
        let mut request = first;
        for members in 1.. {
            let alone = request.alone;
            match self.member(request).await? {
                End::Kept(answer) => {
                    self.answers.push(Waiting::Kept(answer));
                    self.kept += 1;
                    self.mark = Mark::Passed;
                }
                End::Undone(answer) => {
                    self.answers.extend(answer.map(Waiting::Undone));
                    if self.kept == 0 {
                        break;
                    }
                    self.run("ROLLBACK TO member").await?;
                    self.mark = Mark::Set;
                }
            }
            if alone || members >= MOST_MEMBERS || since.elapsed() >= longest {
                break;
            }
            request = match self.shared.queue().next(|request| !request.alone) {
                Some(next) => next,
                None => break,
            };
        }
        Ok(())
    }

    async fn member(&mut self, request: Request) -> Result<End, DbErr> {
        match self.mark {
            Mark::Passed if self.kept == 1 => self.run("SAVEPOINT member").await?,
            Mark::Passed => self.run("RELEASE member; SAVEPOINT member").await?,
            Mark::None | Mark::Set => {}
        }
        let (end, ended) = oneshot::channel();
        let turn = Turn { guard: Arc::clone(&self.shared.guard), end: Some(end) };
        // Whoever has gone in the meantime gives the turn back by dropping it.
        let _ = request.turn.send(Ok(Transaction::member(Arc::clone(&self.txn), turn)));
        let ended = ended.await;
        if self.shared.guard.is_broken() {
            if let Ok(End::Kept(answer) | End::Undone(Some(answer))) = ended {
                self.answers.push(Waiting::Undone(answer));
            }
            return Err(DbErr::Custom("the database has rolled the transaction back".to_owned()));
        }
        ended.map_err(|_| DbErr::Custom("a turn was lost".to_owned()))
    }

    /// Ends the transaction and tells everybody how.
    async fn end(self, served: Result<(), DbErr>) {
        let Group { shared, txn, kept, answers, .. } = self;
        let mut may_be_written = false;
        let ended = match Arc::into_inner(txn) {
            None => Err(DbErr::Custom("the transaction is in use".to_owned())),
            Some(txn) if served.is_ok() && kept > 0 => {
                shared.guard.open();
                let committed = txn.commit().await;
                may_be_written = committed.as_ref().is_err_and(error::sqlite_may_have_committed);
                committed
            }
            Some(txn) => match txn.rollback().await {
                // Where the database has done it already this fails, and the pool throws the connection away.
                Ok(()) | Err(_) => served,
            },
        };
        shared.guard.open();
        if ended.is_err() || kept > 0 {
            shared.guard.failing.store(ended.is_err(), Ordering::Relaxed);
        }
        if ended.is_ok() && kept > 0 {
            shared.commits.fetch_add(1, Ordering::Relaxed);
            shared.members.fetch_add(kept, Ordering::Relaxed);
        }
        let failed = ended.err().map(|failed| failed.to_string());
        for waiting in answers {
            let (answer, is_kept) = match waiting {
                Waiting::Kept(answer) => (answer, true),
                Waiting::Undone(answer) => (answer, false),
            };
            let _ = answer.send(match failed.as_deref() {
                None => Ok(()),
                Some(failed) if is_kept && may_be_written => Err(error::outcome_unknown(error::lost(failed))),
                Some(failed) => Err(error::gone(failed)),
            });
        }
    }

    async fn run(&self, sql: &'static str) -> Result<(), DbErr> {
        self.txn.execute_raw(Statement::from_string(DbBackend::Sqlite, sql)).await.map(|_| ())
    }
}

// === impl Queue ===

impl Queue {
    /// The next one that still waits, if it fits.
    fn next(&mut self, fits: impl Fn(&Request) -> bool) -> Option<Request> {
        while self.waiting.front().is_some_and(|request| request.turn.is_closed()) {
            self.waiting.pop_front();
        }
        self.waiting.pop_front_if(|request| fits(request))
    }
}

// === impl Serving ===

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if !self.done {
            let mut queue = self.shared.queue();
            queue.waiting.clear();
            queue.served = false;
        }
    }
}

// === impl Guard ===

impl Guard {
    /// For the hook of the database: whether a transaction may commit now.
    pub(crate) fn may_commit(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// For the hook of the database: a transaction was rolled back.
    pub(crate) fn rolled_back(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Notes a statement that failed because nothing can be written.
    pub(crate) fn failed(&self, failed: &DbErr) {
        if error::is_unwritable(failed) {
            self.failing.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the transaction of the group is no more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.broken.store(false, Ordering::Release);
        self.closed.store(true, Ordering::Release);
    }

    fn open(&self) {
        self.closed.store(false, Ordering::Release);
    }
}
