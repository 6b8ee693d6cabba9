//! Headers that the server sets itself in the requests of a connector. One that a connector has, too, would be dropped without a word, so
//! it is refused. [`is_refused_header`](crate::value::maps::is_refused_header) names those that no connector may have.

use super::{Connector, ConnectorKind, Generic};
use crate::error::Violation;
use crate::value::maps::same_header;

/// The cause for which the server sets a header.
type Cause = &'static str;

const BODY: Cause = "the protocol of this kind sets it";
const APPLICATION: Cause = "it carries license.application_id";
const SESSION: Cause = "it carries the token of a session";
const BASIC: Cause = "it carries generic.http_authentication_username and its password; without them, it can be given";
const TRACE: Cause = "propagate_trace_context sets it";

impl Connector {
    /// Finds headers that the server sets itself.
    pub(super) fn own_headers_given(&self) -> Vec<Violation> {
        let own = self.own_headers();
        let plain = self.headers.iter().map(|(name, _)| ("connector.headers", name));
        let secret = self.secret_header_names.iter().map(|name| ("connector.secret_headers", name));
        let refused = |(field, name): (&str, &String)| {
            let (_, cause) = own.iter().find(|(own, _)| same_header(own, name))?;
            Some(Violation::field(field, format!("header \"{name}\" cannot be set: {cause}")))
        };
        plain.chain(secret).filter_map(refused).collect()
    }

    /// The headers that requests to the system have anyway.
    fn own_headers(&self) -> Vec<(&'static str, Cause)> {
        let mut own = Vec::new();
        match &self.kind {
            ConnectorKind::Generic(Generic { username, .. }) => {
                own.extend([("accept", BODY), ("content-type", BODY)]);
                own.extend(username.is_some().then_some(("authorization", BASIC)));
            }
            ConnectorKind::License(_) => own.extend([
                ("accept", BODY),
                ("content-type", BODY),
                ("x-license-module", APPLICATION),
                ("x-license-token", SESSION),
            ]),
            ConnectorKind::ApiKey(_)
            | ConnectorKind::ClientCertificate(_)
            | ConnectorKind::HttpBasic(_)
            | ConnectorKind::OAuth2(_) => {}
        }
        if self.propagate_trace_context {
            own.extend([("traceparent", TRACE), ("tracestate", TRACE)]);
        }
        own
    }
}
