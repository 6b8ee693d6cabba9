//! Authorisation requests (RFC 6749 4.1.1): the URL to which a user is sent.

use std::collections::BTreeMap;

use jackfield_domain::Secret;
use jackfield_domain::value::url::{HttpUrl, RedirectUri};
use url::Url;
use zeroize::Zeroizing;

/// An authorisation request.
pub struct AuthorizationRequest<'a> {
    /// The authorisation endpoint. Parameters that it has itself are kept, unless they belong to the request.
    pub endpoint: &'a HttpUrl,
    pub client_id: &'a str,
    pub redirect_uri: &'a RedirectUri,
    pub scopes: &'a [String],
    pub state: &'a Secret,
    /// The challenge of the code verifier by S256 (RFC 7636 4.2).
    pub code_challenge: &'a str,
    /// The nonce of OpenID Connect.
    pub nonce: Option<&'a Secret>,
    /// Parameters that are sent beside those of the request, which they cannot replace.
    pub parameters: &'a BTreeMap<String, String>,
}

// === impl AuthorizationRequest ===

impl AuthorizationRequest<'_> {
    /// The URL of the request. `None` if the endpoint is no URL.
    pub fn url(&self) -> Option<Secret> {
        let scope = self.scopes.join(" ");
        let mut own = vec![
            ("response_type", "code"),
            ("client_id", self.client_id),
            ("redirect_uri", self.redirect_uri.as_str()),
            ("state", self.state.expose()),
            ("code_challenge", self.code_challenge),
            ("code_challenge_method", "S256"),
        ];
        if !scope.is_empty() {
            own.push(("scope", &scope));
        }
        own.extend(self.nonce.map(|nonce| ("nonce", nonce.expose())));
        let is_own = |name: &str| name == "scope" || name == "nonce" || own.iter().any(|(own, _)| *own == name);
        let mut url = Url::parse(self.endpoint.as_str()).ok()?;
        let kept: Vec<(String, String)> = url.query_pairs().into_owned().filter(|(name, _)| !is_own(name)).collect();
        let more = self.parameters.iter().filter(|(name, _)| !is_own(name));
        url.query_pairs_mut().clear().extend_pairs(kept).extend_pairs(more).extend_pairs(&own);
        let text = Zeroizing::new(String::from(url));
        Some(Secret::new(text.as_str().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_of_the_request_cannot_be_replaced() {
        let endpoint = HttpUrl::parse("url", "https://as.example/authorize?tenant=1&client_id=evil", 100).unwrap();
        let redirect_uri = RedirectUri::parse("uri", "https://app.example/back?a=b&c", 100).unwrap();
        let given =
            [("access_type", "offline"), ("redirect_uri", "https://evil.example"), ("nonce", "evil"), ("s p", "&=")];
        let request = AuthorizationRequest {
            endpoint: &endpoint,
            client_id: "c 1",
            redirect_uri: &redirect_uri,
            scopes: &["openid".to_owned(), "a+b".to_owned()],
            state: &Secret::new("the state".to_owned()),
            code_challenge: "challenge",
            nonce: None,
            parameters: &given.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        };
        let url = Url::parse(request.url().unwrap().expose()).unwrap();
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let expected = [
            ("tenant", "1"),
            ("access_type", "offline"),
            ("s p", "&="),
            ("response_type", "code"),
            ("client_id", "c 1"),
            ("redirect_uri", "https://app.example/back?a=b&c"),
            ("state", "the state"),
            ("code_challenge", "challenge"),
            ("code_challenge_method", "S256"),
            ("scope", "openid a+b"),
        ];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
