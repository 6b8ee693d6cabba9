use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::resource::Resource;
use crate::value::time::Timestamp;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

const SCHEMA: Schema = Schema {
    resource: Resource::Connection,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "name", kind: FieldKind::NameText },
        Field { name: "client_id", kind: FieldKind::Text },
        Field { name: "type", kind: FieldKind::Enum(&["OAUTH2", "SAML2", "OPENID_LEGACY"]) },
        Field { name: "active", kind: FieldKind::Bool },
        Field { name: "count", kind: FieldKind::Int },
        Field { name: "create_time", kind: FieldKind::Time },
        Field { name: "tags", kind: FieldKind::Map },
    ],
    orders: &[],
};

fn parsed(text: &str) -> Expr {
    parse(text, &SCHEMA).unwrap_or_else(|violation| panic!("{text}: {}", violation.description)).expect(text)
}

fn fault(text: &str) -> String {
    parse(text, &SCHEMA).expect_err(text).description
}

fn word(text: &str) -> Expr {
    Expr::Word(text.to_owned())
}

fn compare(field: &'static str, op: Op, value: Value) -> Expr {
    Expr::Compare { field, op, value }
}

fn exact(text: &str) -> Value {
    Value::Text(Pattern::Exact(text.to_owned()))
}

fn tag(key: &str, op: Op, pattern: Pattern) -> Expr {
    Expr::MapCompare { field: "tags", key: key.to_owned(), op, value: Value::Text(pattern) }
}

#[test]
fn a_blank_text_is_no_filter() {
    for blank in ["", " ", " \t\n\u{a0}"] {
        assert_eq!(parse(blank, &SCHEMA), Ok(None));
    }
}

/// Checks that each pair means the same. The left sides are the examples of AIP-160 and cases that follow from its
/// grammar.
#[test]
fn precedence_is_that_of_aip_160() {
    for (text, same) in [
        ("a AND b OR c", "a AND (b OR c)"),
        ("a OR b AND c", "(a OR b) AND c"),
        ("New York Giants OR Yankees", "New York (Giants OR Yankees)"),
        ("New York Giants OR Yankees", "New AND York AND (Giants OR Yankees)"),
        ("a b AND c AND d", "(a b) AND c AND d"),
        ("a b AND c d", "a AND b AND c AND d"),
        ("a < 10 OR a >= 100", "count < 10 OR count >= 100"),
        ("NOT (a OR b)", "-(a OR b)"),
        ("NOT a b", "(NOT a) b"),
        ("-a OR b", "(NOT a) OR b"),
        ("a -b", "a AND NOT b"),
        ("NOT a OR NOT b AND c", "((NOT a) OR (NOT b)) AND c"),
        ("(a OR b) c", "(a OR b) AND c"),
        ("((a))", "a"),
        ("a OR b OR c", "a OR b OR c"),
        ("a\tAND\n b", "a AND b"),
        ("-count:42", "NOT count = 42"),
        ("-\"a b\"", "NOT \"a b\""),
        ("(a)OR(b)", "a OR b"),
        ("NOT(a)", "NOT a"),
    ] {
        let text = text.replace("a < 10", "count < 10").replace("a >= 100", "count >= 100");
        assert_eq!(flat(parsed(&text)), flat(parsed(same)), "{text}");
    }
    assert_eq!(parsed("a AND b OR c"), Expr::And(vec![word("a"), Expr::Or(vec![word("b"), word("c")])]));
    assert_eq!(parsed("a b c"), Expr::And(vec![word("a"), word("b"), word("c")]));
}

/// Merges an AND inside an AND: parentheses separate them in the tree, but the meaning is the same.
fn flat(expr: Expr) -> Expr {
    match expr {
        Expr::And(all) => Expr::And(
            all.into_iter()
                .flat_map(|part| match flat(part) {
                    Expr::And(inner) => inner,
                    other => vec![other],
                })
                .collect(),
        ),
        Expr::Or(any) => Expr::Or(any.into_iter().map(flat).collect()),
        Expr::Not(inner) => Expr::Not(Box::new(flat(*inner))),
        leaf => leaf,
    }
}

