//! Reasons of errors: those in the code, in the enum and in the comments are the same.

use std::collections::BTreeSet;
use std::time::Duration;

use jackfield_domain::attempts::AttemptLimit;
use jackfield_domain::credential_source::SourceFault;
use jackfield_domain::error::{Precondition, RefreshDelay, Taken, Use, ViolationKind};
use jackfield_domain::{Error, Resource, Violation};

use super::{PACKAGE, POOL, method_comment, methods};

/// Reasons that the transport gives without an error of the domain.
const OF_THE_TRANSPORT: [&str; 1] = ["METHOD_UNKNOWN"];

/// All reasons, as sent.
pub(crate) fn contract() -> BTreeSet<String> {
    let reasons = POOL.get_enum_by_name(&format!("{PACKAGE}.ErrorReason")).expect("ErrorReason");
    let names = reasons.values().filter(|value| value.number() != 0).map(|value| {
        let name = value.name().to_owned();
        name.strip_prefix("ERROR_REASON_").unwrap_or_else(|| panic!("{name} lacks the prefix")).to_owned()
    });
    names.collect()
}

/// One of each variant. A new variant does not compile until it is in the match next to the list.
fn errors() -> Vec<Error> {
    fn listed(error: &Error) {
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
    let (resource, id, retry_after) = (Resource::Key, String::from("id"), Duration::from_secs(1));
    let mut errors = vec![
        Error::EtagMismatch { resource, id: id.clone() },
        Error::InUse { resource, id: id.clone(), by: vec![Use { resource, count: 1 }] },
        Error::RequestIdConflict { request_id: id.clone() },
        Error::Unauthenticated { message: id.clone() },
        Error::ScopeDenied { right: "keys.read" },
        Error::ApplicationMismatch { application: id.clone() },
        Error::TenantUnknown { tenant: id.clone() },
        Error::QuotaExceeded { what: "message", limit: 1 },
        Error::RateLimited { retry_after },
        Error::LoginAttemptsExceeded { limit: AttemptLimit::User, retry_after },
        Error::AttemptUnanswered { retry_after, source: "away".into() },
        Error::StoreUnavailable { retry_after, source: "away".into() },
        Error::OutcomeUnknown { retry_after: Some(retry_after), source: "away".into() },
        Error::UpstreamUnavailable { connector: id.clone(), retry_after },
        Error::JournalUnwritable { retry_after },
        Error::ServerUnavailable { retry_after },
        Error::DeadlineExceeded,
        Error::DecryptFailed { resource, id: id.clone() },
        Error::DataDamaged { resource, id: id.clone(), source: "no JSON".into() },
        Error::internal("a defect"),
    ];
    errors.extend(Resource::ALL.map(|resource| Error::not_found(resource, "name:x")));
    errors.extend(takens().into_iter().map(|what| Error::Taken { resource, what, value: id.clone() }));
    errors.extend(preconditions().into_iter().map(|reason| Error::precondition(reason, resource, "id", "no")));
    errors.extend(
        SourceFault::NAMES.iter().filter_map(|name| SourceFault::named(name)).map(|fault| Error::SourceFailed {
            fault,
            id: id.clone(),
            message: "no".to_owned(),
            retry_after: None,
        }),
    );
    errors.extend(delays().into_iter().map(|cause| {
        let (id, message) = (id.clone(), "wait".to_owned());
        Error::RefreshDelayed { cause, resource, id, retry_after, message }
    }));
    errors.extend(violations().into_iter().map(Error::invalid));
    errors.push(Error::Invalid(violations()));
    errors.iter().for_each(listed);
    errors
}

fn takens() -> Vec<Taken> {
    let next = |taken: &Taken| match taken {
        Taken::ExternalId => Some(Taken::Id),
        Taken::Id => Some(Taken::LoginId),
        Taken::LoginId => Some(Taken::Name),
        Taken::Name => None,
    };
    std::iter::successors(Some(Taken::ExternalId), next).collect()
}

fn preconditions() -> Vec<Precondition> {
    let next = |precondition: &Precondition| match precondition {
        Precondition::ApplicationDisabled => Some(Precondition::AuthorizationEnded),
        Precondition::AuthorizationEnded => Some(Precondition::AuthorizationMismatch),
        Precondition::AuthorizationMismatch => Some(Precondition::ConnectionInactive),
        Precondition::ConnectionInactive => Some(Precondition::ConnectionIncomplete),
        Precondition::ConnectionIncomplete => Some(Precondition::ConnectionRefused),
        Precondition::ConnectionRefused => Some(Precondition::ConnectionRequired),
        Precondition::ConnectionRequired => Some(Precondition::ConnectorDisabled),
        Precondition::ConnectorDisabled => Some(Precondition::CredentialNotValid),
        Precondition::CredentialNotValid => Some(Precondition::DefaultConfiguration),
        Precondition::DefaultConfiguration => Some(Precondition::KeyExpired),
        Precondition::KeyExpired => Some(Precondition::OwnTenant),
        Precondition::OwnTenant => Some(Precondition::PatchTestFailed),
        Precondition::PatchTestFailed => Some(Precondition::ReauthRequired),
        Precondition::ReauthRequired => Some(Precondition::RevealDisabled),
        Precondition::RevealDisabled => Some(Precondition::ScopeMissing),
        Precondition::ScopeMissing => None,
    };
    std::iter::successors(Some(Precondition::ApplicationDisabled), next).collect()
}

fn delays() -> Vec<RefreshDelay> {
    let next = |delay: &RefreshDelay| match delay {
        RefreshDelay::Provider => Some(RefreshDelay::InProgress),
        RefreshDelay::InProgress => Some(RefreshDelay::TooSoon),
        RefreshDelay::TooSoon => None,
    };
    std::iter::successors(Some(RefreshDelay::Provider), next).collect()
}

/// One violation of each kind.
fn violations() -> Vec<Violation> {
    let next = |kind: &ViolationKind| match kind {
        ViolationKind::Field => Some(ViolationKind::Filter),
        ViolationKind::Filter => Some(ViolationKind::Malformed),
        ViolationKind::Malformed => Some(ViolationKind::PageToken),
        ViolationKind::PageToken => Some(ViolationKind::Placeholder),
        ViolationKind::Placeholder => Some(ViolationKind::Reference),
        ViolationKind::Reference => None,
    };
    let kinds = std::iter::successors(Some(ViolationKind::Field), next);
    kinds.map(|kind| Violation { field: "name".into(), description: "is wrong".into(), kind }).collect()
}

#[test]
fn every_error_has_a_reason_of_the_contract() {
    let contract = contract();
    for error in errors() {
        assert!(contract.contains(error.reason()), "{} of {error:?}", error.reason());
    }
}

#[test]
fn every_reason_of_the_contract_is_given_by_some_error() {
    let given: BTreeSet<_> = errors().iter().map(Error::reason).chain(OF_THE_TRANSPORT).collect();
    let never: Vec<_> = contract().into_iter().filter(|reason| !given.contains(reason.as_str())).collect();
    assert_eq!(never, Vec::<String>::new());
}

#[test]
fn different_kinds_of_violations_together_are_field_invalid() {
    assert_eq!(Error::Invalid(violations()).reason(), "FIELD_INVALID");
}

/// "Errors: A, B (when), C. Right: …" in the comments of methods.
#[test]
fn comments_name_reasons_of_the_contract() {
    let contract = contract();
    let mut named = 0;
    for method in methods() {
        let comment = method_comment(&method);
        let Some((_, errors)) = comment.split_once("Errors:") else {
            let has_none = ["GetRoutingPolicy", "GetServerInfo"].contains(&method.name());
            assert!(has_none, "{} says which errors it gives", method.full_name());
            continue;
        };
        let errors = errors.split_once("Right:").map_or(errors, |(errors, _)| errors);
        for word in errors.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).filter(|word| word.contains('_')) {
            named += 1;
            assert!(contract.contains(word), "{}: {word}", method.full_name());
        }
    }
    assert!(named > 100, "{named}");
}

/// "CODE: why" in the comments of reasons.
#[test]
fn comments_of_reasons_begin_with_a_code() {
    let codes = [
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "ABORTED",
        "FAILED_PRECONDITION",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "UNAVAILABLE",
        "UNKNOWN",
        "DEADLINE_EXCEEDED",
        "UNIMPLEMENTED",
        "INTERNAL",
        "DATA_LOSS",
    ];
    let reasons = POOL.get_enum_by_name(&format!("{PACKAGE}.ErrorReason")).expect("ErrorReason");
    for value in reasons.values().filter(|value| value.number() != 0) {
        let comment = super::comment(value.parent_file().name(), value.path());
        let code = comment.split_once(": ").map(|(code, _)| code);
        assert!(code.is_some_and(|code| codes.contains(&code)), "{}: {comment}", value.name());
    }
}
