use super::*;

const ID: &str = "00000000-0000-0001-0000-000000000000";

fn fault(body: &str) -> LoginFault {
    accepted(body.as_bytes()).unwrap_err()
}

#[test]
fn a_user_is_read_with_unknown_members() {
    let body = format!(
        r#"{{"user": {{"id": "{ID}", "email": "a@example.com", "new": [1], "data": {{"x": 1}}, "mobilePhone": "1",
            "registrations": [{{"applicationId": "app", "roles": ["admin"], "verified": true}}]}}, "token": "t"}}"#
    );
    let AcceptedLogin { user, registrations } = accepted(body.as_bytes()).unwrap();
    assert_eq!(
        (user.id.to_string().as_str(), user.email.as_str(), user.phone_number.as_str()),
        (ID, "a@example.com", "1")
    );
    assert_eq!(user.data.as_map()["x"], 1);
    assert_eq!(registrations, [Registration { application_id: "app".into(), roles: vec!["admin".into()] }]);
}

#[test]
fn users_that_the_protocol_does_not_permit_are_faults() {
    let user = |members: &str| fault(&format!(r#"{{"user": {{{members}}}}}"#));
    assert_eq!(fault("{}"), LoginFault::UserMissing);
    assert_eq!(fault(r#"{"user": null}"#), LoginFault::UserMissing);
    assert_eq!(user(r#""email": "a@example.com""#), LoginFault::UserIdInvalid);
    assert_eq!(user(r#""id": "7", "email": "a@example.com""#), LoginFault::UserIdInvalid);
    assert_eq!(user(&format!(r#""id": "{ID}", "email": "  ""#)), LoginFault::UserUnnamed);
    let twice = format!(r#"{{"user": {{"id": "{ID}", "email": "a"}}, "user": {{"id": "{ID}", "email": "b"}}}}"#);
    assert!(matches!(fault(&twice), LoginFault::BodyMalformed { line: 1, .. }));
    assert!(matches!(fault(r#"{"user": [{}, {}]}"#), LoginFault::BodyMalformed { .. }));
    assert!(matches!(fault("<html></html>"), LoginFault::BodyMalformed { line: 1, column: 1 }));
    assert_eq!(accepted(b"{\"user\": \"\xff\"}").unwrap_err(), LoginFault::BodyNotUtf8);
    let long = "x".repeat(MAX_LOGIN_ID + 1);
    assert!(
        matches!(user(&format!(r#""id": "{ID}", "email": "{long}""#)), LoginFault::UserInvalid(text) if text.starts_with("email"))
    );
}

#[test]
fn nested_json_ends_at_a_limit() {
    let deep = format!(r#"{{"x": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(fault(&deep), LoginFault::BodyMalformed { .. }));
    let data = format!("{}{}", r#"{"a":"#.repeat(20), "1".to_owned() + &"}".repeat(20));
    let body = format!(r#"{{"user": {{"id": "{ID}", "email": "a", "data": {data}}}}}"#);
    assert!(matches!(fault(&body), LoginFault::UserInvalid(text) if text.starts_with("data")));
}