#[test]
fn keywords_are_upper_case_and_words_are_folded() {
    assert_eq!(parsed("a and b"), Expr::And(vec![word("a"), word("and"), word("b")]));
    assert_eq!(parsed("not"), word("not"));
    assert_eq!(parsed("\"AND\""), word("and"));
    assert_eq!(parsed("Gmail"), word("gmail"));
    assert_eq!(parsed("\"New York\""), word("new york"));
    assert_eq!(parsed("'it''s'"), Expr::And(vec![word("it"), word("s")]));
    assert_eq!(parsed("STRASSE"), parsed("straße"));
    for (text, same) in [
        ("example.com", "example.com"),
        ("a-b", "a-b"),
        ("O'Brien", "o'brien"),
        ("what?", "what?"),
        ("hi!", "hi!"),
        ("42", "42"),
        ("1.5", "1.5"),
        ("*foo*", "foo"),
        ("\"a\\\"b\"", "a\"b"),
        ("a/b@c", "a/b@c"),
        ("\"\\*\"", "*"),
        ("enabled", "enabled"),
    ] {
        assert_eq!(parsed(text), word(same), "{text}");
    }
}

#[test]
fn comparisons_take_the_type_of_the_field() {
    let time = |text: &str| Value::Time(Timestamp::parse_rfc3339(text).unwrap());
    for (text, field, op, value) in [
        ("name = Gmail", "name", Op::Eq, exact("gmail")),
        ("name=\"Gmail\"", "name", Op::Eq, exact("gmail")),
        ("client_id = Gmail", "client_id", Op::Eq, exact("Gmail")),
        ("client_id != 42", "client_id", Op::Ne, exact("42")),
        ("client_id = \"\"", "client_id", Op::Eq, exact("")),
        ("client_id = a:b.c/d-e", "client_id", Op::Eq, exact("a:b.c/d-e")),
        ("client_id:Mail", "client_id", Op::Has, Value::Text(Pattern::Contains("mail".into()))),
        ("client_id:Mail*", "client_id", Op::Has, Value::Text(Pattern::Prefix("mail".into()))),
        ("active = true", "active", Op::Eq, Value::Bool(true)),
        ("active:false", "active", Op::Eq, Value::Bool(false)),
        ("count > -5", "count", Op::Gt, Value::Int(-5)),
        ("count<=\"7\"", "count", Op::Le, Value::Int(7)),
        ("create_time >= 2026-01-31T12:00:00+01:00", "create_time", Op::Ge, time("2026-01-31T11:00:00Z")),
        ("create_time < \"2026-01-31T12:00:00.5Z\"", "create_time", Op::Lt, time("2026-01-31T12:00:00.5Z")),
        ("type = SAML2", "type", Op::Eq, Value::Enum("SAML2")),
        ("type != CONNECTION_TYPE_OPENID_LEGACY", "type", Op::Ne, Value::Enum("OPENID_LEGACY")),
    ] {
        assert_eq!(parsed(text), compare(field, op, value), "{text}");
    }
    assert_eq!(parsed(&format!("id = {ID}")), compare("id", Op::Eq, Value::Id(ID.parse::<Uuid>().unwrap())));
}

#[test]
fn stars_are_wildcards_at_the_ends() {
    for (text, pattern) in [
        ("client_id = Foo*", Pattern::Prefix("Foo".into())),
        ("client_id = *Foo", Pattern::Suffix("Foo".into())),
        ("client_id = \"*Foo Bar*\"", Pattern::Contains("Foo Bar".into())),
        ("client_id = \"\\*Foo\\*\"", Pattern::Exact("*Foo*".into())),
        ("client_id = \"a\\*b\"", Pattern::Exact("a*b".into())),
        ("client_id = \"a\\\\*\"", Pattern::Prefix("a\\".into())),
        ("client_id = **a**", Pattern::Contains("a".into())),
    ] {
        assert_eq!(parsed(text), compare("client_id", Op::Eq, Value::Text(pattern)), "{text}");
    }
    assert_eq!(parsed("name = Foo*"), compare("name", Op::Eq, Value::Text(Pattern::Prefix("foo".into()))));
    assert_eq!(parsed("client_id != a*"), compare("client_id", Op::Ne, Value::Text(Pattern::Prefix("a".into()))));
    let present = |field| Expr::Present { field, key: None };
    for (text, expr) in [
        ("client_id:*", present("client_id")),
        ("client_id = *", present("client_id")),
        ("client_id:\"\"", present("client_id")),
        ("name:\"\"", present("name")),
        ("create_time:*", present("create_time")),
        ("client_id != \"*\"", Expr::Not(Box::new(present("client_id")))),
    ] {
        assert_eq!(parsed(text), expr, "{text}");
    }
}

