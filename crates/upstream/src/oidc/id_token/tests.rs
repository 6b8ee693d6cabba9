use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const SECONDS: i64 = 1_800_000_000;
const ISSUER: &str = "https://id.example";
const HEADER: &str = r#"{"alg":"RS256","kid":"k1","typ":"JWT"}"#;

/// The rules for an answer to a log-in without a nonce.
fn rules() -> IdTokenRules<'static> {
    let used_for = IdTokenUse::LogIn { nonce: None };
    IdTokenRules { issuer: ISSUER, client_id: "c1", algorithms: None, used_for, access_token: None, time: NOW }
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": "u1", "aud": "c1", "exp": SECONDS + 300, "iat": SECONDS - 5 })
}

/// A token with these parts, whose signature is no matter here.
fn token(header: &str, payload: &str) -> String {
    format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
}

/// The claims with other members; `null` removes one.
fn changed(changes: Value) -> String {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims.to_string()
}

fn examined(rules: &IdTokenRules<'_>, token: &str) -> Result<IdTokenClaims, IdTokenFault> {
    rules.examine(token).map(|(claims, _)| claims)
}

fn of_claims(rules: &IdTokenRules<'_>, changes: Value) -> Result<IdTokenClaims, IdTokenFault> {
    examined(rules, &token(HEADER, &changed(changes)))
}

#[test]
fn a_good_token_has_its_claims() {
    let more = json!({
        "email": "ada@a.example", "email_verified": true, "hd": "a.example", "tid": "t1", "groups": ["x"],
        "exp": SECONDS as f64 + 0.5,
    });
    let claims = of_claims(&rules(), more).unwrap();
    assert_eq!((&*claims.subject, claims.email.as_deref()), ("u1", Some("ada@a.example")));
    assert!(claims.is_email_verified);
    assert_eq!((claims.hosted_domain.as_deref(), claims.tenant.as_deref()), (Some("a.example"), Some("t1")));
    assert_eq!(claims.all["groups"], json!(["x"]));
    assert_eq!(claims.expire_time, Timestamp(NOW.0 / 1_000_000 * 1_000_000 + 500_000));
    assert_eq!(claims.issue_time, NOW.plus_micros(-5_000_000));
    let shown = format!("{claims:?}");
    assert!(!shown.contains("ada") && !shown.contains("u1") && !shown.contains("t1"), "{shown}");
    for (given, expected) in [(json!("true"), true), (json!("false"), false), (json!(1), false), (json!(null), false)] {
        let claims = of_claims(&rules(), json!({ "email_verified": given })).unwrap();
        assert_eq!(claims.is_email_verified, expected, "{given}");
    }
    let token = token(HEADER, &changed(json!({})));
    let (_, signed) = rules().examine(&token).unwrap();
    assert_eq!(
        (signed.algorithm, signed.kid.as_deref(), &*signed.signature),
        (Algorithm::Rs256, Some("k1"), &b"sig"[..])
    );
    assert_eq!(signed.message, token.rsplit_once('.').unwrap().0.as_bytes());
}

