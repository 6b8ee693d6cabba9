//! The documents in which issuers publish their endpoints: the discovery document (OpenID Connect Discovery 1.0), or the metadata of an
//! issuer that has none (RFC 8414). Code that needs nothing but endpoints reads them here, and what else is in them need not be right.

use std::collections::BTreeMap;
use std::fmt;

use http::StatusCode;
use jackfield_domain::value::url::HttpUrl;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::documents::{Fetcher, document};
use super::fault::DocumentFault;

/// The places where an issuer may publish its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentUrls {
    /// The discovery document.
    pub openid: HttpUrl,
    /// The metadata, which count where there is no discovery document.
    pub oauth: HttpUrl,
}

/// A document of an issuer. A member that is not a text counts as if it were not there.
pub(crate) struct Published {
    texts: Texts,
    /// The endpoints for clients that present a certificate (RFC 8705 5).
    aliases: Texts,
}

/// The endpoints of an issuer to which clients say who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderEndpoints {
    /// The issuer, byte for byte the one that was asked.
    pub issuer: String,
    pub token: ProviderEndpoint,
    pub revocation: ProviderEndpoint,
    pub device_authorization: ProviderEndpoint,
}

/// An endpoint as an issuer publishes it. A URL that cannot be used counts as if it were not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderEndpoint {
    published: Option<HttpUrl>,
    for_certificates: Option<HttpUrl>,
}

/// Texts by the names of their members.
type Texts = BTreeMap<&'static str, String>;

/// A member of a document.
enum Member {
    Text(String),
    Texts(Texts),
    Other,
}

/// The visitor of a document.
struct DocumentVisitor;

/// The visitor of a member of any kind.
struct MemberVisitor;

/// The members that are read.
const NAMES: [&str; 7] = [
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "userinfo_endpoint",
    "revocation_endpoint",
    "device_authorization_endpoint",
];
const ALIASES: &str = "mtls_endpoint_aliases";
const MAX_URL: usize = 2_048;
/// The end of the URL of a discovery document.
const OPENID: &str = "/.well-known/openid-configuration";
/// The part of the URL of metadata that stands between the origin of the issuer and its path.
const OAUTH: &str = "/.well-known/oauth-authorization-server";

/// Asks an issuer for its endpoints.
///
/// # Errors
/// It publishes none, or the document is that of another issuer.
pub(super) async fn endpoints(fetcher: &Fetcher<'_>, issuer: &str) -> Result<ProviderEndpoints, DocumentFault> {
    let urls = DocumentUrls::of(issuer)?;
    let published = match fetcher.fetch::<Published>(&urls.openid).await {
        Err(first) if first.is_no_document() => fetcher.fetch(&urls.oauth).await.map_err(|second| first.or(second))?,
        first => first?,
    };
    ProviderEndpoints::of(&published, issuer)
}

/// The URL of an endpoint, if it can be used. Tokens and secrets go there, so it has https.
pub(super) fn usable_url(name: &'static str, text: &str) -> Option<HttpUrl> {
    HttpUrl::parse(name, text, MAX_URL).and_then(|url| url.require_https_unless_loopback(name)).ok()
}

// === impl DocumentUrls ===

impl DocumentUrls {
    /// The places of an issuer. A slash at its end does not count (OpenID Connect Discovery 1.0 4.1, RFC 8414 3.1).
    ///
    /// # Errors
    /// No issuer has such a name.
    pub fn of(issuer: &str) -> Result<Self, DocumentFault> {
        let parse = |text: &str| HttpUrl::parse("issuer", text, MAX_URL).ok();
        let permitted = parse(issuer)
            .and_then(|url| url.require_base("issuer").ok())
            .and_then(|url| url.require_https_unless_loopback("issuer").ok());
        let permitted = permitted.ok_or(DocumentFault::IssuerInvalid)?;
        let base = permitted.as_str().strip_suffix('/').unwrap_or(permitted.as_str());
        let authority = base.find("://").map_or(0, |scheme| scheme + "://".len());
        let path = base[authority..].find('/').map_or(base.len(), |length| authority + length);
        let (origin, path) = base.split_at(path);
        let urls = (parse(&format!("{base}{OPENID}")), parse(&format!("{origin}{OAUTH}{path}")));
        let (Some(openid), Some(oauth)) = urls else { return Err(DocumentFault::IssuerInvalid) };
        Ok(DocumentUrls { openid, oauth })
    }
}

