//! The instruments of the services: what they count, and the gauges that are looked up when metrics are collected, of
//! connections to the database, its state, keys that expire, events of connectors, and re-wraps.

use jackfield_service::{EventCounts, Gauges, Pool, RewrapProgress};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter, UpDownCounter};

/// The changes of the keyring file.
pub(super) struct KeyringReloads(Counter<u64>);

/// The values of `result`. Both are on the page from the start: a rate does not see the step from nothing to one.
const RELOAD_RESULTS: [&str; 2] = ["reloaded", "kept_previous"];

// === impl KeyringReloads ===

impl KeyringReloads {
    pub(super) fn new(meter: &Meter) -> Self {
        let counter = meter.u64_counter("jackfield.server.keyring.reloads");
        let counter = counter.with_description("Changes of the keyring file, by result").build();
        RELOAD_RESULTS.iter().for_each(|result| counter.add(0, &[KeyValue::new("result", *result)]));
        KeyringReloads(counter)
    }

    /// Counts a change.
    pub(super) fn count(&self, is_in_force: bool) {
        let [reloaded, kept_previous] = RELOAD_RESULTS;
        self.0.add(1, &[KeyValue::new("result", if is_in_force { reloaded } else { kept_previous })]);
    }
}

/// Makes the count of lists that wait for memory for a page.
pub(super) fn lists_waiting(meter: &Meter) -> UpDownCounter<i64> {
    let counter = meter.i64_up_down_counter("jackfield.server.lists.waiting");
    let counter = counter.with_description("Lists that wait for memory for a page").build();
    counter.add(0, &[]);
    counter
}

/// Registers the gauges of the services behind a server. None of them queries the database.
pub(super) fn register(meter: &Meter, gauges: &Gauges) {
    database(meter, gauges);
    stored(meter, gauges);
    keys(meter, gauges);
    attempts(meter, gauges);
    refreshes(meter, gauges);
    revocations(meter, gauges);
    events(meter, gauges);
    rewraps(meter, gauges);
}

/// The events of connectors.
fn events(meter: &Meter, gauges: &Gauges) {
    let all = gauges.clone();
    meter
        .u64_observable_counter("jackfield.connector.events")
        .with_description("Events of connectors that debug, by result")
        .with_callback(move |counter| {
            let EventCounts { written, dropped } = all.events();
            for (result, count) in [("written", written), ("dropped", dropped)] {
                counter.observe(count, &[KeyValue::new("result", result)]);
            }
        })
        .build();
}

/// The keys whose renewal is due.
fn keys(meter: &Meter, gauges: &Gauges) {
    let all = gauges.clone();
    meter
        .u64_observable_gauge("jackfield.keys.expiring")
        .with_description("Keys whose certificates expire, by the rest of their lifetime")
        .with_callback(move |gauge| {
            for (remaining, count) in all.expiring_keys().counts {
                gauge.observe(count, &[KeyValue::new("remaining", remaining.as_str())]);
            }
        })
        .build();
    let all = gauges.clone();
    meter
        .i64_observable_gauge("jackfield.keys.valid_until")
        .with_description("Expiry of the keys that expire first, in seconds since 1970")
        .with_unit("s")
        .with_callback(move |gauge| {
            for (tenant, key, not_after) in all.expiring_keys().first {
                let labels = [KeyValue::new("tenant", tenant.to_string()), KeyValue::new("key", key.to_string())];
                gauge.observe(not_after.seconds(), &labels);
            }
        })
        .build();
}

/// The attempts to refresh credentials.
fn refreshes(meter: &Meter, gauges: &Gauges) {
    let all = gauges.clone();
    meter
        .u64_observable_counter("jackfield.credential.refreshes")
        .with_description("Attempts to refresh credentials, by outcome")
        .with_callback(move |counter| {
            for (outcome, count) in all.refreshes() {
                counter.observe(count, &[KeyValue::new("outcome", outcome.to_ascii_lowercase())]);
            }
        })
        .build();
    let all = gauges.clone();
    meter
        .u64_observable_gauge("jackfield.credential.refresh.silent_endpoints")
        .with_description("Token endpoints that do not answer, and get one refresh at a time")
        .with_callback(move |gauge| gauge.observe(all.silent_endpoints(), &[]))
        .build();
    let all = gauges.clone();
    meter
        .u64_observable_gauge("jackfield.credential.journals.unwritable")
        .with_description("Journals of received tokens that cannot be written, so that none are asked for")
        .with_callback(move |gauge| gauge.observe(all.unwritable_journals(), &[]))
        .build();
}

/// The tokens that were to be revoked at their provider.
fn revocations(meter: &Meter, gauges: &Gauges) {
    let all = gauges.clone();
    meter
        .u64_observable_counter("jackfield.credential.revocations")
        .with_description("Tokens that were to be revoked at their provider, by outcome")
        .with_callback(move |counter| {
            for (outcome, count) in all.revocations() {
                counter.observe(count, &[KeyValue::new("outcome", outcome.to_ascii_lowercase())]);
            }
        })
        .build();
}

/// The log-in attempts over a limit.
fn attempts(meter: &Meter, gauges: &Gauges) {
    let all = gauges.clone();
    meter
        .u64_observable_counter("jackfield.login.attempts.refused")
        .with_description("Log-in attempts that were refused, by limit")
        .with_callback(move |counter| {
            for (limit, count) in all.refused_attempts() {
                counter.observe(count, &[KeyValue::new("limit", limit.as_str())]);
            }
        })
        .build();
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

#[cfg(test)]
mod tests {
    use jackfield_transport::config::Telemetry;
    use jackfield_transport::telemetry::Meters;

    use super::*;

    #[test]
    fn what_the_services_count_begins_at_zero() {
        let meters = Meters::new(&Telemetry::default()).unwrap();
        let reloads = KeyringReloads::new(&meters.meter());
        lists_waiting(&meters.meter());
        let count = |name: &str, attribute: &str| {
            let page = meters.page().unwrap();
            let line = page.lines().find(|line| line.starts_with(name) && line.contains(attribute));
            line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
        };
        let is = |number: &str| Some(number.to_owned());
        assert_eq!(count("jackfield_server_lists_waiting{", ""), is("0"));
        for result in ["result=\"reloaded\"", "result=\"kept_previous\""] {
            assert_eq!(count("jackfield_server_keyring_reloads_total{", result), is("0"), "{result}");
        }
        reloads.count(false);
        assert_eq!(count("jackfield_server_keyring_reloads_total{", "result=\"reloaded\""), is("0"));
        assert_eq!(count("jackfield_server_keyring_reloads_total{", "result=\"kept_previous\""), is("1"));
    }
}
