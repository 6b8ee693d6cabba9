//! The reasons of errors, as they are sent.

use jackfield_api::v1::ErrorReason;

/// The prefix that names in the contract have and names on the wire do not (AIP-193).
const PREFIX: &str = "ERROR_REASON_";

/// Returns the name of a reason as it is sent.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches(PREFIX)
}

/// Returns the names of all reasons.
pub(crate) fn reason_names() -> Vec<&'static str> {
    // Numbers are below 100, with gaps where reasons of another kind begin.
    (1..100).filter_map(|n| ErrorReason::try_from(n).ok()).map(reason_name).collect()
}
