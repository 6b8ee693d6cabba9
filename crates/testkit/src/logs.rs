//! The log of the test process, in memory. All servers of the process share it, so search it for text that only one
//! test can have written.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tracing::Level;
use tracing_subscriber::{
    Layer,
    filter::dynamic_filter_fn,
    fmt::{MakeWriter, format::FmtSpan},
    layer::SubscriberExt,
};

/// The capacity in bytes. Exceeding it panics instead of losing lines, because searching half a log proves nothing.
const CAPACITY: usize = 512 * 1024 * 1024;

/// A guard: while it lives, everything is logged, down to TRACE and from every crate. Otherwise the log keeps WARN and
/// above.
#[derive(Debug)]
pub struct Everything(());

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
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
            .with_writer(Writer)
            .with_filter(wanted);
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
            .expect("another subscriber is installed");
    });
}

/// Logs everything until the value is dropped.
pub fn everything() -> Everything {
    install();
    EVERYTHING.fetch_add(1, Ordering::Relaxed);
    Everything(())
}

/// The log so far, one JSON object per line.
pub fn bytes() -> Vec<u8> {
    log().clone()
}

/// The log so far, as text.
pub fn text() -> String {
    String::from_utf8_lossy(&log()).into_owned()
}

fn log() -> MutexGuard<'static, Vec<u8>> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Everything ===

impl Drop for Everything {
    fn drop(&mut self) {
        EVERYTHING.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Writer;

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = log();
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
        Writer
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
        drop(guard);
        tracing::trace!("quiet again 81f0");
        tracing::warn!("warning 81f0");
        let text = text();
        assert!(text.contains("loud 81f0") && text.contains("inside 81f0") && text.contains("warning 81f0"), "{text}");
        assert!(!text.contains("quiet"), "{text}");
    }
}
