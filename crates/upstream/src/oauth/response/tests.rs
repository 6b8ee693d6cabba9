use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};

use super::super::TokenFailure;
use super::*;

fn response(status: u16, media_type: &str, body: &str) -> Response {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(media_type).unwrap())]);
    Response { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from(body.to_owned()) }
}

fn json(status: u16, body: &str) -> Result<TokenResponse, TokenFault> {
    read(&response(status, "application/json", body))
}

fn access(body: &str) -> Result<AccessToken, AccessFlaw> {
    json(200, body).expect(body).access
}

#[test]
fn all_parts_of_a_response_are_read() {
    let tokens = json(
        200,
        r#"{"access_token": "a1", "token_type": "bearer", "expires_in": 3600, "refresh_token": "r1", "scope": "read write read",
            "id_token": "i1", "refresh_token_expires_in": 86400, "more": {"x": [1]}}"#,
    )
    .unwrap();
    let access = tokens.access.unwrap();
    assert_eq!((access.token.expose(), &*access.token_type), ("a1", "Bearer"));
    assert_eq!(access.lifetime, Some(Duration::from_secs(3600)));
    assert_eq!(access.scopes.unwrap(), ["read", "write"]);
    assert_eq!(tokens.refresh_token.unwrap().expose(), "r1");
    assert_eq!(tokens.authorization_lifetime, Some(Duration::from_secs(86_400)));
    assert_eq!(tokens.id_token.unwrap().expose(), "i1");
}

