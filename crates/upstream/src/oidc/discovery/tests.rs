use serde_json::{Value, json};

use super::super::documents::read;
use super::*;

const ISSUER: &str = "https://id.example/t";

fn document() -> Value {
    json!({
        "issuer": ISSUER,
        "authorization_endpoint": "https://id.example/authorize",
        "token_endpoint": "https://id.example/token",
        "jwks_uri": "https://keys.example/jwks",
    })
}

/// The metadata of a document with other members; `null` removes one.
fn metadata(changes: Value) -> Result<ProviderMetadata, DocumentFault> {
    let mut document = document();
    let (Value::Object(members), Value::Object(changes)) = (&mut document, changes) else { panic!("objects") };
    for (name, value) in changes {
        match value {
            Value::Null => members.remove(&name),
            value => members.insert(name, value),
        };
    }
    ProviderMetadata::of(read(document.to_string().as_bytes())?, ISSUER)
}

#[test]
fn absent_members_have_defaults() {
    let metadata = metadata(json!({})).unwrap();
    assert_eq!((&*metadata.issuer, metadata.jwks_uri.as_str()), (ISSUER, "https://keys.example/jwks"));
    assert_eq!((metadata.userinfo_endpoint, metadata.id_token_signing_algorithms), (None, None));
    assert_eq!(metadata.token_endpoint_auth_methods, ["client_secret_basic"]);
    assert_eq!((metadata.code_challenge_methods.len(), metadata.sends_response_issuer), (0, false));
}

#[test]
fn all_members_are_read() {
    let metadata = metadata(json!({
        "userinfo_endpoint": "https://id.example/me",
        "revocation_endpoint": "https://id.example/revoke",
        "device_authorization_endpoint": "https://id.example/device",
        "id_token_signing_alg_values_supported": ["none", "HS256", "RS256", "ES512", "EdDSA"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt", "tls_client_auth"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "mtls_endpoint_aliases": [1],
        "scopes_supported": ["openid"],
    }))
    .unwrap();
    assert_eq!(metadata.userinfo_endpoint.unwrap().as_str(), "https://id.example/me");
    assert_eq!(metadata.revocation_endpoint.unwrap().as_str(), "https://id.example/revoke");
    assert_eq!(metadata.device_authorization_endpoint.unwrap().as_str(), "https://id.example/device");
    assert_eq!(metadata.id_token_signing_algorithms.unwrap(), [Algorithm::Rs256, Algorithm::EdDsa]);
    assert_eq!(metadata.token_endpoint_auth_methods, ["private_key_jwt", "tls_client_auth"]);
    assert_eq!((metadata.code_challenge_methods, metadata.sends_response_issuer), (vec!["S256".to_owned()], true));
}

#[test]
fn a_document_of_another_issuer_is_refused() {
    for issuer in
        ["https://id.example/t/", "https://id.example", "https://ID.example/t", "https://id.example:443/t", ""]
    {
        assert_eq!(metadata(json!({ "issuer": issuer })), Err(DocumentFault::IssuerMismatch), "{issuer}");
    }
    let wrong = metadata(json!({ "issuer": "https://evil.example", "token_endpoint": 1 }));
    assert!(matches!(wrong, Err(DocumentFault::BodyMalformed { .. })), "{wrong:?}");
}

#[test]
fn an_unusable_endpoint_is_named() {
    for (name, value) in [
        ("jwks_uri", Value::Null),
        ("token_endpoint", Value::Null),
        ("authorization_endpoint", Value::Null),
        ("token_endpoint", json!("http://id.example/token")),
        ("jwks_uri", json!("/jwks")),
        ("userinfo_endpoint", json!("https://a:b@id.example/me")),
        ("revocation_endpoint", json!("file:///etc/passwd")),
        ("device_authorization_endpoint", json!("https://id.example/#device")),
        ("authorization_endpoint", json!(format!("https://id.example/{}", "a".repeat(2_048)))),
    ] {
        assert_eq!(metadata(json!({ name: value })), Err(DocumentFault::Field(name)), "{name}");
    }
    for wrong in [json!({ "issuer": null }), json!({ "jwks_uri": ["a"] })] {
        assert!(matches!(metadata(wrong), Err(DocumentFault::BodyMalformed { .. })));
    }
    for wrong in ["", "<html>", "[]", "null", "\u{0}", r#"["https://id.example/t"]"#] {
        assert!(matches!(read::<Body>(wrong.as_bytes()), Err(DocumentFault::BodyMalformed { .. })), "{wrong}");
    }
    assert!(matches!(read::<Body>(b"\xff\xfe"), Err(DocumentFault::BodyMalformed { .. })));
}

#[test]
fn the_issuer_of_a_response_is_the_one_that_was_asked() {
    for (sends, given, expected) in [
        (true, Some(ISSUER), Ok(())),
        (true, Some("https://id.example/t/"), Err(ResponseIssuerFault::Mismatch)),
        (true, None, Err(ResponseIssuerFault::Missing)),
        (false, Some(ISSUER), Ok(())),
        (false, Some("https://evil.example"), Err(ResponseIssuerFault::Mismatch)),
        (false, Some(""), Err(ResponseIssuerFault::Mismatch)),
        (false, None, Ok(())),
    ] {
        assert_eq!(check_response_issuer(ISSUER, sends, given), expected, "{sends} {given:?}");
    }
}
