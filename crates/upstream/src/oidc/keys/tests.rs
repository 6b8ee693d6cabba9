use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::super::documents::read;
use super::*;

/// The example of RFC 7515 A.3.
const ES256: [&str; 2] = [
    "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
];
/// The example of RFC 8037 A.4.
const ED25519: [&str; 2] = [
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
];

fn ec() -> Value {
    json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    })
}

fn ed() -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
}

/// A key with other members.
fn with(mut key: Value, changes: Value) -> Value {
    key.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    key
}

fn set(keys: impl IntoIterator<Item = Value>) -> KeySet {
    let keys: Vec<Value> = keys.into_iter().collect();
    KeySet::of(read(json!({ "keys": keys, "more": 1 }).to_string().as_bytes()).unwrap())
}

fn signed(algorithm: Algorithm, [message, signature]: [&'static str; 2], kid: Option<&str>) -> Signed<'static> {
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    Signed { algorithm, kid: kid.map(str::to_owned), message: message.as_bytes(), signature }
}

fn es256(kid: Option<&str>) -> Signed<'static> {
    signed(Algorithm::Es256, ES256, kid)
}

#[test]
fn signatures_of_the_rfcs_are_right() {
    let keys = set([ec(), ed()]);
    assert_eq!(keys.verify(&es256(None)), Ok(()));
    assert_eq!(keys.verify(&signed(Algorithm::EdDsa, ED25519, None)), Ok(()));
    // The signature of one is that of no other.
    let mut swapped = es256(None);
    swapped.message = ED25519[0].as_bytes();
    assert_eq!(keys.verify(&swapped), Err(Mismatch::WrongUnnamed));
    for length in [0, 63, 65] {
        let mut cut = es256(None);
        cut.signature.resize(length, 0);
        assert_eq!(keys.verify(&cut), Err(Mismatch::WrongUnnamed));
    }
}

#[test]
fn a_key_is_found_by_its_name() {
    let named = |kid: &str| with(ec(), json!({ "kid": kid }));
    // Another key on the same curve.
    let other = |kid: &str| {
        let (x, y) = ("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM");
        with(ec(), json!({ "kid": kid, "x": x, "y": y }))
    };
    let keys = set([other("a"), named("b"), with(ed(), json!({ "kid": "e" }))]);
    assert_eq!(keys.verify(&es256(Some("b"))), Ok(()));
    assert_eq!(keys.verify(&es256(Some("a"))), Err(Mismatch::Wrong));
    assert_eq!(keys.verify(&es256(Some("c"))), Err(Mismatch::Unknown));
    assert_eq!(keys.verify(&es256(Some("e"))), Err(Mismatch::Unknown), "a key of another kind");
    assert_eq!(keys.verify(&es256(None)), Err(Mismatch::Unknown), "two could be meant");
    assert_eq!(set([other("a"), named("a")]).verify(&es256(Some("a"))), Ok(()), "two with one name");
    // Without a name on one of the sides there must be one key alone.
    assert_eq!(set([ec()]).verify(&es256(Some("b"))), Ok(()));
    assert_eq!(set([named("b"), ed()]).verify(&es256(None)), Ok(()));
    assert_eq!(set([ec(), other("a")]).verify(&es256(Some("b"))), Err(Mismatch::Unknown));
    assert_eq!(set([named("a")]).verify(&es256(Some("b"))), Err(Mismatch::Unknown));
}

#[test]
fn keys_for_other_purposes_are_left_out() {
    for change in [
        json!({ "use": "enc" }),
        json!({ "alg": "ES384" }),
        json!({ "alg": "HS256" }),
        json!({ "alg": "none" }),
        json!({ "alg": "ECDH-ES" }),
        json!({ "key_ops": ["sign"] }),
        json!({ "key_ops": [] }),
        json!({ "crv": "P-384" }),
        json!({ "crv": "P-521" }),
        json!({ "crv": "secp256k1" }),
        json!({ "kty": "oct", "k": "AAAA" }),
        json!({ "kty": "OKP" }),
        json!({ "kty": 1 }),
        json!({ "kid": 1 }),
        json!({ "x": "AAAA" }),
        json!({ "y": null }),
        json!({ "y": "x/FEzRu9m36HLN/tue659LNpXW6pCyStikYjKIWI5a0" }),
        json!({ "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI" }),
    ] {
        let keys = set([with(ec(), change.clone())]);
        assert_eq!(keys.verify(&es256(None)), Err(Mismatch::Unknown), "{change}");
    }
    for good in [json!({ "use": "sig", "alg": "ES256" }), json!({ "key_ops": ["verify"], "x5c": ["?"], "use": null })] {
        assert_eq!(set([with(ec(), good)]).verify(&es256(None)), Ok(()));
    }
    for wrong in [json!({ "x": "AAAA" }), json!({ "x": null }), json!({ "crv": "Ed448" }), json!({ "alg": "ES256" })] {
        let keys = set([with(ed(), wrong.clone())]);
        assert_eq!(keys.verify(&signed(Algorithm::EdDsa, ED25519, None)), Err(Mismatch::Unknown), "{wrong}");
    }
    // A point that is not on the curve is no key, whatever is signed.
    let off = set([with(ec(), json!({ "x": "A".repeat(43) }))]);
    assert_eq!(off.verify(&es256(None)), Err(Mismatch::WrongUnnamed));
}

#[test]
fn what_is_no_key_does_not_hide_the_others() {
    let strange =
        [json!(1), json!("x"), json!([]), json!(["EC", "a"]), json!({}), json!(null), json!({ "kty": "AKP" })];
    assert_eq!(set(strange.into_iter().chain([ec()])).verify(&es256(None)), Ok(()));
    let many = |count| std::iter::repeat_n(json!({ "kty": "oct" }), count).chain([ec()]);
    assert_eq!(set(many(99)).verify(&es256(None)), Ok(()));
    assert_eq!(set(many(100)).verify(&es256(None)), Err(Mismatch::Unknown));
    for wrong in ["{}", "[]", r#"{"keys": {}}"#, r#"{"keys": null}"#, "<html>"] {
        assert!(matches!(read::<Body>(wrong.as_bytes()), Err(DocumentFault::BodyMalformed { .. })), "{wrong}");
    }
}

#[test]
fn a_short_key_of_rsa_is_none() {
    let key = |bytes: usize| {
        let n = URL_SAFE_NO_PAD.encode([&[0][..], &vec![0xc1; bytes]].concat());
        json!({ "kty": "RSA", "n": n, "e": "AQAB" })
    };
    let rs256 = signed(Algorithm::Rs256, ES256, None);
    for (bytes, expected) in
        [(128, Mismatch::Unknown), (255, Mismatch::Unknown), (256, Mismatch::WrongUnnamed), (1025, Mismatch::Unknown)]
    {
        assert_eq!(set([key(bytes)]).verify(&rs256), Err(expected), "{bytes}");
    }
    assert_eq!(set([with(key(256), json!({ "e": null }))]).verify(&rs256), Err(Mismatch::Unknown));
    assert_eq!(set([json!({ "kty": "RSA", "n": "AAAA", "e": "AQAB" })]).verify(&rs256), Err(Mismatch::Unknown));
}
