//! Lists in responses, read within limits: a list takes many times the memory of its text, so its limit counts while it is read.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// A list of which one item more than `MAX` is kept at most, so that it can be distinguished from one that is not too long. The rest is skipped.
pub(crate) struct BoundedList<T, const MAX: usize>(pub(crate) Vec<T>);

struct Items<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for BoundedList<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Items::<T, MAX>(PhantomData)).map(BoundedList)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() <= MAX {
            let Some(item) = items.next_element()? else { return Ok(kept) };
            kept.push(item);
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_item_too_many_is_kept() {
        for (text, expected) in
            [("[]", 0), ("[1]", 1), ("[1, 2]", 2), ("[1, 2, 3]", 3), ("[1, 2, 3, 4, \"x\", [5]]", 3)]
        {
            let BoundedList(list) = serde_json::from_str::<BoundedList<u8, 2>>(text).unwrap();
            assert_eq!(list.len(), expected, "{text}");
        }
        for text in ["{}", "[1", "[1, 2, 3, 4", "[\"x\"]"] {
            assert!(serde_json::from_str::<BoundedList<u8, 2>>(text).is_err(), "{text}");
        }
    }
}