#[test]
fn maps_have_keys_and_values() {
    let present = |key: Option<&str>| Expr::Present { field: "tags", key: key.map(str::to_owned) };
    for (text, expr) in [
        ("tags:env", present(Some("env"))),
        ("tags:\"a b\"", present(Some("a b"))),
        ("tags:*", present(None)),
        ("tags.env:*", present(Some("env"))),
        ("tags.env != *", Expr::Not(Box::new(present(Some("env"))))),
        ("tags.env:prod", tag("env", Op::Eq, Pattern::Exact("prod".into()))),
        ("tags.env = Prod", tag("env", Op::Eq, Pattern::Exact("Prod".into()))),
        ("tags.env != pr*", tag("env", Op::Ne, Pattern::Prefix("pr".into()))),
        ("tags.`a.b c` = x", tag("a.b c", Op::Eq, Pattern::Exact("x".into()))),
        ("tags.\"a.b/c\" = x", tag("a.b/c", Op::Eq, Pattern::Exact("x".into()))),
        ("tags.a/b-c = x", tag("a/b-c", Op::Eq, Pattern::Exact("x".into()))),
        ("tags.AND = x", tag("AND", Op::Eq, Pattern::Exact("x".into()))),
        ("-tags.env:prod", Expr::Not(Box::new(tag("env", Op::Eq, Pattern::Exact("prod".into()))))),
    ] {
        assert_eq!(parsed(text), expr, "{text}");
    }
}

#[test]
fn faults_name_their_position() {
    for (text, fault_text) in [
        ("name =", "at position 7: expected a value after \"=\""),
        (
            "nmae = x",
            "at position 1: unknown field \"nmae\"; there are id, name, client_id, type, active, count, create_time, tags",
        ),
        ("ä ö nmae = x", "at position 5: unknown field \"nmae\""),
        ("name = x AND", "at position 13: expected a word or a field, found the end"),
        ("OR a", "at position 1: expected a word or a field; put OR in quotes"),
        ("a OR OR b", "at position 6: expected a word or a field; put OR in quotes"),
        ("a AND )", "at position 7: expected a word or a field, found \")\""),
        ("(a", "at position 3: expected \")\""),
        ("a)", "at position 2: this \")\" closes nothing"),
        ("()", "at position 2: expected a word or a field, found \")\""),
        ("a, b", "at position 2: expected a word or a field, found \",\""),
        ("name == x", "at position 7: expected a value after \"=\""),
        ("= x", "at position 1: expected a word or a field, found \"=\""),
        ("name = AND", "at position 8: expected a value after \"=\"; put a keyword in quotes"),
        ("\"abc", "at position 1: the quote \" is not closed"),
        ("name = 'abc", "at position 8: the quote ' is not closed"),
        ("name = \"abc\\\"", "at position 8: the quote \" is not closed"),
        ("- a", "at position 2: expected a word or a field, found \" \""),
        ("--a", "at position 2: expected a word or a field, found \"-\""),
        ("NOT -a", "at position 5: expected a word or a field, found \"-\""),
        ("name.x = y", "at position 6: name has no members"),
        ("tags.a.b = y", "at position 8: put a key with dots in backquotes"),
        ("tags. = y", "at position 6: expected a name after \".\", found \" \""),
        ("tags = env", "at position 8: tags is a map; write tags:key or tags.key = value"),
        ("tags:a*", "at position 6: a key has no wildcards"),
        ("tags.a < b", "at position 10: the values of tags have no order"),
        ("active = yes", "at position 10: expected true or false for active"),
        ("count = 1.5", "at position 9: expected a whole number for count"),
        ("count = 99999999999999999999", "at position 9: expected a whole number for count"),
        ("count > *", "at position 9: * has no order; use : instead of >"),
        ("id = 7", "at position 6: expected a UUID for id"),
        ("create_time > 2026-01-31", "at position 15: expected a time such as"),
        ("create_time > 2026-01-31T12:00:00", "at position 15: expected a time such as"),
        ("type = saml2", "at position 8: expected one of OAUTH2, SAML2, OPENID_LEGACY for type"),
        ("type = CREDENTIAL_KIND_OAUTH2", "at position 8: expected one of"),
        ("type = SAML*", "at position 8: expected one of"),
        ("name < x", "at position 8: name has no order; use =, != or :"),
        ("client_id = a*b", "at position 13: a * counts only at the beginning and the end"),
        ("name = (a OR b)", "at position 8: lists of values are not supported"),
        ("size(a)", "at position 1: functions are not supported"),
        ("*", "at position 1: a word must contain something other than blanks and *"),
        ("a \0", "at position 3: no text can contain the character NUL"),
        ("name = \"\0\"", "at position 9: no text can contain the character NUL"),
        ("\"\"", "at position 1: a word must contain something other than blanks and *"),
        ("tags.`a b`", "at position 1: expected a comparison"),
    ] {
        let found = fault(text);
        assert!(found.starts_with(fault_text), "{text}\n  expected {fault_text}\n  found    {found}");
        assert_eq!(parse(text, &SCHEMA).unwrap_err().field, "filter");
    }
}

