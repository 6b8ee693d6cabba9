//! The memory of a process, more completely than in a core dump: everything that it can read except unmodified files.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use jackfield_testkit::Process;
use rustix::process::Signal;

/// Reads all of it while the process is stopped. Only root may do so, because the process is not dumpable.
///
/// # Panics
/// Panics if this process lacks permission.
pub(super) fn of(process: &Process) -> Vec<u8> {
    process.signal(Signal::STOP);
    let read = read(process.id());
    process.signal(Signal::CONT);
    read.unwrap_or_else(|error| panic!("cannot read the memory of the server, which requires root: {error}"))
}

fn read(id: u32) -> std::io::Result<Vec<u8>> {
    let maps = std::fs::read_to_string(format!("/proc/{id}/maps"))?;
    let memory = File::open(format!("/proc/{id}/mem"))?;
    let mut bytes = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights, path) = (fields.next(), fields.next(), fields.nth(3).unwrap_or_default());
        let Some((start, end)) = range.and_then(|range| range.split_once('-')) else { continue };
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap_or_default());
        let rights = rights.unwrap_or_default();
        // A mapped file that is not writable is the same as on disk.
        if !rights.starts_with('r') || (path.starts_with('/') && !rights.contains('w')) || path == "[vvar]" {
            continue;
        }
        let from = bytes.len();
        bytes.resize(from + usize::try_from(end - start).unwrap_or_default(), 0);
        // A region without pages, such as the guard of a stack, has no content.
        if memory.read_exact_at(&mut bytes[from..], start).is_err() {
            bytes.truncate(from);
        }
    }
    Ok(bytes)
}
