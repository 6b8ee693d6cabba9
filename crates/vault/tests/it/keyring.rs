//! The text form of keyrings, and the operations on their keys.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jackfield_vault::provider::env;
use jackfield_vault::{KeyState, Keyring, KeyringError};
use proptest::prelude::*;

use crate::support::{KEYRING, SECRET, keyring};

/// A second secret, the bytes 32 to 63.
const SECRET_2: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

#[test]
fn valid_keyring_is_read() {
    let keys = keyring().keys();
    assert_eq!(keys.len(), 1);
    assert_eq!((keys[0].id.as_str(), keys[0].state), ("kek-1", KeyState::Active));
    assert_eq!(keys[0].created.to_string(), "2026-01-02T03:04:05Z");
}

#[test]
fn creation_time_may_be_a_string() {
    let keyring = Keyring::parse(&KEYRING.replace("2026-01-02T03:04:05Z", "\"2026-01-02T04:04:05+01:00\"")).unwrap();
    assert_eq!(keyring.keys()[0].created.to_string(), "2026-01-02T03:04:05Z");
}

#[test]
fn invalid_keyrings_are_refused_with_the_reason_and_without_the_secret() {
    let second = |id: &str, state: &str, secret: &str| {
        format!(
            "{KEYRING}\n[[key]]\nid = \"{id}\"\nstate = \"{state}\"\ncreated = 2026-01-02T03:04:05Z\nsecret = \"{secret}\""
        )
    };
    let change = |from: &str, to: &str| {
        assert!(KEYRING.contains(from), "{from}");
        KEYRING.replace(from, to)
    };
    let table = [
        (String::new(), "keyring: active is missing"),
        (SECRET.into(), "keyring is not valid TOML at line 1, column 45"),
        ("active = \"kek-1\"".into(), "keyring: there must be at least one key"),
        ("active = \"kek-1\"\nkey = []".into(), "keyring: there must be at least one key"),
        (format!("active = \"a\"\nkey = \"{SECRET}\""), "keyring: key must be an array of tables, [[key]]"),
        (format!("active = \"a\"\nkey = [\"{SECRET}\"]"), "keyring, key 1: must be a table"),
        (change("active = \"kek-1\"", "active = \"kek-1"), "keyring is not valid TOML at line 2, column 16"),
        (change("active = \"kek-1\"", ""), "keyring: active is missing"),
        (change("active = \"kek-1\"", &format!("active = [\"{SECRET}\"]")), "keyring: active must be a string"),
        (
            change("active = \"kek-1\"", &format!("active = \"{SECRET}\"")),
            "keyring, key 1 (kek-1): state and the field active at the top disagree",
        ),
        (
            change("active = \"kek-1\"", "active = \"kek-2\"").replace("\"active\"", "\"retired\""),
            "keyring: active names none of the keys",
        ),
        (
            change("state = \"active\"", "state = \"retired\""),
            "keyring, key 1 (kek-1): state and the field active at the top disagree",
        ),
        (
            change("state = \"active\"", &format!("state = \"{SECRET}\"")),
            "keyring, key 1 (kek-1): state must be staged, active or retired",
        ),
        (change("state = \"active\"", ""), "keyring, key 1 (kek-1): state is missing"),
        (change("id = \"kek-1\"", ""), "keyring, key 1: id is missing"),
        (change("id = \"kek-1\"", "id = 1"), "keyring, key 1: id must be a string"),
        (change("id = \"kek-1\"", "id = \"\""), "keyring, key 1: id must be 1 to 64 letters, digits, '.', '_' or '-'"),
        (
            change("id = \"kek-1\"", "id = \"kek 1\""),
            "keyring, key 1: id must be 1 to 64 letters, digits, '.', '_' or '-'",
        ),
        (
            change("id = \"kek-1\"", &format!("id = \"{}\"", "k".repeat(65))),
            "keyring, key 1: id must be 1 to 64 letters, digits, '.', '_' or '-'",
        ),
        (
            change("2026-01-02T03:04:05Z", "2026-01-02T03:04:05"),
            "keyring, key 1 (kek-1): created must be a date and time with offset, as in RFC 3339",
        ),
        (
            change("2026-01-02T03:04:05Z", &format!("\"{SECRET}\"")),
            "keyring, key 1 (kek-1): created must be a date and time with offset, as in RFC 3339",
        ),
        (change("2026-01-02T03:04:05Z", "1767323045"), "keyring, key 1 (kek-1): created must be a date and time"),
        (change("created = 2026-01-02T03:04:05Z", ""), "keyring, key 1 (kek-1): created is missing"),
        (change(&format!("secret = \"{SECRET}\""), ""), "keyring, key 1 (kek-1): secret is missing"),
        (
            change(&format!("\"{SECRET}\""), &format!("[\"{SECRET}\"]")),
            "keyring, key 1 (kek-1): secret must be a string",
        ),
        (change(SECRET, ""), "keyring, key 1 (kek-1): secret has 0 bytes, not 32"),
        (change(SECRET, &SECRET[..40]), "keyring, key 1 (kek-1): secret has 30 bytes, not 32"),
        (
            change(SECRET, &format!("{}{SECRET_2}", &SECRET[..40])),
            "keyring, key 1 (kek-1): secret has 62 bytes, not 32",
        ),
        (change(SECRET, &SECRET[..43]), "keyring, key 1 (kek-1): secret is not base64 with padding"),
        (change(SECRET, &format!(" {SECRET}")), "keyring, key 1 (kek-1): secret is not base64 with padding"),
        (change(SECRET, &SECRET.replace("Hh8=", "Hh9=")), "keyring, key 1 (kek-1): secret is not base64 with padding"),
        (
            change(SECRET, &STANDARD.encode([0; 32])),
            "keyring, key 1 (kek-1): secret is not random: all its bytes are equal",
        ),
        (change("state =", "algorithm = \"x\"\nstate ="), "keyring, key 1: field \"algorithm\" is not known"),
        (change("state =", &format!("\"{SECRET}\" = 1\nstate =")), "keyring, key 1: has a field that is not known"),
        (change("active = ", "version = 1\nactive = "), "keyring: field \"version\" is not known"),
        (change("[[key]]", "[[keys]]"), "keyring: field \"keys\" is not known"),
        (
            change("active = \"kek-1\"", "active = \"kek-1\"\nactive = \"kek-1\""),
            "keyring is not valid TOML at line 3, column 1",
        ),
        (second("kek-1", "active", SECRET_2), "keyring, key 2 (kek-1): id is that of an earlier key"),
        (second("kek-2", "active", SECRET_2), "keyring, key 2 (kek-2): state and the field active at the top disagree"),
        (second("kek-2", "retired", SECRET), "keyring, key 2 (kek-2): secret is that of an earlier key"),
    ];
    for (text, expected) in table {
        let error = Keyring::parse(&text).expect_err(expected);
        assert_eq!(error.to_string(), expected, "{text}");
        let shown = format!("{error} {error:?}");
        for window in SECRET.as_bytes().windows(8).chain(SECRET_2.as_bytes().windows(8)) {
            assert!(!shown.contains(std::str::from_utf8(window).unwrap()), "{shown}");
        }
    }
}

