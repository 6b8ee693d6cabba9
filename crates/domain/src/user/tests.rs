use super::*;

fn user_id() -> UserId {
    UserId::stored("42".to_owned())
}

fn meta() -> Meta {
    Meta::new(crate::Timestamp(1))
}

fn created(patch: &UserPatch) -> Result<User, Vec<Violation>> {
    User::create(UserUuid::generate(), patch, meta())
}

fn username(text: &str) -> Option<Option<Username>> {
    Some(Some(Username::parse("username", text).unwrap()))
}

fn registration(application_id: &str, roles: &[&str]) -> Registration {
    Registration {
        application_id: application_id.to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
    }
}

#[test]
fn login_ids_are_compared_by_what_people_mean() {
    for (one, other) in [
        ("Ann@Example.com", "ann@example.COM"),
        (" ann ", "ANN"),
        ("+49 (170) 123-4567", "+491701234567"),
        ("andr\u{e9}", "ANDRE\u{301}"),
        ("STRASSE", "straße"),
    ] {
        assert_eq!(login_key(one), login_key(other), "{one} {other}");
    }
    // Only a number with its country is the same however it is written.
    for (one, other) in [("10-15", "101-5"), ("1015", "10-15"), ("+12", "+1 2"), ("+0170 1234567", "+01701234567")] {
        assert_ne!(login_key(one), login_key(other), "{one} {other}");
    }
}

#[test]
fn login_ids_of_a_wrong_shape_are_refused() {
    for email in ["ann", "@example.com", "ann@", "a nn@example.com", "", &format!("{}@example.com", "a".repeat(243))] {
        assert!(EmailAddress::parse("user.email", email).is_err(), "{email}");
    }
    for email in ["a@b", "\"a@b\"@example.com", " ann@example.com ", &format!("{}@example.com", "a".repeat(242))] {
        assert_eq!(EmailAddress::parse("user.email", email).unwrap().as_str(), email.trim());
    }
    for number in ["", "+", "0170 1234567", "+123456", "+1234567890123456", "+49 170 x", "+0123456789", "++4917012345"]
    {
        let violation = PhoneNumber::parse("user.phone_number", number).unwrap_err();
        assert_eq!(violation.description, "must be \"+\" and 7 to 15 digits (E.164)", "{number}");
    }
    assert_eq!(PhoneNumber::parse("n", " +1 (303) 555-01.23 ").unwrap().as_str(), "+13035550123");
    assert_eq!(Username::parse("n", " +1 303 5550123").unwrap().as_str(), "+13035550123");
    assert!(Username::parse("n", &"a".repeat(192)).is_err() && Username::parse("n", "a\u{200b}b").is_err());
}

#[test]
fn a_user_has_a_login_id_and_an_id_of_the_platform() {
    let violations = created(&UserPatch::default()).unwrap_err();
    assert_eq!((violations.len(), &*violations[0].field), (1, "user.username"));
    let user = created(&UserPatch { username: username("ann"), ..Default::default() }).unwrap();
    assert_eq!(user.user_id.as_str(), user.id.to_string());
    let named = UserPatch { username: username("ann"), user_id: Some(user_id()), ..Default::default() };
    let user = created(&named).unwrap();
    assert_eq!(user.user_id, user_id());
    assert!(user.clone().patched(&named, meta()).is_ok(), "it is the same");
    let other = UserPatch { user_id: Some(UserId::stored("43".to_owned())), ..Default::default() };
    assert_eq!(user.clone().patched(&other, meta()).unwrap_err()[0].field, "user.user_id");
    assert!(user.patched(&UserPatch { username: Some(None), ..Default::default() }, meta()).is_err());
}

