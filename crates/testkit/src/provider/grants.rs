//! The grants of a provider: families of tokens that one authorisation of a user began, and that end together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jackfield_domain::Timestamp;
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use serde_json::{Value, json};
use uuid::Uuid;

use super::request::ProviderRequest;
use super::{GraceAnswer, ParameterRule, ProviderOptions, ProviderTotals, Rotation, Shared};

/// A grant of one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FamilyId(pub(super) usize);

/// The tokens that a grant begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedTokens {
    pub family: FamilyId,
    pub access_token: String,
    pub refresh_token: String,
    /// The end of the access token.
    pub expire_time: Timestamp,
}

/// The state of a grant that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    pub user: String,
    pub scopes: Vec<String>,
    /// The number of refresh tokens that were issued before this one.
    pub generation: usize,
    pub refresh_token: String,
    /// The access token that was issued last. Those before it are good until they end.
    pub access_token: String,
}

/// The reason for the end of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// A refresh token was used again, or a code.
    Reuse,
    /// The client revoked a token.
    Revoked,
    /// The user withdrew it.
    Withdrawn,
}

/// All grants, and what was asked of them.
#[derive(Default)]
pub(super) struct Grants {
    families: Vec<Family>,
    refresh_tokens: HashMap<String, RefreshToken>,
    access_tokens: HashMap<String, Access>,
    codes: HashMap<String, Code>,
    pub(super) requests: Vec<ProviderRequest>,
}

struct Family {
    live: Live,
    end: Option<End>,
    exchanges: usize,
    reuses: usize,
    concurrent: usize,
    max_concurrent: usize,
}

struct RefreshToken {
    family: FamilyId,
    issue_time: Timestamp,
    /// The time of its use, if another one has replaced it.
    use_time: Option<Timestamp>,
}

struct Access {
    /// `None` if the client itself is the owner.
    family: Option<FamilyId>,
    scopes: Vec<String>,
    expire_time: Timestamp,
}

struct Code {
    user: String,
    scopes: Vec<String>,
    redirect_uri: String,
    challenge: Option<String>,
    /// The grant that it was exchanged for.
    used_for: Option<FamilyId>,
}

/// The grant that a request to the token endpoint asks for.
pub(super) enum Wanted<'a> {
    Refresh { token: &'a str, scopes: Option<Vec<String>>, resource: Option<&'a str> },
    Redeem { code: &'a str, redirect_uri: Option<&'a str>, verifier: Option<&'a str> },
    Credentials { scopes: Vec<String> },
}

/// An error response (RFC 6749 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: &'static str,
}

/// A refresh in progress, which counts until this value is dropped.
pub(super) struct Refresh {
    shared: Arc<Shared>,
    family: FamilyId,
}

// === impl Grants ===

impl Grants {
    /// Begins a grant.
    pub(super) fn begin(
        &mut self,
        user: &str,
        scopes: &[impl AsRef<str>],
        options: &ProviderOptions,
        now: Timestamp,
    ) -> IssuedTokens {
        let family = FamilyId(self.families.len());
        let scopes: Vec<String> = scopes.iter().map(|scope| scope.as_ref().to_owned()).collect();
        let access_token = self.issue_access(Some(family), scopes.clone(), options, now);
        let refresh_token = self.issue_refresh(family, 0, now);
        let live = Live {
            user: user.to_owned(),
            scopes,
            generation: 0,
            refresh_token: refresh_token.clone(),
            access_token: access_token.clone(),
        };
        self.families.push(Family { live, end: None, exchanges: 0, reuses: 0, concurrent: 0, max_concurrent: 0 });
        IssuedTokens { family, access_token, refresh_token, expire_time: after(now, options.lifetime) }
    }

    pub(super) fn code(&mut self, user: &str, scopes: &[&str], redirect_uri: &str, verifier: Option<&str>) -> String {
        let code = format!("code-{}", Uuid::now_v7().simple());
        let made = Code {
            user: user.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            redirect_uri: redirect_uri.to_owned(),
            challenge: verifier.map(challenge),
            used_for: None,
        };
        self.codes.insert(code.clone(), made);
        code
    }

    pub(super) fn end(&mut self, family: FamilyId, end: End) {
        self.families[family.0].end.get_or_insert(end);
    }

