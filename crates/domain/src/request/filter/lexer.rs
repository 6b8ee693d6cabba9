//! Splits a filter into pieces. The characters of a piece depend on its place: a colon ends a field name but is part of a value
//! such as a time.

use super::ast::{Op, Pattern};
use crate::error::Violation;

/// Reads a filter from left to right.
pub(super) struct Lexer {
    chars: Vec<char>,
    next: usize,
}

/// A word or quoted string.
#[derive(Clone, Debug)]
pub(super) struct Literal {
    /// The position at which it begins.
    pub(super) position: Position,
    /// True if it was in quotes or backquotes; then it is not a keyword.
    pub(super) quoted: bool,
    /// Its characters; `true` for those that were escaped and so are no wildcards.
    chars: Vec<(char, bool)>,
}

/// A place in a filter, counted in characters from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position(usize);

/// The characters that end an unquoted piece besides blanks, parentheses, commas and operators.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a field name or word: dots and colons.
    Name,
    /// In a value: nothing more.
    Value,
}

/// A text read with its wildcards.
pub(super) enum Wild {
    /// Nothing but `*`.
    Any,
    Pattern(Pattern),
}

// === impl Lexer ===

impl Lexer {
    pub(super) fn new(text: &str) -> Self {
        Lexer { chars: text.chars().collect(), next: 0 }
    }

    pub(super) fn position(&self) -> Position {
        Position(self.next + 1)
    }

    /// The next character.
    pub(super) fn peek(&self) -> Option<char> {
        self.chars.get(self.next).copied()
    }

    /// Skips blanks. Returns true if there were any.
    pub(super) fn blanks(&mut self) -> bool {
        let before = self.next;
        while self.peek().is_some_and(char::is_whitespace) {
            self.next += 1;
        }
        self.next > before
    }

    /// Takes a character if it is next.
    pub(super) fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.next += usize::from(found);
        found
    }

    /// Takes a keyword if it is the next word.
    pub(super) fn keyword(&mut self, word: &str) -> bool {
        let before = self.next;
        let found = self.unquoted(Place::Name).is_some_and(|literal| literal.text() == word)
            && !matches!(self.peek(), Some('.' | ':' | '<' | '>' | '=' | '!'));
        if !found {
            self.next = before;
        }
        found
    }

    /// Takes a comparison if it is next.
    pub(super) fn operator(&mut self) -> Option<Op> {
        let (op, length) = match (self.peek()?, self.chars.get(self.next + 1)) {
            ('=', _) => (Op::Eq, 1),
            (':', _) => (Op::Has, 1),
            ('!', Some('=')) => (Op::Ne, 2),
            ('<', Some('=')) => (Op::Le, 2),
            ('>', Some('=')) => (Op::Ge, 2),
            ('<', _) => (Op::Lt, 1),
            ('>', _) => (Op::Gt, 1),
            _ => return None,
        };
        self.next += length;
        Some(op)
    }

    /// Takes a word or quoted string; `None` when there is none here.
    pub(super) fn literal(&mut self, place: Place) -> Result<Option<Literal>, Violation> {
        match self.peek() {
            Some(quote @ ('"' | '\'' | '`')) => self.quoted(quote).map(Some),
            _ => Ok(self.unquoted(place)),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Literal, Violation> {
        let position = self.position();
        self.next += 1;
        let mut chars = Vec::new();
        while let Some(c) = self.peek() {
            self.next += 1;
            if c == quote {
                return Ok(Literal { position, quoted: true, chars });
            }
            match (c, self.peek()) {
                ('\\', Some(escaped)) if quote != '`' => {
                    self.next += 1;
                    chars.push((escaped, true));
                }
                _ => chars.push((c, quote == '`')),
            }
        }
        Err(position.violation(format!("the quote {quote} is not closed")))
    }

    fn unquoted(&mut self, place: Place) -> Option<Literal> {
        let position = self.position();
        let start = self.next;
        while let Some(c) = self.peek() {
            let ends = match c {
                '(' | ')' | ',' | '<' | '>' | '=' | '"' | '`' => true,
                '!' => self.chars.get(self.next + 1) == Some(&'='),
                '.' | ':' => place == Place::Name,
                c => c.is_whitespace(),
            };
            if ends {
                break;
            }
            self.next += 1;
        }
        let chars = &self.chars[start..self.next];
        (!chars.is_empty()).then(|| Literal {
            position,
            quoted: false,
            chars: chars.iter().map(|c| (*c, false)).collect(),
        })
    }
}

// === impl Literal ===

impl Literal {
    /// All of its characters, wildcards included.
    pub(super) fn text(&self) -> String {
        self.chars.iter().map(|(c, _)| *c).collect()
    }

    /// The text of a bare word: wildcards at its ends add nothing to "contains".
    pub(super) fn word(&self) -> String {
        self.split_wild().1
    }

    /// Reads the text with wildcards at its ends.
    pub(super) fn wild(&self) -> Result<Wild, Violation> {
        let (before, text, after) = self.split_wild();
        if self.inner_star() {
            return Err(self.position.violation("a * counts only at the beginning and the end; write \\* in quotes"));
        }
        Ok(match (before, after) {
            (true, _) | (_, true) if text.is_empty() => Wild::Any,
            (false, false) => Wild::Pattern(Pattern::Exact(text)),
            (false, true) => Wild::Pattern(Pattern::Prefix(text)),
            (true, false) => Wild::Pattern(Pattern::Suffix(text)),
            (true, true) => Wild::Pattern(Pattern::Contains(text)),
        })
    }

    /// Returns whether there are wildcards before and after the text, and the text between them.
    fn split_wild(&self) -> (bool, String, bool) {
        const STAR: (char, bool) = ('*', false);
        let before = self.chars.iter().take_while(|c| **c == STAR).count();
        let after = self.chars[before..].iter().rev().take_while(|c| **c == STAR).count();
        let inner = &self.chars[before..self.chars.len() - after];
        (before > 0, inner.iter().map(|(c, _)| *c).collect(), after > 0)
    }

    fn inner_star(&self) -> bool {
        let trimmed = |c: &&(char, bool)| **c == ('*', false);
        let stars = self.chars.iter().filter(trimmed).count();
        let before = self.chars.iter().take_while(trimmed).count();
        let after = self.chars[before..].iter().rev().take_while(trimmed).count();
        stars > before + after
    }
}

// === impl Position ===

impl Position {
    /// A violation at this place.
    pub(super) fn violation(self, description: impl std::fmt::Display) -> Violation {
        Violation::filter(format!("at position {}: {description}", self.0))
    }
}
