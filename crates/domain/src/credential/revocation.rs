//! Revocations: a credential gives up its material, and the provider is asked to accept its tokens no more (RFC 7009).

use serde::{Deserialize, Serialize};

use super::{Credential, CredentialState};
use crate::names::names;
use crate::value::time::Timestamp;

names! {
    /// The kind of a token that is revoked.
    pub enum RevokedTokenKind {
        RefreshToken = "REFRESH_TOKEN",
        AccessToken = "ACCESS_TOKEN",
    }
}

names! {
    /// The outcome of the revocation of a token at its provider.
    pub enum RevocationOutcome {
        /// The provider accepts it no more, or never knew it.
        Revoked = "REVOKED",
        /// There is no endpoint that revokes it.
        NotSupported = "NOT_SUPPORTED",
        /// The endpoint refused the client or the request.
        Refused = "REFUSED",
        /// No response says what became of it.
        Unreachable = "UNREACHABLE",
        /// Nothing was sent.
        NotSent = "NOT_SENT",
    }
}

/// The outcome for a token at its provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRevocation {
    pub kind: RevokedTokenKind,
    pub outcome: RevocationOutcome,
    /// The reason of an outcome other than REVOKED; empty otherwise.
    pub reason: String,
}

// === impl Credential ===

impl Credential {
    /// Gives up the material: nothing is known of it any more, and code that works with an earlier version of it finds a newer one.
    pub fn revoke(&mut self, now: Timestamp) {
        self.state = CredentialState::Revoked;
        self.material_version += 1;
        self.scopes.clear();
        self.token_type.clear();
        (self.key, self.expire_time, self.next_refresh_time) = (None, None, None);
        (self.authorization_expire_time, self.email_digest) = (None, None);
        self.refreshable = false;
        self.forget_kept();
        self.rejections.clear();
        self.forget_failures();
        self.meta = self.meta.changed(now);
    }
}
