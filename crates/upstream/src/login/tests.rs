use jackfield_domain::Secret;
use jackfield_domain::login::{LoginEvent, LoginId};
use jackfield_domain::probe::ProbeReason;
use serde_json::Value;

use super::*;

const ID: &str = "00000000-0000-0001-0000-000000000000";

/// The user of a body, if the user may log in.
fn accepted(body: &[u8]) -> Result<AcceptedLogin, LoginFault> {
    user(body).and_then(super::accepted)
}

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
    let members = format!(r#"["{ID}", null, "a@example.com", null, null, null, null, true, null, null, {{}}, []]"#);
    let object = format!(r#"{{"id": "{ID}", "email": "a@example.com"}}"#);
    let registrations = format!(r#"{{"id": "{ID}", "email": "a", "registrations": [["app", []]]}}"#);
    for list in [format!("[{object}]"), format!(r#"{{"user": {members}}}"#), format!(r#"{{"user": {registrations}}}"#)]
    {
        assert!(matches!(fault(&list), LoginFault::BodyMalformed { line: 1, .. }), "{list}");
    }
    assert!(matches!(fault("<html></html>"), LoginFault::BodyMalformed { line: 1, column: 1 }));
    assert_eq!(accepted(b"{\"user\": \"\xff\"}").unwrap_err(), LoginFault::BodyNotUtf8);
    let long = "x".repeat(MAX_LOGIN_ID + 1);
    assert_eq!(user(&format!(r#""id": "{ID}", "email": "{long}""#)), LoginFault::UserUnnamed);
}

#[test]
fn each_member_that_names_a_user_is_enough_and_is_named() {
    let (error, hint) = (LoginFault::UserUnnamed.to_string(), ProbeReason::UserUnnamed.hint());
    for member in ["username", "email", "phoneNumber", "mobilePhone"] {
        let AcceptedLogin { user, .. } =
            accepted(format!(r#"{{"user": {{"id": "{ID}", "{member}": "+41"}}}}"#).as_bytes()).unwrap();
        let names = [user.username, user.email, user.phone_number];
        assert_eq!(names.concat(), "+41", "{member}");
        assert!(error.contains(member) && hint.contains(member), "{member}: {error}, {hint}");
    }
}

#[test]
fn the_examples_of_the_guide_are_right() {
    let guide = include_str!("../../../../deploy/guide/connectors.md");
    let example = |language: &str| {
        let (_, rest) = guide.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0
    };
    let event = LoginEvent {
        ip_address: Some("203.0.113.7".parse().unwrap()),
        user_agent: "Mozilla/5.0".to_owned(),
        ..LoginEvent::default()
    };
    let attempt = LoginAttempt {
        login_id: LoginId::parse("login_id", "ada@example.com").unwrap(),
        password: Secret::new("a password".to_owned()),
        application_id: Some("gallery".to_owned()),
        no_jwt: true,
        new_device: false,
        event,
    };
    let (_, sent) = example("http").split_once("\n\n").unwrap();
    let json = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
    assert_eq!(json(sent.as_bytes()), json(&body(&attempt)));
    let response = of_user(user(example("json").as_bytes()).unwrap(), Timestamp(0));
    assert!(matches!(response, Ok(LoginResponse::Accepted { ends_by: None, .. })), "{response:?}");
}

#[test]
fn a_fault_has_no_value_that_the_system_sent() {
    let user = |registrations: &str| {
        fault(&format!(r#"{{"user": {{"id": "{ID}", "email": "a", "registrations": [{registrations}]}}}}"#))
    };
    let (id, role) =
        (r#"{"applicationId": "sec\"ret"}"#, r#"{"applicationId": "a", "roles": ["sec\"ret", "sec\"ret"]}"#);
    for (registrations, field) in [(format!("{id}, {id}"), "[1].application_id"), (role.to_owned(), "[0].roles")] {
        let expected = LoginFault::UserInvalid(format!("registrations{field} \"…\" is given twice"));
        assert_eq!(user(&registrations), expected);
    }
}

#[test]
fn nested_json_ends_at_a_limit() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    // What is skipped is not nested in memory.
    assert_eq!(fault(&format!(r#"{{"x": {deep}}}"#)), LoginFault::UserMissing);
    let body = format!(r#"{{"user": {{"id": "{ID}", "email": "a", "data": {{"x": {deep}}}}}}}"#);
    assert!(matches!(fault(&body), LoginFault::BodyMalformed { .. }));
    let data = format!("{}{}", r#"{"a":"#.repeat(20), "1".to_owned() + &"}".repeat(20));
    let body = format!(r#"{{"user": {{"id": "{ID}", "email": "a", "data": {data}}}}}"#);
    assert!(matches!(fault(&body), LoginFault::UserInvalid(text) if text.starts_with("data")));
}

#[test]
fn a_text_that_cannot_be_kept_does_not_keep_its_user_out() {
    let body = format!(
        r#"{{"user": {{"id": "{ID}", "email": "a@example.com", "firstName": "A\u0000", "lastName": "{}", "phoneNumber": "",
            "mobilePhone": "+41"}}}}"#,
        "x".repeat(MAX_LOGIN_ID + 1)
    );
    let user = accepted(body.as_bytes()).unwrap().user;
    assert_eq!((user.first_name.as_str(), user.last_name.as_str(), user.phone_number.as_str()), ("", "", "+41"));
}

#[test]
fn far_too_many_values_are_not_read() {
    let body = format!(r#"{{"user": {{"id": "{ID}", "email": "a", "data": {{"a": [{}0]}}}}}}"#, "0,".repeat(500_000));
    let LoginFault::BodyMalformed { column, .. } = fault(&body) else { panic!("it is read") };
    assert!(column < 20_000, "{column}");
    let body = format!(r#"{{"user": {{"id": "{ID}", "email": "a", "data": {{"a": [{}0]}}}}}}"#, "0,".repeat(2_500));
    assert!(matches!(fault(&body), LoginFault::UserInvalid(text) if text.starts_with("data")));
}

#[test]
fn a_user_who_may_not_log_in_is_rejected() {
    let now = Timestamp(1_000_000_000_000);
    let meaning = |members: &str| {
        let body = format!(r#"{{"user": {{"id": "{ID}", "email": "a@example.com"{members}}}}}"#);
        user(body.as_bytes()).and_then(|user| of_user(user, now)).map(|response| match response {
            LoginResponse::Accepted { ends_by, .. } => Ok(ends_by),
            LoginResponse::Rejected(rejection) => Err(rejection),
        })
    };
    for (members, expected) in [
        ("", Ok(None)),
        (r#", "active": true, "expiry": null, "passwordChangeRequired": false"#, Ok(None)),
        (r#", "active": null"#, Ok(None)),
        (r#", "active": false"#, Err(Rejection::UserInactive)),
        (r#", "active": false, "registrations": [{"applicationId": ""}]"#, Err(Rejection::UserInactive)),
        (r#", "expiry": 1000000000"#, Err(Rejection::UserExpired)),
        (r#", "expiry": -9223372036854775808"#, Err(Rejection::UserExpired)),
        (r#", "expiry": 1000000001"#, Ok(Some("expiry"))),
        (r#", "expiry": 9223372036854775807"#, Ok(Some("expiry"))),
        (r#", "passwordChangeRequired": true"#, Ok(Some("passwordChangeRequired"))),
    ] {
        assert_eq!(meaning(members), Ok(expected), "{members}");
    }
    for members in [r#""active": "false""#, r#""active": 0"#, r#""expiry": "2020-01-01""#, r#""expiry": 1.5"#] {
        let found = meaning(&format!(", {members}"));
        assert!(matches!(found, Err(LoginFault::BodyMalformed { line: 1, .. })), "{members} {found:?}");
    }
}
