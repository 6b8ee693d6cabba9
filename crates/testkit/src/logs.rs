//! The log of the test process, in memory. All servers of the process share it, so search it for text that only one
//! test can have written. What is more detailed than WARN is kept while a test needs it.

use std::{
    collections::HashMap,
    io,
    sync::{
        LazyLock, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::runtime::{Handle, Id};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    Layer,
    filter::dynamic_filter_fn,
    fmt::{MakeWriter, format::FmtSpan},
    layer::SubscriberExt,
};

/// The capacity of each part in bytes. Exceeding it panics instead of losing lines, because searching half a log proves nothing.
const CAPACITY: usize = 512 * 1024 * 1024;

/// A guard: while it lives, everything is logged, down to TRACE and from every crate, of the test that holds it and of
/// its servers. Otherwise the log keeps WARN and above. Read the log before it is dropped: with the last guard,
/// everything else is forgotten.
#[derive(Debug)]
pub struct Everything(Option<Id>);

/// The lines of WARN and above.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// The other lines.
static DETAILS: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static EVERYTHING: AtomicUsize = AtomicUsize::new(0);
/// The runtimes of the tests that hold a guard.
static WANTED: Mutex<Vec<Id>> = Mutex::new(Vec::new());
/// The runtime of each server, with that of the test that started it. The tests beside it write more than fits.
static SERVERS: LazyLock<Mutex<HashMap<Id, Id>>> = LazyLock::new(Mutex::default);

/// Records the events and spans of this process in memory from now on. Further calls have no effect.
pub fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let wanted = dynamic_filter_fn(|metadata, _| {
            *metadata.level() <= Level::WARN || (EVERYTHING.load(Ordering::Relaxed) > 0 && is_wanted())
        });
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .with_span_events(FmtSpan::NEW | FmtSpan::CLOSE)
            .with_writer(Writer(&LOG))
            .with_filter(wanted);
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
            .expect("another subscriber is installed");
    });
}

/// Counts the runtime as one of the test that calls this.
///
/// # Panics
/// Panics outside of a runtime.
pub fn adopt(server: &Handle) {
    let test = test_of(Handle::current().id());
    locked(&SERVERS).insert(server.id(), test);
}

/// Logs everything until the value is dropped.
pub fn everything() -> Everything {
    install();
    let test = Handle::try_current().ok().map(|handle| test_of(handle.id()));
    locked(&WANTED).extend(test);
    // Under the lock, so that the last guard does not clear the lines of a new one.
    let _details = locked(&DETAILS);
    EVERYTHING.fetch_add(1, Ordering::Relaxed);
    Everything(test)
}

/// Returns true if the current thread works for a test that holds a guard. A thread outside of all runtimes may.
fn is_wanted() -> bool {
    Handle::try_current().map_or(true, |handle| locked(&WANTED).contains(&test_of(handle.id())))
}

fn test_of(runtime: Id) -> Id {
    locked(&SERVERS).get(&runtime).copied().unwrap_or(runtime)
}

/// The log so far, one JSON object per line: WARN and above; then the details, for a test that holds a guard.
pub fn bytes() -> Vec<u8> {
    let mut log = locked(&LOG).clone();
    if is_wanted() {
        log.extend_from_slice(&locked(&DETAILS));
    }
    log
}

/// The log so far, as text.
pub fn text() -> String {
    String::from_utf8_lossy(&bytes()).into_owned()
}

fn locked<T>(part: &'static Mutex<T>) -> MutexGuard<'static, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Everything ===

impl Drop for Everything {
    fn drop(&mut self) {
        if let Some(test) = self.0 {
            let mut wanted = locked(&WANTED);
            let one = wanted.iter().position(|wanted| *wanted == test);
            wanted.swap_remove(one.expect("a guard has its entry"));
        }
        let mut details = locked(&DETAILS);
        if EVERYTHING.fetch_sub(1, Ordering::Relaxed) == 1 {
            *details = Vec::new();
        }
    }
}

/// A writer to a part of the log.
struct Writer(&'static Mutex<Vec<u8>>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = locked(self.0);
        assert!(log.len() + bytes.len() <= CAPACITY, "the log of this test process is full");
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Writer {
    type Writer = Writer;

    fn make_writer(&self) -> Writer {
        Writer(&LOG)
    }

    fn make_writer_for(&self, metadata: &Metadata<'_>) -> Writer {
        Writer(if *metadata.level() <= Level::WARN { &LOG } else { &DETAILS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, because a second one beside it would be logged, too.
    #[test]
    fn trace_is_kept_of_a_test_and_its_servers_while_it_holds_the_guard() {
        install();
        let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let (test, server, another) = (runtime(), runtime(), runtime());
        let said = |what: &'static str| async move { tracing::trace!(secret = format!("inside {what}"), "said") };
        test.block_on(async {
            adopt(server.handle());
            said("too early").await;
            let guard = everything();
            said("the test").await;
            server.spawn(said("its server")).await.expect("a task of the server");
            another.spawn(said("another test")).await.expect("a task of another test");
            tracing::warn!("warning 81f0");
            let log = text();
            assert!(log.contains("inside the test") && log.contains("inside its server"), "{log}");
            assert!(log.contains("warning 81f0"), "{log}");
            assert!(!log.contains("inside another test"), "{log}");
            another.spawn(async { assert!(!text().contains("inside")) }).await.expect("another test has no part in it");
            drop(guard);
            said("too late").await;
            let log = text();
            assert!(log.contains("warning 81f0") && !log.contains("inside"), "{log}");
        });
    }
}
