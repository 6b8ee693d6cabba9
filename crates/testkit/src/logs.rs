//! The log of the test process, in memory. All servers of the process share it, so search it for text that only one
//! test can have written. What is more detailed than WARN is kept while a test needs it.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    Layer,
    filter::dynamic_filter_fn,
    fmt::{MakeWriter, format::FmtSpan},
    layer::SubscriberExt,
};

/// The capacity of each part in bytes. Exceeding it panics instead of losing lines, because searching half a log proves nothing.
const CAPACITY: usize = 512 * 1024 * 1024;

/// A guard: while it lives, everything is logged, down to TRACE and from every crate. Otherwise the log keeps WARN and
/// above. Read the log before it is dropped: with the last guard, everything else is forgotten.
#[derive(Debug)]
pub struct Everything(());

/// The lines of WARN and above.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// The other lines.
static DETAILS: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static EVERYTHING: AtomicUsize = AtomicUsize::new(0);

/// Records the events and spans of this process in memory from now on. Further calls have no effect.
pub fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let wanted =
            dynamic_filter_fn(|metadata, _| *metadata.level() <= Level::WARN || EVERYTHING.load(Ordering::Relaxed) > 0);
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .with_span_events(FmtSpan::NEW | FmtSpan::CLOSE)
            .with_writer(Writer(&LOG))
            .with_filter(wanted);
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
            .expect("another subscriber is installed");
    });
}

/// Logs everything until the value is dropped.
pub fn everything() -> Everything {
    install();
    // Under the lock, so that the last guard does not clear the lines of a new one.
    let _details = locked(&DETAILS);
    EVERYTHING.fetch_add(1, Ordering::Relaxed);
    Everything(())
}

/// The log so far, one JSON object per line: WARN and above, then the details.
pub fn bytes() -> Vec<u8> {
    let mut log = locked(&LOG).clone();
    log.extend_from_slice(&locked(&DETAILS));
    log
}

/// The log so far, as text.
pub fn text() -> String {
    String::from_utf8_lossy(&bytes()).into_owned()
}

fn locked(part: &'static Mutex<Vec<u8>>) -> MutexGuard<'static, Vec<u8>> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Everything ===

impl Drop for Everything {
    fn drop(&mut self) {
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

    #[test]
    fn trace_is_kept_only_while_everything_is_logged() {
        install();
        tracing::trace!("quiet 81f0");
        let guard = everything();
        tracing::trace!(secret = "inside 81f0", "loud 81f0");
        tracing::warn!("warning 81f0");
        let log = text();
        assert!(log.contains("loud 81f0") && log.contains("inside 81f0") && log.contains("warning 81f0"), "{log}");
        drop(guard);
        tracing::trace!("quiet again 81f0");
        let log = text();
        assert!(log.contains("warning 81f0") && !log.contains("quiet") && !log.contains("loud"), "{log}");
    }
}
