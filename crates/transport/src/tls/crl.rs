//! Certificate revocation lists, and which of them count (RFC 5280 5).

use rustls_pki_types::CertificateRevocationListDer;
use x509_parser::asn1_rs::Oid;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry;
use x509_parser::revocation_list::CertificateRevocationList;

/// Refuses lists that do not cover all certificates of their issuer: if they counted as complete, they would let in clients
/// that are only on another list (RFC 5280 5.2.4 and 5.2.5). It also refuses lists of two keys of one name, because the
/// verifier distinguishes lists by name.
pub(super) fn complete(crls: &[CertificateRevocationListDer<'static>]) -> Result<(), String> {
    let mut keys: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (index, crl) in crls.iter().enumerate() {
        let Ok((_, crl)) = x509_parser::parse_x509_crl(crl) else { continue };
        let has = |oid: &Oid<'_>| crl.extensions().iter().any(|extension| extension.oid == *oid);
        let number = index + 1;
        if has(&oid_registry::OID_X509_EXT_DELTA_CRL_INDICATOR) {
            return Err(format!("list {number} is a delta list: give complete ones"));
        }
        if has(&oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT) {
            return Err(format!(
                "list {number} covers only a part of its authority's certificates: give complete ones"
            ));
        }
        let issuer = crl.issuer().as_raw().to_vec();
        let Some(key) = authority_key(&crl) else { continue };
        match keys.iter().find(|(other, _)| *other == issuer) {
            Some((_, other)) if *other != key => {
                let name = crl.issuer();
                return Err(format!(
                    "list {number} is signed with another key of {name} than an earlier list: the two cannot be used together"
                ));
            }
            Some(_) => {}
            None => keys.push((issuer, key)),
        }
    }
    Ok(())
}

/// The identifier of the key that a list is signed with.
fn authority_key(crl: &CertificateRevocationList<'_>) -> Option<Vec<u8>> {
    crl.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => Some(identifier.key_identifier.as_ref()?.0.to_vec()),
        _ => None,
    })
}

/// Returns the newest list of each issuer, by CRL number and then by its time, and the number of others (RFC 5280 5.2.3). The
/// verifier asks the first list of an issuer only.
pub(super) fn newest(
    crls: Vec<CertificateRevocationListDer<'static>>,
) -> (Vec<CertificateRevocationListDer<'static>>, usize) {
    let all = crls.len();
    let mut kept: Vec<(CrlAge, CertificateRevocationListDer<'static>)> = Vec::new();
    for crl in crls {
        let age = CrlAge::of(&crl);
        match kept.iter_mut().find(|(other, _)| age.issuer.is_some() && other.issuer == age.issuer) {
            Some(other) if (&age.number, age.this_update) > (&other.0.number, other.0.this_update) => {
                *other = (age, crl)
            }
            Some(_) => {}
            None => kept.push((age, crl)),
        }
    }
    let superseded = all - kept.len();
    (kept.into_iter().map(|(_, crl)| crl).collect(), superseded)
}

/// The age of a list, by which the newer of two is found. A list that cannot be read is kept, and the verifier refuses it.
struct CrlAge {
    issuer: Option<Vec<u8>>,
    /// The number without leading zeros, with its length before it, so that it compares as a number.
    number: Option<(usize, Vec<u8>)>,
    this_update: i64,
}

impl CrlAge {
    fn of(crl: &[u8]) -> Self {
        match x509_parser::parse_x509_crl(crl) {
            Ok((_, crl)) => CrlAge {
                issuer: Some(crl.issuer().as_raw().to_vec()),
                number: crl.crl_number().map(|number| number.to_bytes_be()).map(|bytes| (bytes.len(), bytes)),
                this_update: crl.last_update().timestamp(),
            },
            Err(_) => CrlAge { issuer: None, number: None, this_update: 0 },
        }
    }
}
