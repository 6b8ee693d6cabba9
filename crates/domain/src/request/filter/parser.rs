//! Recursive descent over the grammar of AIP-160, with the types of the fields.

use super::ast::{Expr, Op, Pattern, Value};
use super::lexer::{Lexer, Literal, Place, Position, Wild};
use crate::error::Violation;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::value::id::parse_uuid;
use crate::value::text::{fold, readable};
use crate::value::time::Timestamp;

type Parsed<T = Expr> = Result<T, Violation>;

/// Parses one filter.
struct Parser<'a> {
    lexer: Lexer,
    schema: &'a Schema,
    terms: usize,
    depth: usize,
}

/// The longest filter, in characters.
pub const MAX_CHARS: usize = 2_000;
/// The most words and comparisons in a filter.
pub const MAX_TERMS: usize = 100;
/// The deepest nesting of parentheses.
pub const MAX_DEPTH: usize = 32;

/// Parses a filter; a blank text is no filter. The violation names the position of the first fault, counted in characters
/// from 1.
pub fn parse(text: &str, schema: &Schema) -> Result<Option<Expr>, Violation> {
    if text.chars().count() > MAX_CHARS {
        return Err(Violation::filter(format!("must be at most {MAX_CHARS} characters long")));
    }
    if let Some(before) = text.chars().position(|c| c == '\0') {
        return Err(Violation::filter(format!("at position {}: no text can contain the character NUL", before + 1)));
    }
    Parser::new(text, schema).parse()
}

impl<'a> Parser<'a> {
    fn new(text: &str, schema: &'a Schema) -> Self {
        Parser { lexer: Lexer::new(text), schema, terms: 0, depth: 0 }
    }

    /// filter: \[expression\]
    fn parse(mut self) -> Parsed<Option<Expr>> {
        self.lexer.blanks();
        if self.lexer.peek().is_none() {
            return Ok(None);
        }
        let expr = self.expression()?;
        match self.lexer.peek() {
            None => Ok(Some(expr)),
            Some(')') => Err(self.fault("this \")\" closes nothing")),
            Some(c) => Err(self.fault(format!("unexpected {}", show(c)))),
        }
    }

    /// expression: sequence {AND sequence}, where sequence: factor {factor}. Both mean that all must hold.
    fn expression(&mut self) -> Parsed {
        let mut all = vec![self.factor()?];
        loop {
            self.lexer.blanks();
            match self.lexer.peek() {
                None | Some(')') => break,
                Some(_) => {
                    if self.lexer.keyword("AND") {
                        self.lexer.blanks();
                    }
                    all.push(self.factor()?);
                }
            }
        }
        Ok(one_or(all, Expr::And))
    }

    /// factor: term {OR term}
    fn factor(&mut self) -> Parsed {
        let mut any = vec![self.term()?];
        loop {
            self.lexer.blanks();
            if !self.lexer.keyword("OR") {
                return Ok(one_or(any, Expr::Or));
            }
            self.lexer.blanks();
            any.push(self.term()?);
        }
    }

    /// term: \[NOT | -\] simple
    fn term(&mut self) -> Parsed {
        let negated = if self.lexer.keyword("NOT") {
            self.lexer.blanks();
            true
        } else {
            self.lexer.eat('-')
        };
        let simple = self.simple()?;
        Ok(if negated { Expr::Not(Box::new(simple)) } else { simple })
    }

