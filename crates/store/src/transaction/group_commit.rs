//! Group commit on SQLite: writers that wait for the one connection share a transaction, and so its one synchronisation
//! with the disk, which costs more than all the rest of a small change.
//!
//! A task holds the transaction and gives it to one member after the other; each writes after a savepoint of its own. When
//! no writer waits any more, or the group is large or old enough, the task commits, and only then answers the members. A
//! single writer commits at once. A member that fails is rolled back to its savepoint; a group that fails, fails for all.
//!
//! A writer whose changes may be lost in a power failure has a transaction of its own, which does not wait for the disk (`PRAGMA
//! synchronous = NORMAL`). The next group synchronises its changes, too, because the log is written in order. A single statement of
//! that kind needs no turn: the task runs it.
//!
//! Statements that begin and end a transaction or a savepoint run in the task and never in a caller's future: a caller that
//! leaves in the middle of one would leave the shared transaction in an unknown state.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jackfield_domain::Result;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, QueryResult, RuntimeErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};
use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::queue::{Queue, Waiting, WaitingStatement, WaitingWriter};
use super::turn::{CommitSender, Turn, TurnEnd};
use super::{Kind, Transaction};
use crate::database::sqlite::guard::Guard;
use crate::database::{driver, error, spans};

/// The write transactions of an SQLite file, one after the other.
#[derive(Clone)]
pub(crate) struct GroupCommit(Arc<Writers>);

struct Writers {
    pool: DatabaseConnection,
    guard: Arc<Guard>,
    /// The time that a writer waits for its turn.
    patience: Duration,
    /// The time in which a group takes members: [`LONGEST_GROUP`], unless a test has set it.
    longest: OnceLock<Duration>,
    /// True if commits wait for the disk.
    synchronous: AtomicBool,
    /// The connection, kept from one statement to the next: whenever it goes back to the pool, it is asked twice whether it is still there,
    /// each of which takes as long as a statement.
    kept: Mutex<Option<PoolConnection<Sqlite>>>,
    queue: Mutex<Queue>,
    tasks: TaskTracker,
    commits: AtomicU64,
    members: AtomicU64,
}

/// A transaction and its members.
struct Group<'a> {
    shared: &'a Writers,
    txn: Arc<DatabaseTransaction>,
    /// The number of members whose changes stay.
    kept: u64,
    savepoint: Savepoint,
    /// The members that wait for the end.
    waiting: Vec<WaitingMember>,
}

/// A member that waits for the end.
enum WaitingMember {
    /// The group commits its changes.
    Kept(CommitSender),
    /// Its changes were undone, or it made none.
    Undone(CommitSender),
}

/// The savepoint that the next member is rolled back to.
#[derive(Clone, Copy)]
enum Savepoint {
    /// There is none: the first member is rolled back to the beginning.
    None,
    /// It is where the next member begins.
    Current,
    /// It is before the last member.
    Outdated,
}

/// Marks the queue as not served if the task that serves it panics, so that another task can serve it.
struct Serving<'a> {
    shared: &'a Writers,
    done: bool,
}

/// A group takes no more members after this number, or after this time, so that its first member does not wait for long.
const MOST_MEMBERS: u32 = 100;
const LONGEST_GROUP: Duration = Duration::from_millis(20);

// === impl GroupCommit ===

impl GroupCommit {
    /// Makes the queue for a pool of one connection that reports to the guard. A writer waits for its turn for at most
    /// `patience`.
    pub(crate) fn new(pool: DatabaseConnection, guard: Arc<Guard>, patience: Duration) -> Self {
        GroupCommit(Arc::new(Writers {
            pool,
            guard,
            patience,
            longest: OnceLock::new(),
            synchronous: AtomicBool::new(true),
            kept: Mutex::default(),
            queue: Mutex::default(),
            tasks: TaskTracker::new(),
            commits: AtomicU64::new(0),
            members: AtomicU64::new(0),
        }))
    }

    /// Waits for a turn, in a group or alone.
    pub(crate) async fn begin(&self, kind: Kind) -> Result<Transaction> {
        let (turn, given) = oneshot::channel();
        self.wait(Waiting::Writer(WaitingWriter { kind, turn }), given).await
    }

    /// Runs one statement, whose commit does not wait for the disk, and returns its rows. Once it has begun, its end is waited for.
    pub(crate) async fn query_volatile(&self, statement: Statement) -> Result<Vec<QueryResult>> {
        let span = spans::statement(DbBackend::Sqlite, &statement.sql);
        let (turn, given) = oneshot::channel();
        let wait = self.wait(Waiting::Statement(WaitingStatement { statement, span, turn }), given);
        let rows = wait.instrument(tracing::info_span!("wait for the writer")).await?.await;
        rows.unwrap_or_else(|_| Err(error::outcome_unknown(error::lost("the queue of the writers is gone"))))
    }

