//! The keyring: key-encryption keys, one of them active.

mod format;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use jackfield_domain::kek::{KekError, WrappedKey};
use jackfield_domain::{Clock, SystemClock, Timestamp};
use zeroize::Zeroizing;

use crate::cipher::{self, Cipher, Purpose};
use crate::error::KeyringError;

/// Key-encryption keys. New data keys are wrapped with the active one; all of them unwrap.
pub struct Keyring {
    active: Key,
    /// In no particular order. No two keys share an id, and none has the id of the active key.
    others: Vec<Key>,
}

/// The part of a key that may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The id, stored with each data key that this key wrapped.
    pub id: String,
    /// The current use of the key.
    pub state: KeyState,
    /// The time of creation, for information only.
    pub created: Timestamp,
}

/// The use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Unwraps. Meant to become active once every replica has it.
    Staged,
    /// Wraps and unwraps.
    Active,
    /// Unwraps. Meant to be removed once nothing is wrapped with it.
    Retired,
}

struct Key {
    info: KeyInfo,
    secret: Zeroizing<Vec<u8>>,
}

// === impl Keyring ===

impl Keyring {
    /// Parses the text form strictly: every field must be there, and no others.
    ///
    /// # Errors
    /// `Syntax` or `Invalid`, with the reason.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        format::parse(text)
    }

    /// The text form, with an explanatory comment.
    pub fn to_toml(&self) -> Zeroizing<String> {
        format::print(self)
    }

    /// A keyring with one fresh key, and its text form.
    ///
    /// # Errors
    /// `Random`.
    pub fn generate() -> Result<(Self, Zeroizing<String>), KeyringError> {
        let keyring = Keyring { active: Key::generate(KeyState::Active)?, others: Vec::new() };
        let text = keyring.to_toml();
        Ok((keyring, text))
    }

    /// Adds a fresh key, either staged or already active, and returns its id.
    ///
    /// # Errors
    /// `Random`.
    pub fn add_key(&mut self, activate: bool) -> Result<String, KeyringError> {
        let mut key = Key::generate(KeyState::Staged)?;
        while self.get(&key.info.id).is_some() {
            key = Key::generate(KeyState::Staged)?;
        }
        let id = key.info.id.clone();
        self.others.push(key);
        if activate {
            self.activate(&id)?;
        }
        Ok(id)
    }

    /// Makes a key the active one and retires the previous one. Activating the active key changes nothing.
    ///
    /// # Errors
    /// `UnknownKey`.
    pub fn activate(&mut self, id: &str) -> Result<(), KeyringError> {
        if self.active.info.id == id {
            return Ok(());
        }
        let mut key = self.take(id)?;
        key.info.state = KeyState::Active;
        std::mem::swap(&mut key, &mut self.active);
        key.info.state = KeyState::Retired;
        self.others.push(key);
        Ok(())
    }

    /// Removes a key. Anything that it wrapped never opens again, so make sure that nothing is wrapped with it.
    ///
    /// # Errors
    /// `UnknownKey`, or `KeyActive` if it is the active key.
    pub fn remove(&mut self, id: &str) -> Result<(), KeyringError> {
        if self.active.info.id == id {
            return Err(KeyringError::KeyActive { id: id.to_owned() });
        }
        self.take(id).map(drop)
    }

    /// The id of the active key.
    pub fn active_id(&self) -> &str {
        &self.active.info.id
    }

    /// The parts of all keys that may be shown, oldest key first.
    pub fn keys(&self) -> Vec<KeyInfo> {
        self.sorted().into_iter().map(|key| key.info.clone()).collect()
    }

    /// The ids of all keys, oldest first.
    pub fn ids(&self) -> Vec<String> {
        self.sorted().into_iter().map(|key| key.info.id.clone()).collect()
    }

    /// Returns whether both keyrings have a key with this id but with different secrets.
    pub(crate) fn differs(&self, other: &Keyring, id: &str) -> bool {
        match (self.get(id), other.get(id)) {
            (Some(one), Some(two)) => verify_slices_are_equal(&one.secret, &two.secret).is_err(),
            _ => false,
        }
    }

    /// Wraps with the active key.
    pub(crate) fn wrap(&self, context: &[u8], key: &[u8]) -> Result<WrappedKey, KekError> {
        let kek_id = self.active.info.id.clone();
        let wrapped = self.active.cipher()?.seal(b"", &[kek_id.as_bytes(), context], key);
        let bytes = wrapped.map_err(|_| KekError::Failed("sealing failed".into()))?;
        Ok(WrappedKey { kek_id, bytes })
    }

    /// Unwraps with the named key.
    pub(crate) fn unwrap(&self, id: &str, context: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KekError> {
        let key = self.get(id).ok_or_else(|| KekError::UnknownKey { id: id.to_owned() })?;
        let opened = key.cipher()?.open(b"", &[id.as_bytes(), context], wrapped);
        opened.ok_or_else(|| KekError::Rejected { id: id.to_owned() })
    }

    fn get(&self, id: &str) -> Option<&Key> {
        self.iter().find(|key| key.info.id == id)
    }

    fn take(&mut self, id: &str) -> Result<Key, KeyringError> {
        let position = self.others.iter().position(|key| key.info.id == id);
        let position = position.ok_or_else(|| KeyringError::UnknownKey { id: id.to_owned() })?;
        Ok(self.others.swap_remove(position))
    }

    fn sorted(&self) -> Vec<&Key> {
        let mut keys: Vec<_> = self.iter().collect();
        keys.sort_by(|one, two| (one.info.created, &one.info.id).cmp(&(two.info.created, &two.info.id)));
        keys
    }

    fn iter(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.active).chain(&self.others)
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.keys()).finish_non_exhaustive()
    }
}

// === impl Key ===

impl Key {
    /// Makes an id of the date, by which people can tell keys apart, and random digits.
    fn generate(state: KeyState) -> Result<Self, KeyringError> {
        let secret = cipher::random_key().map_err(|_| KeyringError::Random)?;
        let mut digits = [0; 4];
        rand::fill(&mut digits).map_err(|_| KeyringError::Random)?;
        let now = SystemClock.now().seconds();
        let created = Timestamp::from_parts(now, 0).unwrap_or(Timestamp(0));
        let day: String = created.to_string().chars().take(10).filter(char::is_ascii_digit).collect();
        let id = format!("kek-{day}-{:08x}", u32::from_be_bytes(digits));
        Ok(Key { info: KeyInfo { id, state, created }, secret })
    }

    fn cipher(&self) -> Result<Cipher, KekError> {
        Cipher::derive(&self.secret, Purpose::Wrap).map_err(|_| KekError::Failed("key derivation failed".into()))
    }
}

// === impl KeyState ===

impl KeyState {
    /// The name in the text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            KeyState::Staged => "staged",
            KeyState::Active => "active",
            KeyState::Retired => "retired",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [KeyState::Staged, KeyState::Active, KeyState::Retired].into_iter().find(|state| state.as_str() == text)
    }
}

impl std::fmt::Display for KeyState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