#[test]
fn each_broken_rule_has_its_fault() {
    for (changes, expected) in [
        (json!({ "iss": "https://evil.example" }), IdTokenFault::WrongIssuer),
        (json!({ "iss": "https://id.example/" }), IdTokenFault::WrongIssuer),
        (json!({ "iss": [ISSUER] }), IdTokenFault::WrongIssuer),
        (json!({ "iss": null }), IdTokenFault::WrongIssuer),
        (json!({ "aud": "c2" }), IdTokenFault::WrongAudience),
        (json!({ "aud": "C1" }), IdTokenFault::WrongAudience),
        (json!({ "aud": [] }), IdTokenFault::WrongAudience),
        (json!({ "aud": ["c2", ["c1"]] }), IdTokenFault::WrongAudience),
        (json!({ "aud": { "c1": 1 } }), IdTokenFault::WrongAudience),
        (json!({ "aud": null }), IdTokenFault::WrongAudience),
        (json!({ "aud": ["c1", "c2"] }), IdTokenFault::WrongParty),
        (json!({ "aud": ["c1", "c2"], "azp": "c2" }), IdTokenFault::WrongParty),
        (json!({ "azp": "c2" }), IdTokenFault::WrongParty),
        (json!({ "azp": 1 }), IdTokenFault::WrongParty),
        (json!({ "exp": SECONDS - 60 }), IdTokenFault::Expired),
        (json!({ "exp": 0 }), IdTokenFault::Expired),
        (json!({ "exp": -1 }), IdTokenFault::Expired),
        (json!({ "iat": SECONDS + 61 }), IdTokenFault::FromTheFuture),
        (json!({ "iat": SECONDS + 61, "nbf": 0 }), IdTokenFault::FromTheFuture),
        (json!({ "iat": 1e300 }), IdTokenFault::FromTheFuture),
        (json!({ "nbf": SECONDS + 61 }), IdTokenFault::FromTheFuture),
        (json!({ "nonce": "n" }), IdTokenFault::WrongNonce),
        (json!({ "sub": null }), IdTokenFault::SubjectInvalid),
        (json!({ "sub": "" }), IdTokenFault::SubjectInvalid),
        (json!({ "sub": 7 }), IdTokenFault::SubjectInvalid),
        (json!({ "sub": "é" }), IdTokenFault::SubjectInvalid),
        (json!({ "sub": "a".repeat(256) }), IdTokenFault::SubjectInvalid),
        (json!({ "exp": null }), IdTokenFault::Malformed("exp or iat is not a number of seconds")),
        (json!({ "exp": "1800000300" }), IdTokenFault::Malformed("exp or iat is not a number of seconds")),
        (json!({ "iat": null }), IdTokenFault::Malformed("exp or iat is not a number of seconds")),
        (json!({ "nbf": "x" }), IdTokenFault::Malformed("nbf is not a number of seconds")),
    ] {
        assert_eq!(of_claims(&rules(), changes.clone()), Err(expected), "{changes}");
    }
    for good in [
        json!({ "aud": ["c1"] }),
        json!({ "aud": ["c2", "c1"], "azp": "c1" }),
        json!({ "azp": "c1" }),
        json!({ "exp": SECONDS - 59 }),
        json!({ "exp": 1e300 }),
        json!({ "iat": SECONDS + 60, "nbf": SECONDS + 60 }),
        json!({ "iat": 0 }),
        json!({ "sub": "a".repeat(255) }),
    ] {
        assert!(of_claims(&rules(), good.clone()).is_ok(), "{good}");
    }
}

