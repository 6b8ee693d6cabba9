//! Texts of requests: filters and references.

use jackfield_domain::Resource;
use jackfield_domain::request::filter::{self, Expr, MAX_CHARS, MAX_DEPTH, MAX_TERMS, Value};
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::request::schema::{Field, FieldKind, Schema};
use jackfield_domain::value::id::parse_uuid;

use super::{Target, Way, way};

pub(super) const FILTER: Target = Target {
    name: "filter",
    check: check_filter,
    parse: |data| drop(text(data).map(|text| filter::parse(text, &SCHEMA))),
    // A term takes a few machine words, its text and the expression around it, and there are at most a hundred.
    memory: |length| 64 * 1024 + 16 * length as u64,
    max_len: 8 * 1024,
    words: &[
        " AND ",
        " OR ",
        "NOT ",
        "-",
        "(",
        ")",
        "=",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        ":",
        ".",
        "*",
        "\\*",
        "\\",
        "\"",
        "'",
        "`",
        "id",
        "name",
        "description",
        "enabled",
        "version",
        "create_time",
        "state",
        "labels",
        "labels.env",
        "labels.`a b`",
        "true",
        "false",
        "-1",
        "9223372036854775807",
        "2026-01-02T03:04:05Z",
        "\"2026-01-02T03:04:05.000001+01:00\"",
        "ACTIVE",
        "CONNECTION_STATE_ACTIVE",
        "01890a5d-ac96-774b-bcce-b302099a8057",
        "word",
        "\"two words\"",
        "é",
        "ß",
        " ",
        "\0",
        "\u{feff}",
        ",",
        "f(x)",
    ],
};

pub(super) const REFERENCE: Target = Target {
    name: "reference",
    check: check_reference,
    parse: |data| {
        drop(text(data).map(|text| FORMS.map(|forms| Ref::parse("reference", text, forms))));
    },
    // The input four times, including the name in two spellings, and a sentence about the error.
    memory: |length| 8 * 1024 + 32 * length as u64,
    max_len: 2 * 1024,
    words: &[
        "name:",
        "ext:",
        "NAME:",
        "01890a5d-ac96-774b-bcce-b302099a8057",
        "00000000-0000-0000-0000-000000000000",
        "urn:uuid:",
        "{",
        "}",
        "-",
        " ",
        "\t",
        "\n",
        "\0",
        "\u{7f}",
        "\u{202e}",
        "\u{200b}",
        "\u{a0}",
        "é",
        "e\u{301}",
        "ß",
        "İ",
        "ﬃ",
        "x",
    ],
};

const SCHEMA: Schema = Schema {
    resource: Resource::Connection,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "name", kind: FieldKind::NameText },
        Field { name: "description", kind: FieldKind::Text },
        Field { name: "enabled", kind: FieldKind::Bool },
        Field { name: "version", kind: FieldKind::Int },
        Field { name: "create_time", kind: FieldKind::Time },
        Field { name: "state", kind: FieldKind::Enum(&["ACTIVE", "PAUSED"]) },
        Field { name: "labels", kind: FieldKind::Map },
    ],
    orders: &[],
};

const FORMS: [ReferenceForms; 4] =
    [ReferenceForms::ID, ReferenceForms::ID_NAME, ReferenceForms::ID_EXTERNAL, ReferenceForms::ID_NAME_EXTERNAL];

/// The contract allows only UTF-8 text.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// Checks that a printed filter parses to the same, that the limits hold, and that a refusal is short.
fn check_filter(data: &[u8]) -> Way {
    let Some(text) = text(data) else { return way(&["no text"]) };
    let expr = match filter::parse(text, &SCHEMA) {
        Ok(Some(expr)) => expr,
        Ok(None) => {
            assert!(text.chars().all(char::is_whitespace), "{text:?} is taken for an empty filter");
            return way(&["blank"]);
        }
        Err(violation) => {
            assert_eq!(violation.field, "filter");
            assert!(!violation.description.is_empty() && violation.description.len() < 1_000, "{violation:?}");
            return way(&["refused", &violation.description]);
        }
    };
    assert!(text.chars().count() <= MAX_CHARS, "a filter of {} characters", text.chars().count());
    let Shape { terms, depth, kinds } = Shape::of(&expr);
    assert!(terms <= MAX_TERMS, "a filter of {terms} terms");
    let printed = expr.to_string();
    // The printed form has parentheses where the original relied on precedence, so it is longer.
    if printed.chars().count() <= MAX_CHARS && depth <= MAX_DEPTH {
        match filter::parse(&printed, &SCHEMA) {
            Ok(Some(again)) => assert_eq!(again, expr, "{text:?} is printed as {printed:?}"),
            other => panic!("{text:?} is printed as {printed:?}, which is {other:?}"),
        }
    }
    let size = |number: usize| "i".repeat(number.ilog2() as usize);
    way(&[&kinds, &size(terms), &size(depth)])
}

