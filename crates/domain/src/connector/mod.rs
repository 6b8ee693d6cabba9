//! Connectors: definitions of outside systems and how to reach them. The settings of single kinds are in `kind`.

mod destination;
mod event;
mod kind;
mod list;
mod own_headers;
mod secret_headers;
mod timeouts;

use serde::{Deserialize, Serialize};

use crate::document::is_default;
use crate::error::{Violation, Violations};
use crate::patch::patchable;
use crate::request::map_patch::MapPatch;
use crate::request::reference::Ref;
use crate::value::id::{ConnectorId, KeyId};
use crate::value::json::JsonObject;
use crate::value::maps::{Headers, Labels, check_entries};
use crate::value::meta::Meta;
use crate::value::secret::SecretPatch;
use crate::value::text::Name;
use crate::value::time::Timestamp;
use crate::value::url::HttpUrl;

pub use event::{
    Cause, ConnectorEvent, EVENT_LIFE_MICROS, EVENTS, EventOperation, EventOutcome, MAX_CAUSE, MAX_EVENTS,
};
pub use kind::{
    ApiKey, ApiKeyPatch, ClientCertificate, ClientCertificatePatch, ConnectorKind, Generic, GenericPatch, HttpBasic,
    HttpBasicPatch, KIND_REQUIRED, KindPatch, License, LicensePatch, OAuth2Endpoints, OAuth2Patch,
};
pub use list::SCHEMA;
pub use secret_headers::SecretHeadersPatch;
pub use timeouts::{MAX_CONNECT_TIMEOUT, MAX_READ_TIMEOUT, MAX_TOTAL_TIMEOUT, Timeouts, TimeoutsPatch};

patchable! {
    /// A connector, without its secrets.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Connector in "connector", blank(id: ConnectorId, name: Name, kind: ConnectorKind, meta: Meta);

    /// A change of a connector. A new connector is a change of a blank one.
    pub struct ConnectorPatch;

    fixed {
        id: ConnectorId = id,
    }
    patched {
        name: Name = name,
        #[serde(default, skip_serializing_if = "is_default")]
        description: String,
        enabled: bool = true,
        kind: ConnectorKind => KindPatch = kind,
        #[serde(default, skip_serializing_if = "is_default")]
        headers: Headers => MapPatch<Headers>,
    }
    fixed {
        /// Names of the sealed headers, sorted.
        #[serde(default, skip_serializing_if = "is_default")]
        secret_header_names: Vec<String>,
    }
    patched {
        timeouts: Timeouts => TimeoutsPatch,
        /// The proxy through which the system is called.
        #[serde(default, skip_serializing_if = "is_default")]
        egress_proxy: Option<HttpUrl>,
        #[serde(default, skip_serializing_if = "is_default")]
        egress_proxy_username: Option<String>,
    }
    fixed {
        /// True if a sealed password for the proxy is stored.
        #[serde(default, skip_serializing_if = "is_default")]
        egress_proxy_password_set: bool,
        /// The client identity that is presented to the system.
        #[serde(default, skip_serializing_if = "is_default")]
        client_identity_key: Option<KeyId>,
        /// The CAs that the system's certificate must chain to.
        #[serde(default, skip_serializing_if = "is_default")]
        trust_bundle_key: Option<KeyId>,
    }
    patched {
        #[serde(default, skip_serializing_if = "is_default")]
        data: JsonObject,
        #[serde(default, skip_serializing_if = "is_default")]
        debug: bool,
        /// The time at which debug ends.
        #[serde(default, skip_serializing_if = "is_default")]
        debug_until: Option<Timestamp>,
        /// The most requests at a time.
        #[serde(default, skip_serializing_if = "is_default")]
        max_concurrent_requests: Option<u32>,
        #[serde(default, skip_serializing_if = "is_default")]
        max_response_bytes: Option<u32>,
        #[serde(default, skip_serializing_if = "is_default")]
        propagate_trace_context: bool,
        #[serde(default, skip_serializing_if = "is_default")]
        labels: Labels => MapPatch<Labels>,
    }
    fixed {
        meta: Meta = meta,
    }
    patched {}
    patch only {
        secret_headers: SecretHeadersPatch,
        egress_proxy_password: SecretPatch,
        /// The inner `None` removes the key.
        client_identity_key: Option<Option<Ref>>,
        trust_bundle_key: Option<Option<Ref>>,
    }
}

/// The keys of a patch after their references were looked up.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectorKeys {
    pub client_identity_key: Option<Option<KeyId>>,
    pub trust_bundle_key: Option<Option<KeyId>>,
}

