//! The generation of private keys, with a self-signed certificate or a request for one.

use std::net::IpAddr;
use std::time::Duration;

use crate::names::names;

/// The private key to be generated, and the certificate that it gets.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyGeneration {
    pub algorithm: KeyAlgorithm,
    /// The common name of the subject; `None` is the name of the key.
    pub common_name: Option<String>,
    pub subject_alternative_names: Vec<SubjectName>,
    pub issue: CertificateIssue,
}

/// The way in which a certificate comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateIssue {
    SelfSigned {
        lifetime: Duration,
    },
    /// It is signed elsewhere and given later.
    SigningRequest,
}

names! {
    /// The algorithm of a private key.
    pub enum KeyAlgorithm {
        EcP256 = "EC_P256",
        EcP384 = "EC_P384",
        Ed25519 = "ED25519",
        Rsa2048 = "RSA_2048",
        Rsa3072 = "RSA_3072",
        Rsa4096 = "RSA_4096",
    }
}

/// A subject alternative name (RFC 5280 4.2.1.6). The texts are ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    Dns(String),
    Uri(String),
    Email(String),
    Ip(IpAddr),
}

/// The longest common name, in characters (RFC 5280, ub-common-name).
pub const MAX_COMMON_NAME: usize = 64;
/// The most subject alternative names.
pub const MAX_SUBJECT_NAMES: usize = 100;
/// The shortest lifetime of a self-signed certificate.
pub const MIN_LIFETIME: Duration = Duration::from_secs(3_600);
/// The longest lifetime of a self-signed certificate: ten years.
pub const MAX_LIFETIME: Duration = Duration::from_secs(3_653 * 24 * 3_600);
/// The longest name, in bytes.
const MAX_SUBJECT_NAME: usize = 2_048;

// === impl SubjectName ===

impl SubjectName {
    /// Parses a name in the form in which the facts of certificates have it: "DNS:…", "URI:…", "email:…" or "IP:…".
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("DNS", name) if is_dns_name(name) => Some(SubjectName::Dns(name.to_owned())),
            ("URI", uri) if is_text(uri) && url::Url::parse(uri).is_ok() => Some(SubjectName::Uri(uri.to_owned())),
            ("email", address) if is_mailbox(address) => Some(SubjectName::Email(address.to_owned())),
            ("IP", address) => address.parse().ok().map(SubjectName::Ip),
            _ => None,
        }
    }
}

/// Returns true for printable ASCII without blanks, of a length that a certificate may have.
fn is_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_SUBJECT_NAME && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns true for a host name (RFC 1123 2.1), also with "*" in place of its first label (RFC 6125).
fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.strip_prefix("*.").unwrap_or(name).split('.').all(is_label)
}

fn is_mailbox(address: &str) -> bool {
    is_text(address) && address.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && is_dns_name(domain))
}
