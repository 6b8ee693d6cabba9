//! Revocations of credentials as messages.

use jackfield_api::v1 as pb;
use jackfield_domain::credential::{RevocationOutcome, RevokedTokenKind, TokenRevocation};
use jackfield_service::RevokedCredential;

pub(super) fn to_message(revoked: RevokedCredential) -> pb::RevokeCredentialResponse {
    let RevokedCredential { revoked, revocations } = revoked;
    pb::RevokeCredentialResponse { revoked, revocations: revocations.into_iter().map(token_to_message).collect() }
}

fn token_to_message(revocation: TokenRevocation) -> pb::TokenRevocation {
    let TokenRevocation { kind, outcome, reason } = revocation;
    let kind = match kind {
        RevokedTokenKind::RefreshToken => pb::RevokedTokenKind::RefreshToken,
        RevokedTokenKind::AccessToken => pb::RevokedTokenKind::AccessToken,
    };
    let outcome = match outcome {
        RevocationOutcome::Revoked => pb::RevocationOutcome::Revoked,
        RevocationOutcome::NotSupported => pb::RevocationOutcome::NotSupported,
        RevocationOutcome::Refused => pb::RevocationOutcome::Refused,
        RevocationOutcome::Unreachable => pb::RevocationOutcome::Unreachable,
        RevocationOutcome::NotSent => pb::RevocationOutcome::NotSent,
    };
    pb::TokenRevocation { kind: kind.into(), outcome: outcome.into(), reason }
}
