//! Documents of applications, permissions and sessions.

use super::*;
use crate::application::{Application, Permission, PermissionGrant, Session, SessionHolder, TokenDigest, UserProfile};
use crate::value::id::{ApplicationId, ConnectorId, PermissionGrantId, SessionId, UserUuid};
use crate::value::text::{CompanyId, PermissionSlug};

#[test]
fn an_application() {
    let sparse = json!({
        "id": uuid(1),
        "name": "a",
        "enabled": false,
        "session_lifetime": { "secs": 60, "nanos": 0 },
        "meta": meta_doc(),
    });
    let defaults = json!({ "external_id": null, "permissions": [], "connector": null, "labels": {} });
    let slug = PermissionSlug::stored("read".to_owned());
    let full = Application {
        id: ApplicationId(uuid(1)),
        name: Name::stored("a".to_owned()),
        external_id: Some(ExternalId::stored("b".to_owned())),
        enabled: true,
        permissions: vec![Permission { slug, description: "c".to_owned() }],
        connector: Some(ConnectorId(uuid(2))),
        session_lifetime: Duration::new(60, 1),
        labels: Labels::stored(texts()),
        meta: meta(),
    };
    check(&sparse, &defaults, &full);
}

#[test]
fn a_permission_grant() {
    let sparse = json!({
        "id": uuid(1),
        "application": uuid(2),
        "company_id": "a",
        "company_name": "b",
        "user_id": "c",
        "permissions": ["read", "use_app"],
        "meta": meta_doc(),
    });
    let full = PermissionGrant {
        id: PermissionGrantId(uuid(1)),
        application: ApplicationId(uuid(2)),
        company_id: CompanyId::stored("a".to_owned()),
        company_name: "b".to_owned(),
        user_id: UserId::stored("c".to_owned()),
        permissions: ["use_app", "read"].map(|slug| PermissionSlug::stored(slug.to_owned())).into(),
        meta: meta(),
    };
    check(&sparse, &json!({}), &full);
}

#[test]
fn a_session() {
    let digest = "00".repeat(32);
    let sparse = json!({
        "id": uuid(1),
        "application": uuid(2),
        "user_id": "a",
        "holder": { "user": uuid(3) },
        "token_digest": digest,
        "expire_time": 1,
        "meta": meta_doc(),
    });
    let profile = UserProfile {
        username: "b".to_owned(),
        email: "c@example.com".to_owned(),
        phone_number: "+100000000".to_owned(),
        first_name: "d".to_owned(),
        last_name: "e".to_owned(),
        data: object(),
    };
    let full = Session {
        id: SessionId(uuid(1)),
        application: ApplicationId(uuid(2)),
        user_id: UserId::stored("a".to_owned()),
        holder: SessionHolder::User(UserUuid(uuid(4))),
        token_digest: TokenDigest::new([0; 32]),
        expire_time: Timestamp(1),
        meta: meta(),
    };
    check(&sparse, &json!({}), &full);
    let external = Session { holder: SessionHolder::External(Box::new(profile)), ..full.clone() };
    assert_eq!(read::<Session>(&written(&external)), external);
    let base_url = HttpUrl::stored("https://license.example.com/v1".to_owned());
    let licensed = Session { holder: SessionHolder::License { base_url }, ..full };
    assert_eq!(read::<Session>(&written(&licensed)), licensed);
}
