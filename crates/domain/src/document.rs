//! How resources are written as documents, which is how they are stored.

/// For `serde(default, skip_serializing_if = "is_default")`: what says nothing is not written. Most resources have few of the
/// fields that they may have, and a list reads as many documents as it has rows.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
