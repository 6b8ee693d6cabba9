//! Secrets that are sealed as one JSON object, so that their parts belong together: the material of a credential, and the secret
//! headers of a connector. These types exist only on the way into and out of the vault.

use std::collections::BTreeMap;

use jackfield_domain::credential::{Material, OAuth2Material};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Error, KeyId, Result, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Material with its version, which tells a reader whether the facts that it read belong to it.
#[derive(Serialize, Deserialize)]
struct Versioned {
    version: i64,
    material: SealedForm,
}

/// Material in the form in which it is sealed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum SealedForm {
    Oauth2 {
        access_token: Option<Plain>,
        refresh_token: Option<Plain>,
        id_token: Option<Plain>,
        token_type: String,
        expire_time: Option<Timestamp>,
        // Earlier programs did not write it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        authorization_expire_time: Option<Timestamp>,
        scopes: Vec<String>,
    },
    ApiKey {
        api_key: Plain,
    },
    Basic {
        username: Plain,
        password: Plain,
    },
    ClientCredentials {
        client_id: Plain,
        client_secret: Plain,
    },
    ClientCertificate {
        key: KeyId,
    },
    Custom {
        fields: BTreeMap<String, Plain>,
    },
}

/// A secret in the one form that can be serialised. It is wiped as a [`Secret`] is.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Plain(Zeroizing<String>);

/// The bytes to seal. The key of a client certificate must have been looked up: it is stored by its id.
pub(super) fn to_bytes(material: &Material, key: Option<KeyId>, version: i64) -> Result<Zeroizing<Vec<u8>>> {
    let material = to_form(material, key)?;
    serde_json::to_vec(&Versioned { version, material }).map(Zeroizing::new).map_err(Error::internal)
}

/// The material of opened bytes, and its version.
pub(super) fn from_bytes(bytes: &[u8]) -> Result<(Material, i64)> {
    // The message of the parser could quote the material, so it is dropped.
    let parsed = serde_json::from_slice(bytes).map_err(|_| Error::internal("sealed material does not parse"));
    let Versioned { version, material } = parsed?;
    Ok((from_form(material), version))
}

/// The form in which material is sealed.
pub(crate) fn to_form(material: &Material, key: Option<KeyId>) -> Result<SealedForm> {
    Ok(match material {
        Material::OAuth2(tokens) => {
            let OAuth2Material {
                access_token,
                refresh_token,
                id_token,
                token_type,
                expire_time,
                authorization_expire_time,
                scopes,
            } = tokens;
            SealedForm::Oauth2 {
                access_token: access_token.as_ref().map(Plain::of),
                refresh_token: refresh_token.as_ref().map(Plain::of),
                id_token: id_token.as_ref().map(Plain::of),
                token_type: token_type.clone(),
                expire_time: *expire_time,
                authorization_expire_time: *authorization_expire_time,
                scopes: scopes.clone(),
            }
        }
        Material::ApiKey(api_key) => SealedForm::ApiKey { api_key: Plain::of(api_key) },
        Material::Basic { username, password } => {
            SealedForm::Basic { username: Plain::of(username), password: Plain::of(password) }
        }
        Material::ClientCredentials { client_id, client_secret } => {
            SealedForm::ClientCredentials { client_id: Plain::of(client_id), client_secret: Plain::of(client_secret) }
        }
        Material::ClientCertificate { .. } => SealedForm::ClientCertificate {
            key: key.ok_or_else(|| Error::internal("a client certificate without its key"))?,
        },
        Material::Custom(fields) => {
            SealedForm::Custom { fields: fields.iter().map(|(name, value)| (name.clone(), Plain::of(value))).collect() }
        }
    })
}

/// The material that has a sealed form.
pub(crate) fn from_form(form: SealedForm) -> Material {
    match form {
        SealedForm::Oauth2 {
            access_token,
            refresh_token,
            id_token,
            token_type,
            expire_time,
            authorization_expire_time,
            scopes,
        } => Material::OAuth2(OAuth2Material {
            access_token: access_token.map(Plain::into_secret),
            refresh_token: refresh_token.map(Plain::into_secret),
            id_token: id_token.map(Plain::into_secret),
            token_type,
            expire_time,
            authorization_expire_time,
            scopes,
        }),
        SealedForm::ApiKey { api_key } => Material::ApiKey(api_key.into_secret()),
        SealedForm::Basic { username, password } => {
            Material::Basic { username: username.into_secret(), password: password.into_secret() }
        }
        SealedForm::ClientCredentials { client_id, client_secret } => Material::ClientCredentials {
            client_id: client_id.into_secret(),
            client_secret: client_secret.into_secret(),
        },
        SealedForm::ClientCertificate { key } => Material::ClientCertificate { key: Ref::Id(key.0) },
        SealedForm::Custom { fields } => {
            Material::Custom(fields.into_iter().map(|(name, value)| (name, value.into_secret())).collect())
        }
    }
}

/// The bytes to seal of secret headers.
pub(super) fn headers_to_bytes(headers: &BTreeMap<String, Secret>) -> Result<Zeroizing<Vec<u8>>> {
    let headers: BTreeMap<&String, Plain> = headers.iter().map(|(name, value)| (name, Plain::of(value))).collect();
    serde_json::to_vec(&headers).map(Zeroizing::new).map_err(Error::internal)
}

/// The secret headers of opened bytes.
pub(super) fn headers_from_bytes(bytes: &[u8]) -> Result<BTreeMap<String, Secret>> {
    // As above: the message of the parser could quote a header.
    let parsed = serde_json::from_slice(bytes).map_err(|_| Error::internal("sealed headers do not parse"));
    let headers: BTreeMap<String, Plain> = parsed?;
    Ok(headers.into_iter().map(|(name, value)| (name, value.into_secret())).collect())
}

// === impl Plain ===

impl Plain {
    pub(crate) fn of(secret: &Secret) -> Self {
        Plain(Zeroizing::new(secret.expose().to_owned()))
    }

    pub(crate) fn into_secret(mut self) -> Secret {
        Secret::new(std::mem::take(&mut *self.0))
    }
}
