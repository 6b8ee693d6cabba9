//! The caller: the leaf certificate of a client becomes a configured principal.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use futures::future::BoxFuture;
use jackfield_domain::principal::{Principal, Rights};
use jackfield_domain::{Error, Result, TenantId};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

use crate::config::PrincipalConfig;

/// Finds the tenant that a principal's configuration names. It is asked at every call, and may remember the result for a
/// moment.
pub trait Tenants: Send + Sync + 'static {
    /// Returns the id of a caller's tenant.
    ///
    /// # Errors
    /// [`Error::TenantUnknown`] if there is no such tenant, or the error of a store that cannot be reached.
    fn resolve(&self, caller: Arc<ConfiguredPrincipal>) -> BoxFuture<'static, Result<TenantId>>;
}

/// A caller as the configuration knows it; its tenant is still a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredPrincipal {
    /// Name of the principal.
    pub name: Arc<str>,
    /// Name of its tenant.
    pub tenant: String,
    /// Its rights.
    pub rights: Rights,
}

/// The configured principals, by what their certificates say.
#[derive(Clone, Debug, Default)]
pub struct Principals {
    spiffe: HashMap<String, Arc<ConfiguredPrincipal>>,
    dns: HashMap<String, Arc<ConfiguredPrincipal>>,
    subject: HashMap<String, Arc<ConfiguredPrincipal>>,
    name: HashMap<String, Arc<ConfiguredPrincipal>>,
}

/// The reason why a certificate belongs to no principal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// On a listener with TLS the handshake has refused it already.
    #[error(
        "a connection without TLS has no client certificate, and listen.plaintext_principal names no principal for it"
    )]
    NoCertificate,
    #[error("the client certificate cannot be read")]
    Unreadable,
    #[error("the client certificate has more than one URI name")]
    SeveralUris,
    #[error("the client certificate belongs to no configured principal")]
    NoPrincipal,
}

/// The most characters of a certificate in a log line.
const MAX_CLAIMS: usize = 1_024;

// === impl Principals ===

impl Principals {
    /// Takes the principals of a configuration that was checked.
    pub fn new(principals: &[PrincipalConfig]) -> Self {
        let mut known = Principals::default();
        for principal in principals {
            let caller = Arc::new(ConfiguredPrincipal::of(principal));
            for (map, key) in [
                (&mut known.spiffe, principal.spiffe.clone()),
                (&mut known.dns, principal.dns.to_ascii_lowercase()),
                (&mut known.subject, principal.subject.clone()),
                (&mut known.name, principal.name.clone()),
            ] {
                if !key.is_empty() {
                    map.insert(key, caller.clone());
                }
            }
        }
        known
    }

    /// Returns the principal with this name, which callers on plaintext listeners have.
    pub fn by_name(&self, name: &str) -> Option<Arc<ConfiguredPrincipal>> {
        self.name.get(name).cloned()
    }

    /// Returns the principal of a certificate. A certificate with a URI name is known by that alone; one without by its
    /// DNS names; one without either by its whole subject, never by its common name.
    ///
    /// # Errors
    /// It belongs to no principal.
    pub fn identify(&self, leaf: &CertificateDer<'_>) -> Result<Arc<ConfiguredPrincipal>, Unknown> {
        let (rest, certificate) = X509Certificate::from_der(leaf).map_err(|_| Unknown::Unreadable)?;
        if !rest.is_empty() {
            return Err(Unknown::Unreadable);
        }
        let san = certificate.subject_alternative_name().map_err(|_| Unknown::Unreadable)?;
        let names = san.as_ref().map(|san| san.value.general_names.as_slice()).unwrap_or_default();
        let uris: Vec<&str> = names.iter().filter_map(uri).collect();
        let found = match uris.as_slice() {
            [_, _, ..] => return Err(Unknown::SeveralUris),
            [uri] => uri.starts_with("spiffe://").then(|| self.spiffe.get(*uri)).flatten(),
            [] if names.iter().any(|name| dns(name).is_some()) => {
                // Two DNS names of one certificate that are two principals would make the caller ambiguous.
                let mut found = names.iter().filter_map(dns).filter_map(|dns| self.dns.get(&dns.to_ascii_lowercase()));
                match (found.next(), found.next()) {
                    (Some(caller), None) => Some(caller),
                    _ => None,
                }
            }
            [] => rfc4514(certificate.subject()).and_then(|subject| self.subject.get(&subject)),
        };
        found.cloned().ok_or(Unknown::NoPrincipal)
    }
}

