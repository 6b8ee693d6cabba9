use std::time::Duration;

use jackfield_domain::credential_source::SourceFault;
use jackfield_domain::error::{Cause, Precondition, RefreshDelay, Taken, Use, Violation};
use jackfield_domain::request::reference::Ref;
use tonic_types::StatusExt as _;

use super::*;
use crate::call::fair_semaphore::Full;

/// One error of every variant. The match has no wildcard, so that a new variant is added here too.
fn every_error() -> Vec<Error> {
    let after = Duration::from_millis(1_500);
    let id = || "0198c0de-0000-7000-8000-000000000001".to_owned();
    let resource = Resource::Connector;
    let cause = || Cause::from("canary of a cause");
    let delayed = |cause, message: &str| Error::RefreshDelayed {
        cause,
        resource,
        id: id(),
        retry_after: after,
        message: message.into(),
    };
    let all = vec![
        Error::Invalid(vec![Violation::field("connector.name", "must not be blank")]),
        Error::NotFound { resource, reference: "name:Team A".into(), by: Vec::new() },
        Error::Taken { resource, what: Taken::Name, value: "FusionAuth".into() },
        Error::EtagMismatch { resource, id: id() },
        Error::InUse { resource, id: id(), by: vec![Use { resource: Resource::Connection, count: 3 }] },
        Error::precondition(Precondition::ReauthRequired, Resource::Credential, id(), "the token has expired"),
        Error::RequestIdConflict { request_id: "abc".into() },
        Error::Unauthenticated { message: "no client certificate was presented".into() },
        Error::ScopeDenied { right: "connectors.write" },
        Error::ApplicationMismatch { application: id() },
        Error::TenantUnknown { tenant: "gone".into() },
        Error::QuotaExceeded { what: "labels", limit: 64 },
        Error::RateLimited { retry_after: after },
        Error::LoginAttemptsExceeded { limit: AttemptLimit::UserAndSource, retry_after: after },
        Error::AttemptUnanswered { retry_after: after, source: cause() },
        Error::StoreUnavailable { retry_after: after, source: cause() },
        Error::OutcomeUnknown { retry_after: Some(after), source: cause() },
        Error::OutcomeUnknown { retry_after: None, source: cause() },
        Error::UpstreamUnavailable { connector: id(), retry_after: after },
        delayed(RefreshDelay::InProgress, "it goes on"),
        delayed(RefreshDelay::Provider, "a pause"),
        delayed(RefreshDelay::TooSoon, "in vain"),
        Error::JournalUnwritable { retry_after: after },
        Error::SourceFailed { fault: SourceFault::Timeout, id: id(), message: "late".into(), retry_after: None },
        Error::SourceFailed { fault: SourceFault::Empty, id: id(), message: "nothing".into(), retry_after: None },
        Error::ServerUnavailable { retry_after: after },
        Error::DeadlineExceeded,
        Error::DecryptFailed { resource: Resource::Credential, id: id() },
        Error::DataDamaged { resource, id: id(), source: cause() },
        Error::Internal(cause()),
    ];
    for error in &all {
        match error {
            Error::Invalid(_)
            | Error::NotFound { .. }
            | Error::Taken { .. }
            | Error::EtagMismatch { .. }
            | Error::InUse { .. }
            | Error::Precondition { .. }
            | Error::RequestIdConflict { .. }
            | Error::Unauthenticated { .. }
            | Error::ScopeDenied { .. }
            | Error::ApplicationMismatch { .. }
            | Error::TenantUnknown { .. }
            | Error::QuotaExceeded { .. }
            | Error::RateLimited { .. }
            | Error::LoginAttemptsExceeded { .. }
            | Error::AttemptUnanswered { .. }
            | Error::StoreUnavailable { .. }
            | Error::OutcomeUnknown { .. }
            | Error::UpstreamUnavailable { .. }
            | Error::RefreshDelayed { .. }
            | Error::JournalUnwritable { .. }
            | Error::SourceFailed { .. }
            | Error::ServerUnavailable { .. }
            | Error::DeadlineExceeded
            | Error::DecryptFailed { .. }
            | Error::DataDamaged { .. }
            | Error::Internal(_) => {}
        }
    }
    all
}

#[test]
fn every_error_has_its_code_and_its_reason() {
    let codes = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::Aborted,
        Code::FailedPrecondition,
        Code::FailedPrecondition,
        Code::FailedPrecondition,
        Code::Unauthenticated,
        Code::PermissionDenied,
        Code::PermissionDenied,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::ResourceExhausted,
        Code::ResourceExhausted,
        Code::Unavailable,
        Code::Unavailable,
        Code::Unknown,
        Code::Unknown,
        Code::Unavailable,
        Code::Unavailable,
        Code::Unavailable,
        Code::ResourceExhausted,
        Code::Unavailable,
        Code::Unavailable,
        Code::FailedPrecondition,
        Code::Unavailable,
        Code::DeadlineExceeded,
        Code::DataLoss,
        Code::DataLoss,
        Code::Internal,
    ];
    let errors = every_error();
    assert_eq!(errors.len(), codes.len());
    for (error, code) in errors.into_iter().zip(codes) {
        let (reason, retryable) = (error.reason(), error.retryable());
        let status = status(error);
        assert_eq!(status.code(), code, "{reason}");
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "jackfield"));
        assert!(!status.message().is_empty());
        assert_eq!(status.get_details_retry_info().is_some(), retryable, "{reason}");
        assert!(!format!("{}{:?}", status.message(), status.details()).contains("canary"), "{reason}");
    }
}

