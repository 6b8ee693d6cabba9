//! The material of credentials, from requests and, for RevealCredential, to answers.

use std::collections::BTreeMap;

use jackfield_api::v1 as pb;
use jackfield_api::v1::credential_material::Material as Message;
use jackfield_domain::credential::{Material, MaterialPatch, OAuth2Material, TokensPatch, check_custom_fields};
use jackfield_domain::request::map_patch::Entries;
use jackfield_domain::request::mask::Mask;
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::maps::map_entry;
use jackfield_domain::value::scopes::Scopes;
use jackfield_domain::value::text::{bounded_text, identifier};
use jackfield_domain::{Secret, SecretPatch, Violation, Violations};

use crate::grpc::{parse, render};

/// The longest token, key or custom value, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// The longest user name or password, in characters: either may be a token.
const MAX_BASIC: usize = 4_096;
/// The longest id or secret of a client, in characters.
const MAX_CLIENT: usize = 2_048;
const MAX_FIELD_NAME: usize = 128;
/// The paths that an update mask may name.
pub(super) const PATHS: &[&str] = &[REFRESH_TOKEN, ID_TOKEN, "material.custom.fields.*"];
const CUSTOM_FIELDS: &str = "material.custom.fields";
const OAUTH2: &str = "material.oauth2";
const REFRESH_TOKEN: &str = "material.oauth2.refresh_token";
const ID_TOKEN: &str = "material.oauth2.id_token";
const DEFAULT_TOKEN_TYPE: &str = "Bearer";

pub(super) fn parse(violations: &mut Violations, material: pb::CredentialMaterial) -> Option<Material> {
    let material = parse::required(violations, "material", material.material)?;
    match material {
        Message::Oauth2(tokens) => oauth2(violations, tokens).map(Material::OAuth2),
        Message::ApiKey(pb::ApiKeyMaterial { api_key }) => {
            token(violations, "material.api_key.api_key", api_key).map(Material::ApiKey)
        }
        Message::Basic(pb::BasicMaterial { username, password }) => {
            // Many APIs take a key as one half and nothing as the other (RFC 7617 allows either to be empty).
            if username.is_empty() && password.is_empty() {
                for field in ["material.basic.username", "material.basic.password"] {
                    violations.push(Violation::field(field, "must not be empty if the other half is empty"));
                }
                return None;
            }
            let colon = username.contains(':');
            let username = basic(violations, "material.basic.username", username);
            if colon {
                let description = "must not contain \":\" (RFC 7617)";
                violations.push(Violation::field("material.basic.username", description));
            }
            let password = basic(violations, "material.basic.password", password);
            Some(Material::Basic { username: username?, password: password? })
        }
        Message::ClientCredentials(pb::ClientCredentialsMaterial { client_id, client_secret }) => {
            let mut parse = |field, value| violations.check(Secret::parse_token(field, value, MAX_CLIENT));
            let client_id = parse("material.client_credentials.client_id", client_id);
            let client_secret = parse("material.client_credentials.client_secret", client_secret);
            Some(Material::ClientCredentials { client_id: client_id?, client_secret: client_secret? })
        }
        Message::ClientCertificate(pb::ClientCertificateMaterial { key }) => {
            let key = Ref::parse("material.client_certificate.key", &key, ReferenceForms::ID_NAME);
            violations.check(key).map(|key| Material::ClientCertificate { key })
        }
        Message::Custom(pb::CustomMaterial { fields }) => custom(violations, fields).map(Material::Custom),
    }
}

fn oauth2(violations: &mut Violations, tokens: pb::OAuth2Material) -> Option<OAuth2Material> {
    let pb::OAuth2Material { access_token, refresh_token, id_token, token_type, expire_time, scopes } = tokens;
    let access_token = optional(violations, "material.oauth2.access_token", access_token);
    let refresh_token = optional(violations, "material.oauth2.refresh_token", refresh_token);
    let id_token = optional(violations, "material.oauth2.id_token", id_token);
    let token_type = parse::non_empty(&token_type).unwrap_or(DEFAULT_TOKEN_TYPE);
    let token_type = violations.check(identifier("material.oauth2.token_type", token_type, 64, false));
    let expire_time = match expire_time {
        Some(time) => violations.check(parse::timestamp("material.oauth2.expire_time", time)).map(Some),
        None => Some(None),
    };
    let scopes = violations.check_all(Scopes::parse_list("material.oauth2.scopes", &scopes));
    Some(OAuth2Material {
        access_token: access_token?,
        refresh_token: refresh_token?,
        id_token: id_token?,
        token_type: token_type?,
        expire_time: expire_time?,
        authorization_expire_time: None,
        scopes: scopes?.as_slice().to_vec(),
    })
}

