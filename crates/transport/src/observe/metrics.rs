//! The instruments of the transport. Names are those of the OpenTelemetry conventions where these have one.

use std::sync::Arc;
use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};
use tonic::Code;

use crate::call::attributes::CallAttributes;

/// Boundaries of `rpc.server.call.duration` in seconds. The conventions begin at 5 ms, but a token takes 0.1 ms.
const DURATION_BOUNDARIES: [f64; 17] =
    [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The values of attributes of counters. All of them are on the page from the start: a rate does not see the step from
/// nothing to one.
const CAPS: [&str; 4] = ["per_identity", "per_ip", "per_tenant", "total"];
const END_CAUSES: [&str; 9] =
    ["age", "certificate", "client", "drain", "error", "flood", "idle", "no_preface", "stalled"];
const HANDSHAKE_CAUSES: [&str; 7] =
    ["bad_certificate", "io", "no_certificate", "no_h2", "protocol", "refused_by_client", "timeout"];
/// A caller or tenant that has its share, or a server that is full.
const SHED_CAUSES: [&str; 2] = ["share", "full"];
/// The statuses with which requests of HTTP are refused before they become calls.
const REFUSED_STATUSES: [u16; 11] = [400, 401, 404, 405, 408, 413, 414, 415, 417, 431, 501];
const RELOAD_RESULTS: [&str; 2] = ["reloaded", "kept_previous"];

/// All instruments; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(Arc<Instruments>);

#[derive(Debug)]
struct Instruments {
    call_duration: Histogram<f64>,
    calls_open: UpDownCounter<i64>,
    calls_shed: Counter<u64>,
    errors: Counter<u64>,
    /// The reasons that are counted. A client cannot add one.
    reasons: Vec<&'static str>,
    connections_open: UpDownCounter<i64>,
    connections_refused: Counter<u64>,
    connections_ended: Counter<u64>,
    streams_stalled: Counter<u64>,
    handshakes_failed: Counter<u64>,
    accept_errors: Counter<u64>,
    requests_refused: Counter<u64>,
    tls_reloads: Counter<u64>,
}

/// A call under way; it counts as open until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenCall {
    metrics: Metrics,
    attributes: Arc<CallAttributes>,
    start: Instant,
    ended: bool,
}

/// Counts one more of something that is open, until dropped.
#[derive(Debug)]
pub(crate) struct Open {
    counter: UpDownCounter<i64>,
    attributes: Vec<KeyValue>,
}

// === impl Metrics ===

impl Metrics {
    /// Makes the instruments; `reasons` are those of errors.
    pub(crate) fn new(meter: &Meter, reasons: &[&'static str]) -> Self {
        let counter = |name: &'static str, text: &'static str| meter.u64_counter(name).with_description(text).build();
        let open =
            |name: &'static str, text: &'static str| meter.i64_up_down_counter(name).with_description(text).build();
        let metrics = Metrics(Arc::new(Instruments {
            call_duration: meter
                .f64_histogram("rpc.server.call.duration")
                .with_description("Duration of calls, streams to their end")
                .with_unit("s")
                .with_boundaries(DURATION_BOUNDARIES.to_vec())
                .build(),
            calls_open: open("jackfield.server.calls.open", "Calls and streams under way"),
            calls_shed: counter("jackfield.server.calls.shed", "Calls refused because of load"),
            errors: counter("jackfield.server.errors", "Calls that ended with an error, by reason"),
            reasons: reasons.to_vec(),
            connections_open: open("jackfield.server.connections.open", "Open connections"),
            connections_refused: counter("jackfield.server.connections.refused", "Connections over a cap"),
            connections_ended: counter("jackfield.server.connections.ended", "Connections that ended, by cause"),
            streams_stalled: counter(
                "jackfield.server.streams.stalled",
                "Streams ended because their clients did not read them",
            ),
            handshakes_failed: counter("jackfield.server.handshakes.failed", "TLS handshakes that failed, by cause"),
            accept_errors: counter("jackfield.server.accept.errors", "Errors of accept"),
            requests_refused: counter(
                "jackfield.server.http.requests.refused",
                "Requests of the licence API that became no call, by status",
            ),
            tls_reloads: counter("jackfield.server.tls.reloads", "Changes of the certificate files, by result"),
        }));
        metrics.zero();
        metrics
    }

    fn zero(&self) {
        let Instruments { calls_shed, errors, connections_refused, connections_ended, .. } = &*self.0;
        let Instruments { streams_stalled, handshakes_failed, accept_errors, tls_reloads, reasons, .. } = &*self.0;
        for counter in [streams_stalled, accept_errors] {
            counter.add(0, &[]);
        }
        let zero = |counter: &Counter<u64>, attribute: &'static str, values: &[&'static str]| {
            values.iter().for_each(|value| counter.add(0, &[KeyValue::new(attribute, *value)]));
        };
        zero(calls_shed, "cause", &SHED_CAUSES);
        zero(connections_refused, "cap", &CAPS);
        zero(connections_ended, "cause", &END_CAUSES);
        zero(handshakes_failed, "cause", &HANDSHAKE_CAUSES);
        zero(tls_reloads, "result", &RELOAD_RESULTS);
        zero(errors, "reason", reasons);
        REFUSED_STATUSES.iter().for_each(|status| self.refused(*status, 0));
    }