#[test]
fn details_are_those_of_the_error() {
    let violations = vec![Violation::field("a", "one"), Violation::field("b", "two")];
    let invalid = status(Error::Invalid(violations));
    let listed = invalid.get_details_bad_request().unwrap().field_violations;
    let listed: Vec<_> = listed.iter().map(|v| (v.field.as_str(), v.description.as_str())).collect();
    assert_eq!(listed, [("a", "one"), ("b", "two")]);

    let by =
        vec![Use { resource: Resource::Connection, count: 3 }, Use { resource: Resource::UserConnector, count: 1 }];
    let in_use = status(Error::InUse { resource: Resource::Connector, id: "7".into(), by });
    let preconditions = in_use.get_details_precondition_failure().unwrap().violations;
    assert_eq!(preconditions.len(), 2);
    assert_eq!((preconditions[0].r#type.as_str(), preconditions[0].subject.as_str()), ("IN_USE", "connector/7"));
    let info = in_use.get_details_error_info().unwrap();
    assert_eq!(info.metadata["used_by.connection"], "3");
    assert_eq!(info.metadata["used_by.user_connector"], "1");
    assert_eq!(in_use.message(), "connector 7 is used by 3 connections, 1 user connector");

    let credential: Ref = "0198c0de-0000-7000-8000-000000000001".parse::<uuid::Uuid>().unwrap().into();
    let within = [("credential", "ext:a".to_owned())];
    let absent = status(Error::not_found_by(Resource::Configuration, Some(credential.to_string()), within));
    let info = absent.get_details_error_info().unwrap();
    assert_eq!(info.metadata["credential"], "ext:a");
    assert_eq!(info.metadata["reference"], credential.to_string());
    assert_eq!(absent.get_details_resource_info().unwrap().resource_name, credential.to_string());
    assert_eq!(absent.message(), format!("configuration \"{credential}\" with credential \"ext:a\" not found"));
    let pair = [("user_id", "ada".to_owned()), ("connector", "name:X".to_owned())];
    let absent = status(Error::not_found_by(Resource::UserConnector, None, pair));
    assert_eq!(absent.message(), "user connector with user_id \"ada\" and connector \"name:X\" not found");
    let rewrap = status(Error::not_found(Resource::Rewrap, "newest"));
    assert_eq!(rewrap.message(), "no re-wrap has been started");

    let expired = status(Error::precondition(Precondition::KeyExpired, Resource::Key, "", "it has expired"));
    assert!(!expired.get_details_error_info().unwrap().metadata.contains_key("id"));
    assert!(expired.get_details_resource_info().is_none());

    let taken = status(Error::Taken { resource: Resource::Connector, what: Taken::ExternalId, value: "x".into() });
    assert_eq!(taken.get_details_error_info().unwrap().metadata["external_id"], "x");
    let resource = taken.get_details_resource_info().unwrap();
    assert_eq!((resource.resource_type.as_str(), resource.resource_name.as_str()), ("connector", "x"));

    let limited = status(Error::RateLimited { retry_after: Duration::from_millis(1_500) });
    assert_eq!(limited.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_millis(1_500)));
    assert_eq!(limited.metadata().get("grpc-retry-pushback-ms").unwrap(), "1500");
    assert!(limited.get_details_quota_failure().is_some());

    for full in [Full::Caller, Full::Total] {
        let (limited, other) = (reflection_refused(full.into()), status(full.into()));
        assert_eq!(limited.code(), other.code());
        assert!(limited.message().contains("reflection") && limited.message().contains("-protoset"), "{limited:?}");
        let reason = |status: &Status| status.get_details_error_info().unwrap().reason;
        assert_eq!(reason(&limited), reason(&other));
        let wait = |status: &Status| status.get_details_retry_info().unwrap().retry_delay;
        assert_eq!(wait(&limited), wait(&other));
    }

    let (limit, retry_after) = (AttemptLimit::Source, Duration::from_secs(90));
    let limited = status(Error::LoginAttemptsExceeded { limit, retry_after });
    assert_eq!(limited.get_details_error_info().unwrap().metadata["quota"], "source");
    assert_eq!(limited.get_details_retry_info().unwrap().retry_delay, Some(retry_after));
    assert_eq!(limited.get_details_quota_failure().unwrap().violations[0].subject, "source");
    assert_eq!(limited.message(), "too many log-in attempts from this address; try again later");
}

#[test]
fn the_cause_goes_with_the_status_but_not_onto_the_wire() {
    let status = status(Error::internal("canary of a cause"));
    assert!(std::error::Error::source(&status).unwrap().to_string().contains("canary"));
    let mut headers = http::HeaderMap::new();
    status.add_header(&mut headers).unwrap();
    assert!(!format!("{headers:?}").contains("canary"));
}

#[test]
fn a_status_never_exceeds_what_receivers_accept() {
    for wide in ["ü", "日本語の長い名前", "🙂", "%", "\n"].map(|text| text.repeat(10_000)) {
        never_outgrows(&wide);
    }
}

/// Checks the worst case of each kind of error, with characters of three bytes, each of which takes three when encoded.
fn never_outgrows(wide: &str) {
    let wide = wide.to_owned();
    let many = |text: &str| (0..5_000).map(|i| Violation::field(format!("f{i}{text}"), text)).collect::<Vec<_>>();
    let errors = [
        Error::Invalid(many("x")),
        Error::Invalid(many(&wide)),
        Error::invalid(Violation::field(&*wide, &*wide)),
        Error::not_found(Resource::Connector, &wide),
        Error::Taken { resource: Resource::Connector, what: Taken::Name, value: wide.clone() },
        Error::precondition(Precondition::KeyExpired, Resource::Key, &wide, &*wide),
        Error::RefreshDelayed {
            cause: RefreshDelay::TooSoon,
            resource: Resource::Credential,
            id: wide.clone(),
            retry_after: Duration::from_secs(3_600),
            message: wide.clone(),
        },
        Error::RequestIdConflict { request_id: wide.clone() },
        Error::TenantUnknown { tenant: wide.clone() },
        Error::Unauthenticated { message: wide.clone() },
        Error::EtagMismatch { resource: Resource::Connector, id: wide.clone() },
        Error::not_found_by(Resource::Configuration, None, ["a", "b", "c", "d"].map(|field| (field, wide.clone()))),
        Error::InUse {
            resource: Resource::Connector,
            id: wide.clone(),
            by: [Resource::Connection, Resource::UserConnector, Resource::Credential, Resource::Configuration]
                .map(|resource| Use { resource, count: u64::MAX })
                .to_vec(),
        },
        Error::Invalid(
            (0..64)
                .map(|i| Violation::field(format!("labels[\"{}\"]", &wide[..wide.len() / 100]), format!("{i}{wide}")))
                .collect(),
        ),
    ];
    for error in errors {
        let reason = error.reason();
        let status = status(error);
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        let sent: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(sent <= MAX_BYTES, "{reason}: {sent}");
        assert!(size(&status) >= sent, "{reason}: {} < {sent}", size(&status));
        assert!(!status.message().is_empty());
        assert_eq!(status.get_details_error_info().unwrap().reason, reason);
    }
}

#[test]
fn omitted_violations_are_counted() {
    let violations = (0..5_000).map(|i| Violation::field(format!("labels[{i}]"), "is wrong")).collect();
    let status = status(Error::Invalid(violations));
    let listed = status.get_details_bad_request().unwrap().field_violations;
    let (note, listed) = listed.split_last().unwrap();
    let kept = listed.len();
    assert_eq!((note.field.as_str(), &*note.description), ("", &*format!("… and {} more", 5_000 - kept)));
    assert!(listed.iter().enumerate().all(|(i, violation)| violation.field == format!("labels[{i}]")));
    let left_out: usize = status.get_details_error_info().unwrap().metadata["violations_left_out"].parse().unwrap();
    assert_eq!(kept + left_out, 5_000);
    assert!(kept > 20, "{kept}");
}

#[test]
fn equal_errors_are_equal_bytes() {
    let error = || {
        let by = ["a", "b", "c", "d"].map(|field| (field, field.repeat(3)));
        status(Error::not_found_by(Resource::Configuration, None, by))
    };
    let first = error();
    assert_eq!(first.get_details_error_info().unwrap().metadata["c"], "ccc");
    assert!((0..100).all(|_| error().details() == first.details()));
}

#[test]
fn a_violation_without_a_field_reads_without_a_gap() {
    let malformed = status(Violation::malformed("", "the request is wrong").into());
    assert_eq!(malformed.message(), "the request is wrong");
}

#[test]
fn unknown_methods_and_oversized_messages_have_reasons_too() {
    let unknown = method_unknown(&format!("/{}", "x".repeat(10_000)));
    assert_eq!(unknown.code(), Code::Unimplemented);
    assert_eq!(unknown.get_details_error_info().unwrap().reason, "METHOD_UNKNOWN");
    assert!(size(&unknown) < MAX_BYTES);
    assert_eq!(message_too_large(5).get_details_error_info().unwrap().metadata["limit"], "5");
}