/// The change that a message and a mask ask for. If the mask names parts of the material and not all of it, only these change.
/// Otherwise material that is given replaces what is stored.
pub(super) fn patch(
    violations: &mut Violations,
    material: Option<pb::CredentialMaterial>,
    mask: &Mask,
) -> MaterialPatch {
    let material = match material {
        Some(material) => parse::required(violations, "material", material.material),
        None => None,
    };
    let covers = |path: &str| *mask != Mask::All && mask.covers(path, false);
    let names_fields = !covers(CUSTOM_FIELDS) && !mask.keys_under(CUSTOM_FIELDS).is_empty();
    let names_tokens = !covers(OAUTH2) && (mask.names(REFRESH_TOKEN) || mask.names(ID_TOKEN));
    let fault = match (material, names_fields, names_tokens) {
        (Some(material), false, false) => {
            let parsed = parse(violations, pb::CredentialMaterial { material: Some(material) });
            return parsed.map_or(MaterialPatch::Keep, |material| MaterialPatch::Replace(material, cleared(mask)));
        }
        (None, false, false) if violations.is_empty() && (covers(CUSTOM_FIELDS) || covers(OAUTH2)) => {
            "is required: update_mask names it"
        }
        (None, false, false) => return MaterialPatch::Keep,
        (None, true, false) => return named_fields(violations, pb::CustomMaterial::default(), mask),
        (Some(Message::Custom(given)), true, false) => return named_fields(violations, given, mask),
        (None, false, true) => return named_tokens(violations, pb::OAuth2Material::default(), mask),
        (Some(Message::Oauth2(given)), false, true) => return named_tokens(violations, given, mask),
        (_, true, true) => "must be of one kind: update_mask names parts of custom and of oauth2 material",
        (_, true, false) => "must be custom: update_mask names fields of custom material",
        (_, false, true) => "must be oauth2: update_mask names tokens of oauth2 material",
    };
    violations.push(Violation::field("material", fault));
    MaterialPatch::Keep
}

fn named_fields(violations: &mut Violations, given: pb::CustomMaterial, mask: &Mask) -> MaterialPatch {
    let named = Entries::named(CUSTOM_FIELDS, given.fields, mask, |one, other| one == other);
    let named = named.map(|Entries { set, gone }| Entries { set: field_values(violations, set), gone });
    named.map_or(MaterialPatch::Keep, MaterialPatch::Fields)
}

/// Tokens that the mask does not name are not checked.
fn named_tokens(violations: &mut Violations, given: pb::OAuth2Material, mask: &Mask) -> MaterialPatch {
    let mut named = |path: &str, value: String| match mask.names(path).then(|| optional(violations, path, value)) {
        Some(Some(Some(token))) => SecretPatch::Set(token),
        Some(Some(None)) => SecretPatch::Clear,
        // Not named, or not valid.
        Some(None) | None => SecretPatch::Keep,
    };
    let refresh_token = named(REFRESH_TOKEN, given.refresh_token);
    let id_token = named(ID_TOKEN, given.id_token);
    MaterialPatch::Tokens(TokensPatch { refresh_token, id_token })
}

/// The change of tokens that are absent from new material: those that the mask names are removed.
fn cleared(mask: &Mask) -> TokensPatch {
    let clears = |path| if mask.names(path) { SecretPatch::Clear } else { SecretPatch::Keep };
    TokensPatch { refresh_token: clears(REFRESH_TOKEN), id_token: clears(ID_TOKEN) }
}

