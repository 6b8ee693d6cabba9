//! The view of an operator: logs, traces and metrics.

pub(crate) mod gauges;
mod log_format;
pub mod log_writer;
pub mod metrics;
pub mod telemetry;
