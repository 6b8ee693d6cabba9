//! The gauges of the services that are looked up when metrics are collected: connections to the database, its state, and
//! re-wraps.

use jackfield_service::{Gauges, Pool, RewrapProgress};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

/// Registers the gauges of the services behind a server. None of them queries the database.
pub(super) fn register(meter: &Meter, gauges: &Gauges) {
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
        .with_description("Maximum number of connections to the database")
        .with_unit("{connection}")
        .with_callback(move |counter| {
            for pool in all.pools() {
                counter.observe(i64::from(pool.max), &[name(&pool)]);
            }
        })
        .build();
}

/// The state of the database.
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
        .with_description("Times that a row could not be read")
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
        .with_description("Time for which the write-ahead log of SQLite has held destroyed data")
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
        ("jackfield.rewrap.data_keys.done", "Data keys that it has re-wrapped", |rewrap| rewrap.data_keys_done),
        ("jackfield.rewrap.data_keys.planned", "Data keys that it found at its start", |rewrap| rewrap.data_keys_total),
        ("jackfield.rewrap.secrets.done", "Secrets that it has resealed", |rewrap| rewrap.secrets_done),
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
        .with_description("Data keys and secrets that could not be re-wrapped or resealed")
        .with_callback(move |counter| counter.observe(gauges.rewrap().failed, &[]))
        .build();
}
