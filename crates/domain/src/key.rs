//! Keys: client identities and trust bundles.

use serde::{Deserialize, Serialize};

use crate::error::Violation;
use crate::names::names;
use crate::request::order::OrderBy;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::resource::Resource;
use crate::value::id::KeyId;
use crate::value::maps::Labels;
use crate::value::meta::Meta;
use crate::value::secret::Secret;
use crate::value::text::Name;
use crate::value::time::Timestamp;

/// A key, without its private part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    pub id: KeyId,
    pub name: Name,
    pub kind: KeyKind,
    /// The certificates as PEM, without byte-order marks and with each section on lines of its own.
    pub certificate_pem: String,
    /// The contents of the certificates, in the same order.
    pub certificates: Vec<CertificateFacts>,
    /// The expiry of the certificate that expires first.
    pub not_after: Timestamp,
    /// The number of connectors and credentials that use it, counted when it is read.
    pub used_by: u64,
    pub labels: Labels,
    pub meta: Meta,
}

names! {
    /// The purpose of a key.
    pub enum KeyKind {
        /// Certificate chain and private key.
        ClientIdentity = "CLIENT_IDENTITY",
        /// CA certificates.
        TrustBundle = "TRUST_BUNDLE",
    }
}

/// The facts of one certificate (RFC 5280).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFacts {
    pub subject: String,
    pub issuer: String,
    pub serial_number: String,
    pub subject_alternative_names: Vec<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub fingerprint_sha256: String,
    pub public_key_algorithm: String,
    pub is_ca: bool,
}

/// A new key. The certificates are checked by the use case, which may parse X.509.
#[derive(Debug)]
pub struct KeyDraft {
    pub id: Option<KeyId>,
    pub name: Name,
    pub kind: Option<KeyKind>,
    pub certificate_pem: String,
    pub private_key_pem: Option<Secret>,
    pub labels: Labels,
}

/// Column of the sealed private key.
pub const PRIVATE_KEY_COLUMN: &str = "private_key_pem";
/// The longest certificate PEM, in bytes.
pub const MAX_CERTIFICATE_PEM_BYTES: usize = 64 * 1024;
/// The longest private key PEM, in characters.
pub const MAX_PRIVATE_KEY_PEM_CHARS: usize = 16 * 1024;
/// The most certificates in one key.
pub const MAX_CERTIFICATES: usize = 100;

/// Refuses a private key where certificates are asked for: these are public, and given back to every reader.
pub fn require_no_private_key(field: &str, pem: &str) -> Result<(), Violation> {
    match pem.contains("PRIVATE KEY-----") {
        true => Err(Violation::field(field, "must not hold a private key: it is given back to readers")),
        false => Ok(()),
    }
}

/// The filter fields and orders of lists of keys.
pub const SCHEMA: Schema = Schema {
    resource: Resource::Key,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "name", kind: FieldKind::NameText },
        Field { name: "type", kind: FieldKind::Enum(KeyKind::NAMES) },
        Field { name: "not_after", kind: FieldKind::Time },
        Field { name: "labels", kind: FieldKind::Map },
        Field { name: "create_time", kind: FieldKind::Time },
        Field { name: "update_time", kind: FieldKind::Time },
    ],
    orders: &[OrderBy::Id, OrderBy::Name, OrderBy::CreateTime],
};
