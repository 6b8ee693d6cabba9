//! The view of an operator: logs, traces and metrics.

pub(crate) mod gauges;
mod log_format;
pub mod log_writer;
pub(crate) mod metrics;
pub mod telemetry;
