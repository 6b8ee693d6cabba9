//! ID tokens: whether one is for this client, and what it says (OpenID Connect Core 1.0 3.1.3.7 and 12.2, RFC 8725).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{Secret, Timestamp};
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::claims::IdTokenClaims;
use super::documents::Fetcher;
use super::fault::IdTokenFault;
use super::keys::{KeySets, Signed};
use super::members::Members;

/// The rules for an ID token.
#[derive(Clone, Copy, Debug)]
pub struct IdTokenRules<'a> {
    /// The issuer, byte for byte.
    pub issuer: &'a str,
    pub client_id: &'a str,
    /// The algorithms of the issuer. `None` if they are not known: all that are permitted.
    pub algorithms: Option<&'a [Algorithm]>,
    pub used_for: IdTokenUse<'a>,
    /// The access token that came with the ID token, for `at_hash`.
    pub access_token: Option<&'a Secret>,
    /// The time for which the token is checked: that of the response which brought it.
    pub time: Timestamp,
}

/// The request that the ID token answers.
#[derive(Clone, Copy)]
pub enum IdTokenUse<'a> {
    /// A log-in, with the nonce that was sent, if one was.
    LogIn { nonce: Option<&'a str> },
    /// A refresh, after a log-in with this user and this nonce.
    Refresh { subject: &'a str, nonce: Option<&'a str> },
}

/// The difference between two clocks that is tolerated, in seconds.
const LEEWAY: f64 = 60.0;
/// The fault of a header, and that of a payload, that cannot be read.
const WRONG_HEADER: &str = "the header is not a JSON object in base64, or has a member twice";
const WRONG_PAYLOAD: &str = "the payload is not a JSON object in base64, or has a member twice";
/// The longest ID token, in bytes.
const MAX_ID_TOKEN: usize = 64 * 1024;

// === impl IdTokenRules ===

impl IdTokenRules<'_> {
    /// Checks an ID token, and returns its claims. The signature is checked last: what the claims say against a token is found even
    /// if the keys of the issuer cannot be had, and no keys are fetched for a token that is refused anyway.
    ///
    /// # Errors
    /// The token breaks one of the rules.
    pub async fn validate(
        &self,
        id_token: &Secret,
        keys: &KeySets,
        jwks_uri: &HttpUrl,
        fetcher: &Fetcher<'_>,
    ) -> Result<IdTokenClaims, IdTokenFault> {
        let (claims, signed) = self.examine(id_token.expose())?;
        keys.verify(fetcher, jwks_uri, &signed).await?;
        Ok(claims)
    }

    /// Checks all of a token but its signature.
    fn examine<'t>(&self, token: &'t str) -> Result<(IdTokenClaims, Signed<'t>), IdTokenFault> {
        if token.len() > MAX_ID_TOKEN {
            return Err(IdTokenFault::Malformed("it is too long"));
        }
        let parts: Vec<&str> = token.split('.').collect();
        let (header, payload, signature) = match parts[..] {
            [header, payload, signature] => (header, payload, signature),
            // JWE (RFC 7516 7.1).
            [_, _, _, _, _] => return Err(IdTokenFault::Encrypted),
            _ => return Err(IdTokenFault::Malformed("it has not three parts")),
        };
        let (algorithm, kid) = self.header(&object(header, WRONG_HEADER)?)?;
        let claims = object(payload, WRONG_PAYLOAD)?;
        self.check_parties(&claims)?;
        let (expire_time, issue_time) = check_times(&claims, self.time)?;
        self.check_nonce(&claims)?;
        self.check_access_token(&claims, algorithm)?;
        let claims = IdTokenClaims::of(claims, expire_time, issue_time)?;
        if let IdTokenUse::Refresh { subject, .. } = self.used_for
            && subject != claims.subject
        {
            return Err(IdTokenFault::SubjectChanged);
        }
        let undecodable = |_| IdTokenFault::Malformed("the signature is not base64");
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(undecodable)?;
        let message = &token.as_bytes()[..header.len() + 1 + payload.len()];
        Ok((claims, Signed { algorithm, kid, message, signature }))
    }

    /// The algorithm and the name of the key. Keys in the header do not count: the signer can name any.
    fn header(&self, header: &Map<String, Value>) -> Result<(Algorithm, Option<String>), IdTokenFault> {
        if header.contains_key("enc") {
            return Err(IdTokenFault::Encrypted);
        }
        if header.contains_key("crit") {
            return Err(IdTokenFault::ExtensionUnknown);
        }
        // Other types are for other purposes, such as logout+jwt (RFC 8725 3.11).
        let is_id_token = match header.get("typ") {
            None => true,
            Some(name) => name.as_str().is_some_and(|name| name.eq_ignore_ascii_case("JWT")),
        };
        if !is_id_token {
            return Err(IdTokenFault::WrongType);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::parse);
        let is_permitted = |algorithm: &Algorithm| self.algorithms.is_none_or(|known| known.contains(algorithm));
        let algorithm = algorithm.filter(is_permitted).ok_or(IdTokenFault::AlgorithmRefused)?;
        match header.get("kid") {
            None => Ok((algorithm, None)),
            Some(Value::String(kid)) => Ok((algorithm, Some(kid.clone()))),
            Some(_) => Err(IdTokenFault::Malformed("the kid is not a text")),
        }
    }

    fn check_parties(&self, claims: &Map<String, Value>) -> Result<(), IdTokenFault> {
        if claims.get("iss").and_then(Value::as_str) != Some(self.issuer) {
            return Err(IdTokenFault::WrongIssuer);
        }
        let is_own = |value: &Value| value.as_str() == Some(self.client_id);
        let (is_for_us, are_others) = match claims.get("aud") {
            Some(Value::Array(list)) => (list.iter().any(is_own), list.len() > 1),
            Some(value) => (is_own(value), false),
            None => (false, false),
        };
        if !is_for_us {
            return Err(IdTokenFault::WrongAudience);
        }
        match claims.get("azp") {
            Some(party) if is_own(party) => Ok(()),
            None if !are_others => Ok(()),
            _ => Err(IdTokenFault::WrongParty),
        }
    }

    fn check_nonce(&self, claims: &Map<String, Value>) -> Result<(), IdTokenFault> {
        let given = claims.get("nonce");
        let is_right = match self.used_for {
            // One that was not asked for belongs to another log-in.
            IdTokenUse::LogIn { nonce: None } => given.is_none(),
            IdTokenUse::LogIn { nonce: Some(sent) } => given.and_then(Value::as_str) == Some(sent),
            // It should not be there; if it is, it is that of the log-in.
            IdTokenUse::Refresh { nonce: Some(sent), .. } => given.is_none_or(|given| given.as_str() == Some(sent)),
            IdTokenUse::Refresh { nonce: None, .. } => true,
        };
        if is_right { Ok(()) } else { Err(IdTokenFault::WrongNonce) }
    }

    /// Checks that the access token is the one that belongs to the ID token, if it says which (OpenID Connect Core 1.0 3.1.3.8).
    fn check_access_token(&self, claims: &Map<String, Value>, algorithm: Algorithm) -> Result<(), IdTokenFault> {
        let (Some(given), Some(access_token)) = (claims.get("at_hash"), self.access_token) else { return Ok(()) };
        let digest = (DEFAULT_PROVIDER.key_utils.compute_digest)(access_token.expose().as_bytes(), algorithm.hash());
        let digest = digest.map_err(|_| IdTokenFault::WrongAccessToken)?;
        let expected = URL_SAFE_NO_PAD.encode(&digest[..digest.len() / 2]);
        if given.as_str() == Some(&*expected) { Ok(()) } else { Err(IdTokenFault::WrongAccessToken) }
    }
}

