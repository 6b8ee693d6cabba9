//! `[telemetry]`: logs, traces, metrics.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The logs, traces and metrics of the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// `json` or `text`, on standard error.
    pub log_format: LogFormat,
    /// The log filter: `info`, or directives such as `info,jackfield=debug`.
    pub log_filter: String,
    /// The endpoint of traces and metrics by OTLP over gRPC, such as `http://127.0.0.1:4317`. Empty: none.
    pub otlp_endpoint: String,
    /// The share of calls that are traced, from 0 to 1, of those whose caller does not say so in a `traceparent`.
    pub trace_ratio: f64,
    /// Authority of the receiver for an `https` endpoint, PEM. Empty: none, which suits `http` only.
    pub otlp_ca: PathBuf,
    /// Address of a plaintext HTTP listener that serves `GET /metrics`. Empty: none.
    pub prometheus_address: String,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// Lines for people.
    Text,
}

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry {
            log_format: LogFormat::Json,
            log_filter: "info,sea_orm_migration=warn".into(),
            otlp_endpoint: String::new(),
            trace_ratio: 0.01,
            otlp_ca: PathBuf::new(),
            prometheus_address: String::new(),
        }
    }
}
