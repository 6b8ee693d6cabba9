//! Documents of users.

use super::*;
use crate::user::{EmailAddress, PhoneNumber, Registration, User, Username};

#[test]
fn a_user() {
    let sparse = json!({ "id": uuid(1), "user_id": "a", "enabled": true, "meta": meta_doc() });
    let defaults = json!({
        "username": null,
        "email": null,
        "phone_number": null,
        "first_name": "",
        "last_name": "",
        "data": {},
        "registrations": [],
        "password_set": false,
        "connector": null,
        "connector_create_time": null,
        "labels": {},
    });
    let full = User {
        id: uuid(1).into(),
        user_id: UserId::stored("a".to_owned()),
        username: Some(Username::stored("b".to_owned())),
        email: Some(EmailAddress::stored("c@d".to_owned())),
        phone_number: Some(PhoneNumber::stored("+491701234567".to_owned())),
        first_name: "e".to_owned(),
        last_name: "f".to_owned(),
        data: object(),
        registrations: vec![Registration { application_id: "g".to_owned(), roles: vec!["h".to_owned()] }],
        enabled: true,
        password_set: true,
        connector: Some(uuid(2).into()),
        connector_create_time: Some(Timestamp(3)),
        labels: Labels::stored(texts()),
        meta: meta(),
    };
    check(&sparse, &defaults, &full);
}
