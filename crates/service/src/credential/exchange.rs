//! The exchange of a refresh token that a caller stores without an access token. Another program that has the refresh token may spend it, so
//! it is exchanged at once.

use std::time::Duration;

use jackfield_domain::TenantId;
use jackfield_domain::credential::Credential;
use jackfield_domain::request::reference::Ref;
use tokio::time::Instant;

use super::deadline::answer_by;
use crate::change::RequestOptions;
use crate::refresh::{CredentialIdentity, Patience};
use crate::services::Services;

/// The longest time that a caller waits for the exchange. It goes on after that.
const MOST_WAIT: Duration = Duration::from_secs(10);

// === impl Services ===

impl Services {
    /// Gets the first access token of a credential that a caller has stored without one, by a refresh like any other. Returns the facts
    /// afterwards, which also say why there is none; `None` if there was nothing to do.
    pub(super) async fn exchanged(
        &self,
        tenant: TenantId,
        request: &RequestOptions,
        stored: &Credential,
        deadline: Option<Instant>,
    ) -> Option<Credential> {
        if request.validate_only || !stored.awaits_exchange() {
            return None;
        }
        let most = Instant::now() + MOST_WAIT;
        let patience = Patience::until(Some(answer_by(deadline).map_or(most, |answer| answer.min(most))));
        let identity = CredentialIdentity::of(stored);
        // The credential is stored, whatever becomes of this.
        let _ = self.refreshed(tenant, identity, stored.material_version, patience).await;
        let found = self.find::<Credential>(tenant, &Ref::Id(stored.id.0)).await.ok();
        found.filter(|found| identity.is_of(found))
    }
}
