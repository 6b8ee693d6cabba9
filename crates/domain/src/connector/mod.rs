//! Connectors: definitions of outside systems and how to reach them. What differs by kind is in `kind`.

mod kind;
mod list;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::document::is_default;
use crate::error::{Violation, Violations};
use crate::request::map_patch::{Entries, MapPatch};
use crate::request::reference::Ref;
use crate::value::id::{ConnectorId, KeyId};
use crate::value::json::JsonObject;
use crate::value::maps::{Headers, Labels, check_entries, same_header};
use crate::value::meta::Meta;
use crate::value::secret::{Secret, SecretPatch};
use crate::value::text::Name;
use crate::value::url::HttpUrl;

pub(crate) use kind::set;
pub use kind::{
    ApiKey, ApiKeyPatch, BaseUrlPatch, ClientCertificate, ConnectorKind, Generic, GenericPatch, HttpBasic, KindPatch,
    License, LicensePatch, OAuth2Endpoints, OAuth2Patch,
};
pub use list::SCHEMA;

/// A connector, without its secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connector {
    pub id: ConnectorId,
    pub name: Name,
    #[serde(default, skip_serializing_if = "is_default")]
    pub description: String,
    pub enabled: bool,
    pub kind: ConnectorKind,
    #[serde(default, skip_serializing_if = "is_default")]
    pub headers: Headers,
    /// Names of the sealed headers, sorted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub secret_header_names: Vec<String>,
    pub timeouts: Timeouts,
    /// The client identity that is presented to the system.
    #[serde(default, skip_serializing_if = "is_default")]
    pub client_identity_key: Option<KeyId>,
    /// The CAs that the system's certificate must chain to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub trust_bundle_key: Option<KeyId>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub data: JsonObject,
    #[serde(default, skip_serializing_if = "is_default")]
    pub debug: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: Labels,
    pub meta: Meta,
}

/// How long calls to the system may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// TCP and TLS; more than 0, at most 60 s.
    pub connect: Duration,
    /// Between two reads; more than 0, at most 300 s.
    pub read: Duration,
    /// The whole call; more than 0, at most 600 s, not less than `connect`.
    pub total: Duration,
}

/// A change of a connector: what is `None` stays as it is. Creation is a change of nothing.
#[derive(Debug, Default)]
pub struct ConnectorPatch {
    pub name: Option<Name>,
    pub description: Option<String>,
    pub enabled: Option<bool>,
    pub kind: Option<KindPatch>,
    pub headers: MapPatch<Headers>,
    pub secret_headers: SecretHeadersPatch,
    /// The inner `None` asks for the default.
    pub connect_timeout: Option<Option<Duration>>,
    pub read_timeout: Option<Option<Duration>>,
    pub total_timeout: Option<Option<Duration>>,
    /// The inner `None` takes the key away.
    pub client_identity_key: Option<Option<Ref>>,
    pub trust_bundle_key: Option<Option<Ref>>,
    pub data: Option<JsonObject>,
    pub debug: Option<bool>,
    pub labels: MapPatch<Labels>,
}

/// What happens to the sealed headers, which are kept as one value.
#[derive(Debug, Default)]
pub enum SecretHeadersPatch {
    #[default]
    Keep,
    /// Replace all of them.
    Set(BTreeMap<String, Secret>),
    /// Set or take away single ones; the others stay.
    Entries(Entries<Secret>),
    Clear,
}

/// The keys of a patch after their references were looked up.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectorKeys {
    pub client_identity_key: Option<Option<KeyId>>,
    pub trust_bundle_key: Option<Option<KeyId>>,
}

/// Longest time for connecting.
pub const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time between two reads.
pub const MAX_READ_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest time for a whole call.
pub const MAX_TOTAL_TIMEOUT: Duration = Duration::from_secs(600);
/// Column of the sealed basic-authentication password.
pub const PASSWORD_COLUMN: &str = "generic.http_authentication_password";
/// Column of the sealed headers.
pub const SECRET_HEADERS_COLUMN: &str = "secret_headers";

// === impl Connector ===

