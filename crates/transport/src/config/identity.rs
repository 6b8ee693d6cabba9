//! `[identity]`: which client certificate is which principal.

use serde::{Deserialize, Serialize};

/// The callers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// The known callers.
    pub principals: Vec<PrincipalConfig>,
}

/// A known caller. Exactly one of `spiffe`, `dns` and `subject` says by what its certificate is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrincipalConfig {
    /// Name in logs and records; unique.
    pub name: String,
    /// Name of its tenant.
    pub tenant: String,
    /// Its rights: names of rights, `<resource>.*`, or `*`.
    pub rights: Vec<String>,
    /// The one URI SAN of its certificate, such as `spiffe://example.org/billing`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub spiffe: String,
    /// A DNS SAN of its certificate, exact, no wildcard.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dns: String,
    /// The subject of its certificate as RFC 4514 writes it, such as `CN=billing,O=Example`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
}