    pub(super) fn live(&self, family: FamilyId) -> Result<Live, End> {
        let family = &self.families[family.0];
        family.end.map_or_else(|| Ok(family.live.clone()), Err)
    }

    pub(super) fn family_of(&self, refresh_token: &str) -> Option<FamilyId> {
        self.refresh_tokens.get(refresh_token).map(|token| token.family)
    }

    pub(super) fn families(&self) -> Vec<FamilyId> {
        (0..self.families.len()).map(FamilyId).collect()
    }

    pub(super) fn accepts(&self, token: &str, now: Timestamp) -> Option<(Option<FamilyId>, Vec<String>)> {
        let access = self.access_tokens.get(token).filter(|access| now < access.expire_time)?;
        let is_live = access.family.is_none_or(|family| self.families[family.0].end.is_none());
        is_live.then(|| (access.family, access.scopes.clone()))
    }

    /// The counts of one grant, or of all.
    pub(super) fn totals(&self, family: Option<FamilyId>) -> ProviderTotals {
        let counted = family.map_or(&self.families[..], |family| std::slice::from_ref(&self.families[family.0]));
        counted.iter().fold(ProviderTotals::default(), |sum, family| ProviderTotals {
            exchanges: sum.exchanges + family.exchanges,
            reuses: sum.reuses + family.reuses,
            max_concurrent: sum.max_concurrent.max(family.max_concurrent),
            ended: sum.ended + usize::from(family.end.is_some()),
        })
    }

    /// Ends the grant of a refresh token, or an access token alone (RFC 7009 2.1).
    pub(super) fn revoke(&mut self, token: &str) {
        if let Some(RefreshToken { family, .. }) = self.refresh_tokens.get(token) {
            self.end(*family, End::Revoked);
        }
        self.access_tokens.remove(token);
    }

    /// Acts on a request to the token endpoint, and returns the members of a success.
    pub(super) fn exchange(
        &mut self,
        wanted: &Wanted<'_>,
        options: &ProviderOptions,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        match wanted {
            Wanted::Refresh { token, scopes, resource } => {
                options.scope.check(scopes.is_some(), "invalid_scope")?;
                options.resource.check(resource.is_some(), "invalid_target")?;
                self.refresh(token, scopes.as_deref(), options, now)
            }
            Wanted::Redeem { code, redirect_uri, verifier } => {
                self.redeem(code, *redirect_uri, *verifier, options, now)
            }
            Wanted::Credentials { scopes } => {
                let access_token = self.issue_access(None, scopes.clone(), options, now);
                Ok(members(options, &access_token, None, scopes))
            }
        }
    }

    fn refresh(
        &mut self,
        token: &str,
        scopes: Option<&[String]>,
        options: &ProviderOptions,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        let invalid = Refusal::new(400, "invalid_grant");
        let RefreshToken { family, issue_time, use_time } = self.refresh_tokens.get(token).ok_or(invalid)?;
        let (id, issue_time, use_time) = (*family, *issue_time, *use_time);
        let family = &mut self.families[id.0];
        if use_time.is_some_and(|use_time| now >= after(use_time, options.grace)) {
            family.reuses += 1;
            family.end.get_or_insert(End::Reuse);
        }
        let has_expired = options.refresh_lifetime.is_some_and(|lifetime| now >= after(issue_time, lifetime));
        if family.end.is_some() || has_expired {
            return Err(invalid);
        }
        let granted = family.live.scopes.clone();
        let scopes = scopes.unwrap_or(&granted);
        if !scopes.iter().all(|scope| granted.contains(scope)) {
            return Err(Refusal::new(400, "invalid_scope"));
        }
        family.exchanges += 1;
        if use_time.is_some() && options.grace_answer == GraceAnswer::LivePair {
            let Live { access_token, refresh_token, .. } = &family.live;
            return Ok(members(options, access_token, Some(refresh_token), scopes));
        }
        let access_token = self.issue_access(Some(id), scopes.to_vec(), options, now);
        self.families[id.0].live.access_token = access_token.clone();
        let refresh_token = (options.rotation == Rotation::Always).then(|| self.rotate(id, now));
        Ok(members(options, &access_token, refresh_token.as_deref(), scopes))
    }