#[test]
fn generated_keyring_reads_back() {
    let (keyring, text) = Keyring::generate().unwrap();
    assert!(text.starts_with("# Keyring of Jackfield"), "the text explains itself");
    let read = Keyring::parse(&text).unwrap();
    assert_eq!(read.keys(), keyring.keys());
    assert_eq!(*read.to_toml(), *text);
    let key = &keyring.keys()[0];
    assert_eq!(key.state, KeyState::Active);
    assert!(key.id.starts_with("kek-2") && key.id.len() == 21, "{}", key.id);
}

#[test]
fn generated_secrets_differ() {
    let secret = |text: &str| text.lines().find(|line| line.starts_with("secret")).unwrap().to_owned();
    let secrets: HashSet<_> = (0..100).map(|_| secret(&Keyring::generate().unwrap().1)).collect();
    assert_eq!(secrets.len(), 100);
}

#[test]
fn keys_go_from_staged_to_active_to_retired_to_removed() {
    let mut keyring = keyring();
    let staged = keyring.add_key(false).unwrap();
    assert_eq!(states(&keyring), [("kek-1".into(), KeyState::Active), (staged.clone(), KeyState::Staged)]);
    keyring.activate(&staged).unwrap();
    assert_eq!(keyring.active_id(), staged);
    assert_eq!(states(&keyring), [("kek-1".into(), KeyState::Retired), (staged.clone(), KeyState::Active)]);
    keyring = Keyring::parse(&keyring.to_toml()).unwrap();
    assert!(matches!(keyring.remove(&staged), Err(KeyringError::KeyActive { id }) if id == staged));
    keyring.remove("kek-1").unwrap();
    assert_eq!(states(&keyring), [(staged.clone(), KeyState::Active)]);
    assert!(matches!(keyring.remove("kek-1"), Err(KeyringError::UnknownKey { id }) if id == "kek-1"));
    assert!(matches!(keyring.activate("kek-1"), Err(KeyringError::UnknownKey { id }) if id == "kek-1"));
    keyring.activate(&staged).unwrap();
    assert_eq!(states(&keyring), [(staged, KeyState::Active)]);
}

