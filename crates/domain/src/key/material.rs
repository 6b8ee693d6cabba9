//! The material of keys: certificates, and what their private key is stored as.

use serde::{Deserialize, Serialize};

use crate::document::is_default;
use crate::names::names;
use crate::value::time::Timestamp;

/// Certificates, or the request for one. The private key is a secret beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyMaterial {
    /// The certificates as PEM, and nothing around them. Empty as long as the certificate that was requested is missing.
    pub certificate_pem: String,
    /// The contents of the certificates, in the same order.
    pub certificates: Vec<CertificateFacts>,
    /// The expiry of the certificate that expires first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub not_after: Option<Timestamp>,
    /// The request for the certificate (PKCS #10) as PEM, until the certificate is there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub signing_request_pem: String,
    /// The number of the material within its key.
    #[serde(default, skip_serializing_if = "is_default")]
    pub number: u32,
}

/// Material that becomes the current one at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextMaterial {
    pub activate_time: Timestamp,
    pub material: KeyMaterial,
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

/// The expiry of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub not_after: Timestamp,
    /// The time from which only a third of the lifetime is left, so that renewal is due.
    pub renewal_time: Timestamp,
}

names! {
    /// The rest of a lifetime of which a third or less is left. Lifetimes differ too much for times that are the same for all.
    pub enum Remaining {
        /// More than a tenth.
        Third = "third",
        /// At most a tenth. A lifetime of ten days or less has no `Day` after it.
        Tenth = "tenth",
        /// At most a day, of a lifetime whose tenth is longer than that.
        Day = "day",
        /// Nothing.
        None = "none",
    }
}

/// A day in microseconds.
const DAY: i64 = 24 * 3_600 * 1_000_000;

/// The column of the sealed private key of the first material.
pub const PRIVATE_KEY_COLUMN: &str = "private_key_pem";

// === impl KeyMaterial ===

impl KeyMaterial {
    /// Material with these certificates. Their signing request is answered, so it is not kept.
    pub fn of(number: u32, certificate_pem: String, certificates: Vec<CertificateFacts>) -> Self {
        let not_after = certificates.iter().map(|certificate| certificate.not_after).min();
        KeyMaterial { certificate_pem, certificates, not_after, signing_request_pem: String::new(), number }
    }

    /// Returns true if the certificate that was requested is missing.
    pub fn is_pending(&self) -> bool {
        self.certificates.is_empty()
    }

    /// The column of the sealed private key.
    pub fn private_key_column(&self) -> String {
        match self.number {
            0 => PRIVATE_KEY_COLUMN.to_owned(),
            number => format!("{PRIVATE_KEY_COLUMN}/{number}"),
        }
    }

    /// The time from which all certificates are valid.
    pub fn not_before(&self) -> Option<Timestamp> {
        self.certificates.iter().map(|certificate| certificate.not_before).max()
    }

    /// The expiry of the certificate that expires first.
    pub(super) fn expiry(&self) -> Option<Expiry> {
        let first = self.certificates.iter().min_by_key(|certificate| certificate.not_after)?;
        Some(first.expiry())
    }
}

// === impl CertificateFacts ===

impl CertificateFacts {
    /// The expiry of the certificate.
    pub fn expiry(&self) -> Expiry {
        let lifetime = self.not_after.0.saturating_sub(self.not_before.0).max(0);
        Expiry { not_after: self.not_after, renewal_time: self.not_after.plus_micros(-(lifetime / 3)) }
    }
}

// === impl NextMaterial ===

impl NextMaterial {
    /// The time at which it becomes the current one; `None` as long as its certificate is missing.
    pub fn activation(&self) -> Option<Timestamp> {
        (!self.material.is_pending()).then_some(self.activate_time)
    }
}

// === impl Remaining ===

impl Remaining {
    /// All rests, the longest first.
    pub const ALL: [Remaining; 4] = [Remaining::Third, Remaining::Tenth, Remaining::Day, Remaining::None];
}

// === impl Expiry ===

impl Expiry {
    /// The rest of the lifetime, if renewal is due.
    pub fn remaining(self, now: Timestamp) -> Option<Remaining> {
        let left = self.not_after.0.saturating_sub(now.0);
        let tenth = self.not_after.0.saturating_sub(self.renewal_time.0) / 10 * 3;
        match () {
            () if left <= 0 => Some(Remaining::None),
            () if now < self.renewal_time => None,
            () if left > tenth => Some(Remaining::Third),
            () if left <= DAY && DAY < tenth => Some(Remaining::Day),
            () => Some(Remaining::Tenth),
        }
    }
}
