//! The gauges that are looked up when metrics are collected: readiness, ends of certificates, and the process itself.

use std::sync::Arc;
use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use tokio::sync::watch;

use super::log_writer::dropped_lines;
use crate::standard::health::Readiness;
use crate::tls::{PairReloader, TlsReloader};

/// Units of the times in `/proc/<pid>/stat`: Linux shows them to programs in hundredths of a second on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers the gauges of a server. Values that cannot be read are left out of the page.
pub(crate) fn register(
    meter: &Meter,
    readiness: watch::Receiver<Readiness>,
    tls: Option<Arc<TlsReloader>>,
    http: Vec<(&'static str, Arc<PairReloader>)>,
) {
    meter
        .u64_observable_gauge("jackfield.server.ready")
        .with_description("1 if health says SERVING, else 0")
        .with_callback(move |gauge| gauge.observe(u64::from(*readiness.borrow() == Readiness::Ready), &[]))
        .build();
    if tls.is_some() || !http.is_empty() {
        meter
            .i64_observable_gauge("jackfield.server.tls.valid_until")
            .with_description("Earliest end of validity in a certificate file, in seconds since 1970")
            .with_unit("s")
            .with_callback(move |gauge| {
                for (file, end) in tls.iter().flat_map(|tls| tls.current().valid_until.clone()) {
                    gauge.observe(end, &[KeyValue::new("file", file)]);
                }
                for (listener, pair) in &http {
                    let Some(end) = pair.current().valid_until else { continue };
                    let listener = *listener;
                    gauge.observe(end, &[KeyValue::new("file", listener)]);
                }
            })
            .build();
    }
    meter
        .u64_observable_counter("jackfield.server.log.dropped_lines")
        .with_description("Log lines that were dropped because they were not read fast enough")
        .with_callback(|counter| counter.observe(dropped_lines(), &[]))
        .build();
    process(meter);
}

/// Names are those of the conventions for processes.
fn process(meter: &Meter) {
    meter
        .u64_observable_gauge("process.memory.usage")
        .with_description("Resident memory")
        .with_unit("By")
        .with_callback(|gauge| {
            if let Some(bytes) = resident_bytes() {
                gauge.observe(bytes, &[]);
            }
        })
        .build();
    meter
        .f64_observable_counter("process.cpu.time")
        .with_description("Time on a CPU, of user and of system")
        .with_unit("s")
        .with_callback(|counter| {
            if let Some(seconds) = cpu_seconds() {
                counter.observe(seconds, &[]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("process.unix.file_descriptor.count")
        .with_description("Open file descriptors")
        .with_callback(|gauge| {
            if let Some(count) = file_descriptors() {
                gauge.observe(count, &[]);
            }
        })
        .build();
    let start = Instant::now();
    meter
        .f64_observable_gauge("process.uptime")
        .with_description("Time since the server was created")
        .with_unit("s")
        .with_callback(move |gauge| gauge.observe(start.elapsed().as_secs_f64(), &[]))
        .build();
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program is in brackets and may hold anything; the numbers begin behind the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / TICKS_PER_SECOND)
}

fn file_descriptors() -> Option<u64> {
    // The directory that is being read is one of them.
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u64::try_from(count).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_time_and_files() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        let before = cpu_seconds().unwrap();
        let start = Instant::now();
        let mut spent = 0_u64;
        while cpu_seconds().unwrap() < before + 0.02 {
            assert!(start.elapsed().as_secs() < 20, "no time passes: {before}");
            spent = std::hint::black_box(spent + 1);
        }
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert!(file_descriptors().unwrap() >= 4);
        drop(file);
    }
}
