//! `[vault]`, `[reveal]`, `[bootstrap]`: the source of key-encryption keys, whether secrets can be revealed, and the first
//! tenant.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use jackfield_transport::config::duration;

/// The source of the key-encryption keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vault {
    /// `file` or `environment`.
    pub provider: VaultProvider,
    /// The keyring file of provider `file`. Empty: `keyring.toml` in the data directory.
    pub file: PathBuf,
    /// The environment variable of provider `environment`: the content of a keyring file.
    pub variable: String,
    /// The interval at which the keyring file is checked for changes.
    #[serde(with = "duration")]
    pub reload_interval: Duration,
}

/// A provider of key-encryption keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VaultProvider {
    /// A file, mode 0600.
    #[default]
    File,
    /// An environment variable.
    Environment,
}

/// RevealCredential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reveal {
    /// Enables RevealCredential. Callers need the right `credentials.reveal` as well.
    pub enabled: bool,
}

/// The tenant that is made on an empty database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bootstrap {
    /// Name of the tenant that is created if there is none. Empty: none is created.
    pub tenant: String,
}

impl Default for Vault {
    fn default() -> Self {
        Vault {
            provider: VaultProvider::File,
            file: PathBuf::new(),
            variable: "JACKFIELD_KEYRING".into(),
            reload_interval: Duration::from_secs(2),
        }
    }
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap { tenant: "default".into() }
    }
}
