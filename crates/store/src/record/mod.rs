//! Records that belong to resources or to the deployment: secrets, labels, data keys, answers to repeated requests, audit
//! events, refreshes, re-wraps, counts of log-in attempts, authorisations and the polls for them,
//! credential sources.

pub(crate) mod audit;
mod authorization;
mod credential_source;
pub(crate) mod data_key;
pub(crate) mod device_poll;
pub(crate) mod idempotency;
pub(crate) mod label;
pub(crate) mod login_attempt;
pub(crate) mod refresh;
pub(crate) mod rewrap;
mod routing;
pub(crate) mod secret;
