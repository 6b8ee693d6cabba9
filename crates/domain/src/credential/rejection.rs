//! Rejections: what an API said about a token, as callers report it, and what helps then.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Credential;
use crate::document::is_default;
use crate::error::Violation;
use crate::names::names;
use crate::value::text::bounded_text;
use crate::value::time::Timestamp;

names! {
    /// An error code in the challenge of an API (RFC 6750 3.1, RFC 9470 3, RFC 9449 7.1 and 9).
    pub enum ChallengeError {
        InvalidToken = "invalid_token",
        InvalidRequest = "invalid_request",
        InsufficientScope = "insufficient_scope",
        InsufficientUserAuthentication = "insufficient_user_authentication",
        InvalidDpopProof = "invalid_dpop_proof",
        UseDpopNonce = "use_dpop_nonce",
    }
}

/// The answer of an API that rejected a token. Nothing else of its challenge is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiAnswer {
    /// `None` if the caller did not tell it.
    pub status: Option<u16>,
    /// `None` if there is none, or one that is not known.
    pub error: Option<ChallengeError>,
    /// The scopes that the API demands.
    pub scopes: Vec<String>,
    /// The log-in that the API demands: parameters of an authorisation request (RFC 9470 3).
    pub log_in: Vec<(&'static str, String)>,
}

/// The step that may help after a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Another token takes the place of this one.
    Replacement,
    /// The user authorises more scopes. A refresh adds none.
    Scopes,
    /// The user logs in again, or in a stronger way.
    LogIn,
}

/// A rejection that was reported. It is kept for explanations, and to tell whether replacements help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRejection {
    pub time: Timestamp,
    /// The version of the material with the token.
    pub material_version: i64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub error: Option<ChallengeError>,
    /// The scopes that the API demanded.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scopes: Vec<String>,
    /// True if the token was to be replaced for it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub replaces: bool,
}

const MAX_CHALLENGE: usize = 4_096;
/// The scopes of a challenge that are kept, and the longest one.
const MAX_SCOPES: usize = 16;
const MAX_SCOPE: usize = 128;
/// The longest parameter of a log-in that is passed on to the caller.
const MAX_LOG_IN: usize = 256;
/// The rejections of a credential that are kept.
const KEPT: usize = 16;
/// The age from which on a token is replaced because an API rejects it. One that is younger was hardly rejected for its age.
const LEAST_AGE: Duration = Duration::from_secs(30);
/// The time for which it is remembered that replacements did not help, which is also the longest wait for the next one.
const REMEMBERED: Duration = Duration::from_secs(3_600);

// === impl ApiAnswer ===

impl ApiAnswer {
    /// Reads the status of an answer, 0 for none, and its challenge: the header `WWW-Authenticate` (RFC 9110 11.6.1).
    ///
    /// # Errors
    /// They are malformed, or say that something else is wrong than the token.
    pub fn parse(status: i32, challenge: &str) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        let told = match status {
            0 => None,
            100..=599 => u16::try_from(status).ok(),
            _ => {
                violations.push(Violation::field("status", "must be a status of HTTP, from 100 to 599"));
                None
            }
        };
        violations.extend(bounded_text("challenge", challenge, MAX_CHALLENGE, true).err());
        let answer = Self::of(told, challenge);
        violations.extend(answer.other_fault());
        if violations.is_empty() { Ok(answer) } else { Err(violations) }
    }

    fn of(status: Option<u16>, challenge: &str) -> Self {
        let parameters = parameters(challenge);
        let first = |name: &str| parameters.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str());
        let error = first("error").and_then(ChallengeError::named);
        let scopes = first("scope").unwrap_or_default().split(' ').filter(|scope| is_scope(scope));
        let log_in = ["acr_values", "max_age"].into_iter().filter_map(|name| Some((name, first(name)?)));
        let log_in = log_in.filter(|(_, value)| value.len() <= MAX_LOG_IN && value.chars().all(is_printable));
        let mut answer = ApiAnswer { status, error, ..ApiAnswer::default() };
        match answer.remedy() {
            Remedy::Replacement => {}
            Remedy::Scopes => answer.scopes = scopes.take(MAX_SCOPES).map(str::to_owned).collect(),
            Remedy::LogIn => answer.log_in = log_in.map(|(name, value)| (name, value.to_owned())).collect(),
        }
        answer
    }

    /// The fault that the answer tells, if it is none of the token.
    fn other_fault(&self) -> Option<Violation> {
        match (self.error, self.status) {
            (
                Some(ChallengeError::InvalidRequest | ChallengeError::InvalidDpopProof | ChallengeError::UseDpopNonce),
                _,
            ) => Some(Violation::field("challenge", "says that the request to the API was wrong, not its token")),
            (None, Some(429 | 500..)) => Some(Violation::field("status", "does not say that the token was rejected")),
            _ => None,
        }
    }

    /// The step that may help. A status says less than an error code, and without either the token is to be replaced.
    pub fn remedy(&self) -> Remedy {
        match (self.error, self.status) {
            (Some(ChallengeError::InvalidToken), _) => Remedy::Replacement,
            (Some(ChallengeError::InsufficientScope), _) => Remedy::Scopes,
            (Some(ChallengeError::InsufficientUserAuthentication), _) => Remedy::LogIn,
            (_, Some(403)) => Remedy::Scopes,
            _ => Remedy::Replacement,
        }
    }
}

