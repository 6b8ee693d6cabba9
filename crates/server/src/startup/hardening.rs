//! The hardening of the process: its memory stays its own, and it may open as many files as the system allows.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// No core dumps, and no attaching or reading of `/proc/<pid>/mem` by other processes of the same user. As many
/// open files as allowed: the usual soft limit of 1024 is for programs that use `select`.
///
/// # Errors
/// The system refuses.
pub fn harden() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    Ok(())
}

/// Makes panics log their place and not their message, which may hold a value.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(code.location = location, "panicked");
    }));
}