impl Connector {
    /// A new connector from a patch in which everything required is present.
    pub fn create(
        id: ConnectorId,
        patch: &ConnectorPatch,
        keys: ConnectorKeys,
        meta: Meta,
    ) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        let name =
            violations.check(patch.name.clone().ok_or_else(|| Violation::field("connector.name", "is required")));
        let kind = patch.kind.as_ref().ok_or_else(|| vec![Violation::field("connector.kind", KIND_REQUIRED)]);
        let kind =
            kind.and_then(ConnectorKind::create).map_err(|found| found.into_iter().for_each(|v| violations.push(v)));
        let (Some(name), Ok(kind)) = (name, kind) else {
            return Err(violations.into_vec());
        };
        let blank = Connector {
            id,
            name,
            description: String::new(),
            enabled: true,
            kind,
            headers: Headers::default(),
            secret_header_names: Vec::new(),
            timeouts: Timeouts::resolve(None, None, None),
            client_identity_key: None,
            trust_bundle_key: None,
            data: JsonObject::default(),
            debug: false,
            labels: Labels::default(),
            meta,
        };
        blank.patched(patch, keys, meta)
    }

    /// This connector after a patch, or what is wrong with the result.
    pub fn patched(mut self, patch: &ConnectorPatch, keys: ConnectorKeys, meta: Meta) -> Result<Self, Vec<Violation>> {
        let ConnectorPatch {
            name,
            description,
            enabled,
            kind,
            headers,
            secret_headers,
            connect_timeout,
            read_timeout,
            total_timeout,
            client_identity_key: _, // looked up: in `keys`
            trust_bundle_key: _,
            data,
            debug,
            labels,
        } = patch;
        let mut violations = Violations::default();
        set(&mut self.name, name);
        set(&mut self.description, description);
        set(&mut self.enabled, enabled);
        set(&mut self.data, data);
        set(&mut self.debug, debug);
        violations.extend(headers.apply("connector.headers", &mut self.headers));
        violations.extend(labels.apply("connector.labels", &mut self.labels));
        if let Some(kind) = kind {
            self.kind.apply(kind).into_iter().for_each(|violation| violations.push(violation));
        }
        secret_headers.apply(&mut self.secret_header_names);
        violations.extend(check_entries("connector.secret_headers", self.secret_header_names.len()));
        self.timeouts = self.timeouts.patched(*connect_timeout, *read_timeout, *total_timeout);
        if self.timeouts.total < self.timeouts.connect {
            violations.push(total_too_short());
        }
        set(&mut self.client_identity_key, &keys.client_identity_key);
        set(&mut self.trust_bundle_key, &keys.trust_bundle_key);
        if matches!(self.kind, ConnectorKind::ClientCertificate(_)) && self.client_identity_key.is_none() {
            violations.push(identity_required());
        }
        violations.extend(headers_given_twice(self.headers.as_map(), &self.secret_header_names));
        self.meta = meta;
        if violations.is_empty() { Ok(self) } else { Err(violations.into_vec()) }
    }

    /// The URL of the system, as far as it has one.
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
    /// Where what is given does not go together, whatever is stored. With it a caller learns of these together with all
    /// else that is wrong with a message; [`Connector::patched`] finds what does not go with what is stored.
    pub fn contradictions(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        if let (Some(connect), Some(Some(total))) = (self.connect_timeout, self.total_timeout)
            && total < connect.unwrap_or(Timeouts::DEFAULT_CONNECT)
        {
            violations.push(total_too_short());
        }
        match &self.kind {
            Some(KindPatch::ClientCertificate(_)) if matches!(self.client_identity_key, Some(None)) => {
                violations.push(identity_required());
            }
            Some(KindPatch::ApiKey(ApiKeyPatch {
                header_name: Some(Some(_)), query_parameter: Some(Some(_)), ..
            })) => violations.push(kind::key_in_two_places()),
            _ => {}
        }
        let secret_headers = match &self.secret_headers {
            SecretHeadersPatch::Set(headers) | SecretHeadersPatch::Entries(Entries { set: headers, .. }) => headers,
            SecretHeadersPatch::Keep | SecretHeadersPatch::Clear => return violations,
        };
        let names: Vec<String> = secret_headers.keys().cloned().collect();
        let plain = match &self.headers {
            MapPatch::Keep => return violations,
            MapPatch::Replace(headers) => headers.as_map(),
            MapPatch::Entries(entries) => &entries.set,
        };
        violations.extend(headers_given_twice(plain, &names));
        violations
    }

    /// Whether it asks for no change of anything.
    pub fn is_empty(&self) -> bool {
        let ConnectorPatch {
            name,
            description,
            enabled,
            kind,
            headers,
            secret_headers,
            connect_timeout,
            read_timeout,
            total_timeout,
            client_identity_key,
            trust_bundle_key,
            data,
            debug,
            labels,
        } = self;
        name.is_none()
            && description.is_none()
            && enabled.is_none()
            && kind.as_ref().is_none_or(KindPatch::is_empty)
            && headers.is_keep()
            && matches!(secret_headers, SecretHeadersPatch::Keep)
            && connect_timeout.is_none()
            && read_timeout.is_none()
            && total_timeout.is_none()
            && client_identity_key.is_none()
            && trust_bundle_key.is_none()
            && data.is_none()
            && debug.is_none()
            && labels.is_keep()
    }

    /// Whether it brings secrets: what is stored is not compared with them.
    pub fn sets_secrets(&self) -> bool {
        let password = match &self.kind {
            Some(KindPatch::Generic(generic)) => matches!(generic.password, SecretPatch::Set(_)),
            _ => false,
        };
        let headers = match &self.secret_headers {
            SecretHeadersPatch::Set(_) => true,
            SecretHeadersPatch::Entries(entries) => !entries.set.is_empty(),
            SecretHeadersPatch::Keep | SecretHeadersPatch::Clear => false,
        };
        password || headers
    }
}

