//! Log lines go to standard error through a bounded queue with a thread of its own. A pipe that is full and never read
//! blocks only that thread, and lines that find no room are dropped and counted.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Lines that wait to be written.
const QUEUE_LINES: usize = 8_192;
/// The longest wait for lines to be written at the end.
const FLUSH: Duration = Duration::from_secs(1);

/// The lines that found no room in the queue of the log, of which a process has one.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();
/// The lines that could not be written, for example because the disk is full or the reader has gone.
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);

/// The thread that writes the log, until it is flushed.
#[derive(Clone, Debug)]
pub struct LogThread(Arc<Mutex<Option<WorkerGuard>>>);

/// A file that is waited for while it has no room, even if another process that has it too made it non-blocking. Failures
/// count as lines, because the thread does not try to write a line again.
struct Waiting<W>(W);

/// Starts a thread that writes lines to `to`.
pub(super) fn start(to: impl Write + AsFd + Send + 'static) -> (NonBlocking, LogThread) {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE_LINES).thread_name("log");
    let (writer, guard) = builder.finish(Waiting(to));
    (writer, LogThread(Arc::new(Mutex::new(Some(guard)))))
}

/// Counts the dropped lines of this writer as those of the process.
pub(super) fn count_dropped(writer: &NonBlocking) {
    // The first log of a process is its only one.
    let _ = DROPPED.set(writer.error_counter());
}

/// The number of lines that were dropped so far.
pub(super) fn dropped_lines() -> u64 {
    let without_room = DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64);
    without_room + UNWRITTEN.load(Ordering::Relaxed)
}

/// Does something that may wait for a reader, such as a write to a pipe, and waits for it no longer than [`FLUSH`].
pub fn without_waiting_for_readers(work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let working = std::thread::Builder::new().spawn(move || {
        work();
        let _ = done.send(());
    });
    if working.is_ok() {
        let _ = is_done.recv_timeout(FLUSH);
    }
}

// === impl Waiting ===

impl<W: Write + AsFd> Write for Waiting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(line) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // If this fails, the next write says why.
                    let _ = poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => {
                    UNWRITTEN.fetch_add(u64::from(written.is_err()), Ordering::Relaxed);
                    return written;
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

// === impl LogThread ===

impl LogThread {
    /// Writes the lines that are left, as far as there is a reader, and ends the thread. Later lines are dropped.
    pub fn flush(&self) {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The guard has bounds of its own, but complains of a full queue to standard output, which may be the same pipe.
        if let Some(guard) = guard {
            without_waiting_for_readers(move || drop(guard));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_reader_that_does_not_read_holds_up_nothing_and_its_lines_are_counted() {
        let (reader, pipe) = std::io::pipe().unwrap();
        let (mut writer, thread) = start(pipe);
        let counter = writer.error_counter();
        let line = [b'x'; 1_024];
        let begin = Instant::now();
        for _ in 0..2 * QUEUE_LINES {
            writer.write_all(&line).unwrap();
        }
        // A pipe has room for 64 KiB.
        let least = QUEUE_LINES - 128;
        assert!(counter.dropped_lines() >= least, "{} lines were dropped", counter.dropped_lines());
        thread.flush();
        assert!(begin.elapsed() < Duration::from_secs(20));
        drop(reader);
    }

    #[test]
    fn a_pipe_that_does_not_block_is_waited_for() {
        let (mut reader, pipe) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&pipe, true).unwrap();
        let (mut writer, thread) = start(pipe);
        let line = [b'x'; 1_024];
        for _ in 0..QUEUE_LINES / 2 {
            writer.write_all(&line).unwrap();
        }
        let reading = std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()).unwrap());
        thread.flush();
        drop(writer);
        assert_eq!(reading.join().unwrap(), (QUEUE_LINES / 2 * line.len()) as u64);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let before = dropped_lines();
        let (mut writer, thread) = start(full);
        for _ in 0..100 {
            writer.write_all(b"line\n").unwrap();
        }
        thread.flush();
        assert!(dropped_lines() >= before + 100, "{} lines", dropped_lines() - before);
    }

    #[test]
    fn what_was_logged_before_the_end_is_written() {
        let (mut reader, pipe) = std::io::pipe().unwrap();
        let (mut writer, thread) = start(pipe);
        for _ in 0..100 {
            writer.write_all(b"line\n").unwrap();
        }
        thread.flush();
        drop(writer);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "line\n".repeat(100));
    }
}
