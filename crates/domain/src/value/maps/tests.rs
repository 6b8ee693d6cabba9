use std::collections::BTreeMap;

use super::*;

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn numbered(count: usize) -> BTreeMap<String, String> {
    (0..count).map(|index| (format!("k{index}"), "v".to_owned())).collect()
}

#[test]
fn labels_report_every_violation() {
    assert!(
        Labels::parse("labels", map(&[("env", "prod"), ("a/b.c-d_e", ""), (&"k".repeat(63), &"ä".repeat(128))]))
            .is_ok()
    );
    assert!(Labels::parse("labels", numbered(64)).is_ok());
    assert_eq!(Labels::parse("labels", numbered(65)).unwrap_err().len(), 1);
    let wrong = map(&[("", "v"), ("a b", "v"), (&"k".repeat(64), "v"), ("good", "a\nb"), ("x.y", &"v".repeat(129))]);
    let violations = Labels::parse("connector.labels", wrong).unwrap_err();
    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    let all = "connector.labels";
    assert_eq!(fields, [all, all, "connector.labels.good", all, "connector.labels.`x.y`"]);
    assert!(violations.iter().all(|violation| violation.description.len() < 512));
}

#[test]
fn headers_follow_http() {
    let good =
        map(&[("X-Api", "v1, v2\tv3"), ("Accept", ""), ("!#$%&'*+-.^_`|~09", "x"), ("X-Long", &"v".repeat(4096))]);
    assert_eq!(Headers::parse("headers", good.clone()).unwrap().as_map(), &good);
    let long = "v".repeat(4097);
    for (name, value) in [
        ("", "v"),
        ("a b", "v"),
        ("a:b", "v"),
        (":path", "v"),
        ("ä", "v"),
        ("Host", "v"),
        ("CONNECTION", "v"),
        ("te", "v"),
        ("Transfer-Encoding", "chunked"),
        ("content-length", "1"),
        ("X", "a\r\nInjected: b"),
        ("X", "a\0"),
        ("X", "ä"),
        ("X", " v"),
        ("X", "v\t"),
        ("X", &long),
        (&"n".repeat(129), "v"),
    ] {
        assert!(Headers::parse("headers", map(&[(name, value)])).is_err(), "{name:?}: {value:?}");
    }
    assert!(Headers::parse("headers", map(&[("X-A", "1"), ("x-a", "2")])).is_err(), "a header is given twice");
    assert!(Headers::parse("headers", numbered(65)).is_err());
}

#[test]
fn secret_headers_are_headers_whose_values_never_show() {
    let headers = secret_headers("secret_headers", map(&[("Authorization", "Bearer canary")])).unwrap();
    assert_eq!(headers["Authorization"].expose(), "Bearer canary");
    assert!(!format!("{headers:?}").contains("canary"));
    for (name, value) in [("X", "****"), ("X", ""), ("X", "canary\n"), ("Host", "canary"), ("a b", "canary")] {
        let violations = secret_headers("secret_headers", map(&[(name, value)])).unwrap_err();
        assert!(!format!("{violations:?}").contains("canary"), "{violations:?}");
    }
}

#[test]
fn parameters_are_passed_on_unchanged() {
    let parse = AuthorizationParameters::parse;
    assert!(
        parse("parameters", map(&[("access_type", "offline"), ("p", ""), ("resource", "https://a.example")])).is_ok()
    );
    let long = "v".repeat(2049);
    for (name, value) in [("", "v"), (" ", "v"), ("a\n", "v"), ("a", "\u{1}"), ("a", &long), (&"n".repeat(129), "v")] {
        assert!(parse("parameters", map(&[(name, value)])).is_err(), "{name:?}");
    }
    assert!(parse("parameters", numbered(65)).is_err());
}

#[test]
fn parameters_of_the_protocol_are_reserved() {
    for name in RESERVED_PARAMETERS {
        let given = || map(&[(name, "v"), ("free", "v")]);
        let refused = [
            AuthorizationParameters::parse("p", given()).unwrap_err(),
            TokenParameters::parse("p", given()).unwrap_err(),
            RefreshParameters::parse("p", given()).unwrap_err(),
        ];
        for violations in refused {
            let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
            assert_eq!(fields, [format!("p.{name}")]);
        }
    }
    let scope = || map(&[("scope", "a")]);
    assert!(AuthorizationParameters::parse("p", scope()).is_err(), "scopes are asked for in one place");
    assert!(TokenParameters::parse("p", scope()).is_ok(), "some servers demand the scopes again");
    assert!(RefreshParameters::parse("p", scope()).is_ok());
    for wrong in ["a\"", "a\\", "\u{e4}"] {
        let scope = || map(&[("scope", wrong)]);
        for refused in
            [TokenParameters::parse("p", scope()).unwrap_err(), RefreshParameters::parse("p", scope()).unwrap_err()]
        {
            let fields: Vec<_> = refused.iter().map(|violation| violation.field.as_str()).collect();
            assert_eq!(fields, ["p.scope"]);
        }
    }
}