// === impl SecretHeadersPatch ===

impl SecretHeadersPatch {
    /// The names of the sealed headers after it, sorted.
    fn apply(&self, names: &mut Vec<String>) {
        let kept = match self {
            SecretHeadersPatch::Keep => return,
            SecretHeadersPatch::Set(_) | SecretHeadersPatch::Clear => Vec::new(),
            SecretHeadersPatch::Entries(entries) => {
                names.drain(..).filter(|name| !entries.touches(name, same_header)).collect()
            }
        };
        let set = match self {
            SecretHeadersPatch::Set(set) | SecretHeadersPatch::Entries(Entries { set, .. }) => set.keys().cloned(),
            SecretHeadersPatch::Keep | SecretHeadersPatch::Clear => return names.clear(),
        };
        *names = kept.into_iter().chain(set).collect::<BTreeSet<_>>().into_iter().collect();
    }

    /// The sealed headers after it. `None`: there are none.
    pub fn applied(&self, mut stored: BTreeMap<String, Secret>) -> Option<BTreeMap<String, Secret>> {
        let set = match self {
            SecretHeadersPatch::Keep => return Some(stored),
            SecretHeadersPatch::Clear => return None,
            SecretHeadersPatch::Set(set) => {
                stored.clear();
                set
            }
            SecretHeadersPatch::Entries(entries) => {
                stored.retain(|name, _| !entries.touches(name, same_header));
                &entries.set
            }
        };
        stored.extend(set.iter().map(|(name, value)| (name.clone(), value.duplicate())));
        Some(stored).filter(|headers| !headers.is_empty())
    }
}

fn total_too_short() -> Violation {
    Violation::field("connector.total_timeout", "must not be less than connect_timeout")
}

fn identity_required() -> Violation {
    Violation::field("connector.client_identity_key", "is required for a client-certificate connector")
}

fn headers_given_twice(headers: &BTreeMap<String, String>, secret_names: &[String]) -> Vec<Violation> {
    let twice = |name: &&String| headers.keys().any(|plain| same_header(plain, name));
    let violation = |name: &String| {
        Violation::field("connector.secret_headers", format!("header \"{name}\" stands in headers too"))
    };
    secret_names.iter().filter(twice).map(violation).collect()
}

// === impl Timeouts ===

impl Timeouts {
    const DEFAULT_CONNECT: Duration = Duration::from_secs(5);
    const DEFAULT_READ: Duration = Duration::from_secs(10);
    const DEFAULT_TOTAL: Duration = Duration::from_secs(30);

    fn resolve(connect: Option<Duration>, read: Option<Duration>, total: Option<Duration>) -> Self {
        let connect = connect.unwrap_or(Self::DEFAULT_CONNECT);
        let read = read.unwrap_or(Self::DEFAULT_READ);
        let total = total.unwrap_or_else(|| Self::DEFAULT_TOTAL.max(connect + read));
        Timeouts { connect, read, total }
    }

    fn patched(
        self,
        connect: Option<Option<Duration>>,
        read: Option<Option<Duration>>,
        total: Option<Option<Duration>>,
    ) -> Self {
        Self::resolve(
            connect.unwrap_or(Some(self.connect)),
            read.unwrap_or(Some(self.read)),
            total.unwrap_or(Some(self.total)),
        )
    }
}

const KIND_REQUIRED: &str = "one of generic, license, oauth2, api_key, http_basic and client_certificate is required";
