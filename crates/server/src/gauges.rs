//! What is looked up when metrics are collected: readiness, ends of certificates, connections to the database, re-wraps, and
//! the process itself.

use std::sync::Arc;
use std::time::Instant;

use jackfield_service::{Gauges, Pool, RewrapProgress};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use tokio::sync::watch;

use crate::health::Readiness;
use crate::tls::TlsReloader;

/// Units of the times in `/proc/<pid>/stat`: Linux shows them to programs in hundredths of a second on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers the gauges of a server. What cannot be read is left out of the page.
pub(crate) fn register(meter: &Meter, readiness: watch::Receiver<Readiness>, tls: Option<Arc<TlsReloader>>) {
    meter
        .u64_observable_gauge("jackfield.server.ready")
        .with_description("1 if health says SERVING, else 0")
        .with_callback(move |gauge| gauge.observe(u64::from(*readiness.borrow() == Readiness::Ready), &[]))
        .build();
    if let Some(tls) = tls {
        meter
            .i64_observable_gauge("jackfield.server.tls.valid_until")
            .with_description("Earliest end of validity in a certificate file, in seconds since 1970")
            .with_unit("s")
            .with_callback(move |gauge| {
                for (file, end) in &tls.current().valid_until {
                    gauge.observe(*end, &[KeyValue::new("file", *file)]);
                }
            })
            .build();
    }
    process(meter);
}

/// Registers the gauges of the services behind a server. None of them asks the database.
pub(crate) fn register_services(meter: &Meter, gauges: &Gauges) {
    database(meter, gauges);
    stored(meter, gauges);
    rewraps(meter, gauges);
}

/// Names are those of the conventions for clients of databases.
fn database(meter: &Meter, gauges: &Gauges) {
    let name = |pool: &Pool| KeyValue::new("db.client.connection.pool.name", pool.name);
    let all = gauges.clone();
    meter
        .i64_observable_up_down_counter("db.client.connection.count")
        .with_description("Connections to the database, by state")
        .with_unit("{connection}")
        .with_callback(move |counter| {
            for pool in all.pools() {
                for (state, count) in [("used", pool.used), ("idle", pool.idle)] {
                    let state = KeyValue::new("db.client.connection.state", state);
                    counter.observe(i64::from(count), &[name(&pool), state]);
                }
            }
        })
        .build();
    let all = gauges.clone();
    meter
        .i64_observable_up_down_counter("db.client.connection.max")
        .with_description("Connections to the database that there can be")
        .with_unit("{connection}")
        .with_callback(move |counter| {
            for pool in all.pools() {
                counter.observe(i64::from(pool.max), &[name(&pool)]);
            }
        })
        .build();
}

/// What the database has in store for an operator.
fn stored(meter: &Meter, gauges: &Gauges) {
    let all = gauges.clone();
    meter
        .u64_observable_counter("jackfield.database.connect.failures")
        .with_description("Connections to PostgreSQL that could not be opened")
        .with_callback(move |counter| counter.observe(all.connect_failures(), &[]))
        .build();
    let all = gauges.clone();
    meter
        .u64_observable_counter("jackfield.database.rows.damaged")
        .with_description("Times that a row was met which cannot be read")
        .with_callback(move |counter| counter.observe(all.damaged_rows(), &[]))
        .build();
    let all = gauges.clone();
    meter
        .u64_observable_gauge("jackfield.database.writable")
        .with_description("1 if the last write to the SQLite database succeeded, else 0")
        .with_callback(move |gauge| {
            if let Some(writable) = all.writable() {
                gauge.observe(u64::from(writable), &[]);
            }
        })
        .build();
    let all = gauges.clone();
    meter
        .f64_observable_gauge("jackfield.database.log.overdue")
        .with_description("For how long the write-ahead log of SQLite holds something that was destroyed")
        .with_unit("s")
        .with_callback(move |gauge| gauge.observe(all.log_overdue().as_secs_f64(), &[]))
        .build();
}

fn rewraps(meter: &Meter, gauges: &Gauges) {
    type Read = fn(&RewrapProgress) -> i64;
    let shown: [(&'static str, &'static str, Read); 5] = [
        ("jackfield.rewrap.running", "1 if a re-wrap runs in this process, else 0", |rewrap| {
            i64::from(rewrap.workers > 0)
        }),
        ("jackfield.rewrap.data_keys.done", "Data keys that it has wrapped anew", |rewrap| rewrap.data_keys_done),
        ("jackfield.rewrap.data_keys.planned", "Data keys that it found at its start", |rewrap| rewrap.data_keys_total),
        ("jackfield.rewrap.secrets.done", "Secrets that it has sealed anew", |rewrap| rewrap.secrets_done),
        ("jackfield.rewrap.secrets.planned", "Secrets that it found at its start", |rewrap| rewrap.secrets_total),
    ];
    for (name, description, read) in shown {
        let gauges = gauges.clone();
        meter
            .i64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |gauge| gauge.observe(read(&gauges.rewrap()), &[]))
            .build();
    }
    let gauges = gauges.clone();
    meter
        .u64_observable_counter("jackfield.rewrap.failed")
        .with_description("Data keys and secrets that could not be wrapped anew")
        .with_callback(move |counter| counter.observe(gauges.rewrap().failed, &[]))
        .build();
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
        .with_description("Time since the server was made")
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
    // The name of the program stands in brackets and may hold anything; the numbers begin behind the last one.
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