    fn redeem(
        &mut self,
        code: &str,
        redirect_uri: Option<&str>,
        verifier: Option<&str>,
        options: &ProviderOptions,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        let invalid = Refusal::new(400, "invalid_grant");
        let Code { user, scopes, redirect_uri: expected, challenge: demanded, used_for } =
            self.codes.get(code).ok_or(invalid)?;
        if let Some(family) = *used_for {
            self.end(family, End::Reuse);
            return Err(invalid);
        }
        if redirect_uri != Some(expected) || verifier.map(challenge) != *demanded {
            return Err(invalid);
        }
        let (user, scopes) = (user.clone(), scopes.clone());
        let issued = self.begin(&user, &scopes, options, now);
        if let Some(code) = self.codes.get_mut(code) {
            code.used_for = Some(issued.family);
        }
        Ok(members(options, &issued.access_token, Some(&issued.refresh_token), &scopes))
    }

    /// Replaces the refresh token of a grant.
    fn rotate(&mut self, id: FamilyId, now: Timestamp) -> String {
        let live = &mut self.families[id.0].live;
        live.generation += 1;
        let generation = live.generation;
        if let Some(replaced) = self.refresh_tokens.get_mut(&live.refresh_token) {
            replaced.use_time = Some(now);
        }
        let token = self.issue_refresh(id, generation, now);
        self.families[id.0].live.refresh_token = token.clone();
        token
    }

    fn issue_refresh(&mut self, family: FamilyId, generation: usize, now: Timestamp) -> String {
        let token = format!("rt-{}-{generation}-{}", family.0, Uuid::now_v7().simple());
        self.refresh_tokens.insert(token.clone(), RefreshToken { family, issue_time: now, use_time: None });
        token
    }

    fn issue_access(
        &mut self,
        family: Option<FamilyId>,
        scopes: Vec<String>,
        options: &ProviderOptions,
        now: Timestamp,
    ) -> String {
        let token = format!("at-{}", Uuid::now_v7().simple());
        let expire_time = after(now, options.lifetime);
        self.access_tokens.insert(token.clone(), Access { family, scopes, expire_time });
        token
    }
}

/// The members of a success (RFC 6749 5.1).
fn members(options: &ProviderOptions, access_token: &str, refresh_token: Option<&str>, scopes: &[String]) -> Value {
    let mut members = json!({ "access_token": access_token, "token_type": "Bearer", "scope": scopes.join(" ") });
    if !options.hides_lifetime {
        members["expires_in"] = options.lifetime.as_secs().into();
    }
    if let Some(refresh_token) = refresh_token {
        members["refresh_token"] = refresh_token.into();
        if let Some(lifetime) = options.refresh_lifetime {
            members["refresh_token_expires_in"] = lifetime.as_secs().into();
        }
    }
    members
}

/// The challenge of a verifier by S256 (RFC 7636 4.2).
pub(super) fn challenge(verifier: &str) -> String {
    let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else { panic!("a suite of TLS 1.3") };
    URL_SAFE_NO_PAD.encode(suite.common.hash_provider.hash(verifier.as_bytes()))
}

fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.plus_micros(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str) -> Self {
        Refusal { status, code }
    }
}

// === impl ParameterRule ===

impl ParameterRule {
    fn check(self, is_given: bool, code: &'static str) -> Result<(), Refusal> {
        match (self, is_given) {
            (ParameterRule::Required, false) => Err(Refusal::new(400, "invalid_request")),
            (ParameterRule::Refused, true) => Err(Refusal::new(400, code)),
            _ => Ok(()),
        }
    }
}

// === impl Refresh ===

impl Refresh {
    /// Begins to count a request, if it has a refresh token of a grant.
    pub(super) fn of(shared: &Arc<Shared>, request: &ProviderRequest) -> Option<Self> {
        let mut grants = shared.grants();
        let family = grants.refresh_tokens.get(request.parameter("refresh_token")?)?.family;
        let counted = &mut grants.families[family.0];
        counted.concurrent += 1;
        counted.max_concurrent = counted.max_concurrent.max(counted.concurrent);
        Some(Refresh { shared: Arc::clone(shared), family })
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        self.shared.grants().families[self.family.0].concurrent -= 1;
    }
}