impl std::fmt::Display for ApiAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&said(self.status, self.error))
    }
}

// === impl TokenRejection ===

impl TokenRejection {
    /// The rejection of a token of a version at a time.
    pub fn of(answer: &ApiAnswer, material_version: i64, replaces: bool, time: Timestamp) -> Self {
        let ApiAnswer { status, error, scopes, log_in: _ } = answer;
        TokenRejection { time, material_version, status: *status, error: *error, scopes: scopes.clone(), replaces }
    }

    /// The step that may help.
    pub fn remedy(&self) -> Remedy {
        let TokenRejection { status, error, .. } = *self;
        ApiAnswer { status, error, ..ApiAnswer::default() }.remedy()
    }

    fn is_same(&self, other: &TokenRejection) -> bool {
        TokenRejection { time: other.time, ..self.clone() } == *other
    }
}

impl std::fmt::Display for TokenRejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&said(self.status, self.error))
    }
}

// === impl Credential ===

impl Credential {
    /// Returns whether the same is known of a token already, so that a caller who reports in a loop changes nothing.
    pub fn knows_rejection(&self, rejection: &TokenRejection) -> bool {
        self.rejections.iter().any(|kept| kept.is_same(rejection))
    }

    /// Keeps a rejection, the newest first.
    pub fn keep_rejection(&mut self, rejection: TokenRejection) {
        self.rejections.insert(0, rejection);
        if self.rejections.len() > KEPT {
            // Those that say how often a replacement did not help are kept longest.
            let of_others = self.rejections.iter().rposition(|it| !it.replaces);
            self.rejections.remove(of_others.unwrap_or(KEPT));
        }
    }

    /// The newest rejection of the token that there is now.
    pub fn rejection(&self) -> Option<&TokenRejection> {
        self.rejections.iter().find(|rejection| rejection.material_version == self.material_version)
    }

    /// The wait until the token may be replaced because an API rejects it; `None` if it may be now. It doubles with each replacement of the
    /// last hour that was rejected as well.
    pub fn replacement_wait(&self, now: Timestamp) -> Option<Duration> {
        // One that has expired is replaced whatever is said of it.
        if self.expire_time.is_some_and(|expire_time| expire_time <= now) {
            return None;
        }
        let age = between(self.last_refresh_time?, now);
        let in_vain = self.rejections.iter().filter(|it| {
            it.replaces && it.material_version != self.material_version && between(it.time, now) < REMEMBERED
        });
        let in_vain: BTreeSet<_> = in_vain.map(|it| it.material_version).collect();
        let doublings = u32::try_from(in_vain.len()).unwrap_or(u32::MAX);
        let least = LEAST_AGE.saturating_mul(2_u32.saturating_pow(doublings)).min(REMEMBERED);
        Some(least.saturating_sub(age)).filter(|wait| !wait.is_zero())
    }

    /// The scopes for which the user has to be asked: those of the last authorisation, and those that an API demands.
    pub fn scopes_to_ask(&self) -> Vec<String> {
        let demanded = self.rejection().map(|rejection| rejection.scopes.as_slice()).unwrap_or_default();
        if demanded.is_empty() {
            return self.requested_scopes.clone();
        }
        // Without a request that is known, what is granted must not be lost.
        let known = if self.requested_scopes.is_empty() { &self.scopes } else { &self.requested_scopes };
        let mut scopes = known.clone();
        scopes.extend(demanded.iter().filter(|scope| !known.contains(scope)).cloned());
        scopes
    }
}

/// The time between two others, whichever is first: the clocks of replicas differ.
fn between(one: Timestamp, other: Timestamp) -> Duration {
    Duration::from_micros(one.0.abs_diff(other.0))
}

fn said(status: Option<u16>, error: Option<ChallengeError>) -> String {
    let status = status.map(|status| status.to_string());
    let parts: Vec<_> = status.as_deref().into_iter().chain(error.map(ChallengeError::as_str)).collect();
    if parts.is_empty() { "without a reason".to_owned() } else { parts.join(" ") }
}

