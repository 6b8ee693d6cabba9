//! The judgement of responses.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use jackfield_domain::Timestamp;
use jackfield_domain::probe::{ProbeReason as Reason, ProbeResult as Verdict, ProbeStep as Step};
use jackfield_domain::value::url::HttpUrl;

use super::document;
use super::license;
use super::plan::Subject;
use super::reason::of_login;
use super::report::{Facts, Report, sentence};
use crate::client::Response;
use crate::egress::Target;
use crate::license::{Authentication, LicenseFault};
use crate::login::{self, LoginFault, LoginResponse, Rejection};
use crate::tls::ClientAuth;

/// The head of a response.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The meaning of the response of a licence server, whose body says what the status is about. `None`: it is another system, or the
    /// body cannot be read.
    pub(super) license: Option<Result<Authentication, LicenseFault>>,
}

// === impl Head ===

impl Head {
    /// The status. Of the rest, only what has no secret: the error code of a licence server, the schemes of a challenge, and the origin of
    /// a redirect.
    pub(super) fn facts(&self) -> Facts {
        let mut facts = Facts::of("status", self.status.as_u16());
        if let Some(code) = self.license.as_ref().and_then(license::code) {
            facts.add("error_code", code.as_str());
        }
        for challenge in self.headers.get_all(header::WWW_AUTHENTICATE) {
            let scheme = challenge.to_str().ok().and_then(|challenge| challenge.split_whitespace().next());
            facts.add("challenge", scheme.unwrap_or("unreadable"));
        }
        let location = self.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
        let location = location.and_then(|location| HttpUrl::parse("location", location, usize::MAX).ok());
        if let Some(target) = location.and_then(|location| Target::parse(&location).ok()) {
            facts.add("location", format!("{target:?}"));
        }
        facts
    }
}

/// Reports that the server did not ask for a certificate.
pub(super) fn client_certificate_not_requested(report: &mut Report, has_identity: bool) {
    let (result, message) = match has_identity {
        true => (Verdict::Warning, "The server did not ask for a certificate, so the client identity is not used."),
        false => (Verdict::Ok, "The server did not ask for a certificate."),
    };
    report.add(Step::ClientCertificate, result, Reason::ClientCertificateNotRequested, message, Facts::default());
}

/// Reports that the server answered a client whose certificate it had asked for.
pub(super) fn client_certificate(report: &mut Report, auth: ClientAuth) {
    let (reason, message) = match auth {
        ClientAuth::Presented(_) => (Reason::ClientCertificateAccepted, "The server accepted the client certificate."),
        ClientAuth::Missing | ClientAuth::NotRequested | ClientAuth::Resumed => {
            (Reason::ClientCertificateNotRequired, "The server asked for a certificate and did without one.")
        }
    };
    report.add(Step::ClientCertificate, Verdict::Ok, reason, message, Facts::default());
}

/// Judges whether the system accepts the credentials of the connector. Returns false if it does not.
pub(super) fn authentication(report: &mut Report, subject: &Subject, has_credentials: bool, head: &Head) -> bool {
    let status = head.status.as_u16();
    let is_of_users = matches!(subject, Subject::Endpoint { .. } | Subject::Base { is_of_users: true });
    let (result, reason, message) = match (subject, status) {
        (Subject::License { .. }, _) => license::credentials(head, has_credentials),
        (_, 401 | 403) if is_of_users => {
            let message =
                "The system demands credentials, which are those of users or clients and not of the connector.";
            (Verdict::Skipped, Reason::CredentialsOfUsers, message)
        }
        _ => of_credentials(status, has_credentials),
    };
    report.add(Step::Authentication, result, reason, message, head.facts());
    result != Verdict::Failed
}

/// The meaning of a status for the credentials of the connector.
pub(super) fn of_credentials(status: u16, has_credentials: bool) -> (Verdict, Reason, &'static str) {
    match status {
        401 | 403 | 407 if has_credentials => {
            (Verdict::Failed, Reason::CredentialsRefused, "The system refused the credentials of the connector.")
        }
        401 | 403 | 407 => (
            Verdict::Failed,
            Reason::CredentialsRequired,
            "The system demands credentials, and the connector has none.",
        ),
        200..=299 | 400..=499 => not_refused(has_credentials),
        _ => (Verdict::Skipped, Reason::Undecided, "The status says nothing about credentials."),
    }
}

/// The verdict on credentials that the system did not refuse.
pub(super) fn not_refused(has_credentials: bool) -> (Verdict, Reason, &'static str) {
    match has_credentials {
        true => {
            (Verdict::Ok, Reason::CredentialsAccepted, "The system did not refuse the credentials of the connector.")
        }
        false => (Verdict::Ok, Reason::CredentialsNotRequired, "The system did not demand credentials."),
    }
}

