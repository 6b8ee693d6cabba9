//! The one table from domain errors to gRPC: code, message, details (AIP-193). Nothing else in the server makes a
//! [`Status`].

mod builder;

use std::time::Duration;

use http::HeaderMap;
use jackfield_domain::attempts::AttemptLimit;
use jackfield_domain::error::{Precondition, RefreshDelay, Use, Violation};
use jackfield_domain::{Error, Resource};
use tonic::{Code, Status};
use tonic_types::{FieldViolation, PreconditionViolation, QuotaViolation, StatusExt as _};

pub use builder::{MAX_BYTES, size};
use builder::{StatusBuilder, cut};

/// The wait before a credential source is asked again.
const SOURCE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// The way out for a caller that has too many conversations with reflection.
const REFLECTIONS: &str = "too many reflection streams at once; use a file of descriptors in place of reflection (with grpcurl \
                           -protoset; `jackfield descriptors` writes it)";
const NOT_ONE_MESSAGE: &str = "the call takes exactly one request message";

/// The status of an error. The cause, if it has one, goes to the log of the call and never to the caller.
pub fn status(error: Error) -> Status {
    let reason = error.reason();
    answer(error, reason).into_status()
}

/// The status for a path that is not a method of this server.
pub fn method_unknown(path: &str) -> Status {
    let message = format!("no such method on this server: {}", cut(path));
    StatusBuilder::new(Code::Unimplemented, "METHOD_UNKNOWN", message).with("method", path).into_status()
}

/// The status for a request that is compressed in a way that this server does not accept, with the code that the
/// specification of gRPC asks for.
pub fn compression_unknown(message: &str) -> Status {
    let mut answer =
        StatusBuilder::new(Code::Unimplemented, "MESSAGE_MALFORMED", cut(message)).with("field", "grpc-encoding");
    let text = "names a compression that this server does not accept";
    answer.violations.push(FieldViolation::new("grpc-encoding", text));
    answer.into_status()
}

/// The status for a call that takes one request message and got none or several, with the code that the specification of
/// gRPC asks for.
pub fn not_one_message() -> Status {
    let mut answer = StatusBuilder::new(Code::Unimplemented, "MESSAGE_MALFORMED", NOT_ONE_MESSAGE.into());
    answer.violations.push(FieldViolation::new("", NOT_ONE_MESSAGE));
    answer.into_status()
}

/// The status for a conversation with reflection beyond the limit of them. Clients begin these beside the calls that they are
/// for, so the message says which of the two there are too many of.
pub fn reflection_refused(error: Error) -> Status {
    let reason = error.reason();
    let mut answer = answer(error, reason);
    answer.message = REFLECTIONS.into();
    answer.quota = answer.quota.map(|_| QuotaViolation::new("reflection", REFLECTIONS));
    answer.into_status()
}

/// The status for headers over the limit of this server.
pub fn headers_too_large(limit: u64) -> Status {
    status(Error::QuotaExceeded { what: "size of the request headers", limit })
}

/// The status for a request message over the limit of this server.
pub fn message_too_large(limit: u64) -> Status {
    status(Error::QuotaExceeded { what: "size of the request message", limit })
}

/// The status for a service that `grpc.health.v1` does not know, with the code that its contract asks for.
#[expect(clippy::disallowed_methods, reason = "the contract of grpc.health.v1, not of jackfield.v1")]
pub fn health_service_unknown() -> Status {
    Status::not_found("unknown service")
}

/// Returns the reason in the headers or trailers of a response.
pub fn reason_of(headers: &HeaderMap) -> Option<String> {
    Status::from_header_map(headers)?.get_details_error_info().map(|info| info.reason)
}