/// The parameters of challenges. There may be several challenges, and what is malformed is skipped.
fn parameters(text: &str) -> Vec<(String, String)> {
    let (mut chars, mut found) = (text.chars().peekable(), Vec::new());
    while let Some(next) = chars.peek().copied() {
        let name = taken(&mut chars, is_of_token);
        if name.is_empty() {
            chars.next();
            if next == '"' {
                quoted(&mut chars);
            }
            continue;
        }
        taken(&mut chars, char::is_whitespace);
        // Without it, it was the name of a scheme.
        if chars.next_if_eq(&'=').is_none() {
            continue;
        }
        taken(&mut chars, char::is_whitespace);
        let value = match chars.next_if_eq(&'"') {
            Some(_) => quoted(&mut chars),
            None => taken(&mut chars, is_of_token),
        };
        found.push((name.to_ascii_lowercase(), value));
    }
    found
}

fn taken(chars: &mut Peekable<Chars<'_>>, is_part: fn(char) -> bool) -> String {
    std::iter::from_fn(|| chars.next_if(|next| is_part(*next))).collect()
}

/// The rest of a quoted string, up to its end.
fn quoted(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut text = String::new();
    while let Some(next) = chars.next() {
        match next {
            '"' => break,
            '\\' => text.extend(chars.next()),
            next => text.push(next),
        }
    }
    text
}

/// Returns whether a character may be part of a token (RFC 9110 5.6.2).
fn is_of_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// Returns whether a text is a scope (RFC 6749 3.3), and not too long.
fn is_scope(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    !text.is_empty() && text.len() <= MAX_SCOPE && text.chars().all(is_part)
}

fn is_printable(c: char) -> bool {
    c == ' ' || c.is_ascii_graphic()
}

#[cfg(test)]
mod tests {
    use super::super::tests::credential;
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn answer(status: i32, challenge: &str) -> ApiAnswer {
        ApiAnswer::parse(status, challenge).unwrap_or_else(|wrong| panic!("{wrong:?}"))
    }

