//! Secret headers of connectors. They are sealed as one value; their names are not secret.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Violation;
use crate::patch::Patch;
use crate::request::map_patch::{Entries, MapPatch};
use crate::value::maps::{Headers, same_header};
use crate::value::secret::Secret;

/// A change of the sealed headers.
#[derive(Debug, Default)]
pub enum SecretHeadersPatch {
    #[default]
    Keep,
    /// Replaces all of them.
    Set(BTreeMap<String, Secret>),
    /// Sets or removes single ones; the others stay.
    Entries(Entries<Secret>),
    Clear,
}

// === impl SecretHeadersPatch ===

impl SecretHeadersPatch {
    /// Changes the names of the sealed headers, which stay sorted.
    pub(super) fn apply(&self, names: &mut Vec<String>) {
        let kept = match self {
            SecretHeadersPatch::Keep => return,
            SecretHeadersPatch::Set(_) | SecretHeadersPatch::Clear => Vec::new(),
            SecretHeadersPatch::Entries(entries) => {
                names.drain(..).filter(|name| !entries.touches(name, same_header)).collect()
            }
        };
        let set = self.set().into_iter().flat_map(|set| set.keys().cloned());
        *names = kept.into_iter().chain(set).collect::<BTreeSet<_>>().into_iter().collect();
    }

    /// Changes the sealed headers. `None`: there are none left.
    pub fn applied(&self, mut stored: BTreeMap<String, Secret>) -> Option<BTreeMap<String, Secret>> {
        match self {
            SecretHeadersPatch::Keep => return Some(stored),
            SecretHeadersPatch::Set(_) | SecretHeadersPatch::Clear => stored.clear(),
            SecretHeadersPatch::Entries(entries) => stored.retain(|name, _| !entries.touches(name, same_header)),
        }
        let set = self.set().into_iter().flatten();
        stored.extend(set.map(|(name, value)| (name.clone(), value.duplicate())));
        Some(stored).filter(|headers| !headers.is_empty())
    }

    /// Returns true if the patch leaves one of the sealed headers as it is.
    pub(super) fn keeps_any(&self, names: &[String]) -> bool {
        match self {
            SecretHeadersPatch::Keep => !names.is_empty(),
            SecretHeadersPatch::Set(_) | SecretHeadersPatch::Clear => false,
            SecretHeadersPatch::Entries(entries) => names.iter().any(|name| !entries.touches(name, same_header)),
        }
    }

    /// Returns true if the patch has values.
    pub(super) fn sets_secrets(&self) -> bool {
        match self {
            SecretHeadersPatch::Set(_) => true,
            SecretHeadersPatch::Entries(entries) => !entries.set.is_empty(),
            SecretHeadersPatch::Keep | SecretHeadersPatch::Clear => false,
        }
    }

    /// Finds headers that a patch gives as secret ones and as plain ones.
    pub(super) fn contradictions(&self, headers: &MapPatch<Headers>) -> Vec<Violation> {
        let names: Vec<String> = self.set().into_iter().flat_map(|set| set.keys().cloned()).collect();
        match headers {
            MapPatch::Keep => Vec::new(),
            MapPatch::Replace(headers) => given_twice(headers.as_map(), &names),
            MapPatch::Entries(entries) => given_twice(&entries.set, &names),
        }
    }

    /// The headers that are given.
    fn set(&self) -> Option<&BTreeMap<String, Secret>> {
        match self {
            SecretHeadersPatch::Set(set) | SecretHeadersPatch::Entries(Entries { set, .. }) => Some(set),
            SecretHeadersPatch::Keep | SecretHeadersPatch::Clear => None,
        }
    }
}

impl Patch for SecretHeadersPatch {
    fn is_empty(&self) -> bool {
        matches!(self, SecretHeadersPatch::Keep)
    }
}

/// Finds secret headers that have the name of a plain header.
pub(super) fn given_twice(headers: &BTreeMap<String, String>, secret_names: &[String]) -> Vec<Violation> {
    let twice = |name: &&String| headers.keys().any(|plain| same_header(plain, name));
    let violation =
        |name: &String| Violation::field("connector.secret_headers", format!("header \"{name}\" is also in headers"));
    secret_names.iter().filter(twice).map(violation).collect()
}