/// Returns the names in a certificate, as an operator would write them into the configuration of a principal.
pub fn claims(leaf: &CertificateDer<'_>) -> String {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return String::new() };
    let san = certificate.subject_alternative_name().ok().flatten();
    let names = san.as_ref().map(|san| san.value.general_names.as_slice()).unwrap_or_default();
    let mut claims: Vec<String> = names.iter().filter_map(uri).map(|uri| format!("spiffe = {uri:?}")).collect();
    claims.extend(names.iter().filter_map(dns).map(|dns| format!("dns = {dns:?}")));
    claims.extend(rfc4514(certificate.subject()).map(|subject| format!("subject = {subject:?}")));
    let claims = claims.join(", ");
    claims.chars().take(MAX_CLAIMS).collect()
}

fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) => Some(uri),
        _ => None,
    }
}

fn dns<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::DNSName(dns) => Some(dns),
        _ => None,
    }
}

// === impl ConfiguredPrincipal ===

impl ConfiguredPrincipal {
    /// Takes a principal of a configuration that was checked.
    pub fn of(principal: &PrincipalConfig) -> Self {
        let with = |rights: Rights, pattern: &String| rights.with_pattern(pattern).unwrap_or(rights);
        ConfiguredPrincipal {
            name: principal.name.as_str().into(),
            tenant: principal.tenant.clone(),
            rights: principal.rights.iter().fold(Rights::default(), with),
        }
    }

    /// The principal of one call.
    pub fn in_tenant(&self, tenant: TenantId) -> Principal {
        Principal { name: self.name.clone(), tenant, rights: self.rights }
    }
}

impl From<&Unknown> for Error {
    fn from(unknown: &Unknown) -> Self {
        Error::Unauthenticated { message: unknown.to_string() }
    }
}

/// The subject as RFC 4514 writes it: last component first, special characters escaped, attribute types without a short
/// name as numbers with the DER of the value. `None` for an empty subject or one that is not text.
fn rfc4514(name: &X509Name<'_>) -> Option<String> {
    let mut out = String::new();
    let components: Vec<_> = name.iter_rdn().collect();
    for component in components.into_iter().rev() {
        if !out.is_empty() {
            out.push(',');
        }
        for (index, attribute) in component.iter().enumerate() {
            if index > 0 {
                out.push('+');
            }
            let oid = attribute.attr_type().to_id_string();
            match short_name(&oid) {
                Some(short) => {
                    write!(out, "{short}=").ok()?;
                    escape(attribute.as_str().ok()?, &mut out);
                }
                None => {
                    write!(out, "{oid}=#").ok()?;
                    let value = attribute.attr_value();
                    let header = asn1_header(value.header.tag().0, value.data.len())?;
                    for byte in header.iter().chain(value.data) {
                        write!(out, "{byte:02x}").ok()?;
                    }
                }
            }
        }
    }
    (!out.is_empty()).then_some(out)
}

/// The short names of RFC 4514, section 3.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.6" => "C",
        "2.5.4.9" => "STREET",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        _ => return None,
    })
}

fn escape(value: &str, out: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        let special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\');
        let at_edge = (index == 0 && matches!(c, ' ' | '#')) || (index == last && c == ' ');
        match c {
            '\0' => out.push_str("\\00"),
            _ if special || at_edge => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
}

/// Tag and length of a short DER value; `None` for a tag or length that a subject does not have.
fn asn1_header(tag: u32, length: usize) -> Option<Vec<u8>> {
    let tag = u8::try_from(tag).ok().filter(|tag| *tag < 0x1f)?;
    let length = u8::try_from(length).ok().filter(|length| *length < 0x80)?;
    Some(vec![tag, length])
}

#[cfg(test)]
mod tests;
