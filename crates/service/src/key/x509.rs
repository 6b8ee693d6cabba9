//! The checks of certificates and private keys before a key is stored (RFC 5280).

use jackfield_domain::error::{Precondition, Violation};
use jackfield_domain::key::{CertificateFacts, MAX_CERTIFICATES};
use jackfield_domain::value::pem::{self, Pem, PemFault};
use jackfield_domain::{Error, Resource, Result, Secret, Timestamp};
use jackfield_upstream::tls::certificate_facts;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Version;

/// Certificates as PEM, and the field of the request that has them.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) field: &'static str,
    pub(super) pem: &'a str,
}

/// The private key that certificates must belong to.
#[derive(Clone, Copy)]
pub(super) enum PrivateKey<'a> {
    /// It is in a field of the request, too.
    Given(&'static str, &'a Secret),
    /// It was stored or generated before.
    Stored(&'a Secret),
}

/// Certificates that were checked, as they are stored: nothing but their sections.
pub(super) struct Checked {
    pub(super) certificate_pem: String,
    pub(super) certificates: Vec<CertificateFacts>,
}

/// Checks the certificates of a client identity with their private key. Returns also the private key as it is stored.
///
/// # Errors
/// `Invalid` with what is wrong; `Precondition` KEY_EXPIRED if a certificate has expired.
pub(super) fn check_identity(
    given: Given<'_>,
    private_key: PrivateKey<'_>,
    now: Timestamp,
) -> Result<(Checked, Secret)> {
    let field = given.field;
    let mut private_key_pem = None;
    let checked = check(given, now, |chain, parsed, certificates| {
        check_version(field, &parsed[0])?;
        private_key_pem = Some(check_private_key(field, chain, &certificates[0], private_key)?);
        check_chain(field, parsed)?;
        check_usage(field, &parsed[0])
    })?;
    let private_key_pem = private_key_pem.ok_or_else(|| Error::internal("a private key that was not checked"))?;
    Ok((checked, private_key_pem))
}

/// Checks the certificates of a trust bundle.
///
/// # Errors
/// As those of [`check_identity`].
pub(super) fn check_bundle(given: Given<'_>, now: Timestamp) -> Result<Checked> {
    check(given, now, |_, _, certificates| match certificates.iter().position(|certificate| !certificate.is_ca) {
        None => Ok(()),
        Some(index) => {
            let description = format!(
                "must hold only CAs when no private key is given; certificate {} is not one (a client identity needs its \
                 private_key_pem)",
                index + 1
            );
            Err(Violation::field(given.field, description).into())
        }
    })
}

fn check(
    given: Given<'_>,
    now: Timestamp,
    mut check_kind: impl FnMut(&[CertificateDer<'static>], &[X509Certificate<'_>], &[CertificateFacts]) -> Result<()>,
) -> Result<Checked> {
    let field = given.field;
    let chain = parse_certificates(given)?;
    let parsed = parse_x509(field, &chain)?;
    let facts = parsed.iter().zip(&chain).map(|(certificate, der)| certificate_facts(certificate, der));
    let outside = || Violation::field(field, "has a validity outside the years 1 to 9999");
    let certificates = facts.collect::<Option<Vec<CertificateFacts>>>().ok_or_else(outside)?;
    check_kind(&chain, &parsed, &certificates)?;
    let expired = certificates.iter().zip(1..).find(|(certificate, _)| certificate.not_after <= now);
    if let Some((CertificateFacts { subject, not_after, .. }, number)) = expired {
        let message = format!("{field}: certificate {number}, of {subject}, expired at {not_after}");
        // The key may have no id yet.
        return Err(Error::precondition(Precondition::KeyExpired, Resource::Key, "", message));
    }
    Ok(Checked { certificate_pem: pem::encode_certificates(&chain), certificates })
}

