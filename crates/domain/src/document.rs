//! The form of the documents that resources are stored as.

/// Returns true for a default value, for `serde(default, skip_serializing_if = "is_default")`: defaults are not written.
/// Most resources use few of their fields, and a list reads one document for each row.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