    /// Waits for a turn.
    async fn wait<T>(&self, waiting: Waiting, mut given: oneshot::Receiver<Result<T>>) -> Result<T> {
        self.enqueue(waiting);
        let gone = |_| Err(error::gone("the queue of the writers is gone"));
        if let Ok(given) = tokio::time::timeout(self.0.patience, &mut given).await {
            return given.unwrap_or_else(gone);
        }
        // A statement whose turn has come at this moment is run, so the answer must not be that nothing was written.
        given.close();
        given.try_recv().unwrap_or_else(|_| Err(error::gone("too many writers wait, or one takes too long")))
    }

    fn enqueue(&self, waiting: Waiting) {
        let mut queue = self.0.queue();
        queue.waiting.push_back(waiting);
        if !queue.served {
            queue.served = true;
            let shared = Arc::clone(&self.0);
            self.0.tasks.spawn(async move { shared.serve().await });
        }
    }

    /// Returns whether the last write succeeded.
    pub(crate) fn succeeds(&self) -> bool {
        !self.0.guard.is_failing()
    }

    /// Checks that what is written would be there after a restart.
    pub(crate) fn check_file(&self) -> Result<()> {
        self.0.guard.check_file().map_err(|lost| {
            self.0.guard.set_failing(true);
            error::from_db(lost)
        })
    }

    /// Waits for the group or the statement that is in progress.
    pub(crate) async fn close(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.give_back();
    }

    /// The number of transactions that were committed, and of their members.
    #[cfg(feature = "test-support")]
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.0.commits.load(Ordering::Relaxed), self.0.members.load(Ordering::Relaxed))
    }

    /// Sets how long a group takes members. Only the first time counts.
    #[cfg(feature = "test-support")]
    pub(crate) fn set_longest(&self, longest: Duration) {
        let _ = self.0.longest.set(longest);
    }

    /// The number of writers that wait for their turn.
    #[cfg(feature = "test-support")]
    pub(crate) fn waiting(&self) -> usize {
        self.0.queue().waiting.len()
    }
}

// === impl Writers ===

impl Writers {
    /// Serves the queue until it is empty.
    async fn serve(&self) {
        let mut serving = Serving { shared: self, done: false };
        while let Some(first) = self.next() {
            match first {
                Waiting::Writer(first) => self.group(first).await,
                Waiting::Statement(statement) => self.statement(statement).await,
            }
        }
        serving.done = true;
    }

    async fn group(&self, first: WaitingWriter) {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        self.give_back();
        // The pool may have to open the file.
        let begun = match self.prepare(first.kind).await {
            Ok(()) => self.pool.begin_with_options(options).await,
            Err(failed) => Err(failed),
        };
        let txn = match begun {
            Ok(txn) => Arc::new(txn),
            Err(failed) => {
                self.fail(&failed);
                let _ = first.turn.send(Err(error::from_db(failed)));
                return;
            }
        };
        self.guard.close();
        let mut group = Group { shared: self, txn, kept: 0, savepoint: Savepoint::None, waiting: Vec::new() };
        let served = group.serve(first).await;
        group.end(served).await;
    }

    /// Runs a statement, if it is still waited for. Unlike a group, it cannot be in the middle of something when the database rolls it
    /// back.
    async fn statement(&self, statement: WaitingStatement) {
        let WaitingStatement { statement, span, turn } = statement;
        let mut conn = match self.connection().await {
            Ok(conn) => conn,
            Err(failed) => {
                self.fail(&failed);
                let _ = turn.send(Err(error::from_db(failed)));
                return;
            }
        };
        let (rows, given) = oneshot::channel();
        if turn.send(Ok(given)).is_err() {
            return self.keep(conn);
        }
        let query = async { driver::query(statement).fetch_all(&mut *conn).await.map_err(driver::in_query) };
        let found = spans::within(span, query).await;
        if found.is_ok() {
            self.keep(conn);
        }
        self.guard.set_failing(found.is_err());
        if found.is_ok() {
            self.commits.fetch_add(1, Ordering::Relaxed);
            self.members.fetch_add(1, Ordering::Relaxed);
        }
        let _ = rows.send(match (found, self.guard.check_file()) {
            // What was written while the file was replaced may be in the one that is gone.
            (Ok(_), Err(lost)) => Err(error::outcome_unknown(lost)),
            (Err(failed), _) if error::sqlite_may_have_committed(&failed) => Err(error::outcome_unknown(failed)),
            (found, _) => found.map(|rows| rows.into_iter().map(Into::into).collect()).map_err(error::from_db),
        });
    }

