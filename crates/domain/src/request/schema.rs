//! Schemas of lists: the fields that filters may name, and the orders.

use super::order::OrderBy;
use crate::resource::Resource;

/// The filter fields and the orders of a list.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The resource, for the prefix of enum values.
    pub resource: Resource,
    /// The fields that filters may name.
    pub fields: &'static [Field],
    /// The orders that requests may ask for.
    pub orders: &'static [OrderBy],
}

/// A field that filters may name.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name in the contract.
    pub name: &'static str,
    /// The kind of its values.
    pub kind: FieldKind,
}

/// The kind of the values of a field. It decides which operators and values a filter may use with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A text; equality counts letter case.
    Text,
    /// A text whose equality does not count letter case: values come folded, see [`fold`](crate::value::text::fold).
    NameText,
    /// A UUID.
    Id,
    /// `true` or `false`.
    Bool,
    /// A whole number; has an order.
    Int,
    /// A point in time; has an order.
    Time,
    /// One of these names, without the prefix that the contract gives them.
    Enum(&'static [&'static str]),
    /// A map from text to text.
    Map,
}
