//! Changes of maps: of the whole map, or of the entries that an update mask names.

use std::collections::BTreeMap;

use super::mask::Mask;
use crate::error::{Violation, Violations};
use crate::patch::{FieldPatch, Patch};
use crate::value::maps::{AuthorizationParameters, Headers, Labels, RefreshParameters, TokenParameters, same_header};

/// A bounded map of texts.
pub trait TextMap: Clone + Sized {
    /// Parses a map; every fault is reported.
    fn parse(field: &str, map: BTreeMap<String, String>) -> Result<Self, Vec<Violation>>;

    /// The map itself.
    fn as_map(&self) -> &BTreeMap<String, String>;

    /// Returns true if two keys name one entry.
    fn same_key(one: &str, other: &str) -> bool {
        one == other
    }
}

/// A change of a map.
#[derive(Debug, Default)]
pub enum MapPatch<M> {
    #[default]
    Keep,
    /// Replaces the whole map.
    Replace(M),
    /// Changes single entries; all others stay.
    Entries(Entries<String>),
}

/// Entries of a map that an update mask names by their keys.
#[derive(Debug)]
pub struct Entries<V> {
    /// The entries that are given.
    pub set: BTreeMap<String, V>,
    /// The keys that are named and not given.
    pub gone: Vec<String>,
}

// === impl MapPatch ===

impl<M: TextMap> MapPatch<M> {
    /// Makes the change that a message and a mask ask for. `path` is the path of the map in the mask, `field` that in a
    /// violation. Entries that the mask does not cover are not checked.
    pub fn parse(
        field: &str,
        path: &str,
        given: BTreeMap<String, String>,
        mask: &Mask,
    ) -> Result<Self, Vec<Violation>> {
        if mask.covers(path, !given.is_empty()) {
            return M::parse(field, given).map(MapPatch::Replace);
        }
        let Some(Entries { set, gone }) = Entries::named(path, given, mask, M::same_key) else {
            return Ok(MapPatch::Keep);
        };
        let set = M::parse(field, set)?.as_map().clone();
        Ok(MapPatch::Entries(Entries { set, gone }))
    }
}

impl<M> Patch for MapPatch<M> {
    fn is_empty(&self) -> bool {
        matches!(self, MapPatch::Keep)
    }
}

impl<M: TextMap> FieldPatch<M> for MapPatch<M> {
    fn apply(&self, path: &str, map: &mut M, violations: &mut Violations) {
        match self {
            MapPatch::Keep => {}
            MapPatch::Replace(new) => map.clone_from(new),
            MapPatch::Entries(entries) => {
                let mut changed = map.as_map().clone();
                changed.retain(|key, _| !entries.touches(key, M::same_key));
                changed.extend(entries.set.clone());
                if let Some(changed) = violations.check_all(M::parse(path, changed)) {
                    *map = changed;
                }
            }
        }
    }
}

impl<M> From<M> for MapPatch<M> {
    fn from(map: M) -> Self {
        MapPatch::Replace(map)
    }
}

// === impl Entries ===

impl<V> Entries<V> {
    /// The entries that a mask names below a path, if it names any.
    pub fn named(
        path: &str,
        mut given: BTreeMap<String, V>,
        mask: &Mask,
        same_key: fn(&str, &str) -> bool,
    ) -> Option<Self> {
        let mut gone = mask.keys_under(path);
        if gone.is_empty() {
            return None;
        }
        given.retain(|key, _| gone.iter().any(|named| same_key(named, key)));
        gone.retain(|named| !given.keys().any(|key| same_key(named, key)));
        Some(Entries { set: given, gone })
    }

    /// Returns true if the entry of a key is set or removed.
    pub fn touches(&self, key: &str, same_key: fn(&str, &str) -> bool) -> bool {
        self.set.keys().chain(&self.gone).any(|touched| same_key(touched, key))
    }
}

impl TextMap for Labels {
    fn parse(field: &str, map: BTreeMap<String, String>) -> Result<Self, Vec<Violation>> {
        Labels::parse(field, map)
    }

    fn as_map(&self) -> &BTreeMap<String, String> {
        Labels::as_map(self)
    }
}

impl TextMap for Headers {
    fn parse(field: &str, map: BTreeMap<String, String>) -> Result<Self, Vec<Violation>> {
        Headers::parse(field, map)
    }

    fn as_map(&self) -> &BTreeMap<String, String> {
        Headers::as_map(self)
    }

    fn same_key(one: &str, other: &str) -> bool {
        same_header(one, other)
    }
}

impl TextMap for AuthorizationParameters {
    fn parse(field: &str, map: BTreeMap<String, String>) -> Result<Self, Vec<Violation>> {
        AuthorizationParameters::parse(field, map)
    }