/// Checks the number and the size of all fields before each by itself.
fn custom(violations: &mut Violations, fields: BTreeMap<String, String>) -> Option<BTreeMap<String, Secret>> {
    violations.check(check_custom_fields(fields.len(), fields.values().map(String::len).sum()))?;
    Some(field_values(violations, fields))
}

fn field_values(violations: &mut Violations, fields: BTreeMap<String, String>) -> BTreeMap<String, Secret> {
    let field = "material.custom.fields";
    let mut parsed = BTreeMap::new();
    for (index, (name, value)) in fields.into_iter().enumerate() {
        if bounded_text(field, &name, MAX_FIELD_NAME, false).is_err() {
            // Such a name could be a secret put in the wrong place, so the violation counts it and does not repeat it.
            let number = index + 1;
            let rule = format!("must have names of 1 to {MAX_FIELD_NAME} characters without control characters");
            violations
                .push(Violation::field(field, format!("{rule}; entry {number} in the order of the names does not")));
            continue;
        }
        let place = map_entry(field, &name);
        // Unlike tokens, these may have several lines: they need not be sent in a header.
        let value = within_bytes(&place, value).and_then(|value| match value.is_empty() {
            true => Ok(Secret::new(value)),
            false => Secret::parse(&place, value, MAX_TOKEN),
        });
        if let Some(value) = violations.check(value) {
            parsed.insert(name, value);
        }
    }
    parsed
}

fn optional(violations: &mut Violations, field: &str, value: String) -> Option<Option<Secret>> {
    if value.is_empty() { Some(None) } else { token(violations, field, value).map(Some) }
}

/// A token or key that is sent in a header and whose limit counts bytes.
fn token(violations: &mut Violations, field: &str, value: String) -> Option<Secret> {
    violations.check(within_bytes(field, value).and_then(|value| Secret::parse_token(field, value, MAX_TOKEN)))
}

/// A half of a basic pair, which may be empty.
fn basic(violations: &mut Violations, field: &str, value: String) -> Option<Secret> {
    if value.is_empty() {
        Some(Secret::new(value))
    } else {
        violations.check(Secret::parse_line(field, value, MAX_BASIC))
    }
}

fn within_bytes(field: &str, value: String) -> Result<String, Violation> {
    match value.len() <= MAX_TOKEN {
        true => Ok(value),
        false => Err(Violation::field(field, format!("must be at most {MAX_TOKEN} bytes long"))),
    }
}

/// The answer of RevealCredential. This is the one place where material becomes a message.
pub(super) fn to_message(material: Material) -> pb::CredentialMaterial {
    let exposed = |secret: &Secret| secret.expose().to_owned();
    let optional = |secret: &Option<Secret>| secret.as_ref().map(exposed).unwrap_or_default();
    let material = match material {
        Material::OAuth2(tokens) => {
            let OAuth2Material {
                access_token,
                refresh_token,
                id_token,
                token_type,
                expire_time,
                // A fact of the credential.
                authorization_expire_time: _,
                scopes,
            } = tokens;
            Message::Oauth2(pb::OAuth2Material {
                access_token: optional(&access_token),
                refresh_token: optional(&refresh_token),
                id_token: optional(&id_token),
                token_type,
                expire_time: expire_time.map(render::timestamp),
                scopes,
            })
        }
        Material::ApiKey(api_key) => Message::ApiKey(pb::ApiKeyMaterial { api_key: exposed(&api_key) }),
        Material::Basic { username, password } => {
            Message::Basic(pb::BasicMaterial { username: exposed(&username), password: exposed(&password) })
        }
        Material::ClientCredentials { client_id, client_secret } => {
            Message::ClientCredentials(pb::ClientCredentialsMaterial {
                client_id: exposed(&client_id),
                client_secret: exposed(&client_secret),
            })
        }
        Material::ClientCertificate { key } => {
            Message::ClientCertificate(pb::ClientCertificateMaterial { key: key.to_string() })
        }
        Material::Custom(fields) => Message::Custom(pb::CustomMaterial {
            fields: fields.iter().map(|(name, value)| (name.clone(), exposed(value))).collect(),
        }),
    };
    pb::CredentialMaterial { material: Some(material) }
}