#[test]
fn retired_key_can_be_activated_again() {
    let mut keyring = keyring();
    let newer = keyring.add_key(true).unwrap();
    keyring.activate("kek-1").unwrap();
    assert_eq!(states(&keyring), [("kek-1".into(), KeyState::Active), (newer, KeyState::Retired)]);
}

#[test]
fn environment_holds_the_text_or_its_base64() {
    let encoded = STANDARD.encode(KEYRING);
    let wrapped: Vec<_> = encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    assert!(wrapped.len() > 1);
    for value in [
        KEYRING.to_owned(),
        format!("{}\r", KEYRING.trim_end()),
        encoded.clone(),
        format!("{encoded}\n"),
        // Line breaks as `base64` and Windows write them.
        wrapped.join("\n"),
        wrapped.join("\r\n"),
    ] {
        assert_eq!(env::load(&value).unwrap().ids(), ["kek-1"]);
    }
    for (value, expected) in [
        ("", "keyring: is empty: nothing is in the variable"),
        ("  \n", "keyring: is empty: nothing is in the variable"),
        (
            "active = \"a\"\\n[[key]]\\n",
            "keyring: has the two characters \\n where its lines should break: give it with line breaks, or in base64",
        ),
        ("/8D/", "keyring: is base64, but of something that is not text"),
        ("kek-1", "keyring is not valid TOML at line 1, column 6"),
    ] {
        assert_eq!(env::load(value).expect_err(value).to_string(), expected);
    }
    let error = env::load(SECRET).expect_err("a secret is no keyring").to_string();
    assert!(error.starts_with("keyring"), "{error}");
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!("{:?}", keyring());
    assert!(shown.contains("kek-1"), "{shown}");
    assert!(!shown.contains("AAEC") && !shown.contains("1, 2, 3") && !shown.contains("secret"), "{shown}");
}

proptest! {
    #[test]
    fn arbitrary_texts_do_not_panic(text in ".{0,200}", at in any::<prop::sample::Index>(), insert in ".{1,3}") {
        let _ = Keyring::parse(&text);
        let mut altered = KEYRING.to_owned();
        altered.insert_str(at.index(KEYRING.len()), &insert);
        if let Err(error) = Keyring::parse(&altered) {
            prop_assert!(!error.to_string().contains(&SECRET[2..SECRET.len() - 2]));
        }
    }
}

fn states(keyring: &Keyring) -> Vec<(String, KeyState)> {
    keyring.keys().into_iter().map(|key| (key.id, key.state)).collect()
}