/// The table from errors to statuses.
fn answer(error: Error, reason: &'static str) -> StatusBuilder {
    match error {
        Error::Invalid(violations) => {
            let message = invalid_message(&violations);
            let mut answer = StatusBuilder::new(Code::InvalidArgument, reason, message);
            if let [only] = violations.as_slice() {
                answer = answer.with("field", &only.field);
            }
            answer.violations =
                violations.iter().map(|v| FieldViolation::new(cut(&v.field), cut(&v.description))).collect();
            answer
        }
        Error::NotFound { resource: Resource::Rewrap, .. } => {
            StatusBuilder::new(Code::NotFound, reason, "no re-wrap has been started".into())
                .with("resource", Resource::Rewrap.as_str())
        }
        Error::NotFound { resource, reference, by } => {
            let message = not_found_message(resource, &reference, &by);
            let mut answer = StatusBuilder::new(Code::NotFound, reason, message).with("resource", resource.as_str());
            for (field, value) in &by {
                answer = answer.with(field, value);
            }
            if !reference.is_empty() {
                answer = answer.with("reference", &reference);
            }
            answer.about(resource, reference)
        }
        Error::Taken { resource, what, value } => {
            let (key, text) = match what {
                jackfield_domain::error::Taken::Id => ("id", "id"),
                jackfield_domain::error::Taken::Name => ("name", "name"),
                jackfield_domain::error::Taken::ExternalId => ("external_id", "external id"),
                jackfield_domain::error::Taken::LoginId => ("login_id", "login id"),
            };
            let message = format!("the {text} \"{}\" is taken by another {resource}", cut(&value));
            StatusBuilder::new(Code::AlreadyExists, reason, message)
                .with("resource", resource.as_str())
                .with(key, &value)
                .about(resource, value)
        }
        Error::EtagMismatch { resource, id } => {
            let message = format!("{resource} {} was changed in between: read it again", cut(&id));
            StatusBuilder::new(Code::Aborted, reason, message)
                .with("resource", resource.as_str())
                .with("id", &id)
                .about(resource, id)
        }
        Error::InUse { resource, id, by } => {
            let mut answer = StatusBuilder::new(Code::FailedPrecondition, reason, in_use_message(resource, &id, &by))
                .with("resource", resource.as_str())
                .with("id", &id);
            for Use { resource: user, count } in &by {
                answer = answer.with(&format!("used_by.{user}"), &count.to_string());
                let description = format!("used by {}", counted(*count, *user));
                answer.preconditions.push(PreconditionViolation::new(
                    reason,
                    format!("{resource}/{}", cut(&id)),
                    description,
                ));
            }
            answer.about(resource, id)
        }
        Error::Precondition { reason: state, resource, id, message } => {
            let mut answer =
                StatusBuilder::new(Code::FailedPrecondition, reason, cut(&message)).with("resource", resource.as_str());
            let subject = match id.as_str() {
                "" => resource.to_string(),
                id => format!("{resource}/{}", cut(id)),
            };
            answer.preconditions.push(PreconditionViolation::new(Precondition::as_str(state), subject, cut(&message)));
            // What is about to be made has no id yet.
            if id.is_empty() { answer } else { answer.with("id", &id).about(resource, id) }
        }
        Error::RequestIdConflict { request_id } => {
            let message = "the request id was used before with another body";
            let mut answer =
                StatusBuilder::new(Code::FailedPrecondition, reason, message.into()).with("request_id", &request_id);
            answer.preconditions.push(PreconditionViolation::new(reason, cut(&request_id), message));
            answer
        }
        Error::Unauthenticated { message } => StatusBuilder::new(Code::Unauthenticated, reason, cut(&message)),
        Error::ScopeDenied { right } => {
            StatusBuilder::new(Code::PermissionDenied, reason, format!("the right {right} is missing"))
                .with("right", right)
        }
        Error::ApplicationMismatch { application } => {
            let message = format!("the session is not one of the application {}", cut(&application));
            StatusBuilder::new(Code::PermissionDenied, reason, message).with("application", &application)
        }
        Error::TenantUnknown { tenant } => {
            let message = format!("the caller's tenant \"{}\" does not exist", cut(&tenant));
            StatusBuilder::new(Code::PermissionDenied, reason, message).with("tenant", &tenant)
        }
        Error::QuotaExceeded { what, limit } => {
            let message = format!("{what} over the limit of {limit}");
            let mut answer = StatusBuilder::new(Code::ResourceExhausted, reason, message.clone())
                .with("quota", what)
                .with("limit", &limit.to_string());
            answer.quota = Some(QuotaViolation::new(what, message));
            answer
        }
        Error::RateLimited { retry_after } => {
            let mut answer =
                StatusBuilder::new(Code::ResourceExhausted, reason, "too many calls".into()).retry(retry_after);
            answer.quota = Some(QuotaViolation::new("calls", "too many calls at once"));
            answer
        }
        Error::LoginAttemptsExceeded { limit, retry_after } => {
            let subject = match limit {
                AttemptLimit::UserAndSource => "with this login id from this address",
                AttemptLimit::User => "with this login id",
                AttemptLimit::Source => "from this address",
            };
            let message = format!("too many log-in attempts {subject}; try again later");
            let mut answer = StatusBuilder::new(Code::ResourceExhausted, reason, message.clone())
                .with("quota", limit.as_str())
                .retry(retry_after);
            answer.quota = Some(QuotaViolation::new(limit.as_str(), message));
            answer
        }
        Error::AttemptUnanswered { retry_after, source } => {
            let message =
                "the database did not answer; nothing was checked, and the attempt may have been counted".into();
            StatusBuilder::new(Code::Unavailable, reason, message).retry(retry_after).caused_by(source)
        }
        Error::StoreUnavailable { retry_after, source } => {
            let message = "the database is unavailable; nothing was written".into();
            StatusBuilder::new(Code::Unavailable, reason, message).retry(retry_after).caused_by(source)
        }
        Error::OutcomeUnknown { retry_after, source } => {
            let answer = |message: &str| StatusBuilder::new(Code::Unknown, reason, message.into()).caused_by(source);
            match retry_after {
                Some(after) => answer(
                    "the change may or may not have been written; send the same request again: its request_id has it made once",
                )
                .retry(after),
                // A repeat may be a second change.
                None => answer("the change may or may not have been written; read it before repeating"),
            }
        }
        Error::UpstreamUnavailable { connector, retry_after } => {
            let message = format!("the system of connector {} cannot be asked", cut(&connector));
            StatusBuilder::new(Code::Unavailable, reason, message)
                .with("resource", Resource::Connector.as_str())
                .with("id", &connector)
                .retry(retry_after)
                .about(Resource::Connector, connector)
        }
        Error::RefreshDelayed { cause, resource, id, retry_after, message } => {
            let code = match cause {
                RefreshDelay::Provider | RefreshDelay::InProgress => Code::Unavailable,
                RefreshDelay::TooSoon => Code::ResourceExhausted,
            };
            let mut answer = StatusBuilder::new(code, reason, cut(&message))
                .with("resource", resource.as_str())
                .with("id", &id)
                .retry(retry_after);
            if cause == RefreshDelay::TooSoon {
                answer.quota = Some(QuotaViolation::new("refreshes", cut(&message)));
            }
            answer.about(resource, id)
        }
        Error::JournalUnwritable { retry_after } => {
            let message = "the journal of received tokens cannot be written, so none are asked for".into();
            StatusBuilder::new(Code::Unavailable, reason, message).retry(retry_after)
        }
        Error::SourceFailed { fault, id, message, retry_after } => {
            let code = if fault.is_transient() { Code::Unavailable } else { Code::FailedPrecondition };
            let mut answer = StatusBuilder::new(code, reason, cut(&message))
                .with("resource", Resource::CredentialSource.as_str())
                .with("id", &id);
            if fault.is_transient() {
                answer = answer.retry(retry_after.unwrap_or_default().max(SOURCE_RETRY_AFTER));
            } else {
                let subject = format!("{}/{}", Resource::CredentialSource, cut(&id));
                answer.preconditions.push(PreconditionViolation::new(reason, subject, cut(&message)));
            }
            answer.about(Resource::CredentialSource, id)
        }
        Error::ServerUnavailable { retry_after } => {
            let message = "the server is overloaded or shutting down".into();
            StatusBuilder::new(Code::Unavailable, reason, message).retry(retry_after)
        }
        Error::DeadlineExceeded => StatusBuilder::new(Code::DeadlineExceeded, reason, "the deadline has passed".into()),
        Error::DecryptFailed { resource, id } => {
            let message = format!("a stored secret of {resource} {} does not open", cut(&id));
            let mut answer = StatusBuilder::new(Code::DataLoss, reason, message)
                .with("resource", resource.as_str())
                .with("id", &id)
                .about(resource, id);
            answer.request_info = true;
            answer
        }
        Error::DataDamaged { resource, id, source } => {
            let of = if id.is_empty() { resource.as_str().to_owned() } else { format!("{resource} {}", cut(&id)) };
            let message = format!("the stored row of {of} cannot be read");
            let mut answer = StatusBuilder::new(Code::DataLoss, reason, message)
                .with("resource", resource.as_str())
                .caused_by(source);
            if !id.is_empty() {
                answer = answer.with("id", &id).about(resource, id);
            }
            answer.request_info = true;
            answer
        }
        Error::Internal(source) => {
            let mut answer = StatusBuilder::new(Code::Internal, reason, "internal error".into()).caused_by(source);
            answer.request_info = true;
            answer
        }
    }
}

