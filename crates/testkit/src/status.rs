//! Assertions about refused calls.

use std::fmt::Debug;

use jackfield_transport::call::status::{MAX_BYTES, size};
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain in the `ErrorInfo` of every error of Jackfield.
const DOMAIN: &str = "jackfield";

/// A refused call.
#[derive(Debug)]
pub struct Refusal {
    /// The received status.
    pub status: Status,
    /// Its details, decoded.
    pub details: ErrorDetails,
}

/// Checks that a call was refused with this code and with this reason and our domain in its `ErrorInfo`, and that every
/// client can receive the error.
///
/// # Panics
/// Panics if it was not refused so.
#[track_caller]
pub fn expect_status<T: Debug>(result: Result<Response<T>, Status>, code: Code, reason: &str) -> Refusal {
    let status = match result {
        Ok(response) => panic!("expected {reason}, but the call was answered: {:?}", response.into_inner()),
        Err(status) => status,
    };
    Refusal::check(status, code, reason)
}

/// The reason of a refused call; empty if it has none.
pub fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

// === impl Refusal ===

impl Refusal {
    /// As [`expect_status`], for a status that arrived in another way, such as from a stream.
    ///
    /// # Panics
    /// Panics if code, reason, domain or size are not as expected.
    #[track_caller]
    pub fn check(status: Status, code: Code, reason: &str) -> Self {
        assert_eq!(status.code(), code, "expected {reason}: {status:?}");
        let details = match status.check_error_details() {
            Ok(details) => details,
            Err(error) => panic!("details do not decode ({error}): {status:?}"),
        };
        let Some(info) = details.error_info() else { panic!("no ErrorInfo: {status:?}") };
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, DOMAIN), "{status:?}");
        let size = size(&status);
        assert!(size <= MAX_BYTES, "{size} bytes of headers");
        assert!(!status.message().is_empty(), "no message: {status:?}");
        Self { status, details }
    }

    /// The paths of the invalid fields, in order.
    pub fn fields(&self) -> Vec<&str> {
        let violations = self.details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        violations.iter().map(|violation| violation.field.as_str()).collect()
    }

    /// The description of a field violation; empty if there is none.
    pub fn description(&self, field: &str) -> &str {
        let violations = self.details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        violations.iter().find(|violation| violation.field == field).map_or("", |found| &found.description)
    }

    /// A value from the metadata of the `ErrorInfo`; empty if it is absent.
    pub fn metadata(&self, key: &str) -> &str {
        self.details.error_info().and_then(|info| info.metadata.get(key)).map_or("", String::as_str)
    }

    /// Checks that exactly these fields are invalid, in any order.
    ///
    /// # Panics
    /// Panics if others are.
    #[track_caller]
    pub fn expect_fields(&self, expected: &[&str]) -> &Self {
        let (mut found, mut expected) = (self.fields(), expected.to_vec());
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{:?}", self.status);
        self
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "these tests make up statuses as a server would")]
mod tests {
    use super::*;

    fn refused(reason: &str, domain: &str) -> Status {
        let mut details = ErrorDetails::with_error_info(reason, domain, [("limit".to_owned(), "64".to_owned())]);
        details.add_bad_request_violation("connector.name", "is blank");
        Status::with_error_details(Code::InvalidArgument, "invalid request", details)
    }

    #[test]
    fn the_right_refusal_passes_and_shows_its_details() {
        let refusal =
            expect_status::<()>(Err(refused("FIELD_INVALID", DOMAIN)), Code::InvalidArgument, "FIELD_INVALID");
        refusal.expect_fields(&["connector.name"]);
        assert_eq!((refusal.description("connector.name"), refusal.metadata("limit")), ("is blank", "64"));
    }

    #[test]
    fn every_other_refusal_fails() {
        let wrong = [
            refused("FILTER_INVALID", DOMAIN),
            refused("FIELD_INVALID", "elsewhere"),
            Status::new(Code::InvalidArgument, "no details"),
            Status::with_error_details(
                Code::NotFound,
                "not found",
                ErrorDetails::with_error_info("FIELD_INVALID", DOMAIN, []),
            ),
            Status::with_error_details(
                Code::InvalidArgument,
                "x".repeat(MAX_BYTES),
                ErrorDetails::with_error_info("FIELD_INVALID", DOMAIN, []),
            ),
        ];
        for status in wrong {
            let text = format!("{status:?}");
            let check = || Refusal::check(status, Code::InvalidArgument, "FIELD_INVALID");
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err(), "{text}");
        }
        let answered = || expect_status(Ok(Response::new(())), Code::InvalidArgument, "FIELD_INVALID");
        assert!(std::panic::catch_unwind(answered).is_err());
    }
}
