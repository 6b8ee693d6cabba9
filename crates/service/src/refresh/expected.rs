//! The facts of a credential that a caller keeps while it waits for a refresh.

use jackfield_domain::credential::Credential;
use jackfield_domain::{ConnectionId, ConnectorId, CredentialId, Timestamp};

/// A credential as it was created. One that is created later with the same id is another one, whose versions begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CredentialIdentity {
    pub(crate) id: CredentialId,
    pub(crate) create_time: Timestamp,
}

/// A refresh that a caller waits for. Thousands may wait for one, so each keeps these facts of the credential, and neither its material nor the
/// rest.
#[derive(Clone, Copy)]
pub(crate) struct ExpectedRefresh {
    pub(crate) identity: CredentialIdentity,
    pub(crate) connector: ConnectorId,
    pub(crate) connection: Option<ConnectionId>,
    /// The version of the material that is to be replaced.
    pub(crate) version: i64,
    /// True if there is a token, which may have expired.
    pub(crate) has_token: bool,
    /// The expiry of the token that there is.
    pub(crate) expire_time: Option<Timestamp>,
}

// === impl CredentialIdentity ===

impl CredentialIdentity {
    pub(crate) fn of(credential: &Credential) -> Self {
        CredentialIdentity { id: credential.id, create_time: credential.meta.create_time }
    }

    /// Returns whether a credential is this one.
    pub(crate) fn is_of(self, credential: &Credential) -> bool {
        CredentialIdentity::of(credential) == self
    }
}

// === impl ExpectedRefresh ===

impl ExpectedRefresh {
    pub(crate) fn of(credential: &Credential) -> Self {
        ExpectedRefresh {
            identity: CredentialIdentity::of(credential),
            connector: credential.connector,
            connection: credential.connection,
            version: credential.material_version,
            has_token: credential.has_token(),
            expire_time: credential.expire_time,
        }
    }

    /// Returns whether there is a token that is good until a time.
    pub(crate) fn is_good(&self, until: Timestamp) -> bool {
        self.has_token && !runs_out(self.expire_time, until)
    }
}

/// Returns whether a token with an expiry is not good until a time.
pub(crate) fn runs_out(expiry: Option<Timestamp>, until: Timestamp) -> bool {
    expiry.is_some_and(|expiry| expiry <= until)
}
