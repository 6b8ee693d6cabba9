//! The hardening of the process: its memory stays its own, and it may open as many files as the system allows.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Forbids core dumps, and attaching or reading of `/proc/<pid>/mem` by other processes of the same user. Allows as many
/// open files as the system does: the usual soft limit of 1024 is for programs that use `select`.
///
/// # Errors
/// The system refuses.
pub fn harden() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    survive_file_size_limit()
}

/// A write beyond the limit on the size of files (`ulimit -f`) fails like one on a full disk, and does not kill the process:
/// SIGXFSZ has a handler from here on, which stays when the runtime that it needs to be installed is gone.
fn survive_file_size_limit() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async { signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop) })
}

/// Makes panics log their place and not their message, which may hold a value.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(code.location = location, "panicked");
    }));
}
