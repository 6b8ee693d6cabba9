//! Tokens open only unaltered, in their context and with their key.

use jackfield_domain::TenantId;
use jackfield_vault::DataKey;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{TENANT, address, data_key};

const CONTEXT: [&[u8]; 3] = [b"connector", b"name = \"a\"", b"name"];
/// The alphabet of base64url, and characters near it.
const CHARACTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=.% \n\0é";

#[test]
fn token_opens_in_its_context() {
    let key = data_key(TenantId::SYSTEM);
    for payload in [&b""[..], b"x", b"after 42", &[0xff; 1_000]] {
        let token = key.seal_token(&CONTEXT, payload).unwrap();
        assert_eq!(key.open_token(&CONTEXT, &token).unwrap().as_slice(), payload);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')), "{token}");
    }
    assert_eq!(key.seal_token(&CONTEXT, b"").unwrap().len(), 83);
}

/// Tries every other character in every place, also where base64 has unused bits.
#[test]
fn every_character_matters() {
    let key = data_key(TENANT);
    for payload in [&b"1"[..], b"12", b"123"] {
        let token: Vec<char> = key.seal_token(&CONTEXT, payload).unwrap().chars().collect();
        for position in 0..token.len() {
            for character in CHARACTERS.chars().filter(|character| *character != token[position]) {
                let mut altered = token.clone();
                altered[position] = character;
                assert_refused(&key, &altered.iter().collect::<String>());
            }
        }
    }
}

#[test]
fn truncated_and_extended_tokens_are_refused() {
    let key = data_key(TENANT);
    let token = key.seal_token(&CONTEXT, b"after 42").unwrap();
    for length in 0..token.len() {
        assert_refused(&key, &token[..length]);
        assert_refused(&key, &token[token.len() - length..]);
    }
    for more in ["=", "==", "A", "AA", "AAAA", " ", "\n"] {
        assert_refused(&key, &format!("{token}{more}"));
        assert_refused(&key, &format!("{more}{token}"));
    }
    assert_refused(&key, &format!("{token}{token}"));
}

#[test]
fn foreign_contexts_are_refused() {
    let key = data_key(TENANT);
    let token = key.seal_token(&CONTEXT, b"after 42").unwrap();
    let [resource, filter, order] = CONTEXT;
    let foreign: [&[&[u8]]; 7] = [
        &[],
        &[resource, filter],
        &[resource, order, filter],
        &[resource, filter, b""],
        &[resource, filter, order, b""],
        &[b"connecto", b"rname = \"a\"", order],
        &[b"connection", filter, order],
    ];
    for context in foreign {
        assert!(key.open_token(context, &token).is_none(), "{context:?}");
    }
}

#[test]
fn foreign_keys_are_refused() {
    let token = data_key(TENANT).seal_token(&CONTEXT, b"after 42").unwrap();
    assert_refused(&data_key(TENANT), &token);
    assert_refused(&data_key(TenantId::SYSTEM), &token);
}

#[test]
fn sealed_value_is_no_token() {
    use base64::Engine;
    let key = data_key(TENANT);
    let sealed = key.seal(&address(TENANT), b"text").unwrap();
    assert_refused(&key, &base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sealed));
}

proptest! {
    #[test]
    fn arbitrary_texts_are_refused(text in ".{0,200}", base64 in "[A-Za-z0-9_-]{0,200}", payload in vec(any::<u8>(), 0..99)) {
        let key = data_key(TENANT);
        prop_assert!(key.open_token(&CONTEXT, &text).is_none());
        prop_assert!(key.open_token(&CONTEXT, &base64).is_none());
        let known = format!("AQG{base64}");
        prop_assert!(key.open_token(&CONTEXT, &known).is_none());
        let token = key.seal_token(&CONTEXT, &payload).unwrap();
        prop_assert_eq!(key.open_token(&CONTEXT, &token).unwrap().to_vec(), payload);
    }
}

fn assert_refused(key: &DataKey, token: &str) {
    assert!(key.open_token(&CONTEXT, token).is_none(), "{token:?}");
}