/// The column of the sealed basic-authentication password.
pub const PASSWORD_COLUMN: &str = "generic.http_authentication_password";
/// The column of the sealed password for the proxy.
pub const PROXY_PASSWORD_COLUMN: &str = "egress_proxy_password";
/// The column of the sealed headers.
pub const SECRET_HEADERS_COLUMN: &str = "secret_headers";

// === impl Connector ===

impl Connector {
    /// Makes a connector from a patch that has everything required.
    pub fn create(
        id: ConnectorId,
        patch: &ConnectorPatch,
        keys: ConnectorKeys,
        meta: Meta,
    ) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        let name = patch.name.clone().ok_or_else(|| Violation::field("connector.name", "is required"));
        let name = violations.check(name);
        let kind = violations.check_all(ConnectorKind::create(&patch.kind));
        let (Some(name), Some(kind)) = (name, kind) else {
            return Err(violations.into_vec());
        };
        Connector::blank(id, name, kind, meta).patched(patch, keys, meta)
    }

    /// This connector after a patch, or what is wrong with the result.
    pub fn patched(mut self, patch: &ConnectorPatch, keys: ConnectorKeys, meta: Meta) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        self.apply(patch, &mut violations);
        patch.secret_headers.apply(&mut self.secret_header_names);
        match patch.egress_proxy_password {
            SecretPatch::Keep => {}
            SecretPatch::Set(_) => self.egress_proxy_password_set = true,
            SecretPatch::Clear => self.egress_proxy_password_set = false,
        }
        if self.egress_proxy.is_none() && matches!(patch.egress_proxy_username, Some(Some(_))) {
            let description = "must not be given without egress_proxy";
            violations.push(Violation::field("connector.egress_proxy_username", description));
        }
        violations.extend(check_entries("connector.secret_headers", self.secret_header_names.len()));
        self.client_identity_key = keys.client_identity_key.unwrap_or(self.client_identity_key);
        self.trust_bundle_key = keys.trust_bundle_key.unwrap_or(self.trust_bundle_key);
        if matches!(self.kind, ConnectorKind::ClientCertificate(_)) && self.client_identity_key.is_none() {
            violations.push(identity_required());
        }
        violations.extend(secret_headers::given_twice(self.headers.as_map(), &self.secret_header_names));
        violations.extend(self.own_headers_given());
        self.meta = meta;
        violations.into_whole(self)
    }

    /// Returns true if events of the connector are to be recorded now.
    pub fn debugs(&self, now: Timestamp) -> bool {
        self.debug && self.debug_until.is_none_or(|until| now < until)
    }

    /// The URL of the system, if it has one.
    pub fn url(&self) -> Option<&HttpUrl> {
        match &self.kind {
            ConnectorKind::ApiKey(settings) => settings.base_url.as_ref(),
            ConnectorKind::ClientCertificate(settings) => settings.base_url.as_ref(),
            ConnectorKind::Generic(settings) => Some(&settings.authentication_url),
            ConnectorKind::HttpBasic(settings) => settings.base_url.as_ref(),
            ConnectorKind::License(settings) => Some(&settings.base_url),
            ConnectorKind::OAuth2(settings) => settings.issuer_url.as_ref().or(settings.authorization_url.as_ref()),
        }
    }
}

// === impl ConnectorPatch ===

impl ConnectorPatch {
    /// Finds values that contradict each other regardless of what is stored, so that a caller learns of them together with
    /// all other violations of a message. [`Connector::patched`] finds contradictions with what is stored.
    pub fn contradictions(&self) -> Vec<Violation> {
        let mut violations = Vec::from_iter(self.timeouts.contradiction());
        match &self.kind {
            KindPatch::ClientCertificate(_) if matches!(self.client_identity_key, Some(None)) => {
                violations.push(identity_required());
            }
            kind => violations.extend(kind.contradiction()),
        }
        violations.extend(self.secret_headers.contradictions(&self.headers));
        violations
    }

    /// Returns true if the patch has secrets. They are not compared with what is stored.
    pub fn sets_secrets(&self) -> bool {
        let password = match &self.kind {
            KindPatch::Generic(generic) => matches!(generic.password, SecretPatch::Set(_)),
            _ => false,
        };
        password || matches!(self.egress_proxy_password, SecretPatch::Set(_)) || self.secret_headers.sets_secrets()
    }
}

fn identity_required() -> Violation {
    Violation::field("connector.client_identity_key", "is required for a client-certificate connector")
}
