//! Schemas of lists: the fields that filters may name, and the orders.

use super::order::OrderBy;
use crate::resource::Resource;

/// What the list of a resource can be filtered and ordered by.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The resource, for the prefix of enum values.
    pub resource: Resource,
    /// The fields that filters may name.
    pub fields: &'static [Field],
    /// The orders that there are.
    pub orders: &'static [OrderBy],
}

/// A field that filters may name.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name in the contract.
    pub name: &'static str,
    /// What it holds.
    pub kind: FieldKind,
}

/// What a field holds, and so which operators and values it takes.
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