    /// simple: ( expression ) | restriction
    fn simple(&mut self) -> Parsed {
        if !self.lexer.eat('(') {
            return self.restriction();
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fault(format!("parentheses nest deeper than {MAX_DEPTH}")));
        }
        self.lexer.blanks();
        let expr = self.expression()?;
        if !self.lexer.eat(')') {
            return Err(self.fault("expected \")\""));
        }
        self.depth -= 1;
        Ok(expr)
    }

    /// restriction: member \[comparator value\], where member: value {. field}
    fn restriction(&mut self) -> Parsed {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(self.fault(format!("there are more than {MAX_TERMS} words and comparisons")));
        }
        let position = self.lexer.position();
        let path = self.member()?;
        if self.lexer.peek() == Some('(') && !path[0].quoted {
            return Err(position.violation("functions are not supported"));
        }
        self.lexer.blanks();
        let Some(op) = self.lexer.operator() else {
            return word(position, &path);
        };
        self.lexer.blanks();
        let field = self.field(&path[0])?;
        if self.lexer.peek() == Some('(') {
            return Err(self.fault("lists of values are not supported; write a comparison for each"));
        }
        let at_value = self.lexer.position();
        let Some(value) = self.lexer.literal(Place::Value)? else {
            return Err(at_value.violation(format!("expected a value after \"{op}\"")));
        };
        if !value.quoted && matches!(&*value.text(), "AND" | "OR" | "NOT") {
            return Err(at_value.violation(format!("expected a value after \"{op}\"; put a keyword in quotes")));
        }
        match (&path[1..], field.kind) {
            ([], FieldKind::Map) => has_key(field, op, &value),
            ([], _) => self.compare(field, op, &value),
            ([key], FieldKind::Map) => compare_key(field, key, op, &value),
            ([_, more, ..], FieldKind::Map) => Err(more.position.violation("put a key with dots in backquotes")),
            ([member, ..], _) => Err(member.position.violation(format!("{} has no members", field.name))),
        }
    }

    /// The parts of a member; at least one.
    fn member(&mut self) -> Parsed<Vec<Literal>> {
        let mut path = Vec::new();
        loop {
            let position = self.lexer.position();
            let minus = path.is_empty() && self.lexer.peek() == Some('-');
            match self.lexer.literal(Place::Name)? {
                Some(part) if !minus => path.push(part),
                Some(_) => return Err(position.violation("expected a word or a field, found \"-\"")),
                None => return Err(position.violation(format!("expected {}", self.expected(path.is_empty())))),
            }
            if !self.lexer.eat('.') {
                break;
            }
        }
        let first = &path[0];
        if path.len() == 1 && !first.quoted && matches!(&*first.text(), "AND" | "OR" | "NOT") {
            let text = format!("expected a word or a field; put {} in quotes if it is a word", first.text());
            return Err(first.position.violation(text));
        }
        Ok(path)
    }

    fn expected(&self, at_start: bool) -> String {
        let what = if at_start { "a word or a field" } else { "a name after \".\"" };
        match self.lexer.peek() {
            Some(c) => format!("{what}, found {}", show(c)),
            None => format!("{what}, found the end"),
        }
    }

    /// The field of a comparison.
    fn field(&self, name: &Literal) -> Parsed<&'a Field> {
        let text = name.text();
        if let Some(field) = self.schema.fields.iter().find(|field| field.name == text) {
            return Ok(field);
        }
        let names: Vec<_> = self.schema.fields.iter().map(|field| field.name).collect();
        let (text, names) = (readable(&text), names.join(", "));
        Err(name.position.violation(format!("unknown field \"{text}\"; there are {names}")))
    }

    /// A comparison of a field that is not a map.
    fn compare(&self, field: &Field, op: Op, literal: &Literal) -> Parsed {
        let ordered = matches!(field.kind, FieldKind::Int | FieldKind::Time);
        if matches!(op, Op::Lt | Op::Le | Op::Gt | Op::Ge) && !ordered {
            return Err(literal.position.violation(format!("{} has no order; use =, != or :", field.name)));
        }
        let present = Expr::Present { field: field.name, key: None };
        if let Ok(Wild::Any) = literal.wild() {
            return any(present, op, literal.position);
        }
        let text = literal.text();
        let is_text = matches!(field.kind, FieldKind::Text | FieldKind::NameText);
        if is_text && op == Op::Has && text.is_empty() {
            // Every text contains the empty one.
            return Ok(present);
        }
        let expected = |what: &str| literal.position.violation(format!("expected {what} for {}", field.name));
        let value = match field.kind {
            FieldKind::Text | FieldKind::NameText => {
                return Ok(Expr::Compare { field: field.name, op, value: text_value(field.kind, op, literal)? });
            }
            FieldKind::Map => return Err(expected("a key")),
            FieldKind::Bool => Value::Bool(text.parse().map_err(|_| expected("true or false"))?),
            FieldKind::Int => Value::Int(text.parse().map_err(|_| expected("a whole number"))?),
            FieldKind::Id => Value::Id(parse_uuid(&text).ok_or_else(|| expected("a UUID"))?),
            FieldKind::Time => {
                let time = Timestamp::parse_rfc3339(&text);
                Value::Time(time.ok_or_else(|| expected("a time such as 2026-01-31T12:00:00Z"))?)
            }
            FieldKind::Enum(names) => {
                let prefix = format!("{}_{}_", self.schema.resource, field.name).to_uppercase();
                let short = text.strip_prefix(&prefix).unwrap_or(&text);
                let name = names.iter().find(|name| **name == short);
                Value::Enum(name.ok_or_else(|| expected(&format!("one of {}", names.join(", "))))?)
            }
        };
        Ok(Expr::Compare { field: field.name, op: if op == Op::Has { Op::Eq } else { op }, value })
    }

    fn fault(&self, description: impl std::fmt::Display) -> Violation {
        self.lexer.position().violation(description)
    }
}

