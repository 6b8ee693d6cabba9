//! Errors of keyrings. The texts name keys by id and never contain a part of a secret.

use std::io;
use std::path::PathBuf;

use jackfield_domain::Error;

/// The reason that a keyring cannot be read, changed or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The text is not TOML. The parser's message is left out because it quotes the text.
    #[error("keyring is not valid TOML at line {line}, column {column}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
    },
    /// The text is TOML but not a keyring.
    #[error("{place}: {reason}")]
    Invalid {
        /// The keyring, or one of its keys by number and id.
        place: String,
        /// The problem.
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
        /// The sorted ids of the missing keys, without duplicates.
        ids: Vec<String>,
    },
    /// The new keyring lacks the key that this process wraps data keys with.
    #[error("the new keyring lacks key {id:?}, which is in use")]
    ActiveKeyDropped {
        /// The active key of the current keyring.
        id: String,
    },
    /// A key of the new keyring has the id of a current one but a different secret.
    #[error("key {id:?} has another secret in the new keyring")]
    SecretChanged {
        /// The key in question.
        id: String,
    },
    /// The keys come from a key-encryption service, which has no keyring to replace.
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
    /// The file to be created exists already.
    #[error("keyring file {} exists already", path.display())]
    FileExists {
        /// Its path.
        path: PathBuf,
    },
    /// The path names something other than a regular file.
    #[error("keyring file {} is {found}, not a regular file", path.display())]
    FileKind {
        /// Its path.
        path: PathBuf,
        /// The kind of file found instead.
        found: &'static str,
    },
    /// Users other than the owner may use the file.
    #[error("keyring file {} has mode {mode:04o}, so that others than its owner can use it; set it to 0600", path.display())]
    FileMode {
        /// Its path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user can change the file.
    #[error("keyring file {} belongs to another user (uid {owner}), who can change it; give it to the user of the server", path.display())]
    FileOwner {
        /// Its path.
        path: PathBuf,
        /// The user id of its owner.
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
        /// The attempted action.
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
