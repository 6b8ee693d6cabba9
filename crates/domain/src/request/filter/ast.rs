//! The syntax tree of a filter, with fields and values of known types.

use uuid::Uuid;

use crate::value::time::Timestamp;

/// A checked filter. Its `Display` is a filter again, which parses to the same tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// All of these, at least two, match.
    And(Vec<Expr>),
    /// Any of these, at least two, matches.
    Or(Vec<Expr>),
    /// This does not match.
    Not(Box<Expr>),
    /// Any text field contains this text, which is folded.
    Word(String),
    /// A field compares to a value. A field without a value is not equal to any: only `!=` holds.
    Compare { field: &'static str, op: Op, value: Value },
    /// The value of a key of a map compares to a value; where the key is missing, only `!=` holds.
    MapCompare { field: &'static str, key: String, op: Op, value: Value },
    /// A field has a value; a map has an entry, or has this key.
    Present { field: &'static str, key: Option<String> },
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Contains, without regard to letter case: text fields only, the value is folded.
    Has,
}

/// A value of the type of its field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(Pattern),
    Bool(bool),
    Int(i64),
    Time(Timestamp),
    Id(Uuid),
    Enum(&'static str),
}

/// A pattern for texts. Its own texts have no wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// The text is this.
    Exact(String),
    /// The text begins with this.
    Prefix(String),
    /// The text ends with this.
    Suffix(String),
    /// The text contains this.
    Contains(String),
}

// === impl Expr ===

impl std::fmt::Display for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expr::And(all) => join(f, all, " AND "),
            Expr::Or(any) => join(f, any, " OR "),
            Expr::Not(inner) => write!(f, "NOT {}", Operand(inner)),
            Expr::Word(word) => quote(f, word),
            Expr::Compare { field, op, value } => write!(f, "{field} {op} {value}"),
            Expr::MapCompare { field, key, op, value } => {
                write!(f, "{field}.")?;
                quote(f, key)?;
                write!(f, " {op} {value}")
            }
            Expr::Present { field, key: None } => write!(f, "{field}:*"),
            Expr::Present { field, key: Some(key) } => {
                write!(f, "{field}.")?;
                quote(f, key)?;
                f.write_str(":*")
            }
        }
    }
}

/// An expression inside another, in parentheses where it needs them.
struct Operand<'a>(&'a Expr);

impl std::fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Expr::And(_) | Expr::Or(_) | Expr::Not(_) => write!(f, "({})", self.0),
            Expr::Word(_) | Expr::Compare { .. } | Expr::MapCompare { .. } | Expr::Present { .. } => self.0.fmt(f),
        }
    }
}

fn join(f: &mut std::fmt::Formatter<'_>, parts: &[Expr], separator: &str) -> std::fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        write!(f, "{}", Operand(part))?;
    }
    Ok(())
}

/// Writes a quoted string in which nothing is a wildcard.
fn quote(f: &mut std::fmt::Formatter<'_>, text: &str) -> std::fmt::Result {
    f.write_str("\"")?;
    escape(f, text)?;
    f.write_str("\"")
}

fn escape(f: &mut std::fmt::Formatter<'_>, text: &str) -> std::fmt::Result {
    use std::fmt::Write as _;
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '*') {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    Ok(())
}

// === impl Op ===

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Op::Eq => "=",
            Op::Ne => "!=",
            Op::Lt => "<",
            Op::Le => "<=",
            Op::Gt => ">",
            Op::Ge => ">=",
            Op::Has => ":",
        })
    }
}

// === impl Value ===

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Text(pattern) => pattern.fmt(f),
            Value::Bool(value) => value.fmt(f),
            Value::Int(value) => value.fmt(f),
            Value::Time(value) => write!(f, "\"{value}\""),
            Value::Id(value) => value.fmt(f),
            Value::Enum(value) => f.write_str(value),
        }
    }
}

// === impl Pattern ===

impl Pattern {
    /// The text of the pattern.
    pub fn text(&self) -> &str {
        match self {
            Pattern::Exact(text) | Pattern::Prefix(text) | Pattern::Suffix(text) | Pattern::Contains(text) => text,
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (before, after) = match self {
            Pattern::Exact(_) => ("\"", "\""),
            Pattern::Prefix(_) => ("\"", "*\""),
            Pattern::Suffix(_) => ("\"*", "\""),
            Pattern::Contains(_) => ("\"*", "*\""),
        };
        f.write_str(before)?;
        escape(f, self.text())?;
        f.write_str(after)
    }
}