/// Judges the status. Returns false if it is wrong.
pub(super) fn status(report: &mut Report, subject: &Subject, head: &Head) -> bool {
    let status = head.status.as_u16();
    let (result, reason, text) = match subject {
        Subject::Login { is_real, .. } => of_login_status(status, *is_real),
        Subject::License { is_real, .. } => license::status(head, *is_real),
        Subject::Document { .. } | Subject::Keys => match status {
            200 => (Verdict::Ok, Reason::Passed, "is that of a document"),
            300..=399 => (Verdict::Failed, Reason::Redirected, "is a redirect, which is not followed"),
            _ => (Verdict::Failed, Reason::StatusUnexpected, "is not that of a document"),
        },
        Subject::Token(_) => (Verdict::Skipped, Reason::Undecided, "is judged by the body"),
        Subject::Endpoint { .. } => match status {
            200..=299 | 400 | 401 | 403 | 405 => {
                (Verdict::Ok, Reason::Passed, "is one that endpoints have for requests without parameters")
            }
            300..=399 => (Verdict::Warning, Reason::Redirected, "is a redirect, which is not followed"),
            404 | 410 | 500..=599 => (Verdict::Failed, Reason::StatusUnexpected, "is not that of an endpoint"),
            _ => (Verdict::Warning, Reason::StatusUnusual, "is unusual for an endpoint"),
        },
        Subject::Base { is_of_users } => match status {
            200..=299 => (Verdict::Ok, Reason::Passed, "is a success"),
            401 | 403 if *is_of_users => (Verdict::Ok, Reason::Passed, "is one for requests without credentials"),
            300..=399 => (Verdict::Warning, Reason::Redirected, "is a redirect, which is not followed"),
            400..=499 => (Verdict::Warning, Reason::StatusUnusual, "is not a success; other paths may have one"),
            _ => (Verdict::Failed, Reason::StatusUnexpected, "is an error of the system"),
        },
    };
    report.add(Step::Status, result, reason, format!("The status {status} {text}."), head.facts());
    result != Verdict::Failed
}

/// The meaning of a status in the protocol of log-ins.
fn of_login_status(status: u16, is_real: bool) -> (Verdict, Reason, &'static str) {
    match (status, is_real) {
        (200, true) => (Verdict::Ok, Reason::LoginAccepted, "accepts the log-in"),
        (200, false) => {
            (Verdict::Failed, Reason::UnknownLoginAccepted, "accepts a log-in of a user who does not exist")
        }
        (404, false) => (Verdict::Ok, Reason::LoginRejected, "rejects the log-in of a user who does not exist"),
        (404, true) => (Verdict::Failed, Reason::LoginRejected, "rejects the log-in"),
        (300..=399, _) => (Verdict::Failed, Reason::Redirected, "is a redirect, which is not followed"),
        (408 | 429, _) => (Verdict::Failed, Reason::StatusUnexpected, "neither accepts nor rejects a log-in"),
        (400..=499, false) => {
            (Verdict::Warning, Reason::StatusUnusual, "rejects the log-in; the protocol has 404 for it")
        }
        (400..=499, true) => {
            (Verdict::Failed, Reason::LoginRejected, "rejects the log-in; the protocol has 404 for it")
        }
        _ => (Verdict::Failed, Reason::StatusUnexpected, "neither accepts nor rejects a log-in"),
    }
}

/// Judges the body of a response whose status is good, at a time.
pub(super) fn body(report: &mut Report, subject: &Subject, head: Head, body: Bytes, now: Timestamp) {
    match subject {
        Subject::Login { .. } => of_login_body(report, head, body, now),
        Subject::License { .. } => license::body(report, head.license),
        Subject::Document { issuer, needed, endpoints, or: _ } => {
            document::published(report, issuer, needed, endpoints, &body);
        }
        Subject::Keys => document::keys(report, &body),
        Subject::Token(_) | Subject::Endpoint { .. } | Subject::Base { .. } => not_expected(report),
    }
}

fn of_login_body(report: &mut Report, head: Head, body: Bytes, now: Timestamp) {
    let Head { status, headers, license: _ } = head;
    match login::read(&Response { status, headers, body }, now) {
        Ok(LoginResponse::Accepted { login, ends_by: _ }) => {
            let facts = Facts::of("registrations", login.registrations.len());
            report.passed(Step::Body, "The body describes a user.", facts);
        }
        // The status was judged before, and only that of an accepted log-in has a body that matters.
        Ok(LoginResponse::Rejected(Rejection::Status)) | Err(LoginFault::Status(_)) => not_expected(report),
        Ok(LoginResponse::Rejected(Rejection::UserInactive)) => {
            let message = "The user is deactivated (active), so the log-in is rejected.".to_owned();
            report.failed(Step::Body, Reason::UserInactive, message, Facts::default());
        }
        Ok(LoginResponse::Rejected(Rejection::UserExpired)) => {
            let message = "The account of the user has ended (expiry), so the log-in is rejected.".to_owned();
            report.failed(Step::Body, Reason::UserExpired, message, Facts::default());
        }
        Err(fault) => {
            report.failed(Step::Body, of_login(&fault), sentence(&fault), Facts::default());
        }
    }
}

pub(super) fn not_expected(report: &mut Report) {
    report.skipped(Step::Body, Reason::BodyNotExpected, "The body of this response does not matter.");
}