    fn as_map(&self) -> &BTreeMap<String, String> {
        AuthorizationParameters::as_map(self)
    }
}

impl TextMap for TokenParameters {
    fn parse(field: &str, map: BTreeMap<String, String>) -> Result<Self, Vec<Violation>> {
        TokenParameters::parse(field, map)
    }

    fn as_map(&self) -> &BTreeMap<String, String> {
        TokenParameters::as_map(self)
    }
}

impl TextMap for RefreshParameters {
    fn parse(field: &str, map: BTreeMap<String, String>) -> Result<Self, Vec<Violation>> {
        RefreshParameters::parse(field, map)
    }

    fn as_map(&self) -> &BTreeMap<String, String> {
        RefreshParameters::as_map(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn mask(paths: &[&str]) -> Mask {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        Mask::parse("update_mask", Some(&paths), &["name", "map", "map.*"], &[]).unwrap()
    }

    /// Applies a patch to `a: 1, b: 2`.
    fn changed<M: TextMap>(given: &[(&str, &str)], mask: &Mask) -> Result<BTreeMap<String, String>, Vec<Violation>> {
        let mut stored = M::parse("map", map(&[("a", "1"), ("b", "2")])).unwrap();
        let mut violations = Violations::default();
        MapPatch::parse("map", "map", map(given), mask)?.apply("map", &mut stored, &mut violations);
        violations.into_whole(stored.as_map().clone())
    }

    type Pairs = [(&'static str, &'static str)];

    #[test]
    fn a_named_entry_is_set_or_goes_and_the_others_stay() {
        let cases: [(&[&str], &Pairs, &Pairs); 7] = [
            (&["map.a"], &[("a", "3")], &[("a", "3"), ("b", "2")]),
            (&["map.a"], &[], &[("b", "2")]),
            (&["map.c"], &[("c", "3")], &[("a", "1"), ("b", "2"), ("c", "3")]),
            (&["map.c"], &[], &[("a", "1"), ("b", "2")]),
            (&["map.a", "map.b"], &[("b", "3"), ("c", "not named")], &[("b", "3")]),
            (&["map", "map.a"], &[("c", "3")], &[("c", "3")]),
            (&["name"], &[("a", "not named")], &[("a", "1"), ("b", "2")]),
        ];
        for (paths, given, expected) in cases {
            let mask = mask(paths);
            assert_eq!(changed::<Labels>(given, &mask), Ok(map(expected)), "{paths:?} {given:?}");
            assert_eq!(changed::<Headers>(given, &mask), Ok(map(expected)), "{paths:?} {given:?}");
            assert_eq!(changed::<AuthorizationParameters>(given, &mask), Ok(map(expected)), "{paths:?} {given:?}");
        }
        assert_eq!(changed::<Labels>(&[("c", "3")], &Mask::Populated), Ok(map(&[("c", "3")])));
        assert_eq!(changed::<Labels>(&[], &Mask::Populated), Ok(map(&[("a", "1"), ("b", "2")])));
        assert_eq!(changed::<Labels>(&[], &Mask::All), Ok(map(&[])));
    }

    #[test]
    fn names_of_headers_are_one_whatever_their_letter_case() {
        assert_eq!(changed::<Headers>(&[("A", "3")], &mask(&["map.a"])), Ok(map(&[("A", "3"), ("b", "2")])));
        assert_eq!(changed::<Headers>(&[], &mask(&["map.B"])), Ok(map(&[("a", "1")])));
        let twice = changed::<Headers>(&[("a", "3"), ("A", "4")], &mask(&["map.a"])).unwrap_err();
        assert!(twice[0].description.contains("is given twice"), "{twice:?}");
        assert_eq!(
            changed::<Labels>(&[("A", "3")], &mask(&["map.A"])),
            Ok(map(&[("A", "3"), ("a", "1"), ("b", "2")])),
            "labels count letter case"
        );
    }

    #[test]
    fn what_is_wrong_with_an_entry_or_with_the_whole_is_said() {
        assert!(changed::<Labels>(&[("a", "\u{1}")], &mask(&["map.a"])).is_err());
        assert!(changed::<Labels>(&[("b", "\u{1}")], &mask(&["map.a"])).is_ok(), "it is not named");
        let many: Vec<String> = (0..63).map(|number| format!("c{number}")).collect();
        let given: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "")).collect();
        let paths: Vec<String> = many.iter().map(|key| format!("map.{key}")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let violations = changed::<Labels>(&given, &mask(&paths)).unwrap_err();
        assert_eq!(violations[0].description, "must have at most 64 entries");
        assert!(changed::<Labels>(&given[1..], &mask(&paths[1..])).is_ok());
    }
}