/// The structure of a filter.
struct Shape {
    terms: usize,
    depth: usize,
    kinds: String,
}

// === impl Shape ===

impl Shape {
    fn of(expr: &Expr) -> Self {
        let mut shape = Shape { terms: 0, depth: 0, kinds: String::new() };
        let mut kinds = std::collections::BTreeSet::new();
        shape.walk(expr, 1, &mut kinds);
        shape.kinds = kinds.into_iter().collect::<Vec<_>>().join(" ");
        shape
    }

    fn walk(&mut self, expr: &Expr, depth: usize, kinds: &mut std::collections::BTreeSet<String>) {
        self.depth = self.depth.max(depth);
        let kind = match expr {
            Expr::And(all) | Expr::Or(all) => {
                assert!(all.len() >= 2, "{expr:?}");
                all.iter().for_each(|inner| self.walk(inner, depth + 1, kinds));
                if matches!(expr, Expr::And(_)) { "and".to_owned() } else { "or".to_owned() }
            }
            Expr::Not(inner) => {
                self.walk(inner, depth + 1, kinds);
                "not".to_owned()
            }
            Expr::Word(_) => "word".to_owned(),
            Expr::Compare { field, op, value } => format!("{field}{op}{}", kind_of(value)),
            Expr::MapCompare { field, op, value, .. } => format!("{field}.{op}{}", kind_of(value)),
            Expr::Present { field, key } => format!("{field}:{}", key.is_some()),
        };
        self.terms += usize::from(!matches!(expr, Expr::And(_) | Expr::Or(_) | Expr::Not(_)));
        kinds.insert(kind);
    }
}

fn kind_of(value: &Value) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_ascii_alphabetic()).take(2).collect()
}

/// Checks that a printed reference parses to the same, that a disallowed form is refused, and that a UUID has only one
/// accepted spelling.
fn check_reference(data: &[u8]) -> Way {
    let Some(text) = text(data) else { return way(&["no text"]) };
    let mut outcomes = Vec::new();
    for forms in FORMS {
        match Ref::parse("reference", text, forms) {
            Ok(reference) => {
                let printed = reference.to_string();
                assert_eq!(Ref::parse("reference", &printed, forms).as_ref(), Ok(&reference), "{text:?} → {printed:?}");
                let (allowed, kind) = match &reference {
                    Ref::Id(id) => {
                        assert_eq!(parse_uuid(text.trim()), Some(*id), "{text:?}");
                        assert!(
                            text.trim().eq_ignore_ascii_case(&printed),
                            "{text:?} is a second spelling of {printed:?}"
                        );
                        (true, "id")
                    }
                    Ref::Name(name) => {
                        assert_eq!(reference.to_string(), format!("name:{name}"));
                        (matches!(forms, ReferenceForms::ID_NAME | ReferenceForms::ID_NAME_EXTERNAL), "name")
                    }
                    Ref::External(external) => {
                        assert!(!external.is_empty() && external.chars().count() <= 191, "{external:?}");
                        (matches!(forms, ReferenceForms::ID_EXTERNAL | ReferenceForms::ID_NAME_EXTERNAL), "external")
                    }
                };
                assert!(allowed, "{text:?} is read as {reference:?} where only {forms} is allowed");
                assert!(!printed.chars().any(char::is_control), "{printed:?}");
                outcomes.push(kind.to_owned());
            }
            Err(violation) => {
                assert_eq!(violation.field, "reference");
                outcomes.push(violation.description);
            }
        }
    }
    way(&outcomes.iter().map(String::as_str).collect::<Vec<_>>())
}
