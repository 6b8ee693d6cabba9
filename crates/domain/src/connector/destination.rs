//! The destinations of secrets. A kept secret stays with the destination that it was given for: a caller who may write a connector may not
//! read its secrets by sending them elsewhere.

use super::{Connector, ConnectorKind, ConnectorPatch, Generic, KindPatch};
use crate::error::Violation;
use crate::value::secret::SecretPatch;
use crate::value::url::HttpUrl;

// === impl Connector ===

impl Connector {
    /// Finds secrets that a patch keeps although their destination changes. `self` is the connector before the patch.
    ///
    /// The destination of the password and the secret headers is the origins of the system, together with the trust bundle: with another
    /// bundle, another server could pass for the system. The public authorities need no such check. The destination of the proxy's
    /// password is the proxy.
    pub fn misdirected_secrets(&self, after: &Self, patch: &ConnectorPatch) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut refuse = |secret: &str, cause: Option<String>| {
            let violation = |cause| {
                let description = format!("must be given again, or cleared, in the same request: {cause}");
                Violation::field(format!("connector.{secret}"), description)
            };
            violations.extend(cause.map(violation));
        };
        if self.keeps_password(patch) {
            refuse("generic.http_authentication_password", self.system_moved(after));
        }
        if patch.secret_headers.keeps_any(&self.secret_header_names) {
            refuse("secret_headers", self.system_moved(after));
        }
        if self.egress_proxy_password_set && matches!(patch.egress_proxy_password, SecretPatch::Keep) {
            let has_moved = !have_same_origin(self.egress_proxy.as_ref(), after.egress_proxy.as_ref());
            let cause = "egress_proxy, for which it was given, gets another scheme, host or port";
            refuse("egress_proxy_password", has_moved.then(|| cause.to_owned()));
        }
        violations
    }

    fn keeps_password(&self, patch: &ConnectorPatch) -> bool {
        let is_kept = match &patch.kind {
            KindPatch::Generic(generic) => matches!(generic.password, SecretPatch::Keep),
            _ => true,
        };
        is_kept && matches!(self.kind, ConnectorKind::Generic(Generic { password_set: true, .. }))
    }

    /// The change by which what is sent to the system could go to another server.
    fn system_moved(&self, after: &Self) -> Option<String> {
        let (before_urls, after_urls) = (self.kind.system_urls(), after.kind.system_urls());
        let is_new = |(_, url): &(&str, &HttpUrl), others: &[(&str, &HttpUrl)]| {
            !others.iter().any(|(_, other)| url.has_same_origin(other))
        };
        let added = after_urls.iter().find(|url| is_new(url, &before_urls));
        let moved = added.or_else(|| before_urls.iter().find(|url| is_new(url, &after_urls)));
        if let Some((field, _)) = moved {
            return Some(format!("{} changes the scheme, host or port that it was given for", in_connector(field)));
        }
        let has_other_trust = after.trust_bundle_key.is_some() && self.trust_bundle_key != after.trust_bundle_key;
        let cause = "trust_bundle_key names another bundle, with which another server could pass for the system";
        has_other_trust.then(|| cause.to_owned())
    }
}

/// The path of a field without the name of the message.
fn in_connector(field: &str) -> &str {
    field.strip_prefix("connector.").unwrap_or(field)
}

/// Returns true if both URLs have the same origin, or both are absent.
fn have_same_origin(one: Option<&HttpUrl>, other: Option<&HttpUrl>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.has_same_origin(other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

#[cfg(test)]
mod tests;
