//! The form of stored documents, which is how resources are kept.

/// Tells a default value, for `serde(default, skip_serializing_if = "is_default")`: defaults are not written. Most resources use
/// few of their fields, and a list reads one document for each row.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
