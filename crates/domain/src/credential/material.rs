//! The secret material of credentials. It has no printable form. It leaves the process only sealed, or through the two
//! calls that exist for it.

use std::collections::BTreeMap;

use super::state::CredentialKind;
use crate::error::Violation;
use crate::patch::Patch;
use crate::request::map_patch::Entries;
use crate::request::reference::Ref;
use crate::value::id::CredentialId;
use crate::value::secret::{Secret, SecretPatch};
use crate::value::time::Timestamp;

/// The secret material of a credential.
#[derive(Debug)]
pub enum Material {
    OAuth2(OAuth2Material),
    ApiKey(Secret),
    Basic {
        username: Secret,
        password: Secret,
    },
    ClientCredentials {
        client_id: Secret,
        client_secret: Secret,
    },
    /// The private key stays in the key.
    ClientCertificate {
        key: Ref,
    },
    Custom(BTreeMap<String, Secret>),
}

/// OAuth 2.0 tokens.
#[derive(Debug, Default)]
pub struct OAuth2Material {
    pub access_token: Option<Secret>,
    pub refresh_token: Option<Secret>,
    pub id_token: Option<Secret>,
    pub token_type: String,
    pub expire_time: Option<Timestamp>,
    /// The time at which the provider ends the authorisation of the refresh token; `None` if it does not tell it.
    pub authorization_expire_time: Option<Timestamp>,
    pub scopes: Vec<String>,
}

/// A change of sealed material. The kind of the material cannot change.
#[derive(Debug, Default)]
pub enum MaterialPatch {
    #[default]
    Keep,
    /// Replaces the material. A refresh token or ID token that is absent is the stored one, after this change of it.
    Replace(Material, TokensPatch),
    /// Changes single tokens of OAuth material; the rest stays.
    Tokens(TokensPatch),
    /// Changes single fields of custom material; the others stay.
    Fields(Entries<Secret>),
}

/// A change of the tokens of OAuth material that an update mask can name.
#[derive(Debug, Default)]
pub struct TokensPatch {
    pub refresh_token: SecretPatch,
    pub id_token: SecretPatch,
}

/// A token that may be handed out.
#[derive(Debug)]
pub struct IssuedToken {
    pub credential: CredentialId,
    pub material_version: i64,
    pub token: Secret,
    pub token_type: String,
    pub expire_time: Option<Timestamp>,
    pub scopes: Vec<String>,
    /// The scopes that were asked for and not granted.
    pub missing_scopes: Vec<String>,
    /// The time from which a newer token is expected; `None` if it is not replaced by itself.
    pub next_refresh_time: Option<Timestamp>,
    /// The fields of custom material.
    pub fields: BTreeMap<String, Secret>,
}

/// The most fields of custom material.
pub const MAX_CUSTOM_FIELDS: usize = 64;
/// The most bytes that all fields of custom material may take together.
pub const MAX_CUSTOM_FIELDS_BYTES: usize = 64 * 1024;
/// The column of the sealed material: one sealed JSON object with all its parts, so that parts of different materials cannot be
/// mixed.
pub const MATERIAL_COLUMN: &str = "material";
/// The column of sealed tokens that were received for a credential which has others: two refreshes succeeded. They are tried if the refresh
/// token of the credential is refused.
pub const ALTERNATE_COLUMN: &str = "alternate";

/// The fields of custom material after a change of single ones, or what would be wrong with the result.
pub fn custom_fields_after(
    entries: Entries<Secret>,
    mut stored: BTreeMap<String, Secret>,
) -> Result<BTreeMap<String, Secret>, Violation> {
    stored.retain(|name, _| !entries.gone.contains(name));
    stored.extend(entries.set);
    let bytes = stored.values().map(|value| value.expose().len()).sum();
    check_custom_fields(stored.len(), bytes).map(|()| stored)
}

/// Refuses custom material with too many fields, none, or too many bytes in their values.
pub fn check_custom_fields(count: usize, bytes: usize) -> Result<(), Violation> {
    let field = "material.custom.fields";
    if count == 0 || count > MAX_CUSTOM_FIELDS {
        return Err(Violation::field(field, format!("must have 1 to {MAX_CUSTOM_FIELDS} entries")));
    }
    if bytes > MAX_CUSTOM_FIELDS_BYTES {
        return Err(Violation::field(field, format!("must be at most {MAX_CUSTOM_FIELDS_BYTES} bytes in all")));
    }
    Ok(())
}