// === impl Published ===

impl Published {
    /// Reads a response.
    ///
    /// # Errors
    /// It has no such document.
    pub(crate) fn of(status: StatusCode, body: &[u8]) -> Result<Self, DocumentFault> {
        document(status, body)
    }

    /// The text of a member.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// The URL of a member, if it can be used.
    pub(crate) fn url(&self, name: &'static str) -> Option<HttpUrl> {
        usable_url(name, self.text(name)?)
    }

    /// Returns true if the document has a URL in this member, or among the endpoints for clients with a certificate.
    pub(crate) fn has(&self, name: &str, url: &HttpUrl) -> bool {
        [&self.texts, &self.aliases].into_iter().any(|texts| texts.get(name).is_some_and(|text| text == url.as_str()))
    }

    /// Returns true if the document is that of an issuer: both names are equal, byte for byte.
    pub(crate) fn is_of(&self, issuer: &str) -> bool {
        self.text("issuer") == Some(issuer)
    }

    fn endpoint(&self, name: &'static str) -> ProviderEndpoint {
        let for_certificates = self.aliases.get(name).and_then(|text| usable_url(name, text));
        ProviderEndpoint { published: self.url(name), for_certificates }
    }
}

impl<'de> Deserialize<'de> for Published {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

// === impl ProviderEndpoints ===

impl ProviderEndpoints {
    /// The endpoints of an issuer in its document.
    ///
    /// # Errors
    /// The document is that of another issuer.
    pub(crate) fn of(published: &Published, issuer: &str) -> Result<Self, DocumentFault> {
        if !published.is_of(issuer) {
            return Err(DocumentFault::IssuerMismatch);
        }
        Ok(ProviderEndpoints {
            issuer: issuer.to_owned(),
            token: published.endpoint("token_endpoint"),
            revocation: published.endpoint("revocation_endpoint"),
            device_authorization: published.endpoint("device_authorization_endpoint"),
        })
    }
}

// === impl ProviderEndpoint ===

impl ProviderEndpoint {
    /// The URL that a client with a certificate calls in place of one. The endpoint for certificates takes the place of the one that is
    /// published for others, and of no other URL.
    pub fn for_certificate(&self, url: &HttpUrl) -> HttpUrl {
        match (&self.published, &self.for_certificates) {
            (Some(published), Some(alias)) if published == url => alias.clone(),
            _ => url.clone(),
        }
    }
}

// === impl Member ===

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemberVisitor)
    }
}

// === impl DocumentVisitor ===

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Published;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Published, A::Error> {
        let mut published = Published { texts: Texts::new(), aliases: Texts::new() };
        while let Some(name) = members.next_key::<String>()? {
            let known = NAMES.into_iter().find(|known| *known == name);
            if known.is_none() && name != ALIASES {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            match (known, members.next_value()?) {
                (Some(known), Member::Text(text)) => drop(published.texts.insert(known, text)),
                (None, Member::Texts(texts)) => published.aliases = texts,
                (_, Member::Text(_) | Member::Texts(_) | Member::Other) => {}
            }
        }
        Ok(published)
    }
}

// === impl MemberVisitor ===

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Member, E> {
        Ok(Member::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Member, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Member::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Member, A::Error> {
        let mut texts = Texts::new();
        while let Some(name) = members.next_key::<String>()? {
            match (NAMES.into_iter().find(|known| *known == name), members.next_value()?) {
                (Some(known), Member::Text(text)) => drop(texts.insert(known, text)),
                (_, Member::Text(_) | Member::Texts(_) | Member::Other) => {}
            }
        }
        Ok(Member::Texts(texts))
    }
}

#[cfg(test)]
mod tests;
