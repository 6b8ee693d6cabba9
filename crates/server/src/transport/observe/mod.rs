//! What an operator sees of the server: logs, traces and metrics.

pub(crate) mod gauges;
mod log_format;
pub mod metrics;
pub mod telemetry;
