//! Exporters with a time limit, which log that nothing arrives.
//!
//! The SDK exports on threads of its own, one export at a time, and waits for each as long as it takes. It does not report
//! failures.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The time that an export may take, retries included, unless `OTEL_EXPORTER_OTLP_TIMEOUT` or the variable of the signal
/// sets another one.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);
/// The time that the last exports may take when the server stops, all of a signal together.
pub(super) const FLUSH: Duration = Duration::from_secs(1);
/// The interval at which failures that go on are logged.
const REMINDER: Duration = Duration::from_secs(60);

/// An exporter with a time limit.
pub(super) struct Bounded<E> {
    inner: E,
    timeout: Duration,
    runtime: Handle,
    stop: Stop,
    health: ExportHealth,
}

/// The signal to exporters that the server stops.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<StopInner>);

#[derive(Debug, Default)]
struct StopInner {
    token: CancellationToken,
    /// The time at which the last export has to have ended.
    end: OnceLock<Instant>,
}

/// The success of exports, for the log.
struct ExportHealth {
    /// "traces" or "metrics".
    signal: &'static str,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    /// Failures in a row.
    count: u64,
    logged: Option<Instant>,
}

// === impl Bounded ===

impl<E> Bounded<E> {
    /// Wraps an exporter. Needs a runtime.
    pub(super) fn new(signal: &'static str, inner: E, timeout: Duration, stop: &Stop) -> Self {
        let health = ExportHealth { signal, failures: Mutex::default() };
        Bounded { inner, timeout, runtime: Handle::current(), stop: stop.clone(), health }
    }

    /// Runs an export until it has ended or its time is over. The timer runs on the runtime, because the thread that waits
    /// here has none.
    async fn within(&self, export: impl Future<Output = OTelSdkResult>) -> OTelSdkResult {
        let (end, mut ended) = oneshot::channel();
        let (stop, timeout) = (self.stop.clone(), self.timeout);
        let clock = self.runtime.spawn(async move {
            let late = tokio::select! {
                () = tokio::time::sleep(timeout) => format!("no answer within {timeout:?}"),
                () = stop.ended() => "no answer before the server stopped".to_owned(),
            };
            let _ = end.send(late);
        });
        let mut export = pin!(export);
        let result = poll_fn(|cx| match export.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            // Without a runtime there is no clock, and no connection.
            Poll::Pending => Pin::new(&mut ended).poll(cx).map(|late| {
                Err(OTelSdkError::InternalFailure(late.unwrap_or_else(|_| "the runtime has ended".to_owned())))
            }),
        })
        .await;
        clock.abort();
        self.health.note(&result);
        result
    }
}

impl<E> fmt::Debug for Bounded<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").field("signal", &self.health.signal).finish_non_exhaustive()
    }
}

impl<E: SpanExporter> SpanExporter for Bounded<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.within(self.inner.export(batch)).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Bounded<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.within(self.inner.export(metrics)).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}

// === impl Stop ===

impl Stop {
    /// Gives all exports together [`FLUSH`] from now on.
    pub(super) fn begin(&self) {
        self.0.end.get_or_init(|| Instant::now() + FLUSH);
        self.0.token.cancel();
    }

    /// Waits for the end of that time.
    async fn ended(&self) {
        self.0.token.cancelled().await;
        if let Some(end) = self.0.end.get() {
            tokio::time::sleep_until(*end).await;
        }
    }
}

// === impl ExportHealth ===

impl ExportHealth {
    fn note(&self, result: &OTelSdkResult) {
        let signal = self.signal;
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => {
                let Failures { count, .. } = std::mem::take(&mut *failures);
                if count > 0 {
                    tracing::info!(signal, exports.failed = count, "telemetry is exported again");
                }
            }
            Err(error) => {
                failures.count += 1;
                if failures.logged.is_none_or(|logged| logged.elapsed() >= REMINDER) {
                    failures.logged = Some(Instant::now());
                    let error = match error {
                        OTelSdkError::InternalFailure(error) => error.clone(),
                        error => error.to_string(),
                    };
                    tracing::warn!(
                        signal,
                        exports.failed = failures.count,
                        error.message = error,
                        "telemetry is not exported"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Silent;

    impl SpanExporter for Silent {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            std::future::pending().await
        }
    }

    fn error(result: OTelSdkResult) -> String {
        match result {
            Err(OTelSdkError::InternalFailure(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_export_that_is_not_answered_ends_and_all_of_them_when_the_server_stops() {
        let stop = Stop::default();
        let impatient = Bounded::new("traces", Silent, Duration::from_millis(5), &stop);
        assert_eq!(error(impatient.export(Vec::new()).await), "no answer within 5ms");
        let patient = Bounded::new("traces", Silent, Duration::from_secs(3_600), &stop);
        stop.begin();
        for _ in 0..3 {
            assert_eq!(error(patient.export(Vec::new()).await), "no answer before the server stopped");
        }
        assert_eq!(patient.health.failures.lock().unwrap().count, 3);
    }
}
