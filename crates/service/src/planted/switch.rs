//! The switch for planted bugs, and what they need.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use jackfield_domain::authorization::AuthorizationSession;
use jackfield_domain::credential::{Credential, Material};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::text::UserId;
use jackfield_domain::{ConnectionId, CredentialId, Result, TenantId, Timestamp};

use super::{AuthorizationBug, PlantedBug, Step};
use crate::change::{Change, Length};
use crate::services::Services;

/// A credential and its tokens as they were before the lease was taken.
pub(crate) type Stale = (Option<Credential>, Option<(Material, i64)>);

/// The bug that all servers of this process have; 0: none.
static PLANTED: AtomicU8 = AtomicU8::new(0);
/// The connections that have a bug.
static PLANTED_IN: RwLock<BTreeMap<ConnectionId, AuthorizationBug>> = RwLock::new(BTreeMap::new());
/// The time between the first reading and the lease: a busy database takes as long.
const BUSY: Duration = Duration::from_millis(200);
/// The steps at which refreshes stop, by credential.
static STOPS: RwLock<BTreeMap<CredentialId, Step>> = RwLock::new(BTreeMap::new());
/// The steps at which refreshes ended while they stood still, by credential.
static CUTS: RwLock<BTreeMap<CredentialId, Step>> = RwLock::new(BTreeMap::new());
/// The pause between two looks at whether a refresh may go on.
const LOOK: Duration = Duration::from_millis(10);

/// A refresh that stands still at a step. It ends with its process, unless it goes on.
struct Stopped {
    credential: CredentialId,
    step: Step,
    goes_on: bool,
}

/// Gives all servers of this process a bug, or none.
pub fn plant(bug: Option<PlantedBug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as u8), Ordering::SeqCst);
}

pub(crate) fn planted(bug: PlantedBug) -> bool {
    PLANTED.load(Ordering::Relaxed) == bug as u8
}

/// Gives a connection a bug, or none.
pub fn plant_in(connection: ConnectionId, bug: Option<AuthorizationBug>) {
    let mut planted = PLANTED_IN.write().unwrap_or_else(PoisonError::into_inner);
    match bug {
        Some(bug) => planted.insert(connection, bug),
        None => planted.remove(&connection),
    };
}

pub(crate) fn planted_in(connection: ConnectionId, bug: AuthorizationBug) -> bool {
    PLANTED_IN.read().unwrap_or_else(PoisonError::into_inner).get(&connection) == Some(&bug)
}

/// The connections to which responses come with any state.
fn without_state() -> Vec<ConnectionId> {
    let planted = PLANTED_IN.read().unwrap_or_else(PoisonError::into_inner);
    let planted = planted.iter().filter(|(_, bug)| **bug == AuthorizationBug::StateNotCompared);
    planted.map(|(connection, _)| *connection).collect()
}

/// Has the refreshes of a credential stop at a step, at all servers of this process, or has them go on.
pub fn stop_at(credential: CredentialId, step: Option<Step>) {
    let mut stops = STOPS.write().unwrap_or_else(PoisonError::into_inner);
    match step {
        Some(step) => stops.insert(credential, step),
        None => stops.remove(&credential),
    };
}

/// The step at which a refresh of a credential ended with its process since this was asked for the last time, if one did.
pub fn cut_at(credential: CredentialId) -> Option<Step> {
    CUTS.write().unwrap_or_else(PoisonError::into_inner).remove(&credential)
}

fn is_stopped(credential: CredentialId, step: Step) -> bool {
    STOPS.read().unwrap_or_else(PoisonError::into_inner).get(&credential) == Some(&step)
}

/// Waits while refreshes of a credential are to stop at a step.
pub(crate) async fn reached(credential: CredentialId, step: Step) {
    if is_stopped(credential, step) {
        let mut stopped = Stopped { credential, step, goes_on: false };
        while is_stopped(credential, step) {
            tokio::time::sleep(LOOK).await;
        }
        stopped.goes_on = true;
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if !self.goes_on {
            CUTS.write().unwrap_or_else(PoisonError::into_inner).insert(self.credential, self.step);
        }
    }
}

/// The length of a lease that ends at the same time by the clock of the process.
pub(crate) fn by_local_clock(length: Duration, local: Timestamp, database: Timestamp) -> Duration {
    let length = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
    let left = length.saturating_add(local.0.saturating_sub(database.0));
    Duration::from_micros(u64::try_from(left).unwrap_or_default())
}

impl Services {
    /// Reads a credential and its tokens some time before the lease.
    pub(crate) async fn planted_reading(&self, tenant: TenantId, id: CredentialId) -> Result<Stale> {
        let credential = self.find::<Credential>(tenant, &Ref::Id(id.0)).await?;
        let material = self.shared.secrets.material(None, tenant, id).await?;
        tokio::time::sleep(BUSY).await;
        Ok((Some(credential), material))
    }

    /// The newest open session of a user for a connection to which responses come with any state.
    pub(crate) async fn planted_session(
        &self,
        tenant: TenantId,
        user_id: &UserId,
    ) -> Result<Option<AuthorizationSession>> {
        let mut sessions = Vec::new();
        for connection in without_state() {
            let open = self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
                txn.authorizations_open_for_update(tenant, user_id, connection).await
            });
            sessions.extend(open.await?.into_iter().filter(|session| session.state.is_open()));
        }
        Ok(sessions.into_iter().max_by_key(|session| session.id))
    }
}