/// The subject that an ID token claims. Nothing of the token is checked.
pub fn claimed_subject(id_token: &Secret) -> Option<String> {
    let claims = object(id_token.expose().split('.').nth(1)?, WRONG_PAYLOAD).ok()?;
    claims.get("sub")?.as_str().map(str::to_owned)
}

/// Checks `exp`, `iat` and `nbf`, and returns the first two.
fn check_times(claims: &Map<String, Value>, now: Timestamp) -> Result<(Timestamp, Timestamp), IdTokenFault> {
    let number = |name: &str| claims.get(name).map(|value| value.as_f64().ok_or(()));
    let now = now.0 as f64 / 1e6;
    let (Some(Ok(expires)), Some(Ok(issued))) = (number("exp"), number("iat")) else {
        return Err(IdTokenFault::Malformed("exp or iat is not a number of seconds"));
    };
    let not_before = match number("nbf") {
        None => issued,
        Some(Ok(not_before)) => not_before,
        Some(Err(())) => return Err(IdTokenFault::Malformed("nbf is not a number of seconds")),
    };
    if issued.max(not_before) > now + LEEWAY {
        return Err(IdTokenFault::FromTheFuture);
    }
    if now >= expires + LEEWAY {
        return Err(IdTokenFault::Expired);
    }
    Ok((timestamp(expires), timestamp(issued)))
}

/// The time of a number of seconds, which may be beyond all reason.
fn timestamp(seconds: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "a number out of range becomes the nearest one in range")]
    Timestamp((seconds * 1e6) as i64).clamp(Timestamp::MIN, Timestamp::MAX)
}

/// The JSON object of a part of a token. Each of its members is there once (RFC 7515 4 for the header, RFC 7519 4 for claims).
fn object(part: &str, fault: &'static str) -> Result<Map<String, Value>, IdTokenFault> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| IdTokenFault::Malformed(fault))?;
    let members = serde_json::from_slice::<Members>(&bytes);
    members.map(|members| members.0).map_err(|_| IdTokenFault::Malformed(fault))
}

// === impl IdTokenUse ===

impl std::fmt::Debug for IdTokenUse<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The subject is personal, and the nonce is a secret of the log-in.
        f.write_str(match self {
            IdTokenUse::LogIn { .. } => "LogIn",
            IdTokenUse::Refresh { .. } => "Refresh",
        })
    }
}

#[cfg(test)]
mod tests;
