//! One case: a credential, some callers of it at several servers, and what they change meanwhile.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use jackfield_api::v1::{self, credential_material::Material};
use jackfield_domain::CredentialId;
use jackfield_testkit::provider::FamilyId;
use jackfield_testkit::{Client, Rng, fixture};
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::PATIENCE;
use super::disturbance::{Disturbance, OVERLAPPING_BEGIN_WITHIN};
use super::lost::{PROCESS_ENDED, Round};
use super::world::{self, Grant, World};

/// A credential, with the deeds of its callers and the answers to them. It outlives callers that a crash ends.
pub(super) struct Case {
    pub(super) grant: Grant,
    /// The grant whose tokens a caller has stored in the place of the first, or tried to.
    next: Mutex<Option<FamilyId>>,
    is_next_stored: AtomicBool,
    is_told_to_authorize: AtomicBool,
    is_told_of_a_crash: AtomicBool,
    /// The message of the error that there is no better token.
    not_valid: Mutex<Option<String>>,
}

/// The time at which a user withdraws a grant: before or after the tokens of another one are stored.
#[derive(Clone, Copy)]
enum Withdrawn {
    Before,
    After,
}

/// The probability that a caller changes labels some times, in a hundred, and that one does so until the others are done.
const RELABELS: u64 = 17;
const RELABELS_ALL_THE_TIME: u64 = 3;
/// The pause between two changes.
const RELABEL_PAUSE: Duration = Duration::from_millis(20);
/// The pause between two looks at whether the provider has a request.
const LOOK: Duration = Duration::from_millis(10);

// === impl Case ===

impl Case {
    pub(super) fn of(grant: Grant) -> Self {
        let (next, is_next_stored, is_told_to_authorize, is_told_of_a_crash, not_valid) = Default::default();
        Case { grant, next, is_next_stored, is_told_to_authorize, is_told_of_a_crash, not_valid }
    }

    /// The id of the credential.
    pub(super) fn id(&self) -> CredentialId {
        CredentialId(self.grant.credential.parse().expect("a UUID"))
    }

    /// Has callers ask for the token, and change the credential.
    pub(super) async fn run(&self, world: &World, clients: &[Client], round: &Round, mut rng: Rng) {
        let (calling, are_done) = (rng.fork(), Cell::new(false));
        let callers = async {
            match round.disturbance {
                Disturbance::Overlap => self.ask_in_turn(world, clients, calling).await,
                _ => self.ask_at_random(world, clients, calling).await,
            }
            are_done.set(true);
        };
        let relabels = match rng.below(100) {
            0..RELABELS_ALL_THE_TIME => u64::MAX,
            number if number < RELABELS_ALL_THE_TIME + RELABELS => rng.between(1, 5),
            _ => 0,
        };
        let relabel = async {
            for number in 0..relabels {
                let request = world::relabelled(&self.grant.credential, number);
                let _ = world.client.credentials().update_credential(request).await;
                if are_done.get() {
                    break;
                }
                sleep(RELABEL_PAUSE).await;
            }
        };
        let (replaces, replacing) = (rng.percent(round.replaces), rng.fork());
        let replace = async {
            if replaces {
                self.replace(world, replacing).await;
            }
        };
        tokio::join!(callers, relabel, replace);
    }

    /// Has some callers ask for the token at any server. Some leave.
    async fn ask_at_random(&self, world: &World, clients: &[Client], mut rng: Rng) {
        let callers = (0..rng.between(1, 4)).map(|_| {
            let (mut rng, client) = (rng.fork(), rng.pick(clients).clone());
            async move {
                sleep(Duration::from_millis(rng.below(200))).await;
                let leaves = rng.percent(30);
                self.ask(world, &client, if leaves { Duration::from_millis(rng.below(200)) } else { PATIENCE * 10 })
                    .await;
            }
        });
        join_all(callers.collect::<Vec<_>>()).await;
    }

