//! The judgement of the documents of issuers.

use http::StatusCode;
use jackfield_domain::probe::{ProbeReason as Reason, ProbeResult as Verdict, ProbeStep as Step};
use jackfield_domain::value::url::HttpUrl;

use super::report::{Facts, Report, sentence};
use crate::oidc::{DocumentFault, Published, count_keys};

/// The members that are shown.
const SHOWN: [&str; 4] = ["issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"];

/// Judges a key set.
pub(super) fn keys(report: &mut Report, body: &[u8]) {
    if std::str::from_utf8(body).is_err() {
        report.failed(Step::Body, Reason::BodyNotUtf8, "The body is not UTF-8.".to_owned(), Facts::default());
        return;
    }
    let (all, usable) = match count_keys(body) {
        Ok(counts) => counts,
        Err(fault) => {
            report.failed(Step::Body, Reason::BodyMalformed, sentence(&fault), Facts::default());
            return;
        }
    };
    let mut facts = Facts::of("keys", all);
    facts.add("usable_keys", usable);
    match usable {
        0 => {
            let message = "The key set has no key by which a signature can be checked.".to_owned();
            report.failed(Step::Body, Reason::KeysMissing, message, facts);
        }
        _ => report.passed(Step::Body, "The key set has keys by which signatures can be checked.", facts),
    }
}

/// Judges a document in which an issuer publishes its endpoints. `endpoints` are the URLs of a connection, by the names of the members that
/// should have them.
pub(super) fn published(
    report: &mut Report,
    issuer: &str,
    needed: &[&'static str],
    endpoints: &[(&'static str, HttpUrl)],
    body: &[u8],
) {
    let mut fail = |reason, message: String, facts| {
        report.failed(Step::Body, reason, message, facts);
    };
    if std::str::from_utf8(body).is_err() {
        return fail(Reason::BodyNotUtf8, "The body is not UTF-8.".to_owned(), Facts::default());
    }
    // The status was judged before.
    let document = match Published::of(StatusCode::OK, body) {
        Ok(document) => document,
        Err(fault @ DocumentFault::BodyTooLarge(_)) => {
            return fail(Reason::BodyTooLarge, sentence(&fault), Facts::default());
        }
        Err(fault) => return fail(Reason::BodyMalformed, sentence(&fault), Facts::default()),
    };
    let mut facts = Facts::default();
    for name in SHOWN {
        if let Some(value) = document.text(name) {
            facts.add(name, value);
        }
    }
    if !document.is_of(issuer) {
        let message = "The document is of another issuer. Both have to be equal, letter by letter.";
        return fail(Reason::IssuerMismatch, message.to_owned(), facts);
    }
    if let Some(name) = needed.iter().find(|name| document.url(name).is_none()) {
        let message = format!("The document has no absolute https URL in the member {name:?}.");
        return fail(Reason::EndpointMissing, message, facts);
    }
    let other: Vec<&str> =
        endpoints.iter().filter(|(name, url)| !document.has(name, url)).map(|(name, _)| *name).collect();
    report.named_keys = document.url("jwks_uri");
    match other.is_empty() {
        true => report.passed(Step::Body, "The body is a document of the issuer.", facts),
        false => {
            let other = other.join(", ");
            let message = format!("The document has other URLs than the connection, or none: {other}.");
            report.add(Step::Body, Verdict::Warning, Reason::EndpointDiffers, message, facts);
        }
    }
}