    /// The connection for a statement.
    async fn connection(&self) -> Result<PoolConnection<Sqlite>, DbErr> {
        self.prepare(Kind::Volatile).await?;
        let kept = self.kept().take();
        match kept {
            Some(conn) => Ok(conn),
            None => {
                let acquired = self.pool.get_sqlite_connection_pool().acquire().await;
                acquired.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())))
            }
        }
    }

    fn keep(&self, conn: PoolConnection<Sqlite>) {
        *self.kept() = Some(conn);
    }

    /// Gives the connection back to the pool, from which transactions take it.
    fn give_back(&self) {
        drop(self.kept().take());
    }

    fn kept(&self) -> MutexGuard<'_, Option<PoolConnection<Sqlite>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares the connection for a transaction or a statement.
    async fn prepare(&self, kind: Kind) -> Result<(), DbErr> {
        self.guard.check_file()?;
        self.set_synchronous(kind != Kind::Volatile).await
    }

    /// Fails all who wait. Another process holds the file, or it cannot be opened: they would wait as long for the same.
    fn fail(&self, failed: &DbErr) {
        self.guard.set_failing(true);
        let text = failed.to_string();
        for waiting in std::mem::take(&mut self.queue().waiting) {
            waiting.fail(error::gone(&text));
        }
    }

    /// Sets whether commits from here on wait for the disk. A connection that the pool opens waits.
    async fn set_synchronous(&self, synchronous: bool) -> Result<(), DbErr> {
        if self.synchronous.load(Ordering::Relaxed) == synchronous {
            return Ok(());
        }
        self.give_back();
        // Noted before a commit may not wait, and after all wait again: a setting that fails is made again.
        if synchronous {
            self.pool.execute_unprepared("PRAGMA synchronous = FULL").await?;
        }
        self.synchronous.store(synchronous, Ordering::Relaxed);
        if !synchronous {
            self.pool.execute_unprepared("PRAGMA synchronous = NORMAL").await?;
        }
        Ok(())
    }

    /// The next that waits, or the end.
    fn next(&self) -> Option<Waiting> {
        let mut queue = self.queue();
        let next = queue.next();
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
    async fn serve(&mut self, first: WaitingWriter) -> Result<(), DbErr> {
        let (since, longest) = (Instant::now(), *self.shared.longest.get().unwrap_or(&LONGEST_GROUP));
        let mut writer = first;
        for members in 1.. {
            let alone = writer.kind != Kind::Shared;
            match self.member(writer).await? {
                TurnEnd::Kept(sender) => {
                    self.waiting.push(WaitingMember::Kept(sender));
                    self.kept += 1;
                    self.savepoint = Savepoint::Outdated;
                }
                TurnEnd::Undone(sender) => {
                    self.waiting.extend(sender.map(WaitingMember::Undone));
                    if self.kept == 0 {
                        break;
                    }
                    self.run("ROLLBACK TO member").await?;
                    self.savepoint = Savepoint::Current;
                }
            }
            if alone || members >= MOST_MEMBERS || since.elapsed() >= longest {
                break;
            }
            writer = match self.shared.queue().next_shared() {
                Some(next) => next,
                None => break,
            };
        }
        Ok(())
    }

    async fn member(&mut self, writer: WaitingWriter) -> Result<TurnEnd, DbErr> {
        match self.savepoint {
            Savepoint::Outdated if self.kept == 1 => self.run("SAVEPOINT member").await?,
            Savepoint::Outdated => self.run("RELEASE member; SAVEPOINT member").await?,
            Savepoint::None | Savepoint::Current => {}
        }
        let (turn, ended) = Turn::new(Arc::clone(&self.shared.guard));
        // A writer that has left in the meantime gives the turn back by dropping it.
        let _ = writer.turn.send(Ok(Transaction::member(Arc::clone(&self.txn), turn)));
        let ended = ended.await;
        if self.shared.guard.is_broken() {
            if let Ok(TurnEnd::Kept(sender) | TurnEnd::Undone(Some(sender))) = ended {
                self.waiting.push(WaitingMember::Undone(sender));
            }
            return Err(DbErr::Custom("the database has rolled the transaction back".to_owned()));
        }
        ended.map_err(|_| DbErr::Custom("a turn was lost".to_owned()))
    }

    /// Ends the transaction and answers all members.
    async fn end(self, served: Result<(), DbErr>) {
        let Group { shared, txn, kept, waiting, .. } = self;
        let mut may_be_written = false;
        let ended = match Arc::into_inner(txn) {
            None => Err(DbErr::Custom("the transaction is in use".to_owned())),
            Some(txn) if served.is_ok() && kept > 0 => match shared.guard.check_file() {
                Ok(()) => {
                    shared.guard.open();
                    // What was written while the file was replaced may be in the one that is gone.
                    let committed = txn.commit().await.and_then(|()| shared.guard.check_file());
                    may_be_written = committed.as_ref().is_err_and(error::sqlite_may_have_committed);
                    committed
                }
                Err(lost) => {
                    let _ = txn.rollback().await;
                    Err(lost)
                }
            },
            Some(txn) => match txn.rollback().await {
                // If SQLite has rolled back already, this fails and the pool discards the connection.
                Ok(()) | Err(_) => served,
            },
        };
        shared.guard.open();
        if ended.is_err() || kept > 0 {
            shared.guard.set_failing(ended.is_err());
        }
        if ended.is_ok() && kept > 0 {
            shared.commits.fetch_add(1, Ordering::Relaxed);
            shared.members.fetch_add(kept, Ordering::Relaxed);
        }
        let failed = ended.err().map(|failed| failed.to_string());
        for member in waiting {
            let (sender, is_kept) = match member {
                WaitingMember::Kept(sender) => (sender, true),
                WaitingMember::Undone(sender) => (sender, false),
            };
            let _ = sender.send(match failed.as_deref() {
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
