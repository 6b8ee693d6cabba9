//! The end of a case: the credential has the live tokens of its grant, or says that it may not have them any more.

use std::time::Duration;

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_testkit::provider::{End, Live};
use jackfield_testkit::{Client, TestServer};
use tokio::time::sleep;

use super::PATIENCE;
use super::case::Case;
use super::lost::Round;
use super::world::{self, World};

/// A credential at last.
pub(super) struct Settled {
    pub(super) state: &'static str,
    /// The reasons of its lost responses.
    pub(super) lost: Vec<String>,
}

/// A credential as it is stored at one time.
#[derive(Debug)]
struct Seen {
    facts: v1::Credential,
    attempts: Vec<v1::RefreshAttempt>,
    /// True if the reason for which there is no token is one of the contract.
    has_known_obstacle: bool,
    refresh_token: String,
    /// The access token that is issued; `None` if none is.
    access_token: Option<String>,
}

/// The times that a credential is looked at. A lease of a server that died ends after three times the patience. The pause after a failure is
/// longer, and was counted from a clock that may have been ahead.
const LOOKS: usize = 180;
const PAUSE: Duration = Duration::from_millis(500);
/// The pages with the reasons of failures, and of errors.
const GUIDE: [&str; 2] =
    [include_str!("../../../deploy/guide/credentials.md"), include_str!("../../../deploy/guide/errors.md")];

/// Waits until each credential has settled, and returns how, or what is wrong with it.
pub(super) async fn settle(world: &World, server: &TestServer, cases: &[Case]) -> Vec<Result<Settled, String>> {
    let client = server.client("alpha");
    join_all(cases.iter().map(|case| settled(world, &client, case))).await
}

async fn settled(world: &World, client: &Client, case: &Case) -> Result<Settled, String> {
    let (credential, mut last) = (&case.grant.credential, None);
    for _ in 0..LOOKS {
        // Calls may fail while a server starts or the machine is slow.
        if let Some(seen) = Seen::of(world, client, case).await {
            match seen.judge(world, case) {
                Ok(None) if seen.is_unaware(world) => refresh(client, credential).await,
                Ok(None) => {}
                Ok(Some(state)) => return Ok(Settled { state, lost: seen.lost(None) }),
                Err(what) => return Err(format!("{credential}: {what}")),
            }
            last = Some(seen);
        }
        sleep(PAUSE).await;
    }
    Err(format!("{credential}: it does not settle: {last:?}"))
}

/// Asks the provider for another token, whether or not that which is stored is good. A failure shows in the credential.
async fn refresh(client: &Client, credential: &str) {
    let request = v1::RefreshCredentialRequest { reference: credential.to_owned() };
    let _ = client.credentials().refresh_credential(request).await;
}

/// The credentials whose callers heard that there is no better token, which never is so.
pub(super) fn told_that_it_is_not_valid(cases: &[Case]) -> impl Iterator<Item = String> {
    let told = cases.iter().filter_map(|case| Some((&case.grant.credential, case.not_valid()?)));
    told.map(|(credential, message)| format!("{credential}: a caller was told in vain: {message}"))
}

/// The credentials whose callers heard in vain that the user has to authorise, or that a server crashed. Where one did, its tokens may have
/// been found later.
pub(super) fn told_in_vain(cases: &[Case], settled: &[Result<Settled, String>], round: &Round) -> Vec<String> {
    // A server that does not run for so long, or has no database, can lose its lease.
    let is_disturbed = round.disturbance.is_crash() || round.disturbance.keeps_from_writing();
    if is_disturbed || round.slowness_of_callers > PATIENCE {
        return Vec::new();
    }
    let is_valid = |settled: &Result<Settled, String>| settled.as_ref().is_ok_and(|settled| settled.state == VALID);
    let wrong = cases.iter().zip(settled).filter_map(|(case, settled)| {
        // Where a spent token is accepted again, a replica that began before may ask once more after another one gave up.
        let is_in_vain = !round.has_grace && case.is_told_to_authorize() && is_valid(settled);
        let what = match (case.is_told_of_a_crash(), is_in_vain) {
            (true, _) => "a caller was told that a server crashed, and none did",
            (_, true) => "a caller was told that the user has to authorise, and it is valid",
            _ => return None,
        };
        Some(format!("{}: {what}", case.grant.credential))
    });
    wrong.collect()
}

