//! The default mark: exactly one credential of a link has it. The lock of the link protects the marks; it is taken before
//! that of a credential.

use jackfield_domain::credential::Credential;
use jackfield_domain::{Result, TenantId, UserConnectorId};
use jackfield_store::Writer;

use crate::services::Services;

// === impl Services ===

impl Services {
    /// Marks the newest credential of a link that lost its default.
    pub(crate) async fn mark_successor(&self, txn: &Writer, tenant: TenantId, link: UserConnectorId) -> Result<()> {
        match txn.credential_fetch_newest(tenant, link).await? {
            Some(successor) => self.set_default(txn, tenant, successor, true).await,
            None => Ok(()),
        }
    }

    /// Gives the mark to a credential or takes it away.
    pub(super) async fn set_default(
        &self,
        txn: &Writer,
        tenant: TenantId,
        mut credential: Credential,
        is_default: bool,
    ) -> Result<()> {
        credential.is_default = is_default;
        credential.meta = credential.meta.changed(self.now());
        txn.replace(tenant, &credential).await
    }
}
