//! Facts of certificates.

use jackfield_domain::Timestamp;
use jackfield_domain::key::{CertificateFacts, Remaining};

use super::report::Facts;

/// The most certificates of a chain that are shown.
const MAX_CERTIFICATES: usize = 8;
const DAY: i64 = 24 * 3_600 * 1_000_000;

/// Adds the facts of a chain, its leaf first.
pub(super) fn add_chain(facts: &mut Facts, chain: &[Option<CertificateFacts>], now: Timestamp) {
    facts.add("certificates", chain.len());
    for (index, certificate) in chain.iter().take(MAX_CERTIFICATES).enumerate() {
        let prefix = format!("certificate.{}", index + 1);
        match certificate {
            Some(certificate) => add_certificate(facts, &prefix, certificate, now),
            None => drop(facts.add(prefix, "cannot be read")),
        }
    }
}

pub(super) fn add_certificate(facts: &mut Facts, prefix: &str, certificate: &CertificateFacts, now: Timestamp) {
    let CertificateFacts {
        subject,
        issuer,
        serial_number,
        subject_alternative_names,
        not_before,
        not_after,
        fingerprint_sha256,
        public_key_algorithm,
        is_ca: _,
    } = certificate;
    facts
        .add(format!("{prefix}.subject"), subject)
        .add(format!("{prefix}.names"), subject_alternative_names.join(", "))
        .add(format!("{prefix}.issuer"), issuer)
        .add(format!("{prefix}.serial_number"), serial_number)
        .add(format!("{prefix}.not_before"), not_before)
        .add(format!("{prefix}.not_after"), not_after)
        .add(format!("{prefix}.days_left"), not_after.0.saturating_sub(now.0).div_euclid(DAY))
        .add(format!("{prefix}.public_key_algorithm"), public_key_algorithm)
        .add(format!("{prefix}.fingerprint_sha256"), fingerprint_sha256);
}

/// Returns true if a tenth of the lifetime or less is left.
pub(super) fn expires_soon(certificate: &CertificateFacts, now: Timestamp) -> bool {
    matches!(certificate.expiry().remaining(now), Some(Remaining::Tenth | Remaining::Day))
}