pub(super) const VALID: &str = "VALID";
pub(super) const INDETERMINATE: &str = "INDETERMINATE";
pub(super) const NEEDS_REAUTH: &str = "NEEDS_REAUTH";

// === impl Seen ===

impl Seen {
    async fn of(world: &World, client: &Client, case: &Case) -> Option<Self> {
        let credential = &case.grant.credential;
        let issued = world.issue_by(client, credential).await.ok();
        let explained = world::explain_by(client, credential).await.ok()?;
        let tokens = world::reveal_by(client, credential).await.ok()?;
        let has_known_obstacle = v1::ErrorReason::try_from(explained.obstacle).is_ok();
        Some(Seen {
            has_known_obstacle,
            facts: explained.credential.unwrap_or_default(),
            attempts: explained.attempts,
            refresh_token: tokens.refresh_token,
            access_token: issued.map(|issued| issued.access_token),
        })
    }

    /// The state, if it is the last one; `None` if it may still change.
    fn judge(&self, world: &World, case: &Case) -> Result<Option<&'static str>, String> {
        let family =
            world.provider.family_of(&self.refresh_token).ok_or("the provider never issued its refresh token")?;
        if !case.may_have(family) {
            return Err("it lacks the tokens that a caller has stored".to_owned());
        }
        if let Some(reason) = self.unknown_reason() {
            return Err(format!("the guide does not have the reason {reason:?}"));
        }
        let live = match world.provider.live(family) {
            Ok(live) => live,
            // Its user withdrew it, and the tokens that should take its place were not stored.
            Err(End::Withdrawn) if !case.is_next_stored() => return Ok(self.withdrawn()),
            Err(end) => return Err(format!("the grant has ended: {end:?}")),
        };
        match self.facts.state() {
            v1::CredentialState::Indeterminate if self.lost(Some(self.facts.version)).is_empty() => {
                Err(format!("it is indeterminate, and no response to these tokens was lost: {:?}", self.facts))
            }
            v1::CredentialState::Indeterminate => Ok(Some(INDETERMINATE)),
            v1::CredentialState::NeedsReauth => Err(format!("it is said to be refused: {:?}", self.facts)),
            v1::CredentialState::Valid => self.valid(&live),
            _ => Ok(None),
        }
    }

    /// A reason that operators could not look up, if there is one.
    fn unknown_reason(&self) -> Option<&str> {
        let is_known = |reason: &str| {
            let is_on =
                |page: &&str| page.contains(&format!("`{reason}`")) || page.contains(&format!("### {reason}\n"));
            reason.is_empty() || GUIDE.iter().any(is_on)
        };
        let of_attempts = self.attempts.iter().map(|attempt| &*attempt.reason);
        let unknown = of_attempts.chain([&*self.facts.failure_reason]).find(|reason| !is_known(reason));
        unknown.or_else(|| (!self.has_known_obstacle).then_some("of the obstacle"))
    }

    fn valid(&self, live: &Live) -> Result<Option<&'static str>, String> {
        let Some(access_token) = &self.access_token else { return Ok(None) };
        if self.refresh_token != live.refresh_token {
            return Err(format!("another refresh token than the live one is stored, version {}", self.facts.version));
        }
        // An access token that was missing in the response is fetched again.
        Ok((*access_token == live.access_token).then_some(VALID))
    }

    /// True if its access token is good, of a grant that its user withdrew: the provider is not asked until it expires.
    fn is_unaware(&self, world: &World) -> bool {
        let family = world.provider.family_of(&self.refresh_token);
        let is_withdrawn = family.is_some_and(|family| matches!(world.provider.live(family), Err(End::Withdrawn)));
        is_withdrawn && self.access_token.is_some()
    }

    fn withdrawn(&self) -> Option<&'static str> {
        match self.facts.state() {
            v1::CredentialState::NeedsReauth => Some(NEEDS_REAUTH),
            v1::CredentialState::Indeterminate => Some(INDETERMINATE),
            _ => None,
        }
    }

    /// The reasons of lost responses: all of them, or those to the material of a version.
    fn lost(&self, version: Option<i64>) -> Vec<String> {
        let is_lost = |attempt: &&v1::RefreshAttempt| {
            attempt.outcome() == v1::RefreshOutcome::Lost
                && version.is_none_or(|version| version == attempt.credential_version)
        };
        self.attempts.iter().filter(is_lost).map(|attempt| attempt.reason.clone()).collect()
    }
}
