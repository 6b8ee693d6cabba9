//! The steps before anything is called.

use jackfield_domain::Timestamp;
use jackfield_domain::probe::{ProbeReason, ProbeResult, ProbeStep};
use jackfield_domain::value::url::HttpUrl;
use tokio::time::Instant;

use super::certificate::{add_certificate, expires_soon};
use super::plan::Plan;
use super::report::{Ended, Facts, Report, sentence};
use crate::client::{Definition, DefinitionError, Request};
use crate::egress::Target;
use crate::tls::ClientCertificateFault;

/// The definition has to be usable, and its client identity should be.
pub(super) fn definition<'a>(
    definition: &'a Result<Definition, DefinitionError>,
    now: Timestamp,
    report: &mut Report,
) -> Result<&'a Definition, Ended> {
    let step = ProbeStep::Definition;
    let checked = definition.as_ref().map_err(Clone::clone);
    let checked = checked.and_then(|definition| definition.check().map(|()| definition));
    let definition = checked
        .map_err(|error| report.failed(step, ProbeReason::DefinitionInvalid, sentence(&error), Facts::default()))?;
    let trust = &definition.trust;
    let mut facts = match trust.is_public() {
        true => Facts::of("trusted_authorities", "public"),
        false => Facts::of("trusted_authorities", trust.len()),
    };
    let Some(identity) = &definition.identity else {
        report.passed(step, "The definition can be used. It has no client identity.", facts);
        return Ok(definition);
    };
    let certificate = identity.facts();
    if let Some(certificate) = &certificate {
        add_certificate(&mut facts, "client_identity", certificate, now);
    }
    let warning = match identity.flaw() {
        Some(ClientCertificateFault::Expired) => Some((ProbeReason::ClientIdentityExpired, "has expired")),
        Some(ClientCertificateFault::NotYetValid) => Some((ProbeReason::ClientIdentityNotYetValid, "is not valid yet")),
        Some(_) => Some((ProbeReason::ClientIdentityWrongUsage, "is not for clients")),
        None => certificate
            .is_some_and(|certificate| expires_soon(&certificate, now))
            .then_some((ProbeReason::ClientIdentityExpiresSoon, "expires soon")),
    };
    match warning {
        Some((reason, text)) => {
            let message = format!("The certificate of the client identity {text}.");
            report.add(step, ProbeResult::Warning, reason, message, facts);
        }
        None => report.passed(step, "The definition and its client identity can be used.", facts),
    }
    Ok(definition)
}

/// The definition has to be one of which the request can be made.
pub(super) fn request(
    plan: Option<&Plan>,
    deadline: Option<Instant>,
    report: &mut Report,
) -> Result<Option<Request>, Ended> {
    let (step, reason) = (ProbeStep::Definition, ProbeReason::DefinitionInvalid);
    let made = plan.map(|plan| plan.request(deadline)).transpose();
    made.map_err(|fault| report.failed(step, reason, sentence(&fault), Facts::default()))
}

/// The URL has to be one that some policy permits.
pub(super) fn url(url: &HttpUrl, definition: &Definition, report: &mut Report) -> Result<Target, Ended> {
    let step = ProbeStep::Url;
    let target = Target::parse(url)
        .map_err(|fault| report.failed(step, ProbeReason::UrlInvalid, sentence(&fault), Facts::default()))?;
    let facts = Facts::of("origin", format!("{target:?}"));
    match target.is_https() {
        true if definition.knows(&target) => report.passed(step, "The URL can be called.", facts),
        true => {
            // An endpoint for browsers, or one that only a connection or a document names.
            let kept = match definition.identity(&target) {
                Some(_) => "headers of the connector are",
                None => "client identity and the headers of the connector are",
            };
            let message = format!(
                "The URL can be called. The connector names no such server for its own calls, so the {kept} not sent to it."
            );
            report.passed(step, message, facts);
        }
        false => {
            let message = "The URL can be called, but nothing is encrypted.";
            report.add(step, ProbeResult::Warning, ProbeReason::PlainHttp, message, facts);
        }
    }
    Ok(target)
}
