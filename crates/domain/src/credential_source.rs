//! Credential sources: where the material of users comes from if a caller gives none (Fiscus).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::credential::CredentialKind;
use crate::names::names;
use crate::request::reference::Ref;
use crate::value::id::{ConnectorId, CredentialSourceId, KeyId, TenantId};
use crate::value::meta::Meta;
use crate::value::secret::Secret;
use crate::value::text::{Name, UserId};
use crate::value::time::Timestamp;
use crate::value::url::HttpUrl;

/// The source of one user, or of all users of a tenant who have none of their own. It is replaced and never changed, so that its secret
/// headers belong to its URL for as long as it has its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialSource {
    pub id: CredentialSourceId,
    /// `None`: the source is that of the tenant.
    pub user_id: Option<UserId>,
    pub endpoint: SourceEndpoint,
    /// The longest wait for the source; more than 0, at most [`MAX_SOURCE_TIMEOUT`].
    pub timeout: Duration,
    pub meta: Meta,
}

/// The way to a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum SourceEndpoint {
    Remote {
        protocol: SourceProtocol,
        url: HttpUrl,
        client_identity_key: Option<KeyId>,
        trust_bundle_key: Option<KeyId>,
        /// Sorted.
        secret_header_names: Vec<String>,
    },
    /// A client that holds a stream open.
    Stream,
}

names! {
    /// The way in which a source is called.
    pub enum SourceProtocol {
        /// A POST with JSON.
        Https = "HTTPS",
        Grpc = "GRPC",
    }
}

/// A new source.
#[derive(Debug)]
pub struct CredentialSourceDraft {
    pub user_id: Option<UserId>,
    pub endpoint: SourceEndpointDraft,
    pub timeout: Duration,
}

/// The way to a new source.
#[derive(Debug)]
pub enum SourceEndpointDraft {
    Remote {
        protocol: SourceProtocol,
        url: HttpUrl,
        client_identity_key: Option<Ref>,
        trust_bundle_key: Option<Ref>,
        secret_headers: BTreeMap<String, Secret>,
    },
    Stream,
}

/// A question to a source: the material of a user for a connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRequest {
    pub tenant: TenantId,
    pub user_id: UserId,
    pub connector: ConnectorId,
    pub connector_name: Name,
    /// The kind of the material that the user has, if there is any.
    pub kind: Option<CredentialKind>,
    /// The time until which the caller waits for the answer.
    pub expire_time: Timestamp,
}

names! {
    /// The reason why a source gave no material that can be used. The names are error reasons of the contract.
    #[derive(Hash)]
    pub enum SourceFault {
        /// It has no material of the user.
        Empty = "CREDENTIAL_SOURCE_EMPTY",
        /// It gave material that CreateCredential would refuse, or no answer of the form that is agreed.
        Incomplete = "CREDENTIAL_SOURCE_INCOMPLETE",
        /// Its answer is larger than permitted.
        TooLarge = "CREDENTIAL_SOURCE_TOO_LARGE",
        /// It did not answer in time.
        Timeout = "CREDENTIAL_SOURCE_TIMEOUT",
        /// It failed: it answered with an error, or went away before it had answered.
        Failed = "CREDENTIAL_SOURCE_FAILED",
        /// It cannot be reached, or not in the agreed protocol.
        Unreachable = "CREDENTIAL_SOURCE_UNREACHABLE",
        /// No client holds a stream open.
        NotConnected = "CREDENTIAL_SOURCE_NOT_CONNECTED",
    }
}

/// The most sources of a tenant: its own, and those of single users.
pub const MAX_SOURCES: u64 = 10_000;
/// The longest wait for a source.
pub const MAX_SOURCE_TIMEOUT: Duration = Duration::from_secs(30);
/// The wait for a source that says nothing else.
pub const DEFAULT_SOURCE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer of a source, in bytes. Material takes up to 64 KiB, and more as JSON.
pub const MAX_SOURCE_BYTES: usize = 256 * 1024;
/// The place of the secret headers of a source.
pub const SECRET_HEADERS_COLUMN: &str = "secret_headers";

// === impl SourceFault ===

impl SourceFault {
    /// Returns true if the same question may get material a moment later.
    pub const fn is_transient(self) -> bool {
        match self {
            SourceFault::Timeout | SourceFault::Failed | SourceFault::Unreachable | SourceFault::NotConnected => true,
            SourceFault::Empty | SourceFault::Incomplete | SourceFault::TooLarge => false,
        }
    }
}

// === impl SourceProtocol ===

impl SourceProtocol {
    /// The field of a source that has an endpoint of this kind.
    pub const fn field(self) -> &'static str {
        match self {
            SourceProtocol::Https => "source.https",
            SourceProtocol::Grpc => "source.grpc",
        }
    }
}

// === impl SourceEndpoint ===

impl SourceEndpoint {
    /// The keys that the endpoint is called with.
    pub fn keys(&self) -> [Option<KeyId>; 2] {
        match self {
            SourceEndpoint::Remote { client_identity_key, trust_bundle_key, .. } => {
                [*client_identity_key, *trust_bundle_key]
            }
            SourceEndpoint::Stream => [None, None],
        }
    }
}
