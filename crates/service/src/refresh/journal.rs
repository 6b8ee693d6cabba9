//! Entries of the journal of refreshes.

use jackfield_domain::credential::Material;
use jackfield_domain::{ConnectionId, CredentialId, Result, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::received::Received;
use crate::sealing::material::{self, SealedForm};

/// Received tokens in the form in which they are sealed.
#[derive(Serialize, Deserialize)]
pub(super) struct Entry {
    tenant: TenantId,
    credential: CredentialId,
    connection: ConnectionId,
    attempt: Uuid,
    version: i64,
    sent_time: Timestamp,
    got_time: Timestamp,
    create_time: Timestamp,
    rotated: bool,
    material: SealedForm,
    flaw: Option<String>,
    status: Option<u16>,
}

// === impl Entry ===

impl Entry {
    pub(super) fn of(received: &Received) -> Result<Self> {
        let Received {
            tenant,
            credential,
            connection,
            attempt,
            version,
            sent_time,
            got_time,
            create_time,
            rotated,
            tokens,
            flaw,
            status,
        } = received;
        Ok(Entry {
            tenant: *tenant,
            credential: *credential,
            connection: *connection,
            attempt: *attempt,
            version: *version,
            sent_time: *sent_time,
            got_time: *got_time,
            create_time: *create_time,
            rotated: *rotated,
            material: material::to_form(&Material::OAuth2(tokens.duplicate()), None)?,
            flaw: flaw.clone(),
            status: *status,
        })
    }

    /// The tokens, if it has tokens.
    pub(super) fn received(self) -> Option<Received> {
        let Entry {
            tenant,
            credential,
            connection,
            attempt,
            version,
            sent_time,
            got_time,
            create_time,
            rotated,
            material,
            flaw,
            status,
        } = self;
        let Material::OAuth2(tokens) = material::from_form(material) else { return None };
        Some(Received {
            tenant,
            credential,
            connection,
            attempt,
            version,
            sent_time,
            got_time,
            create_time,
            rotated,
            tokens,
            flaw,
            status,
        })
    }
}
