//! Received tokens: what a response has, completed with what was sent.

use jackfield_domain::connection::Connection;
use jackfield_domain::credential::{
    Credential, CredentialState, Material, OAuth2Material, REFRESH_TOKEN_INVALID, SUBJECT_CHANGED,
    TOKEN_TYPE_DOWNGRADED,
};
use jackfield_domain::{ConnectionId, CredentialId, Secret, TenantId, Timestamp};
use jackfield_upstream::oauth::{AccessToken, TokenResponse};
use jackfield_upstream::oidc::claimed_subject;
use uuid::Uuid;

use super::attempt::{Sending, micros};
use crate::planted::{PlantedBug, planted};

/// Tokens that were received for a credential.
pub(super) struct Received {
    pub(super) tenant: TenantId,
    pub(super) credential: CredentialId,
    pub(super) connection: ConnectionId,
    pub(super) attempt: Uuid,
    /// The version of the material that was sent.
    pub(super) version: i64,
    /// The time of the attempt, by the clock of the database.
    pub(super) sent_time: Timestamp,
    /// The time of the attempt, by the clock of the process.
    pub(super) got_time: Timestamp,
    /// The time at which the credential was created.
    pub(super) create_time: Timestamp,
    /// True if the response had a new refresh token, or one that cannot be used: the tokens have none then.
    pub(super) rotated: bool,
    pub(super) tokens: OAuth2Material,
    /// The reason why the access token of the response is not used, though it had a new refresh token; or the other way round.
    pub(super) flaw: Option<String>,
    /// The status of the response. `None`: an earlier release has not noted it.
    pub(super) status: Option<u16>,
}

/// The flaw of a response that has neither a usable access token nor a new refresh token.
pub(super) struct Flaw {
    pub(super) reason: &'static str,
    /// True if the response has the refresh token that was sent, which therefore stays.
    pub(super) is_repeated: bool,
    /// True if the response has another one that cannot be used, so that the one that was sent may be spent.
    pub(super) is_lost: bool,
    /// The status of the response.
    pub(super) status: u16,
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

    /// The reason why the access token of the response is not issued.
    pub(super) fn withheld(&self) -> Option<&str> {
        self.flaw.as_deref().filter(|flaw| *flaw != REFRESH_TOKEN_INVALID)
    }

    /// The tokens of a response, completed with those that were sent.
    ///
    /// # Errors
    /// There is no token in it.
    pub(super) fn of(
        credential: &Credential,
        connection: &Connection,
        tenant: TenantId,
        sending: &Sending,
        response: TokenResponse,
    ) -> Result<Self, Flaw> {
        let sent = &sending.tokens;
        let TokenResponse { status, access, refresh_token, loses_refresh_token, authorization_lifetime, id_token } =
            response;
        // A client that gets tokens of its own needs none (RFC 6749 4.4.3), and has nothing to replace.
        let refresh_token = refresh_token.filter(|_| !credential.client_grant);
        let asked = || match credential.client_grant {
            true => connection
                .settings
                .scope_of_client()
                .split(' ')
                .filter(|it| !it.is_empty())
                .map(str::to_owned)
                .collect(),
            false => sent.scopes.clone(),
        };
        let is_new = |token: &Secret| sent.refresh_token.as_ref().is_none_or(|old| old.expose() != token.expose());
        // The one that was sent is not sent again, unless the provider has shown that it stays.
        let is_lost = loses_refresh_token && credential.refresh_token_rotates();
        if loses_refresh_token && !credential.client_grant {
            let (reason, is_kept) = (REFRESH_TOKEN_INVALID, !is_lost);
            tracing::warn!(error.type = reason, credential.id = %credential.id, is_kept, "{UNUSABLE}");
        }
        let rotated = is_lost || refresh_token.as_ref().is_some_and(is_new);
        let is_repeated = refresh_token.is_some() && !rotated;
        let authorization_expire_time = match authorization_lifetime.filter(|_| !credential.client_grant && !is_lost) {
            Some(lifetime) => Some(sending.got_time.plus_micros(micros(lifetime))),
            // A refresh token that stays ends when it was said to end.
            None if !rotated => sent.authorization_expire_time,
            None => None,
        };
        let kept = |token: &Option<Secret>| token.as_ref().map(Secret::duplicate);
        let refresh_token = refresh_token.or_else(|| kept(&sent.refresh_token).filter(|_| !is_lost));
        let access = match access {
            _ if is_of_another(sent.id_token.as_ref(), id_token.as_ref()) => Err(SUBJECT_CHANGED),
            // A client that gets tokens of its own takes them as they come: there is no user who could decide about it.
            Ok(access) if !credential.client_grant && is_downgraded(sent, &access.token_type) => {
                Err(TOKEN_TYPE_DOWNGRADED)
            }
            access => access.map_err(|flaw| {
                let error = &flaw as &dyn std::error::Error;
                tracing::warn!(error, credential.id = %credential.id, "a response to a refresh has no usable access token");
                flaw.reason()
            }),
        };
        let (tokens, flaw) = match access {
            Ok(AccessToken { token, token_type, lifetime, scopes }) => {
                let expiry = |lifetime| sending.got_time.plus_micros(micros(lifetime));
                let tokens = OAuth2Material {
                    access_token: Some(token),
                    refresh_token,
                    id_token: id_token.or_else(|| kept(&sent.id_token)),
                    token_type,
                    expire_time: lifetime.map(expiry),
                    authorization_expire_time,
                    scopes: scopes.unwrap_or_else(asked),
                };
                (tokens, is_lost.then(|| REFRESH_TOKEN_INVALID.to_owned()))
            }
            Err(reason) if rotated && !is_lost && !planted(PlantedBug::JudgedBeforeSealed) => {
                // The access token that there was may still be good, and the ID token belongs to it.
                let tokens = OAuth2Material {
                    access_token: kept(&sent.access_token),
                    refresh_token,
                    id_token: kept(&sent.id_token),
                    token_type: sent.token_type.clone(),
                    expire_time: sent.expire_time,
                    authorization_expire_time,
                    scopes: sent.scopes.clone(),
                };
                (tokens, Some(reason.to_owned()))
            }
            Err(reason) => return Err(Flaw { reason, is_repeated, is_lost, status: status.as_u16() }),
        };
        Ok(Received {
            tenant,
            credential: credential.id,
            connection: connection.id,
            attempt: sending.id,
            version: sending.version,
            sent_time: sending.sent_time,
            got_time: sending.got_time,
            create_time: sending.create_time,
            rotated,
            tokens,
            flaw,
            status: Some(status.as_u16()),
        })
    }
}

