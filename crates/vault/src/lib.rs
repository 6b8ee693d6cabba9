//! Envelope encryption. A data key per tenant seals that tenant's secrets; a key-encryption key, held in a keyring
//! outside the database, wraps the data keys. The database alone opens nothing.
//!
//! A sealed value is
//!
//! | bytes | what                                                                                       |
//! |-------|--------------------------------------------------------------------------------------------|
//! | 1     | format version, 1                                                                          |
//! | 1     | suite: 1 = AES-256-GCM-SIV (RFC 8452) with subkeys by HKDF-SHA-256 (RFC 5869)              |
//! | 16    | id of the data key                                                                         |
//! | 32    | key commitment: a second output of HKDF, so that a value opens with one data key only      |
//! | 12    | nonce, random                                                                              |
//! | n     | ciphertext, as long as the plaintext                                                       |
//! | 16    | tag                                                                                        |
//!
//! and its associated data is the tuple (version, suite, data key id, tenant id, table, column, row id), each part after
//! its length in 8 bytes, big-endian. A value that is moved to another row, column, table or tenant does not open.
//!
//! Wrapped data keys and page tokens have the same form without the data key id, and their own subkeys.

mod cipher;
mod digest;
mod envelope;
mod error;
mod keyring;
mod password;
pub mod provider;
mod token;
mod vault;

pub use digest::{secrets_are_equal, sha256, sha256_of};
pub use envelope::DataKey;
pub use error::KeyringError;
pub use jackfield_domain::kek::{KekError, KeyEncryption, WrappedKey as WrappedDataKey};
pub use keyring::{KeyInfo, KeyState, Keyring};
pub use password::{MEMORY_BYTES as PASSWORD_MEMORY_BYTES, password_hash, password_matches};
pub use token::random_token;
pub use vault::{KeyringChange, Vault};