// === impl Material ===

impl Material {
    /// The kind of this material.
    pub const fn kind(&self) -> CredentialKind {
        match self {
            Material::OAuth2(_) => CredentialKind::OAuth2,
            Material::ApiKey(_) => CredentialKind::ApiKey,
            Material::Basic { .. } => CredentialKind::Basic,
            Material::ClientCredentials { .. } => CredentialKind::ClientCredentials,
            Material::ClientCertificate { .. } => CredentialKind::ClientCertificate,
            Material::Custom(_) => CredentialKind::Custom,
        }
    }
}

// === impl OAuth2Material ===

impl OAuth2Material {
    /// A copy. Its secrets are wiped by themselves.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let copy = |token: &Option<Secret>| token.as_ref().map(Secret::duplicate);
        OAuth2Material {
            access_token: copy(&self.access_token),
            refresh_token: copy(&self.refresh_token),
            id_token: copy(&self.id_token),
            token_type: self.token_type.clone(),
            expire_time: self.expire_time,
            authorization_expire_time: self.authorization_expire_time,
            scopes: self.scopes.clone(),
        }
    }

    /// Takes the refresh token and the ID token of the stored material where these are absent. An ID token does not outlive the refresh token
    /// with which it came: another one may be of another account.
    #[must_use]
    pub fn or_stored(mut self, stored: OAuth2Material) -> Self {
        if self.refresh_token.is_none() {
            self.set_refresh_token(stored.refresh_token, stored.authorization_expire_time);
            self.id_token = self.id_token.or(stored.id_token);
        }
        self
    }

    /// Replaces the refresh token, and with it the end of its authorisation.
    pub fn set_refresh_token(&mut self, refresh_token: Option<Secret>, authorization_expire_time: Option<Timestamp>) {
        (self.refresh_token, self.authorization_expire_time) = (refresh_token, authorization_expire_time);
    }
}

// === impl TokensPatch ===

impl TokensPatch {
    /// Changes the tokens of stored material.
    #[must_use]
    pub fn applied(self, mut tokens: OAuth2Material) -> OAuth2Material {
        match self.refresh_token {
            SecretPatch::Keep => {}
            SecretPatch::Set(refresh_token) => tokens.set_refresh_token(Some(refresh_token), None),
            SecretPatch::Clear => tokens.set_refresh_token(None, None),
        }
        tokens.id_token = self.id_token.applied(tokens.id_token);
        tokens
    }
}

// === impl MaterialPatch ===

impl MaterialPatch {
    /// The kind of material that is changed; `None` if none is.
    pub const fn kind(&self) -> Option<CredentialKind> {
        match self {
            MaterialPatch::Keep => None,
            MaterialPatch::Replace(material, _) => Some(material.kind()),
            MaterialPatch::Tokens(_) => Some(CredentialKind::OAuth2),
            MaterialPatch::Fields(_) => Some(CredentialKind::Custom),
        }
    }

    /// Returns whether the account at the provider stays the same, as far as a change of the material of a credential says it. It is that of
    /// the refresh token, so an access token beside a kept one is of the same account. Other material may be of another one.
    pub fn keeps_account(&self, has_refresh_token: bool) -> bool {
        let is_kept = |change: &TokensPatch| matches!(change.refresh_token, SecretPatch::Keep);
        match self {
            MaterialPatch::Keep | MaterialPatch::Fields(_) => true,
            MaterialPatch::Tokens(change) => !matches!(change.refresh_token, SecretPatch::Set(_)),
            MaterialPatch::Replace(Material::OAuth2(tokens), change) => {
                has_refresh_token && tokens.refresh_token.is_none() && is_kept(change)
            }
            MaterialPatch::Replace(..) => false,
        }
    }
}

impl Patch for MaterialPatch {
    fn is_empty(&self) -> bool {
        matches!(self, MaterialPatch::Keep)
    }
}