    /// Counts a call as open until the result is dropped.
    pub(crate) fn call_open(&self, attributes: Arc<CallAttributes>, start: Instant) -> OpenCall {
        self.0.calls_open.add(1, attributes.open());
        OpenCall { metrics: self.clone(), attributes, start, ended: false }
    }

    /// Counts a call that was refused because of load: because the server is full, or because its caller has its share.
    pub(crate) fn call_shed(&self, full: bool) {
        let [of_share, of_all] = SHED_CAUSES;
        self.0.calls_shed.add(1, &[KeyValue::new("cause", if full { of_all } else { of_share })]);
    }

    /// Counts a call that ended with an error.
    pub(crate) fn error(&self, reason: &str) {
        if let Some(reason) = self.0.reasons.iter().find(|known| **known == reason) {
            self.0.errors.add(1, &[KeyValue::new("reason", *reason)]);
        }
    }

    /// Counts a connection as open until the result is dropped.
    pub(crate) fn connection_open(&self, listener: &'static str) -> Open {
        Open::new(&self.0.connections_open, vec![KeyValue::new("listener", listener)])
    }

    /// Counts a connection that a cap refused.
    pub(crate) fn connection_refused(&self, cap: &'static str) {
        self.0.connections_refused.add(1, &[KeyValue::new("cap", cap)]);
    }

    /// Counts a connection that ended.
    pub(crate) fn connection_ended(&self, cause: &'static str) {
        self.0.connections_ended.add(1, &[KeyValue::new("cause", cause)]);
    }

    /// Counts a stream that ended because its client did not read.
    pub(crate) fn stream_stalled(&self) {
        self.0.streams_stalled.add(1, &[]);
    }

    /// Counts a handshake that failed.
    pub(crate) fn handshake_failed(&self, cause: &'static str) {
        self.0.handshakes_failed.add(1, &[KeyValue::new("cause", cause)]);
    }

    /// Counts a connection that could not be accepted.
    pub(crate) fn accept_error(&self) {
        self.0.accept_errors.add(1, &[]);
    }

    /// Counts a request of HTTP that became no call.
    pub(crate) fn request_refused(&self, status: u16) {
        self.refused(status, 1);
    }

    fn refused(&self, status: u16, count: u64) {
        let status = KeyValue::new("http.response.status_code", i64::from(status));
        self.0.requests_refused.add(count, &[status]);
    }

    /// Counts a change of the certificate files.
    pub(crate) fn tls_reloaded(&self, good: bool) {
        let [reloaded, kept_previous] = RELOAD_RESULTS;
        self.0.tls_reloads.add(1, &[KeyValue::new("result", if good { reloaded } else { kept_previous })]);
    }
}

// === impl OpenCall ===

impl OpenCall {
    /// Ends the call.
    pub(crate) fn ended(mut self, code: Code) {
        self.record(code);
        self.ended = true;
    }

    fn record(&self, code: Code) {
        let seconds = self.start.elapsed().as_secs_f64();
        self.metrics.0.call_duration.record(seconds, self.attributes.ended(code));
    }
}

impl Drop for OpenCall {
    /// A call that is dropped without an end is one whose client has left.
    fn drop(&mut self) {
        if !self.ended {
            self.record(Code::Cancelled);
        }
        self.metrics.0.calls_open.add(-1, self.attributes.open());
    }
}

// === impl Open ===

impl Open {
    fn new(counter: &UpDownCounter<i64>, attributes: Vec<KeyValue>) -> Self {
        counter.add(1, &attributes);
        Open { counter: counter.clone(), attributes }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counter.add(-1, &self.attributes);
    }
}