    fn wrong(status: i32, challenge: &str) -> Vec<String> {
        let wrong = ApiAnswer::parse(status, challenge).expect_err("it is refused");
        wrong.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn a_challenge_says_what_helps() {
        for (status, challenge, remedy) in [
            (0, "", Remedy::Replacement),
            (401, "", Remedy::Replacement),
            (
                401,
                r#"Bearer realm="example", error="invalid_token", error_description="expired, again""#,
                Remedy::Replacement,
            ),
            (403, r#"Bearer error="invalid_token""#, Remedy::Replacement),
            (401, "Bearer error=invalid_token", Remedy::Replacement),
            (403, "", Remedy::Scopes),
            (401, r#"Bearer error="insufficient_scope""#, Remedy::Scopes),
            (403, r#"Basic YWJj==, DPoP algs="ES256", error = "insufficient_scope""#, Remedy::Scopes),
            (401, r#"Bearer error="insufficient_user_authentication", acr_values="gold""#, Remedy::LogIn),
            // Within a quoted string it is a text.
            (401, r#"Bearer realm="error=\"insufficient_scope\"""#, Remedy::Replacement),
            (400, r#"Bearer error="of_another_world""#, Remedy::Replacement),
            (200, "", Remedy::Replacement),
        ] {
            assert_eq!(answer(status, challenge).remedy(), remedy, "{status} {challenge}");
        }
    }

    #[test]
    fn what_an_api_demands_is_read() {
        let scopes = answer(403, r#"Bearer scope="read  write:all", error="insufficient_scope""#).scopes;
        assert_eq!(scopes, ["read", "write:all"]);
        assert!(answer(401, r#"Bearer scope="read", error="invalid_token""#).scopes.is_empty(), "it says nothing");
        let log_in = answer(401, r#"Bearer error="insufficient_user_authentication", max_age="5", acr_values="a b""#);
        assert_eq!(log_in.log_in, [("acr_values", "a b".to_owned()), ("max_age", "5".to_owned())]);
        let many = format!("Bearer error=insufficient_scope, scope=\"{} {}\"", "s ".repeat(40), "l".repeat(129));
        assert_eq!(answer(403, &many).scopes.len(), MAX_SCOPES);
        assert!(answer(403, &format!("Bearer scope=\"{}\"", "l".repeat(129))).scopes.is_empty());
    }

    #[test]
    fn an_answer_about_something_else_is_refused() {
        assert_eq!(wrong(503, ""), ["status"]);
        assert_eq!(wrong(429, "Bearer"), ["status"]);
        assert_eq!(wrong(600, ""), ["status"]);
        assert_eq!(wrong(-1, "a\nb"), ["status", "challenge"]);
        assert_eq!(wrong(401, &"a".repeat(MAX_CHALLENGE + 1)), ["challenge"]);
        for code in ["invalid_request", "use_dpop_nonce", "invalid_dpop_proof"] {
            assert_eq!(wrong(401, &format!("DPoP error=\"{code}\"")), ["challenge"], "{code}");
        }
        // A gateway that fails may still say that.
        assert_eq!(answer(503, "Bearer error=invalid_token").remedy(), Remedy::Replacement);
    }

    #[test]
    fn a_replacement_counts_once_however_often_it_is_reported() {
        let mut replaced = replaced(100, &[90]);
        let wait = replaced.replacement_wait(Timestamp(101 * SECOND));
        for status in 400..425 {
            let replaces = status == 401;
            let at = Timestamp(91 * SECOND);
            replaced.keep_rejection(TokenRejection::of(&answer(status, ""), 1, replaces, at));
        }
        assert_eq!((replaced.replacement_wait(Timestamp(101 * SECOND)), replaced.rejections.len()), (wait, KEPT));
        replaced.expire_time = Some(Timestamp(101 * SECOND));
        assert_eq!(replaced.replacement_wait(Timestamp(101 * SECOND)), None, "it has expired");
    }

    /// A credential whose token was got at a time, after replacements at others.
    fn replaced(got: i64, before: &[i64]) -> Credential {
        let version = i64::try_from(before.len()).unwrap() + 1;
        let mut replaced = Credential { material_version: version, ..credential(&[], &[]) };
        replaced.last_refresh_time = Some(Timestamp(got * SECOND));
        for (time, version) in before.iter().zip(1..) {
            replaced.keep_rejection(TokenRejection::of(&answer(401, ""), version, true, Timestamp(time * SECOND)));
        }
        replaced
    }

    #[test]
    fn a_young_token_is_not_replaced_and_replacements_that_do_not_help_become_rare() {
        let wait = |credential: &Credential, now: i64| {
            credential.replacement_wait(Timestamp(now * SECOND)).map(|wait| wait.as_secs())
        };
        let never = Credential { last_refresh_time: None, ..replaced(0, &[]) };
        assert_eq!(wait(&never, 1), None, "a caller has stored it");
        let once = replaced(100, &[]);
        assert_eq!([100, 110, 129, 130].map(|now| wait(&once, now)), [Some(30), Some(20), Some(1), None]);
        assert_eq!(wait(&once, 95), Some(25), "the clock of another replica was ahead");
        let again = replaced(100, &[10, 99]);
        assert_eq!([100, 219, 220].map(|now| wait(&again, now)), [Some(120), Some(1), None]);
        let many = replaced(100, &(1..=20).collect::<Vec<_>>());
        assert_eq!((wait(&many, 100), many.rejections.len()), (Some(3_600), KEPT));
        let long_ago = replaced(5_000, &[10, 99]);
        assert_eq!(wait(&long_ago, 5_010), Some(20));
        // What is reported of the present token has not been tried.
        let mut present = replaced(100, &[]);
        present.keep_rejection(TokenRejection::of(&answer(401, ""), 1, true, Timestamp(100 * SECOND)));
        assert_eq!(wait(&present, 130), None);
    }

    #[test]
    fn the_same_rejection_of_a_token_is_kept_once() {
        let mut credential = replaced(0, &[]);
        let at =
            |seconds: i64, status: i32| TokenRejection::of(&answer(status, ""), 1, false, Timestamp(seconds * SECOND));
        credential.keep_rejection(at(0, 401));
        assert!(credential.knows_rejection(&at(3_600, 401)) && !credential.knows_rejection(&at(1, 403)));
        assert_eq!(credential.rejection(), Some(&at(0, 401)));
        credential.material_version += 1;
        assert_eq!(credential.rejection(), None);
    }

    #[test]
    fn scopes_that_an_api_demands_are_asked_for_with_those_that_there_are() {
        let demand = TokenRejection::of(
            &answer(403, r#"Bearer error="insufficient_scope", scope="b c""#),
            1,
            false,
            Timestamp(1),
        );
        let asked = |requested: &[&str], granted: &[&str]| {
            let mut credential = credential(requested, granted);
            let before = credential.scopes_to_ask();
            credential.keep_rejection(demand.clone());
            (before, credential.scopes_to_ask())
        };
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(asked(&["a", "b"], &["a"]), (texts(&["a", "b"]), texts(&["a", "b", "c"])));
        assert_eq!(asked(&[], &["a"]), (texts(&[]), texts(&["a", "b", "c"])));
    }
}
