//! Received tokens: what a response has, completed with what was sent.

use jackfield_domain::credential::{Credential, CredentialState, Material, OAuth2Material};
use jackfield_domain::{CredentialId, Secret, TenantId, Timestamp};
use jackfield_upstream::oauth::{AccessToken, TokenResponse};
use uuid::Uuid;

use super::attempt::{Sending, micros};
use super::failure::Failure;

/// Tokens that were received for a credential.
pub(super) struct Received {
    pub(super) tenant: TenantId,
    pub(super) credential: CredentialId,
    pub(super) attempt: Uuid,
    /// The version of the material that was sent.
    pub(super) version: i64,
    /// The time of the attempt, by the clock of the database.
    pub(super) sent_time: Timestamp,
    /// The time of the attempt, by the clock of the process.
    pub(super) got_time: Timestamp,
    /// The time at which the credential was created.
    pub(super) create_time: Timestamp,
    /// True if the response had a new refresh token.
    pub(super) rotated: bool,
    pub(super) tokens: OAuth2Material,
    /// The reason why the response had no usable access token, though a new refresh token.
    pub(super) flaw: Option<String>,
}

// === impl Received ===

impl Received {
    /// The credential as it will be when the tokens are stored, and the tokens.
    pub(super) fn unstored(self, before: &Credential) -> (Credential, Material) {
        let Received { tokens, version, .. } = self;
        let credential = Credential {
            state: CredentialState::Valid,
            expire_time: tokens.expire_time,
            scopes: tokens.scopes.clone(),
            material_version: version + 1,
            ..before.clone()
        };
        (credential, Material::OAuth2(tokens))
    }

    /// The tokens of a response, completed with those that were sent.
    ///
    /// # Errors
    /// There is no token in it.
    pub(super) fn of(
        tenant: TenantId,
        credential: CredentialId,
        sending: &Sending,
        response: TokenResponse,
    ) -> Result<Self, Failure> {
        let sent = &sending.tokens;
        let TokenResponse { access, refresh_token, refresh_lifetime: _, id_token } = response;
        let is_new = |token: &Secret| sent.refresh_token.as_ref().is_none_or(|old| old.expose() != token.expose());
        let rotated = refresh_token.as_ref().is_some_and(is_new);
        let is_repeated = refresh_token.is_some() && !rotated;
        let kept = |token: &Option<Secret>| token.as_ref().map(Secret::duplicate);
        let refresh_token = refresh_token.or_else(|| kept(&sent.refresh_token));
        let id_token = id_token.or_else(|| kept(&sent.id_token));
        let (tokens, flaw) = match access {
            Ok(AccessToken { token, token_type, lifetime, scopes }) => {
                let expiry = |lifetime| sending.got_time.plus_micros(micros(lifetime));
                let tokens = OAuth2Material {
                    access_token: Some(token),
                    refresh_token,
                    id_token,
                    token_type,
                    expire_time: lifetime.map(expiry),
                    scopes: scopes.unwrap_or_else(|| sent.scopes.clone()),
                };
                (tokens, None)
            }
            Err(flaw) if rotated => {
                // The access token that there was may still be good.
                let tokens = OAuth2Material {
                    access_token: kept(&sent.access_token),
                    refresh_token,
                    id_token,
                    token_type: sent.token_type.clone(),
                    expire_time: sent.expire_time,
                    scopes: sent.scopes.clone(),
                };
                (tokens, Some(flaw.reason().to_owned()))
            }
            // The response says that the refresh token stays.
            Err(flaw) if is_repeated => return Err(Failure::flawed(flaw.reason(), credential)),
            Err(flaw) => return Err(Failure::unknown(flaw.reason())),
        };
        Ok(Received {
            tenant,
            credential,
            attempt: sending.id,
            version: sending.version,
            sent_time: sending.sent_time,
            got_time: sending.got_time,
            create_time: sending.create_time,
            rotated,
            tokens,
            flaw,
        })
    }
}