#[test]
fn limits_hold_exactly() {
    let chars = |count: usize| "ä".repeat(count);
    assert!(parse(&chars(MAX_CHARS), &SCHEMA).is_ok());
    assert!(fault(&chars(MAX_CHARS + 1)).starts_with("must be at most"));
    let terms = |count: usize| vec!["a"; count].join(" OR ");
    assert!(parse(&terms(MAX_TERMS), &SCHEMA).is_ok());
    assert_eq!(fault(&terms(MAX_TERMS + 1)), "at position 501: there are more than 100 words and comparisons");
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(parsed(&nested(MAX_DEPTH)), word("a"));
    assert_eq!(fault(&nested(MAX_DEPTH + 1)), "at position 34: parentheses nest deeper than 32");
    assert!(parse(&vec!["(a)"; 50].join(" "), &SCHEMA).is_ok(), "only nesting counts");
}

#[test]
fn depth_bombs_are_refused() {
    for bomb in ["(", "NOT ", "-", "-(", "NOT (", "a OR (", "a AND -(", "\"", "((a) OR "] {
        assert!(parse(&bomb.repeat(2_000 / bomb.len()), &SCHEMA).is_err(), "{bomb}");
    }
}

fn expr() -> impl Strategy<Value = Expr> {
    let text = "[a-zA-Z0-9*\"'`\\\\ .:()äß-]{1,8}";
    let folded = text.prop_map(|text| crate::value::text::fold(&text));
    let pattern = |text: BoxedStrategy<String>| {
        (text, 0..4).prop_map(|(text, kind)| match kind {
            0 => Pattern::Exact(text),
            1 => Pattern::Prefix(text),
            2 => Pattern::Suffix(text),
            _ => Pattern::Contains(text),
        })
    };
    let equality = prop_oneof![Just(Op::Eq), Just(Op::Ne)];
    let order = prop_oneof![Just(Op::Eq), Just(Op::Ne), Just(Op::Lt), Just(Op::Le), Just(Op::Gt), Just(Op::Ge)];
    let word = folded.clone().prop_filter("not blank", |text| !text.trim().is_empty()).prop_map(Expr::Word);
    let leaf = prop_oneof![
        word,
        (equality.clone(), pattern(text.boxed())).prop_map(|(op, pattern)| compare(
            "client_id",
            op,
            Value::Text(pattern)
        )),
        (equality.clone(), pattern(folded.boxed())).prop_map(|(op, pattern)| compare("name", op, Value::Text(pattern))),
        (order.clone(), any::<i64>()).prop_map(|(op, value)| compare("count", op, Value::Int(value))),
        (order, 0..4_102_444_800_000_000_i64).prop_map(|(op, micros)| compare(
            "create_time",
            op,
            Value::Time(Timestamp(micros))
        )),
        (equality.clone(), any::<bool>()).prop_map(|(op, value)| compare("active", op, Value::Bool(value))),
        (equality.clone(), any::<u128>()).prop_map(|(op, id)| compare("id", op, Value::Id(Uuid::from_u128(id)))),
        equality.clone().prop_map(|op| compare("type", op, Value::Enum("SAML2"))),
        (equality, text, pattern(text.boxed())).prop_map(|(op, key, pattern)| tag(&key, op, pattern)),
        proptest::option::of(text).prop_map(|key| Expr::Present { field: "tags", key }),
        Just(Expr::Present { field: "client_id", key: None }),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expr::Or),
            inner.prop_map(|inner| Expr::Not(Box::new(inner))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn printed_filters_parse_to_the_same(expr in expr()) {
        let text = expr.to_string();
        prop_assume!(text.chars().count() <= MAX_CHARS);
        prop_assert_eq!(parse(&text, &SCHEMA), Ok(Some(expr)), "{}", text);
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,60}") {
        let _ = parse(&text, &SCHEMA);
    }

    /// Text made of tokens of the language gets further than random characters.
    #[test]
    fn any_sequence_of_tokens_is_parsed_or_refused(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("("), Just(")"), Just("AND"), Just("OR"), Just("NOT"), Just("-"), Just("name"), Just("tags."),
                Just("="), Just("!="), Just(":"), Just("<"), Just("*"), Just("\""), Just("`"), Just("\\"), Just(" "),
                Just("count"), Just("7"), Just("."), Just(","), Just("ä"),
            ],
            0..40,
        ),
    ) {
        let text = pieces.concat();
        if let Ok(Some(expr)) = parse(&text, &SCHEMA) {
            prop_assert_eq!(parse(&expr.to_string(), &SCHEMA), Ok(Some(expr)), "{}", text);
        }
    }
}