/// A bare word: whatever was written, dots included.
fn word(position: Position, path: &[Literal]) -> Parsed {
    let text = match path {
        [only] => only.word(),
        parts if parts.iter().any(|part| part.quoted) => {
            return Err(position.violation("expected a comparison such as = after a field with a quoted key"));
        }
        parts => parts.iter().map(Literal::text).collect::<Vec<_>>().join(".").trim_matches('*').to_owned(),
    };
    if text.trim().is_empty() {
        return Err(position.violation("a word must contain something other than blanks and *"));
    }
    Ok(Expr::Word(fold(&text)))
}

/// `labels:env`: there is such a key.
fn has_key(field: &Field, op: Op, key: &Literal) -> Parsed {
    if op != Op::Has {
        let name = field.name;
        return Err(key.position.violation(format!("{name} is a map; write {name}:key or {name}.key {op} value")));
    }
    let key = match key.wild()? {
        Wild::Any => None,
        Wild::Pattern(Pattern::Exact(text)) => Some(text),
        Wild::Pattern(_) => return Err(key.position.violation("a key has no wildcards")),
    };
    Ok(Expr::Present { field: field.name, key })
}

/// `labels.env = prod`: the value of a key.
fn compare_key(field: &Field, key: &Literal, op: Op, value: &Literal) -> Parsed {
    if matches!(op, Op::Lt | Op::Le | Op::Gt | Op::Ge) {
        return Err(value.position.violation(format!("the values of {} have no order; use =, != or :", field.name)));
    }
    let key = key.text();
    match value.wild()? {
        Wild::Any => any(Expr::Present { field: field.name, key: Some(key) }, op, value.position),
        Wild::Pattern(pattern) => {
            let op = if op == Op::Has { Op::Eq } else { op };
            Ok(Expr::MapCompare { field: field.name, key, op, value: Value::Text(pattern) })
        }
    }
}

/// A comparison with `*`.
fn any(present: Expr, op: Op, position: Position) -> Parsed {
    match op {
        Op::Eq | Op::Has => Ok(present),
        Op::Ne => Ok(Expr::Not(Box::new(present))),
        Op::Lt | Op::Le | Op::Gt | Op::Ge => Err(position.violation(format!("* has no order; use : instead of {op}"))),
    }
}

/// A text with wildcards, folded where letter case does not count.
fn text_value(kind: FieldKind, op: Op, literal: &Literal) -> Parsed<Value> {
    let Wild::Pattern(pattern) = literal.wild()? else {
        return Err(literal.position.violation("expected a text"));
    };
    let folds = kind == FieldKind::NameText || op == Op::Has;
    let folded = |text: String| if folds { fold(&text) } else { text };
    Ok(Value::Text(match pattern {
        Pattern::Exact(text) if op == Op::Has => Pattern::Contains(fold(&text)),
        Pattern::Exact(text) => Pattern::Exact(folded(text)),
        Pattern::Prefix(text) => Pattern::Prefix(folded(text)),
        Pattern::Suffix(text) => Pattern::Suffix(folded(text)),
        Pattern::Contains(text) => Pattern::Contains(folded(text)),
    }))
}

fn one_or(mut parts: Vec<Expr>, many: impl FnOnce(Vec<Expr>) -> Expr) -> Expr {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}

fn show(c: char) -> String {
    format!("\"{}\"", readable(&c.to_string()))
}
