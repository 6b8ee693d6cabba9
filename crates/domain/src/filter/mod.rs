//! Filters of lists (AIP-160), parsed and checked against the fields of a resource.
//!
//! The grammar, where it differs from what one expects of other languages:
//! - `OR` binds tighter than `AND`: `a AND b OR c` is `a AND (b OR c)`. Terms in a row are joined as by `AND`, exactly: a
//!   row either matches or not.
//! - `AND`, `OR`, `NOT` are written in upper case; `-x` is `NOT x`.
//! - A word or quoted string alone matches where any text field contains it, without regard to letter case.
//! - `field = value` with `*` at the beginning or the end of the value matches the rest anywhere there; `\*` is a star.
//! - `field:value` on a text field means that it contains the value, without regard to letter case; on another field it
//!   means `=`. `field:*` means that the field has a value.
//! - `labels:env` means that there is a label `env`, `labels.env:prod` and `labels.env = prod` that its value is `prod`. A
//!   key with other characters than letters, digits, `_` and `-` stands in backquotes or quotes.
//! - Values of enums are written as in the contract, with or without the prefix. Times are RFC 3339 with offset.
//!
//! Functions and lists of values in parentheses are not part of it.

mod ast;
mod lexer;
mod parser;

use crate::error::Violation;
use crate::resource::Resource;

pub use ast::{Expr, Op, Pattern, Value};

/// The fields of a resource that filters may name.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The resource, for the prefix of enum values.
    pub resource: Resource,
    /// Its fields.
    pub fields: &'static [Field],
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
    /// A text whose equality does not count letter case: values come folded, see [`fold`](crate::text::fold).
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

/// Longest filter in characters.
pub const MAX_CHARS: usize = 2_000;
/// Words and comparisons in a filter.
pub const MAX_TERMS: usize = 100;
/// Parentheses within each other.
pub const MAX_DEPTH: usize = 32;

/// Parses a filter; a blank one is none. The violation names the position of the first fault, counted in characters from 1.
pub fn parse(text: &str, schema: &Schema) -> Result<Option<Expr>, Violation> {
    if text.chars().count() > MAX_CHARS {
        return Err(Violation::filter(format!("must be at most {MAX_CHARS} characters long")));
    }
    if let Some(before) = text.chars().position(|c| c == '\0') {
        return Err(Violation::filter(format!("at position {}: there is no text with the character NUL", before + 1)));
    }
    parser::Parser::new(text, schema).parse()
}

#[cfg(test)]
mod tests;