#[test]
fn the_rest_of_an_authorisation_has_many_names() {
    let told = |members: &str| {
        let tokens = json(200, &format!(r#"{{"access_token": "a1", {members}}}"#)).unwrap();
        tokens.authorization_lifetime.map(|lifetime| lifetime.as_secs())
    };
    for name in AUTHORIZATION_LIFETIMES {
        assert_eq!(told(&format!(r#""{name}": "60""#)), Some(60), "{name}");
        for untold in ["0", "null", "-1", r#""soon""#, "1e12"] {
            assert_eq!(told(&format!(r#""{name}": {untold}"#)), None, "{name}: {untold}");
        }
    }
    let both = r#""refresh_token_expires_in": 60, "authorization_expires_in": 86400"#;
    assert_eq!(told(both), Some(86_400), "a refresh token may be replaced, an authorisation not");
    assert_eq!(told(r#""refresh_token_expires_in": 60, "authorization_expires_in": 0"#), Some(60));
    assert_eq!(told(r#""expires_in": 60"#), None);
}

#[test]
fn parts_may_be_absent_or_in_a_form_that_providers_use() {
    let least = access(r#"{"access_token": "a1", "scope": null, "expires_in": null}"#).unwrap();
    assert_eq!((&*least.token_type, least.lifetime, least.scopes), ("Bearer", None, None));
    for (member, scopes) in [
        (r#""""#, &[][..]),
        (r#""repo,gist""#, &["repo", "gist"]),
        (r#""a,b c""#, &["a,b", "c"]),
        (r#"["a", "b"]"#, &["a", "b"]),
    ] {
        assert_eq!(access(&format!(r#"{{"access_token": "a", "scope": {member}}}"#)).unwrap().scopes.unwrap(), scopes);
    }
    for (member, seconds) in [
        ("3600", Some(3600.0)),
        (r#""3600""#, Some(3600.0)),
        ("3599.5", Some(3599.5)),
        ("1e12", None),
        (r#""inf""#, None),
    ] {
        let lifetime = access(&format!(r#"{{"access_token": "a", "expires_in": {member}}}"#)).unwrap().lifetime;
        assert_eq!(lifetime.map(|lifetime| lifetime.as_secs_f64()), seconds, "{member}");
    }
    let form =
        read(&response(201, "application/x-www-form-urlencoded; charset=utf-8", "access_token=a%2Bb&expires_in=60"));
    let form = form.unwrap().access.unwrap();
    assert_eq!((form.token.expose(), form.lifetime), ("a+b", Some(Duration::from_secs(60))));
}

/// The server may have spent the refresh token that was sent.
#[test]
fn the_refresh_token_is_kept_whatever_else_is_wrong() {
    for (members, flaw) in [
        (r#""token_type": "Bearer""#, AccessFlaw::TokenMissing),
        (r#""access_token": """#, AccessFlaw::TokenMissing),
        (r#""access_token": {"a": 1}"#, AccessFlaw::TokenMissing),
        (r#""access_token": "a\nb""#, AccessFlaw::TokenUnusable),
        (r#""access_token": "ä""#, AccessFlaw::TokenUnusable),
        (&format!(r#""access_token": "{}""#, "a".repeat(MAX_TOKEN + 1)), AccessFlaw::TokenUnusable),
        (r#""access_token": "a", "expires_in": -3600"#, AccessFlaw::LifetimeInvalid),
        (r#""access_token": "a", "expires_in": "soon""#, AccessFlaw::LifetimeInvalid),
        (r#""access_token": "a", "expires_in": "nan""#, AccessFlaw::LifetimeInvalid),
        (r#""access_token": "a", "expires_in": [3600]"#, AccessFlaw::LifetimeInvalid),
        (r#""access_token": "a", "token_type": "a b""#, AccessFlaw::TypeInvalid),
        (r#""access_token": "a", "token_type": """#, AccessFlaw::TypeInvalid),
        (r#""access_token": "a", "token_type": 1"#, AccessFlaw::TypeInvalid),
        (r#""access_token": "a", "scope": 1"#, AccessFlaw::ScopeInvalid),
        (r#""access_token": "a", "scope": "a\u0000b""#, AccessFlaw::ScopeInvalid),
        (r#""access_token": "a", "scope": [1]"#, AccessFlaw::ScopeInvalid),
    ] {
        let tokens = json(200, &format!(r#"{{"refresh_token": "r2", {members}}}"#)).expect(members);
        assert_eq!(tokens.refresh_token.unwrap().expose(), "r2", "{members}");
        assert_eq!(tokens.access.unwrap_err(), flaw, "{members}");
    }
}

/// One that is absent or empty says that the one that was sent stays.
#[test]
fn a_refresh_token_that_cannot_be_used_is_lost() {
    let lost = |member: &str| {
        let tokens = json(200, &format!(r#"{{"access_token": "a"{member}}}"#)).expect(member);
        assert_eq!(tokens.access.unwrap().token.expose(), "a", "{member}");
        (tokens.loses_refresh_token, tokens.refresh_token.map(|token| token.expose().to_owned()))
    };
    for stays in ["", "null", r#""""#, "false"].map(|value| match value {
        "" => String::new(),
        value => format!(r#", "refresh_token": {value}"#),
    }) {
        assert_eq!(lost(&stays), (false, None), "{stays}");
    }
    assert_eq!(lost(r#", "refresh_token": "r2""#), (false, Some("r2".to_owned())));
    let long = format!("\"{}\"", "r".repeat(200 << 10));
    for value in ["7", "true", "{}", r#"["r2"]"#, r#""r\u0000""#, r#""r\u00e4""#, &*long] {
        assert_eq!(lost(&format!(r#", "refresh_token": {value}"#)), (true, None), "{value:.40}");
    }
    let form = |body| read(&response(200, "application/x-www-form-urlencoded", body)).unwrap().loses_refresh_token;
    assert!(form("access_token=a&refresh_token=r%00") && !form("access_token=a&refresh_token=&scope=a"));
}

#[test]
fn a_wrong_media_type_costs_no_tokens() {
    let json = r#"{"access_token": "a1", "refresh_token": "r1"}"#;
    let form = "access_token=a1&refresh_token=r1&expires_in=60";
    for (media_type, body) in [
        ("application/x-www-form-urlencoded", json),
        ("application/x-www-form-urlencoded", &*format!("\u{feff}\n{json}")),
        ("text/html; charset=utf-8", json),
        ("application/json", form),
        ("text/plain", &*format!("{form}\r\n")),
        ("text/html", form),
    ] {
        let tokens = read(&response(200, media_type, body)).expect(body);
        let found = (tokens.access.unwrap().token, tokens.refresh_token.unwrap());
        assert_eq!((found.0.expose(), found.1.expose()), ("a1", "r1"), "{media_type}: {body}");
    }
    for body in [
        r#"<a href="/x?a=1&access_token=hunter2&b=2">"#,
        "Log in & read access_token=hunter2",
        "refresh_token=r1&scope=a",
        "access_token=a&access_token=b",
        "{access_token=a1}",
    ] {
        for media_type in ["text/html", "text/plain", "application/json"] {
            let fault = read(&response(200, media_type, body)).expect_err(body);
            assert_eq!(fault.reason(), "BODY_MALFORMED", "{media_type}: {body}");
        }
    }
}

/// Tokens say that what was sent is spent. Only a code that refuses the grant is believed all the same.
#[test]
fn the_tokens_beside_an_error_code_are_kept() {
    let errors = [
        "temporarily_unavailable",
        "slow_down",
        "invalid_client",
        "invalid_request",
        "invalid_scope",
        "access_denied",
        "server_error",
        "hunter2",
    ];
    let errors = errors.map(|code| format!("\"{code}\""));
    for error in errors.into_iter().chain(["false", "0", r#"{"code": 0}"#].map(str::to_owned)) {
        for (tokens, refresh_token) in [
            (r#""access_token": "a", "refresh_token": "r2""#, Some("r2")),
            (r#""access_token": "a""#, None),
            (r#""refresh_token": "r2""#, Some("r2")),
        ] {
            let body = format!(r#"{{"error": {error}, {tokens}}}"#);
            for status in [200, 201] {
                let tokens = json(status, &body).expect(&body);
                assert_eq!(tokens.refresh_token.as_ref().map(Secret::expose), refresh_token, "{body}");
                let flaw = tokens.access.unwrap_err();
                assert!(
                    matches!(flaw, AccessFlaw::ErrorBeside(_)) && !flaw.to_string().contains("hunter2"),
                    "{body}: {flaw}"
                );
            }
            for status in [302, 400, 500] {
                assert_eq!(json(status, &body).unwrap_err().reason(), "TOKEN_REFUSED", "{status} {body}");
            }
        }
    }
    for body in [
        r#"{"error": "invalid_grant", "access_token": "a", "refresh_token": "r2"}"#,
        r#"{"error": "slow_down", "access_token": 7}"#,
        r#"{"error": "hunter2", "access_token": "", "refresh_token": 7}"#,
    ] {
        assert!(matches!(json(200, body), Err(TokenFault::Refused { .. })), "{body}");
    }
}

/// An operator sees which member is wrong and why, and never its value.
#[test]
fn a_flaw_names_its_member() {
    for (members, member) in [
        (r#""token_type": "hunter2""#, "access_token"),
        (r#""access_token": "hunter2\n""#, "access_token"),
        (r#""access_token": "a", "expires_in": "hunter2""#, "expires_in"),
        (r#""access_token": "a", "expires_in": -3600"#, "expires_in"),
        (r#""access_token": "a", "token_type": "hunter2\n""#, "token_type"),
        (r#""access_token": "a", "scope": {"hunter2": 1}"#, "scope"),
    ] {
        let flaw = access(&format!("{{{members}}}")).unwrap_err();
        let text = flaw.to_string();
        assert!(text.starts_with(&format!("the token endpoint gave no usable answer: {member} ")), "{text}");
        assert!(!format!("{text} {flaw:?} {}", flaw.reason()).contains("hunter2") && !text.contains("3600"), "{text}");
    }
}

#[test]
fn refusals_have_a_class() {
    for (status, body, class, code) in [
        (400, r#"{"error": "invalid_grant", "error_description": "hunter2"}"#, TokenFailure::Grant, "invalid_grant"),
        (401, r#"{"error": "invalid_client"}"#, TokenFailure::Connection, "invalid_client"),
        (401, r#"{"error": "access_denied"}"#, TokenFailure::Connection, "access_denied"),
        (403, r#"{"error": "access_denied"}"#, TokenFailure::User, "access_denied"),
        (401, r#"{"error": "login_required"}"#, TokenFailure::User, "login_required"),
        (400, r#"{"error": "authorization_declined"}"#, TokenFailure::User, "authorization_declined"),
        (400, r#"{"error": "invalid_scope"}"#, TokenFailure::Request, "invalid_scope"),
        (400, r#"{"error": "interaction_required"}"#, TokenFailure::User, "interaction_required"),
        (400, r#"{"error": "authorization_pending"}"#, TokenFailure::Pending, "authorization_pending"),
        (400, r#"{"error": "slow_down"}"#, TokenFailure::Transient, "slow_down"),
        (200, r#"{"error": "slow_down"}"#, TokenFailure::Transient, "slow_down"),
        (400, r#"{"error": "temporarily_unavailable"}"#, TokenFailure::Transient, "temporarily_unavailable"),
        (200, r#"{"error": "temporarily_unavailable"}"#, TokenFailure::Transient, "temporarily_unavailable"),
        (500, r#"{"error": "temporarily_unavailable"}"#, TokenFailure::Unknown, "temporarily_unavailable"),
        (502, r#"{"error": "slow_down"}"#, TokenFailure::Unknown, "slow_down"),
        (504, r#"{"error": "ratelimited"}"#, TokenFailure::Unknown, "ratelimited"),
        (408, r#"{"error": "invalid_client"}"#, TokenFailure::Unknown, "invalid_client"),
        (302, r#"{"error": "invalid_request"}"#, TokenFailure::Unknown, "invalid_request"),
        (500, r#"{"error": "use_dpop_nonce"}"#, TokenFailure::Unknown, "use_dpop_nonce"),
        (503, r#"{"error": "invalid_client"}"#, TokenFailure::Transient, "invalid_client"),
        (429, r#"{"error": "invalid_request"}"#, TokenFailure::Transient, "invalid_request"),
        (202, r#"{"error": "slow_down", "access_token": "a"}"#, TokenFailure::Unknown, "slow_down"),
        (500, r#"{"error": "invalid_grant"}"#, TokenFailure::Grant, "invalid_grant"),
        (500, r#"{"error": "authorization_pending"}"#, TokenFailure::Pending, "authorization_pending"),
        (408, r#"{"error": "server_error"}"#, TokenFailure::Unknown, "server_error"),
        (421, r#"{"error": "server_error"}"#, TokenFailure::Transient, "server_error"),
        (302, r#"{"error": "server_error"}"#, TokenFailure::Unknown, "server_error"),
        (302, r#"{"error": "hunter2"}"#, TokenFailure::Unknown, "an unknown error code"),
        (307, r#"{"error": "hunter2"}"#, TokenFailure::Transient, "an unknown error code"),
        (421, r#"{"error": "hunter2"}"#, TokenFailure::Transient, "an unknown error code"),
        (500, r#"{"error": "server_error"}"#, TokenFailure::Unknown, "server_error"),
        (200, r#"{"error": "bad_refresh_token"}"#, TokenFailure::Grant, "bad_refresh_token"),
        (200, r#"{"ok": false, "error": "invalid_refresh_token"}"#, TokenFailure::Grant, "invalid_refresh_token"),
        (400, r#"{"error": "hunter2"}"#, TokenFailure::Transient, "an unknown error code"),
        (429, r#"{"error": "too_many"}"#, TokenFailure::Transient, "an unknown error code"),
        (503, r#"{"error": {"code": 1}}"#, TokenFailure::Transient, "an unknown error code"),
        (502, r#"{"error": "hunter2"}"#, TokenFailure::Unknown, "an unknown error code"),
        (200, r#"{"error": "hunter2", "access_token": ""}"#, TokenFailure::Unknown, "an unknown error code"),
    ] {
        let fault = json(status, body).expect_err(body);
        let TokenFault::Refused { code: refused, .. } = &fault else { panic!("{body}: {fault:?}") };
        assert_eq!((refused.as_str(), fault.class()), (code, class), "{body}");
        assert!(!format!("{fault} {fault:?}").contains("hunter2"), "{fault:?}");
    }
}

#[test]
fn other_responses_are_faults() {
    let html = "<!doctype html><p>captive";
    for (status, body, class) in [
        (200, html, TokenFailure::Unknown),
        (200, "", TokenFailure::Unknown),
        (200, "[]", TokenFailure::Unknown),
        (200, r#"["a1", "Bearer"]"#, TokenFailure::Unknown),
        (200, &"[".repeat(100_000), TokenFailure::Unknown),
        (300, html, TokenFailure::Unknown),
        (301, html, TokenFailure::Connection),
        (302, html, TokenFailure::Unknown),
        (303, html, TokenFailure::Unknown),
        (304, "", TokenFailure::Unknown),
        (307, html, TokenFailure::Connection),
        (308, html, TokenFailure::Connection),
        (404, html, TokenFailure::Connection),
        (408, html, TokenFailure::Unknown),
        (421, html, TokenFailure::Transient),
        (425, html, TokenFailure::Transient),
        (429, "", TokenFailure::Transient),
        (503, html, TokenFailure::Transient),
        (500, r#"{"message": "x"}"#, TokenFailure::Unknown),
        (504, html, TokenFailure::Unknown),
        (204, "", TokenFailure::Unknown),
    ] {
        let fault = json(status, body).expect_err(body);
        assert_eq!(fault.class(), class, "{status} {body:.40}: {fault:?}");
    }
    let twice = read(&response(200, "application/x-www-form-urlencoded", "access_token=a&access_token=b"));
    assert_eq!(twice.unwrap_err().reason(), "BODY_MALFORMED");
}

#[test]
fn a_server_may_ask_for_a_wait() {
    for (status, body) in [(429, ""), (503, "<html>"), (400, r#"{"error": "slow_down"}"#)] {
        let mut busy = response(status, "text/html", body);
        busy.headers.insert(RETRY_AFTER, HeaderValue::from_static("30"));
        assert_eq!(read(&busy).unwrap_err().retry_after(), Some(Duration::from_secs(30)), "{status}");
    }
}

/// A grant may be sent again only if it was not looked at.
#[test]
fn some_responses_say_that_the_request_was_not_processed() {
    for (status, body, is_unprocessed) in [
        (408, "", false),
        (421, "", true),
        (425, "", true),
        (429, "", true),
        (503, "", true),
        (408, r#"{"error": "hunter2"}"#, false),
        (425, r#"{"error": "hunter2"}"#, true),
        (200, r#"{"error": "temporarily_unavailable"}"#, true),
        (400, r#"{"error": "slow_down"}"#, true),
        (200, r#"{"error": "ratelimited"}"#, true),
        (500, r#"{"error": "temporarily_unavailable"}"#, false),
        (502, r#"{"error": "slow_down"}"#, false),
        (408, r#"{"error": "ratelimited"}"#, false),
        (302, r#"{"error": "temporarily_unavailable"}"#, false),
        (503, r#"{"error": "temporarily_unavailable"}"#, true),
        (302, "", false),
        (307, "", false),
        (400, "", false),
        (400, r#"{"error": "hunter2"}"#, false),
        (500, r#"{"error": "server_error"}"#, false),
        (200, "", false),
    ] {
        assert_eq!(json(status, body).unwrap_err().is_unprocessed(), is_unprocessed, "{status} {body}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped() {
    assert_eq!(access("\u{feff}{\"access_token\": \"a1\"}").unwrap().token.expose(), "a1");
    assert_eq!(json(400, "\u{feff}{\"error\": \"invalid_grant\"}").unwrap_err().class(), TokenFailure::Grant);
    assert_eq!(json(200, "\u{feff}").unwrap_err().reason(), "BODY_MALFORMED");
}

#[test]
fn the_codes_of_a_device_are_read() {
    let read = |body: &str| read_device(&response(200, "application/json", body));
    let device = read(
        r#"{"device_code": "d1", "user_code": "WDJB-MJHT", "verification_uri": "https://as.example/device",
            "verification_uri_complete": "https://as.example/device?user_code=WDJB-MJHT", "expires_in": 1800, "interval": 7}"#,
    )
    .unwrap();
    assert_eq!((device.device_code.expose(), device.user_code.expose()), ("d1", "WDJB-MJHT"));
    assert_eq!(device.verification_uri.as_str(), "https://as.example/device");
    assert_eq!(device.verification_uri_complete.unwrap().expose(), "https://as.example/device?user_code=WDJB-MJHT");
    assert_eq!((device.lifetime.as_secs(), device.interval), (1800, Some(Duration::from_secs(7))));
    // As Google and Microsoft write it.
    let url = "https://as.example/device";
    let least = format!(
        r#"{{"device_code": "d", "user_code": "u", "verification_url": "{url}", "expires_in": "900",
            "verification_uri_complete": "javascript:alert(1)"}}"#
    );
    let least = read(&least).unwrap();
    assert_eq!((least.verification_uri.as_str(), least.lifetime.as_secs(), least.interval), (url, 900, None));
    assert!(least.verification_uri_complete.is_none());
    for (member, value) in [
        ("device_code", "\"\""),
        ("device_code", "7"),
        ("user_code", "null"),
        ("user_code", "\"two\\nlines\""),
        ("verification_uri", "\"javascript:alert(1)\""),
        ("verification_uri", "\"/device\""),
        ("expires_in", "0"),
        ("expires_in", "-1"),
        ("interval", "-1"),
    ] {
        let given = |name, text: &str| if name == member { value.to_owned() } else { text.to_owned() };
        let body = format!(
            r#"{{"device_code": {}, "user_code": {}, "verification_uri": {}, "expires_in": {}, "interval": {}}}"#,
            given("device_code", "\"d\""),
            given("user_code", "\"u\""),
            given("verification_uri", "\"https://as.example\""),
            given("expires_in", "9"),
            given("interval", "9"),
        );
        assert_eq!(read(&body).unwrap_err().reason(), "BODY_MALFORMED", "{member} {value}");
    }
    let refused = read_device(&response(400, "application/json", r#"{"error": "invalid_scope"}"#)).unwrap_err();
    assert_eq!(refused.class(), TokenFailure::Request);
}
