//! The judgement of log-ins at licence servers. The status alone says nothing there: 401 can be about the user or about the connector,
//! and only the error in the body says which.

use bytes::Bytes;
use http::StatusCode;
use jackfield_domain::probe::{ProbeReason as Reason, ProbeResult as Verdict, ProbeStep as Step};

use super::reason::of_license;
use super::report::{Facts, Report, sentence};
use super::response::{Head, not_expected, not_refused, of_credentials};
use crate::client::Response;
use crate::license::{Authentication, ErrorCode, LicenseFault, Rejection, read_authentication};

/// Verdicts on statuses that mean the same whatever the body is.
const REDIRECTED: (Verdict, Reason, &str) =
    (Verdict::Failed, Reason::Redirected, "is a redirect, which is not followed");
const NEITHER: (Verdict, Reason, &str) =
    (Verdict::Failed, Reason::StatusUnexpected, "neither accepts nor rejects a log-in");

type Answer = Result<Authentication, LicenseFault>;

/// The meaning of a response, as calls read it.
pub(super) fn read(head: &Head, body: Bytes) -> Answer {
    read_authentication(Response { status: head.status, headers: head.headers.clone(), body })
}

/// The error code of a response, if it has one.
pub(super) fn code(answer: &Answer) -> Option<ErrorCode> {
    match answer {
        Ok(Authentication::Rejected(Rejection { code, .. })) | Err(LicenseFault::Status { code, .. }) => *code,
        Ok(Authentication::Accepted(_)) | Err(_) => None,
    }
}

/// The verdict on the credentials of the connector. A server that answers with an error of the licence API has let the request in.
pub(super) fn credentials(head: &Head, has_credentials: bool) -> (Verdict, Reason, &'static str) {
    match &head.license {
        Some(answer) if answer.is_ok() || code(answer).is_some() => not_refused(has_credentials),
        Some(_) => of_credentials(head.status.as_u16(), has_credentials),
        None => (Verdict::Skipped, Reason::Undecided, "The body, which decides, cannot be read."),
    }
}

/// The verdict on the status, with the rest of the sentence about it.
pub(super) fn status(head: &Head, is_real: bool) -> (Verdict, Reason, &'static str) {
    match (&head.license, is_real) {
        (None, _) if head.status.is_redirection() => REDIRECTED,
        (None, _) if head.status.is_server_error() => NEITHER,
        (None, _) => (Verdict::Skipped, Reason::Undecided, "comes with a body, which decides and cannot be read"),
        (Some(Ok(Authentication::Accepted(_))), true) => (Verdict::Ok, Reason::LoginAccepted, "accepts the log-in"),
        (Some(Ok(Authentication::Accepted(_))), false) => {
            (Verdict::Failed, Reason::UnknownLoginAccepted, "accepts a log-in of a user who does not exist")
        }
        (Some(Ok(Authentication::Rejected(_))), true) => (Verdict::Failed, Reason::LoginRejected, "rejects the log-in"),
        (Some(Ok(Authentication::Rejected(rejection))), false) if rejection.status == StatusCode::NOT_FOUND => {
            let text = "rejects the log-in of a user who does not exist, or says that there is no such path";
            (Verdict::Warning, Reason::StatusUnusual, text)
        }
        (Some(Ok(Authentication::Rejected(_))), false) => {
            (Verdict::Ok, Reason::LoginRejected, "rejects the log-in of a user who does not exist")
        }
        (Some(Err(LicenseFault::Status { status, .. })), _) if status.is_redirection() => REDIRECTED,
        (Some(Err(LicenseFault::Status { code: Some(ErrorCode::UnexpectedValue), .. })), _) => {
            let text = "neither accepts nor rejects a log-in; servers without an application of this application_id \
                        answer so";
            (Verdict::Failed, Reason::StatusUnexpected, text)
        }
        (Some(Err(LicenseFault::Status { .. })), _) => NEITHER,
        (Some(Err(_)), _) => (Verdict::Ok, Reason::Passed, "accepts a log-in, if the body has a token"),
    }
}

/// Judges the body of a response whose status is good.
pub(super) fn body(report: &mut Report, answer: Option<Answer>) {
    match answer {
        Some(Ok(Authentication::Accepted(grant))) => {
            let facts = Facts::of("companies", grant.companies.len());
            if grant.companies.is_empty() {
                let message = "The body has a token, and no company for which the user may use the application.";
                report.add(Step::Body, Verdict::Warning, Reason::CompaniesMissing, message, facts);
            } else {
                report.passed(Step::Body, "The body has a token and the permissions of the user.", facts);
            }
        }
        // Without an answer, the fault of the body was reported.
        Some(Ok(Authentication::Rejected(_))) | None => not_expected(report),
        Some(Err(fault)) => {
            report.failed(Step::Body, of_license(&fault), sentence(&fault), Facts::default());
        }
    }
}