/// Returns true if both ID tokens name a user, and not the same one. The signature of the new one is not needed for that: it came from the
/// token endpoint itself (OpenID Connect Core 1.0 3.1.3.7), and it lets no user in.
fn is_of_another(stored: Option<&Secret>, received: Option<&Secret>) -> bool {
    let subject = |id_token: Option<&Secret>| claimed_subject(id_token?);
    matches!((subject(stored), subject(received)), (Some(stored), Some(received)) if stored != received)
}

/// Returns true if there was an access token that only its client can use, and the new one has another type. Letter case does not count (RFC
/// 6749 5.1). Types that mean the same as Bearer differ between the tokens of some providers, or are not known of imported ones.
fn is_downgraded(sent: &OAuth2Material, received: &str) -> bool {
    let is_bound = BOUND_TYPES.iter().any(|bound| sent.token_type.eq_ignore_ascii_case(bound));
    sent.access_token.is_some() && is_bound && !sent.token_type.eq_ignore_ascii_case(received)
}

/// The message of the log about a refresh token that cannot be used.
const UNUSABLE: &str = "a response to a refresh has a refresh token that cannot be used: it is not a text, has over 65536 characters, or \
                        others than visible ASCII characters and blanks";

/// The types of tokens that only a client can use that proves to have a key (RFC 9449, RFC 9200).
const BOUND_TYPES: [&str; 3] = ["DPoP", "PoP", "mac"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_only_its_client_can_use_is_not_replaced_by_another() {
        let of = |access_token: Option<&str>, token_type: &str| OAuth2Material {
            access_token: access_token.map(|token| Secret::new(token.to_owned())),
            token_type: token_type.to_owned(),
            ..OAuth2Material::default()
        };
        for (sent, received, is_weaker) in [
            (of(Some("a"), "Bearer"), "Bearer", false),
            (of(Some("a"), "bearer"), "Bearer", false),
            (of(Some("a"), "dpop"), "DPoP", false),
            (of(Some("a"), "Bearer"), "DPoP", false),
            (of(Some("a"), "Bearer"), "bot", false),
            (of(Some("a"), "DPoP"), "Bearer", true),
            (of(Some("a"), "dpop"), "N_A", true),
            (of(Some("a"), "pop"), "DPoP", true),
            (of(None, "DPoP"), "Bearer", false),
            (of(None, ""), "Bearer", false),
        ] {
            assert_eq!(is_downgraded(&sent, received), is_weaker, "{} and then {received}", sent.token_type);
        }
    }
}
