//! What can be wrong with a keyring. Texts name keys by id and never hold a part of a secret.

use std::io;
use std::path::PathBuf;

use jackfield_domain::Error;

/// Why a keyring cannot be read, changed or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The text is not TOML. What the parser says is left out, because it quotes the text.
    #[error("keyring is not valid TOML at line {line}, column {column}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// The text is TOML but no keyring.
    #[error("{place}: {reason}")]
    Invalid {
        /// The keyring, or one key of it by its number and id.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no key with this id.
    #[error("key {id:?} is not in the keyring")]
    UnknownKey {
        /// The id that was asked for.
        id: String,
    },
    /// The active key cannot be removed.
    #[error("key {id:?} is the active key; activate another key first")]
    KeyActive {
        /// The active key.
        id: String,
    },
    /// Data keys are wrapped with keys that the keyring lacks.
    #[error("data keys are wrapped with key-encryption keys that are not available: {}", ids.join(", "))]
    KeysMissing {
        /// Ids of the keys that are missing, each once, sorted.
        ids: Vec<String>,
    },
    /// The new keyring lacks the key that this process wraps data keys with.
    #[error("the new keyring lacks key {id:?}, which is in use")]
    ActiveKeyDropped {
        /// The active key of the present keyring.
        id: String,
    },
    /// A key of the new keyring has the id of a present one but another secret.
    #[error("key {id:?} has another secret in the new keyring")]
    SecretChanged {
        /// The key in question.
        id: String,
    },
    /// The keys come from a key-encryption service, which has no keyring to exchange.
    #[error("key-encryption keys do not come from a keyring")]
    NotAKeyring,
    /// The machine has no random numbers.
    #[error("no random numbers for a new key")]
    Random,
    /// There is no keyring file.
    #[error("keyring file {} does not exist", path.display())]
    FileMissing {
        /// Its path.
        path: PathBuf,
    },
    /// There is a file where one was to be made.
    #[error("keyring file {} exists already", path.display())]
    FileExists {
        /// Its path.
        path: PathBuf,
    },
    /// The path names something else than a regular file.
    #[error("keyring file {} is {found}, not a regular file", path.display())]
    FileKind {
        /// Its path.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
    /// Others than the owner may use the file.
    #[error("keyring file {} has mode {mode:04o}, so that others than its owner can use it; set it to 0600", path.display())]
    FileMode {
        /// Its path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else can change the file.
    #[error("keyring file {} belongs to another user (uid {owner}), who can change it; give it to the user of the server", path.display())]
    FileOwner {
        /// Its path.
        path: PathBuf,
        /// The number of its owner.
        owner: u32,
    },
    /// The file is longer than a keyring can be.
    #[error("keyring file {} is longer than {limit} bytes", path.display())]
    FileTooLong {
        /// Its path.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The operating system refused something.
    #[error("cannot {action} keyring file {}", path.display())]
    Io {
        /// The path of the keyring.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

impl KeyringError {
    pub(crate) fn invalid(place: impl Into<String>, reason: impl Into<String>) -> Self {
        KeyringError::Invalid { place: place.into(), reason: reason.into() }
    }
}

impl From<KeyringError> for Error {
    fn from(error: KeyringError) -> Self {
        Error::internal(error)
    }
}