    /// Has a caller of the first server ask for the token, and one of the last server as soon as the provider has the request of the first.
    async fn ask_in_turn(&self, world: &World, clients: &[Client], mut rng: Rng) {
        let [first, .., last] = clients else { panic!("one connection alone") };
        sleep(OVERLAPPING_BEGIN_WITHIN.mul_f64(rng.below(100) as f64 / 100.0)).await;
        let later = async {
            let is_sent = async {
                while world.provider.exchanges(self.grant.family) == 0 {
                    sleep(LOOK).await;
                }
            };
            // It may be one that the provider fails to process.
            let _ = timeout(PATIENCE / 2, is_sent).await;
            self.ask(world, last, PATIENCE * 10).await;
        };
        tokio::join!(self.ask(world, first, PATIENCE * 10), later);
    }

    /// Asks for the token, and notes the answer.
    async fn ask(&self, world: &World, client: &Client, patience: Duration) {
        let issued = timeout(patience, world.issue_by(client, &self.grant.credential)).await;
        let Ok(Err(status)) = issued else { return };
        match &*reason(&status) {
            "REAUTH_REQUIRED" => {
                self.is_told_to_authorize.store(true, Ordering::Relaxed);
                self.is_told_of_a_crash.fetch_or(status.message().contains(PROCESS_ENDED), Ordering::Relaxed);
            }
            "CREDENTIAL_NOT_VALID" => {
                let message = status.message().to_owned();
                *self.not_valid.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
            }
            _ => {}
        }
    }

    /// Stores the tokens of another grant, as after another authorisation. The user may withdraw the first one, before or after.
    async fn replace(&self, world: &World, mut rng: Rng) {
        let withdraws = rng.pick(&[None, Some(Withdrawn::Before), Some(Withdrawn::Before), Some(Withdrawn::After)]);
        let is_before = matches!(withdraws, Some(Withdrawn::Before));
        // Early, so that refreshes begin after it.
        sleep(Duration::from_millis(rng.below(if is_before { 100 } else { 500 }))).await;
        let issued = world.provider.grant(&self.grant.credential, &["read", "write"]);
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(issued.family);
        if is_before {
            world.provider.end(self.grant.family);
            // Refreshes are refused meanwhile, and some of these answers come when the other tokens are there.
            sleep(Duration::from_millis(rng.below(400))).await;
        }
        let is_expired = rng.percent(50);
        let expiry = prost_types::Timestamp { seconds: issued.expire_time.seconds(), nanos: 0 };
        let oauth2 = v1::OAuth2Material {
            access_token: issued.access_token,
            refresh_token: issued.refresh_token,
            expire_time: Some(if is_expired { fixture::seconds_from_now(-60) } else { expiry }),
            scopes: vec!["read".to_owned(), "write".to_owned()],
            ..Default::default()
        };
        let request = v1::UpdateCredentialRequest {
            reference: self.grant.credential.clone(),
            credential: Some(v1::Credential::default()),
            material: Some(v1::CredentialMaterial { material: Some(Material::Oauth2(oauth2)) }),
            ..Default::default()
        };
        if world.client.credentials().update_credential(request).await.is_ok() {
            self.is_next_stored.store(true, Ordering::Relaxed);
            if matches!(withdraws, Some(Withdrawn::After)) {
                world.provider.end(self.grant.family);
            }
        }
    }

    /// True if a caller tried to store the tokens of another grant.
    pub(super) fn is_replaced(&self) -> bool {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// True if the tokens of another grant were stored for certain.
    pub(super) fn is_next_stored(&self) -> bool {
        self.is_next_stored.load(Ordering::Relaxed)
    }

    /// Returns whether the credential may have tokens of a grant.
    pub(super) fn may_have(&self, family: FamilyId) -> bool {
        let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next == Some(family) || (family == self.grant.family && !self.is_next_stored())
    }

    /// True if an answer said that a server crashed.
    pub(super) fn is_told_of_a_crash(&self) -> bool {
        self.is_told_of_a_crash.load(Ordering::Relaxed)
    }

    /// The message to a caller that there is no better token, if one got it. None demands one that the provider does not issue.
    pub(super) fn not_valid(&self) -> Option<String> {
        self.not_valid.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True if an answer said that the user has to authorise, and no other tokens were stored.
    pub(super) fn is_told_to_authorize(&self) -> bool {
        self.is_told_to_authorize.load(Ordering::Relaxed) && !self.is_replaced()
    }
}

/// The reason of a refusal; empty if it has none.
fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().map(|info| info.reason.clone()).unwrap_or_default()
}