fn parse_certificates(Given { field, pem }: Given<'_>) -> Result<Vec<CertificateDer<'static>>> {
    let read = Pem::new(pem.as_bytes()).and_then(|text| text.certificates());
    let chain = read.map_err(unreadable(field))?;
    if chain.is_empty() {
        return Err(Violation::field(field, "holds no certificate in PEM").into());
    }
    if chain.len() > MAX_CERTIFICATES {
        let description = format!("must not hold more than {MAX_CERTIFICATES} certificates");
        return Err(Violation::field(field, description).into());
    }
    Ok(chain)
}

fn parse_x509<'a>(field: &str, chain: &'a [CertificateDer<'static>]) -> Result<Vec<X509Certificate<'a>>> {
    let parse = |(index, der): (usize, &'a CertificateDer<'static>)| match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => {
            let description = format!("the certificate numbered {} is not X.509", index + 1);
            Err(Violation::field(field, description).into())
        }
    };
    chain.iter().enumerate().map(parse).collect()
}

/// Only version 3 has extensions, which say what a certificate is for. rustls accepts no other version.
fn check_version(field: &str, leaf: &X509Certificate<'_>) -> Result<()> {
    if leaf.version() == X509Version::V3 {
        return Ok(());
    }
    let version = leaf.version().0.saturating_add(1); // counted from 0 in DER
    let description = format!(
        "the first certificate is X.509 version {version}, which TLS cannot use: issue it as version 3, with extensions"
    );
    Err(Violation::field(field, description).into())
}

/// The private key must parse and belong to the first certificate. Returns it as it is stored: without the text around it. The messages
/// of the parser are dropped, because it has seen the key.
fn check_private_key(
    field: &str,
    chain: &[CertificateDer<'static>],
    leaf: &CertificateFacts,
    private_key: PrivateKey<'_>,
) -> Result<Secret> {
    let (name, secret) = match private_key {
        PrivateKey::Given(name, secret) => (name, secret),
        // It was read before, so it has no fault of its own.
        PrivateKey::Stored(secret) => ("", secret),
    };
    let text = Pem::new(secret.expose().as_bytes()).map_err(unreadable(name))?;
    let keys: Result<Vec<_>, _> = PrivateKeyDer::pem_slice_iter(text.text().as_bytes()).collect();
    let key = match keys.as_deref() {
        Ok([key]) => key,
        Ok([_, _, ..]) => return Err(Violation::field(name, "must hold one private key, not several").into()),
        Ok([]) | Err(_) => {
            let description = "is not an unencrypted private key in PEM (PKCS #8, SEC 1, PKCS #1)";
            return Err(Violation::field(name, description).into());
        }
    };
    text.only(pem::PRIVATE_KEY_LABELS).and_then(|()| text.all_read(1)).map_err(unreadable(name))?;
    let signing = aws_lc_rs::sign::any_supported_type(key).map_err(|_| {
        let usable = "RSA of 2,048 to 8,192 bits, ECDSA P-256, P-384 or P-521, or Ed25519";
        let description =
            format!("is not a key that TLS can use: {usable}; the certificate says {}", leaf.public_key_algorithm);
        Violation::field(name, description)
    })?;
    match CertifiedKey::new(chain.to_vec(), signing).keys_match() {
        Ok(()) => Ok(Secret::new(pem::encode(label_of(key), key.secret_der()))),
        Err(rustls::Error::InconsistentKeys(_)) => Err(match private_key {
            PrivateKey::Given(..) => Violation::field(name, "does not belong to the first certificate"),
            PrivateKey::Stored(_) => {
                Violation::field(field, "the first certificate is of another private key than the stored one")
            }
        }
        .into()),
        Err(error) => {
            let description = format!("the first certificate cannot be used for TLS: {error}");
            Err(Violation::field(field, description).into())
        }
    }
}

/// The label of the section of a private key.
fn label_of(key: &PrivateKeyDer<'_>) -> &'static str {
    match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        // Encodings that are added are of this kind: no other label is read.
        _ => "PRIVATE KEY",
    }
}

fn unreadable(field: &'static str) -> impl Fn(PemFault) -> Violation {
    move |fault| Violation::field(field, format!("cannot be read: {fault}"))
}

/// Each certificate must name the next as its issuer: by name, and by key where both say which (RFC 5280 4.2.1.1).
fn check_chain(field: &str, chain: &[X509Certificate<'_>]) -> Result<()> {
    let issued = |certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>| {
        let same_key = match (authority_key_id(certificate), subject_key_id(issuer)) {
            (Some(wanted), Some(actual)) => wanted == actual,
            _ => true,
        };
        same_key && certificate.issuer().as_raw() == issuer.subject().as_raw()
    };
    let broken = chain.windows(2).position(|pair| !issued(&pair[0], &pair[1]));
    match broken {
        None => Ok(()),
        Some(index) => {
            let (number, next) = (index + 1, index + 2);
            let description = format!("is out of order: certificate {number} was not issued by certificate {next}");
            Err(Violation::field(field, description).into())
        }
    }
}

/// The key that signed a certificate, if it says which.
fn authority_key_id<'a>(certificate: &X509Certificate<'a>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}

/// The key of a certificate, if it says which.
fn subject_key_id<'a>(certificate: &X509Certificate<'a>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

/// A client identity must be usable as a TLS client, as far as it says what it is for: by its purpose (RFC 5280 4.2.1.12), and by
/// what its key may do, because every cipher that is in use has the client sign the handshake (RFC 5280 4.2.1.3, RFC 8446 4.4.2.2).
fn check_usage(field: &str, leaf: &X509Certificate<'_>) -> Result<()> {
    let refuse = |description: &str| Err(Violation::field(field, description).into());
    match (leaf.extended_key_usage(), leaf.key_usage()) {
        (Err(_), _) => refuse("the first certificate states its extended key usage more than once, or unreadably"),
        (_, Err(_)) => refuse("the first certificate states its key usage more than once, or unreadably"),
        (Ok(Some(purpose)), _) if !purpose.value.client_auth && !purpose.value.any => refuse(
            "the first certificate is not for TLS client authentication: its extended key usage lacks clientAuth",
        ),
        (_, Ok(Some(usage))) if !usage.value.digital_signature() => {
            refuse("the key of the first certificate may not sign: its key usage lacks digitalSignature")
        }
        _ => Ok(()),
    }
}