fn invalid_message(violations: &[Violation]) -> String {
    match violations {
        [] => "invalid request".into(),
        [only] => violation_message(only),
        [first, rest @ ..] => format!("{} (and {} more)", violation_message(first), rest.len()),
    }
}

/// Returns a sentence about a violation, with its field if it has one.
fn violation_message(violation: &Violation) -> String {
    match violation.field.as_ref() {
        "" => cut(&violation.description),
        field => format!("{} {}", cut(field), cut(&violation.description)),
    }
}

fn in_use_message(resource: Resource, id: &str, by: &[Use]) -> String {
    let users: Vec<_> = by.iter().map(|user| counted(user.count, user.resource)).collect();
    format!("{} {} is used by {}", noun(resource), cut(id), users.join(", "))
}

fn not_found_message(resource: Resource, reference: &str, by: &[(&'static str, String)]) -> String {
    let mut what = noun(resource);
    if !reference.is_empty() {
        what = format!("{what} \"{}\"", cut(reference));
    }
    let by: Vec<_> = by.iter().map(|(field, value)| format!("{field} \"{}\"", cut(value))).collect();
    match by.as_slice() {
        [] => format!("{what} not found"),
        by => format!("{what} with {} not found", by.join(" and ")),
    }
}

/// The name of a kind of resource in a sentence.
fn noun(resource: Resource) -> String {
    resource.as_str().replace('_', " ")
}

fn counted(count: u64, resource: Resource) -> String {
    format!("{count} {}{}", noun(resource), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
