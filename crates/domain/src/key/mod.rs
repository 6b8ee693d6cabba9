//! Keys: client identities and trust bundles.

mod generation;
mod material;

use serde::{Deserialize, Serialize};

use crate::document::is_default;
use crate::error::{Violation, Violations};
use crate::names::names;
use crate::patch::{FieldPatch as _, Patch};
use crate::request::map_patch::MapPatch;
use crate::request::order::OrderBy;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::resource::Resource;
use crate::value::id::KeyId;
use crate::value::maps::Labels;
use crate::value::meta::Meta;
use crate::value::secret::Secret;
use crate::value::text::Name;
use crate::value::time::Timestamp;

pub use generation::{
    CertificateIssue, KeyAlgorithm, KeyGeneration, MAX_COMMON_NAME, MAX_LIFETIME, MAX_SUBJECT_NAMES, MIN_LIFETIME,
    SubjectName,
};
pub use material::{CertificateFacts, Expiry, KeyMaterial, NextMaterial, PRIVATE_KEY_COLUMN, Remaining};

/// A key, without its private parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    pub id: KeyId,
    pub name: Name,
    pub kind: KeyKind,
    /// The material that is used now.
    #[serde(flatten)]
    pub current: KeyMaterial,
    /// The material that replaces it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub next: Option<NextMaterial>,
    /// The number of connectors, connections, credentials and credential sources that use it, counted when it is read.
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

/// A change of a key.
#[derive(Debug, Default)]
pub struct KeyPatch {
    pub name: Option<Name>,
    pub kind: Option<KeyKind>,
    /// The certificates; `None` inside if they are to be removed. The use case checks them.
    pub certificate_pem: Option<Option<String>>,
    pub labels: MapPatch<Labels>,
}

/// The longest certificate PEM, in bytes.
pub const MAX_CERTIFICATE_PEM_BYTES: usize = 64 * 1024;
/// The longest private key PEM, in characters.
pub const MAX_PRIVATE_KEY_PEM_CHARS: usize = 16 * 1024;
/// The most certificates in one key.
pub const MAX_CERTIFICATES: usize = 100;

// === impl Key ===

impl Key {
    /// Changes the fields that callers set, except for the certificates, or returns what would be wrong with the result.
    pub fn apply(&mut self, patch: &KeyPatch) -> Result<(), Vec<Violation>> {
        let KeyPatch { name, kind, certificate_pem: _, labels } = patch;
        let mut violations = Violations::default();
        name.apply("key.name", &mut self.name, &mut violations);
        labels.apply("key.labels", &mut self.labels, &mut violations);
        if kind.is_some_and(|kind| kind != self.kind) {
            violations.push(Violation::field("key.type", "may not be changed"));
        }
        violations.into_whole(())
    }

    /// Makes the next material the current one if its time has come. Returns the material that it replaces. The times and the
    /// version become those of this change, so that it does not matter when it is noticed.
    pub fn activate(&mut self, now: Timestamp) -> Option<KeyMaterial> {
        let next = self.next.take_if(|next| next.activation().is_some_and(|time| time <= now))?;
        self.meta = self.meta.changed(next.activate_time);
        Some(std::mem::replace(&mut self.current, next.material))
    }

    /// The time at which the next material becomes the current one.
    pub fn activation(&self) -> Option<Timestamp> {
        self.next.as_ref().and_then(NextMaterial::activation)
    }

    /// The expiry that counts: that of the next material if it becomes the current one in time.
    pub fn expiry(&self) -> Option<Expiry> {
        let current = self.current.expiry()?;
        let next = self.next.as_ref().filter(|next| next.activation().is_some_and(|time| time <= current.not_after));
        next.and_then(|next| next.material.expiry()).or(Some(current))
    }

    /// The number for new material. No earlier material of this key has it, so their private keys are never mistaken for one another.
    pub fn next_number(&self) -> u32 {
        self.next.as_ref().map_or(self.current.number, |next| next.material.number) + 1
    }
}

impl Patch for KeyPatch {
    fn is_empty(&self) -> bool {
        let KeyPatch { name, kind, certificate_pem, labels } = self;
        name.is_none() && kind.is_none() && certificate_pem.is_none() && labels.is_empty()
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

#[cfg(test)]
mod tests;