/// Which of the two counts is not the same for all readers.
#[test]
fn a_claim_or_a_header_that_is_there_twice_is_refused() {
    let good = changed(json!({ "email": "ada@a.example", "email_verified": false }));
    assert!(!examined(&rules(), &token(HEADER, &good)).unwrap().is_email_verified);
    for more in [
        r#""email_verified":true"#,
        r#""email_verified":false"#,
        r#""email":"eve@a.example""#,
        r#""sub":"u2""#,
        r#""s\u0075b":"u2""#,
        r#""iss":"https://id.example""#,
        r#""exp":9000000000"#,
    ] {
        let payload = good.replacen('{', &format!("{{{more},"), 1);
        assert_eq!(examined(&rules(), &token(HEADER, &payload)), Err(IdTokenFault::Malformed(WRONG_PAYLOAD)), "{more}");
    }
    let header = HEADER.replacen('{', r#"{"alg":"ES256","#, 1);
    assert_eq!(examined(&rules(), &token(&header, &good)), Err(IdTokenFault::Malformed(WRONG_HEADER)));
}

#[test]
fn a_header_of_another_kind_is_refused() {
    let payload = changed(json!({}));
    for (header, expected) in [
        (json!({ "alg": "none" }), IdTokenFault::AlgorithmRefused),
        (json!({ "alg": "None" }), IdTokenFault::AlgorithmRefused),
        (json!({ "alg": "HS256" }), IdTokenFault::AlgorithmRefused),
        (json!({ "alg": "HS512" }), IdTokenFault::AlgorithmRefused),
        (json!({ "alg": "rs256" }), IdTokenFault::AlgorithmRefused),
        (json!({ "alg": "ES256K" }), IdTokenFault::AlgorithmRefused),
        (json!({ "alg": ["RS256"] }), IdTokenFault::AlgorithmRefused),
        (json!({}), IdTokenFault::AlgorithmRefused),
        (json!({ "alg": "RS256", "typ": "at+jwt" }), IdTokenFault::WrongType),
        (json!({ "alg": "RS256", "typ": "logout+jwt" }), IdTokenFault::WrongType),
        (json!({ "alg": "RS256", "typ": 1 }), IdTokenFault::WrongType),
        (json!({ "alg": "RS256", "crit": ["b64"], "b64": false }), IdTokenFault::ExtensionUnknown),
        (json!({ "alg": "RS256", "crit": [] }), IdTokenFault::ExtensionUnknown),
        (json!({ "alg": "RSA-OAEP", "enc": "A256GCM" }), IdTokenFault::Encrypted),
        (json!({ "alg": "RS256", "kid": 1 }), IdTokenFault::Malformed("the kid is not a text")),
    ] {
        assert_eq!(examined(&rules(), &token(&header.to_string(), &payload)), Err(expected), "{header}");
    }
    for header in [json!({ "alg": "RS256" }), json!({ "alg": "PS512", "typ": "jwt" }), json!({ "alg": "Ed25519" })] {
        assert!(examined(&rules(), &token(&header.to_string(), &payload)).is_ok(), "{header}");
    }
    let only = [Algorithm::Es256];
    let rules = IdTokenRules { algorithms: Some(&only), ..rules() };
    assert_eq!(examined(&rules, &token(HEADER, &payload)), Err(IdTokenFault::AlgorithmRefused));
    assert!(examined(&rules, &token(r#"{"alg":"ES256"}"#, &payload)).is_ok());
}

#[test]
fn what_is_no_token_is_malformed() {
    let good = token(HEADER, &changed(json!({})));
    let (header, rest) = good.split_once('.').unwrap();
    for wrong in [
        String::new(),
        "x".to_owned(),
        "..".to_owned(),
        format!("{good}.x"),
        format!("{header}=.{rest}"),
        format!("{header}+.{rest}"),
        format!(" {good}"),
        format!("{good}="),
        token("[]", &changed(json!({}))),
        token("RS256", &changed(json!({}))),
        token(HEADER, "[]"),
        token(HEADER, "null"),
        token(HEADER, "{"),
        token(HEADER, &format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000))),
        token(HEADER, &changed(json!({ "more": "x".repeat(64 * 1024) }))),
    ] {
        assert!(matches!(examined(&rules(), &wrong), Err(IdTokenFault::Malformed(_))), "{wrong}");
    }
    assert_eq!(examined(&rules(), "a.b.c.d.e"), Err(IdTokenFault::Encrypted));
}

/// Any value of JSON that is no list and no object.
fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(json!(ISSUER)),
        Just(json!("c1")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn no_bytes_are_taken_for_a_token(parts in "[A-Za-z0-9_.=-]{0,60}", header in ".{0,60}", payload in ".{0,60}") {
        prop_assert!(examined(&rules(), &parts).is_err());
        prop_assert!(examined(&rules(), &token(&header, &payload)).is_err());
        prop_assert!(examined(&rules(), &token(HEADER, &payload)).is_err());
    }

    #[test]
    fn no_values_are_taken_for_others(
        name in prop_oneof![Just("iss"), Just("aud"), Just("azp"), Just("exp"), Just("iat"), Just("nbf"), Just("sub")],
        value in scalar(),
    ) {
        let outcome = of_claims(&rules(), json!({ name: value.clone() }));
        let is_good = match name {
            "iss" => value == json!(ISSUER),
            "aud" => value == json!("c1"),
            "azp" => value == json!("c1") || value.is_null(),
            "exp" => value.as_f64().is_some_and(|time| time > (SECONDS - 60) as f64),
            "iat" => value.as_f64().is_some_and(|time| time <= (SECONDS + 60) as f64),
            "nbf" => value.is_null() || value.as_f64().is_some_and(|time| time <= (SECONDS + 60) as f64),
            _ => value.as_str().is_some_and(|subject| !subject.is_empty() && subject.is_ascii()),
        };
        prop_assert_eq!(outcome.is_ok(), is_good, "{} {}", name, value);
    }
}

#[test]
fn a_nonce_is_that_of_the_log_in() {
    let log_in = |nonce| IdTokenRules { used_for: IdTokenUse::LogIn { nonce: Some(nonce) }, ..rules() };
    assert!(of_claims(&log_in("n"), json!({ "nonce": "n" })).is_ok());
    for changes in [json!({}), json!({ "nonce": "N" }), json!({ "nonce": "" }), json!({ "nonce": ["n"] })] {
        assert_eq!(of_claims(&log_in("n"), changes), Err(IdTokenFault::WrongNonce));
    }
    let refresh = |nonce| IdTokenRules { used_for: IdTokenUse::Refresh { subject: "u1", nonce }, ..rules() };
    assert!(of_claims(&refresh(Some("n")), json!({ "nonce": "n" })).is_ok());
    assert!(of_claims(&refresh(Some("n")), json!({})).is_ok());
    assert!(of_claims(&refresh(None), json!({ "nonce": "m" })).is_ok());
    assert_eq!(of_claims(&refresh(Some("n")), json!({ "nonce": "m" })), Err(IdTokenFault::WrongNonce));
}

#[test]
fn a_refresh_is_for_the_same_user() {
    let rules = IdTokenRules { used_for: IdTokenUse::Refresh { subject: "u1", nonce: None }, ..rules() };
    assert!(of_claims(&rules, json!({})).is_ok());
    for subject in ["u2", "U1", "u1 "] {
        assert_eq!(of_claims(&rules, json!({ "sub": subject })), Err(IdTokenFault::SubjectChanged));
    }
    assert_eq!(of_claims(&rules, json!({ "sub": null })), Err(IdTokenFault::SubjectInvalid));
    assert!(!format!("{rules:?}").contains("u1"));
}

#[test]
fn an_access_token_is_the_one_that_belongs_to_it() {
    // OpenID Connect Core 1.0 A.3.
    let access_token = Secret::new("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y".to_owned());
    let rules = IdTokenRules { access_token: Some(&access_token), ..rules() };
    assert!(of_claims(&rules, json!({ "at_hash": "77QmUPtjPfzWtF2AnpK9RQ" })).is_ok());
    assert!(of_claims(&rules, json!({})).is_ok());
    for wrong in [json!("77QmUPtjPfzWtF2AnpK9Rg"), json!("77QmUPtjPfzWtF2AnpK9RQ=="), json!(""), json!(1)] {
        assert_eq!(of_claims(&rules, json!({ "at_hash": wrong })), Err(IdTokenFault::WrongAccessToken));
    }
    // The hash is that of the algorithm.
    for (algorithm, length) in [("RS384", 24), ("EdDSA", 32)] {
        let header = json!({ "alg": algorithm }).to_string();
        let short = token(&header, &changed(json!({ "at_hash": "77QmUPtjPfzWtF2AnpK9RQ" })));
        assert_eq!(examined(&rules, &short), Err(IdTokenFault::WrongAccessToken));
        let hash = Algorithm::parse(algorithm).unwrap().hash();
        let digest = (DEFAULT_PROVIDER.key_utils.compute_digest)(access_token.expose().as_bytes(), hash).unwrap();
        let long = changed(json!({ "at_hash": URL_SAFE_NO_PAD.encode(&digest[..length]) }));
        assert!(examined(&rules, &token(&header, &long)).is_ok(), "{algorithm}");
    }
    assert!(of_claims(&IdTokenRules { access_token: None, ..rules }, json!({ "at_hash": "x" })).is_ok());
}