#[test]
fn passwords_have_limits_and_one_form() {
    let chosen = |text: &str| Password::chosen("user.password", text.to_owned()).map_err(|wrong| wrong.description);
    let given = |text: &str| Password::given("password", text.to_owned()).map_err(|wrong| wrong.description);
    assert_eq!(chosen("1234567").unwrap_err(), "must be at least 8 characters long");
    assert_eq!(chosen("äöüäöü1").unwrap_err(), "must be at least 8 characters long");
    assert!(chosen("äöüäöü12").is_ok() && chosen("12 34 56").is_ok());
    assert_eq!(chosen("        ").unwrap_err(), "must not be blank");
    assert!(chosen("********").unwrap_err().starts_with("is a masked placeholder"));
    for short in ["1", " ", "********"] {
        assert!(given(short).is_ok(), "{short}");
    }
    for parse in [chosen, given] {
        assert!(parse(&"x1".repeat(512)).is_ok() && parse(&"ä1".repeat(341)).is_ok());
        assert_eq!(parse(&"x1".repeat(513)).unwrap_err(), "must be at most 1024 bytes long");
        assert_eq!(parse(&"ä1".repeat(342)).unwrap_err(), "must be at most 1024 bytes long");
        assert_eq!(parse("").unwrap_err(), "must not be empty");
    }
    assert_eq!(given("e\u{301}\u{fb01}").unwrap().expose(), "\u{e9}fi");
    assert_eq!(given("\u{e9}\u{fb01}").unwrap().expose(), "\u{e9}fi");
    assert_eq!(given("\u{378}\u{fb01}").unwrap().expose(), "\u{378}\u{fb01}", "not assigned");
    assert_eq!(format!("{:?}", given("canary").unwrap()), "Password([redacted])");
}

#[test]
fn registrations_are_bounded_and_given_once() {
    let check = |given| registrations("user.registrations", given);
    let many = |count: usize| (0..count).map(|number| registration(&number.to_string(), &[])).collect::<Vec<_>>();
    assert!(check(many(64)).is_ok());
    assert_eq!(check(many(65)).unwrap_err()[0].description, "must have at most 64 entries");
    let roles: Vec<String> = (0..65).map(|number| number.to_string()).collect();
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    assert!(check(vec![registration(&"a".repeat(128), &roles[..64]), registration("b", &[&"r".repeat(128)])]).is_ok());
    let fields = |given| check(given).unwrap_err().into_iter().map(|violation| violation.field).collect::<Vec<_>>();
    assert_eq!(fields(vec![registration("a", &roles)]), ["user.registrations[0].roles"]);
    let wrong = vec![
        registration("a", &["x", "x"]),
        registration("a", &[""]),
        registration("", &[]),
        registration(&"a".repeat(129), &[&"r".repeat(129)]),
    ];
    let expected =
        ["[0].roles", "[1].application_id", "[1].roles", "[2].application_id", "[3].application_id", "[3].roles"];
    assert_eq!(fields(wrong), expected.map(|path| format!("user.registrations{path}")));
}

#[test]
fn a_user_of_another_system_keeps_what_can_be_one_here() {
    let password = || Password::given("password", "short".to_owned()).unwrap();
    let origin = UserOrigin { connector: ConnectorId::generate(), create_time: Timestamp(1) };
    let user = ExternalUser {
        first_name: "x".repeat(129),
        id: "42".to_owned(),
        username: String::new(),
        email: "ann@example.com".to_owned(),
        phone_number: "0170 1234567".to_owned(),
        registrations: vec![registration("a", &["r"])],
        ..Default::default()
    };
    let migrated = created(&UserPatch::of_external(user.clone(), origin, password()).unwrap()).unwrap();
    assert_eq!(migrated.login_ids(), ["ann@example.com"]);
    assert!(migrated.is_from(&origin));
    assert_eq!((migrated.user_id, migrated.connector), (user_id(), Some(origin.connector)));
    assert_eq!(migrated.first_name, "x".repeat(128));
    assert!(migrated.password_set && migrated.enabled);
    let nameless = ExternalUser { email: "ann".to_owned(), ..user.clone() };
    assert!(created(&UserPatch::of_external(nameless, origin, password()).unwrap()).is_err());
    let wrong = ExternalUser { id: String::new(), first_name: "\u{7}".to_owned(), ..user };
    assert_eq!(UserPatch::of_external(wrong, origin, password()).unwrap_err().len(), 2);
}
