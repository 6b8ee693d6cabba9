use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://id.example/t";

fn published(body: &Value) -> Published {
    Published::of(StatusCode::OK, body.to_string().as_bytes()).unwrap()
}

fn url(text: &str) -> HttpUrl {
    HttpUrl::parse("url", text, MAX_URL).unwrap()
}

#[test]
fn documents_are_where_the_standards_say() {
    for (issuer, openid, oauth) in [
        (
            "https://id.example",
            "https://id.example/.well-known/openid-configuration",
            "https://id.example/.well-known/oauth-authorization-server",
        ),
        (
            "https://id.example/",
            "https://id.example/.well-known/openid-configuration",
            "https://id.example/.well-known/oauth-authorization-server",
        ),
        (
            "https://id.example:8443/t/v2.0",
            "https://id.example:8443/t/v2.0/.well-known/openid-configuration",
            "https://id.example:8443/.well-known/oauth-authorization-server/t/v2.0",
        ),
        (
            "https://id.example/t/",
            "https://id.example/t/.well-known/openid-configuration",
            "https://id.example/.well-known/oauth-authorization-server/t",
        ),
        (
            "http://127.0.0.1:80",
            "http://127.0.0.1:80/.well-known/openid-configuration",
            "http://127.0.0.1:80/.well-known/oauth-authorization-server",
        ),
    ] {
        let urls = DocumentUrls::of(issuer).unwrap();
        assert_eq!((urls.openid.as_str(), urls.oauth.as_str()), (openid, oauth), "{issuer}");
    }
    for wrong in
        ["", "id.example", "http://id.example", "https://id.example?a", "https://id.example#a", "https://a@id.example"]
    {
        assert_eq!(DocumentUrls::of(wrong), Err(DocumentFault::IssuerInvalid), "{wrong}");
    }
}

/// Members that are not needed may be wrong, or not there.
#[test]
fn only_the_endpoints_that_are_called_have_to_be_right() {
    let published = published(&json!({
        "issuer": ISSUER,
        "token_endpoint": "https://id.example/token",
        "revocation_endpoint": "https://id.example/revoke",
        "device_authorization_endpoint": "http://id.example/device",
        "authorization_endpoint": 7,
        "jwks_uri": ["https://id.example/jwks"],
        "userinfo_endpoint": { "token_endpoint": "https://evil.example/" },
        "code_challenge_methods_supported": "S256",
        "mtls_endpoint_aliases": {
            "token_endpoint": "https://mtls.example/token",
            "revocation_endpoint": null,
            "device_authorization_endpoint": "https://mtls.example/device",
            "other": { "a": [1, 2.5, -1, true] },
        },
    }));
    let endpoints = ProviderEndpoints::of(&published, ISSUER).unwrap();
    let (token, revocation, device) =
        ("https://id.example/token", "https://id.example/revoke", "http://id.example/device");
    assert_eq!(endpoints.token.for_certificate(&url(token)).as_str(), "https://mtls.example/token");
    // No other URL has this alias, and an endpoint without an alias is the same for all.
    for other in ["https://id.example/token/", "https://id.example/other"] {
        assert_eq!(endpoints.token.for_certificate(&url(other)).as_str(), other);
    }
    assert_eq!(endpoints.revocation.for_certificate(&url(revocation)).as_str(), revocation);
    assert_eq!(endpoints.device_authorization.for_certificate(&url(device)).as_str(), device, "it has no https");
    assert!(
        published.has("token_endpoint", &url("https://mtls.example/token"))
            && published.has("token_endpoint", &url(token))
    );
    assert!(
        !published.has("revocation_endpoint", &url(token))
            && !published.has("jwks_uri", &url("https://id.example/jwks"))
    );
    assert_eq!((published.url("authorization_endpoint"), published.text("jwks_uri")), (None, None));
}

#[test]
fn aliases_are_members_of_an_object() {
    for aliases in [json!(["https://mtls.example/token"]), json!("https://mtls.example/token"), json!(null), json!(1)] {
        let token = "https://id.example/token";
        let published =
            published(&json!({ "issuer": ISSUER, "token_endpoint": token, "mtls_endpoint_aliases": aliases }));
        let endpoints = ProviderEndpoints::of(&published, ISSUER).unwrap();
        assert_eq!(endpoints.token.for_certificate(&url(token)).as_str(), token, "{aliases}");
    }
}

#[test]
fn a_document_of_another_issuer_is_refused() {
    for issuer in [
        json!("https://id.example/t/"),
        json!("https://id.example"),
        json!("https://ID.example/t"),
        json!("https://id.example:443/t"),
        json!(""),
        json!([ISSUER]),
        json!(null),
    ] {
        let published = published(&json!({ "issuer": issuer, "token_endpoint": "https://id.example/token" }));
        assert_eq!(ProviderEndpoints::of(&published, ISSUER), Err(DocumentFault::IssuerMismatch), "{issuer}");
    }
}

#[test]
fn another_place_counts_where_there_is_no_document() {
    let fault = |status: u16, body: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        Published::of(status, body.as_bytes()).err().unwrap()
    };
    for (status, body, is_no_document) in [
        (404, "", true),
        (410, "", true),
        (401, "", true),
        (403, "{}", true),
        (302, "", true),
        (204, "", true),
        (200, "<!doctype html>", true),
        (200, "[]", true),
        (200, "null", true),
        (200, "\u{0}", true),
        (500, "", false),
        (503, "{}", false),
        (429, "", false),
        (408, "", false),
    ] {
        let fault = fault(status, body);
        assert_eq!(fault.is_no_document(), is_no_document, "{status} {body}");
        assert_eq!(fault.is_silence(), !is_no_document, "{status} {body}");
        assert_eq!(fault.is_absence(), matches!(status, 404 | 410), "{status} {body}");
    }
    assert!(Published::of(StatusCode::OK, b"\xff\xfe").is_err());
    // The first place says whether the issuer publishes anything, unless the second one may have a document.
    assert_eq!(fault(404, "").or(fault(403, "")), fault(404, ""));
    assert_eq!(fault(403, "").or(fault(404, "")), fault(403, ""));
    assert_eq!(fault(404, "").or(fault(503, "")), fault(503, ""));
}
