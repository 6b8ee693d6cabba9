//! Filters of lists (AIP-160), parsed and checked against the fields of a resource.
//!
//! The grammar, where it differs from that of other languages:
//! - `OR` binds tighter than `AND`: `a AND b OR c` is `a AND (b OR c)`. Terms in a row are joined as by `AND`, exactly: a
//!   row either matches or not.
//! - `AND`, `OR`, `NOT` are written in upper case; `-x` is `NOT x`.
//! - A word or quoted string alone matches where any text field contains it, without regard to letter case.
//! - `field = value` with `*` at the beginning or the end of the value matches the rest anywhere there; `\*` is a star.
//! - `field:value` on a text field means that it contains the value, without regard to letter case; on another field it
//!   means `=`. `field:*` means that the field has a value.
//! - `labels:env` means that there is a label `env`, `labels.env:prod` and `labels.env = prod` that its value is `prod`. A
//!   key with characters other than letters, digits, `_` and `-` is in backquotes or quotes.
//! - Values of enums are written as in the contract, with or without the prefix. Times are RFC 3339 with offset.
//!
//! Functions and lists of values in parentheses are not supported.

mod ast;
mod lexer;
mod parser;

pub use ast::{Expr, Op, Pattern, Value};
pub use parser::{MAX_CHARS, MAX_DEPTH, MAX_TERMS, parse};

#[cfg(test)]
mod tests;
