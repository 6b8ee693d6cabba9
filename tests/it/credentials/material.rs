//! The limits of facts and material, at each limit and one over it. Nothing is stored: every call is `validate_only`.

use std::collections::BTreeMap;

use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::{Client, expect_status, fixture, on_both};
use prost_types::Timestamp;
use tonic::Code;

use super::{client_certificate, client_credentials, create, created, custom, material};
use crate::steps;

const KIB: usize = 1024;

fn long(length: usize) -> String {
    // Not a repeated letter, which could be mistaken for a masked placeholder.
    "ab".chars().cycle().take(length).collect()
}

fn fields(fields: impl IntoIterator<Item = (String, String)>) -> v1::CredentialMaterial {
    material(Material::Custom(v1::CustomMaterial { fields: fields.into_iter().collect::<BTreeMap<_, _>>() }))
}

async fn accept(client: &Client, facts: v1::Credential, material: v1::CredentialMaterial) {
    let request = v1::CreateCredentialRequest { validate_only: true, ..create(facts, material.clone()) };
    let result = created(client, request).await;
    assert!(result.is_ok(), "{:?} of {material:?}", result.unwrap_err());
}

async fn refuse(
    client: &Client,
    facts: v1::Credential,
    material: v1::CredentialMaterial,
    reason: &str,
    fields: &[&str],
) -> jackfield_testkit::Refusal {
    let request = v1::CreateCredentialRequest { validate_only: true, ..create(facts, material) };
    let refusal = expect_status(created(client, request).await, Code::InvalidArgument, reason);
    refusal.expect_fields(fields);
    refusal
}

on_both! {
    async fn tokens_and_keys_have_their_limits(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let ada = || fixture::a_credential("ada", &link.connector);
        let oauth2 = |change: &dyn Fn(&mut v1::OAuth2Material)| {
            let mut oauth2 = v1::OAuth2Material { access_token: "token".to_owned(), ..Default::default() };
            change(&mut oauth2);
            material(Material::Oauth2(oauth2))
        };
        // Field, longest value, one longer. Lengths of tokens are in bytes, those of texts in characters.
        let cases = [
            ("material.api_key.api_key", fixture::api_key_material(&long(16 * KIB)), fixture::api_key_material(&long(16 * KIB + 1))),
            (
                "material.api_key.api_key",
                fixture::api_key_material(&"ä".repeat(8 * KIB)),
                fixture::api_key_material(&"ä".repeat(8 * KIB + 1)),
            ),
            (
                "material.oauth2.access_token",
                oauth2(&|it| it.access_token = long(16 * KIB)),
                oauth2(&|it| it.access_token = long(16 * KIB + 1)),
            ),
            (
                "material.oauth2.refresh_token",
                oauth2(&|it| it.refresh_token = long(16 * KIB)),
                oauth2(&|it| it.refresh_token = long(16 * KIB + 1)),
            ),
            (
                "material.oauth2.id_token",
                oauth2(&|it| it.id_token = long(16 * KIB)),
                oauth2(&|it| it.id_token = long(16 * KIB + 1)),
            ),
            (
                "material.oauth2.token_type",
                oauth2(&|it| it.token_type = "ä".repeat(64)),
                oauth2(&|it| it.token_type = "ä".repeat(65)),
            ),
            ("material.oauth2.token_type", oauth2(&|it| it.token_type = "DPoP".to_owned()), oauth2(&|it| it.token_type = "D\nPoP".to_owned())),
            (
                "material.oauth2.scopes",
                oauth2(&|it| it.scopes = (0..256).map(|scope| scope.to_string()).collect()),
                oauth2(&|it| it.scopes = (0..257).map(|scope| scope.to_string()).collect()),
            ),
            ("material.oauth2.scopes[0]", oauth2(&|it| it.scopes = vec![long(256)]), oauth2(&|it| it.scopes = vec![long(257)])),
            (
                "material.oauth2.scopes[1]",
                oauth2(&|it| it.scopes = vec!["https://example.com/auth/mail.read".to_owned()]),
                oauth2(&|it| it.scopes = vec!["mail".to_owned(), "mail read".to_owned()]),
            ),
            ("material.oauth2.scopes[0]", oauth2(&|it| it.scopes.clear()), oauth2(&|it| it.scopes = vec![String::new()])),
            (
                "material.oauth2.expire_time",
                oauth2(&|it| it.expire_time = Some(Timestamp { seconds: 253_402_300_799, nanos: 0 })),
                oauth2(&|it| it.expire_time = Some(Timestamp { seconds: 253_402_300_800, nanos: 0 })),
            ),
            (
                "material.oauth2.expire_time",
                oauth2(&|it| it.expire_time = Some(Timestamp { seconds: 0, nanos: 999_999_999 })),
                oauth2(&|it| it.expire_time = Some(Timestamp { seconds: 0, nanos: 1_000_000_000 })),
            ),
        ];
        for (field, most, over) in cases {
            accept(&client, ada(), most).await;
            refuse(&client, ada(), over, "FIELD_INVALID", &[field]).await;
        }
        refuse(&client, ada(), fixture::api_key_material(""), "FIELD_INVALID", &["material.api_key.api_key"]).await;
    }

    async fn pairs_and_custom_fields_have_their_limits(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let ada = || fixture::a_credential("ada", &link.connector);
        let basic = fixture::basic_material;
        let (username, password) = ("material.basic.username", "material.basic.password");
        let (client_id, secret) = ("material.client_credentials.client_id", "material.client_credentials.client_secret");
        let custom_fields = "material.custom.fields";
        let many = |count: usize| fields((0..count).map(|number| (format!("field {number}"), "value".to_owned())));
        let sized = |sizes: &[usize]| fields(sizes.iter().enumerate().map(|(index, size)| (index.to_string(), long(*size))));
        let cases: [(&str, v1::CredentialMaterial, v1::CredentialMaterial); 13] = [
            (username, basic(&"ä".repeat(4096), "password"), basic(&"ä".repeat(4097), "password")),
            (username, basic("us er@example.com", "password"), basic("us:er", "password")),
            (username, basic("user", "password"), basic("us\ter", "password")),
            (password, basic("user", &long(4096)), basic("user", &long(4097))),
            (password, basic("user", "pass:word"), basic("user", "pass\rword")),
            (client_id, client_credentials(&long(2048), "a client secret"), client_credentials(&long(2049), "a client secret")),
            (secret, client_credentials("client", &long(2048)), client_credentials("client", &long(2049))),
            (custom_fields, many(1), many(0)),
            (custom_fields, many(64), many(65)),
            (custom_fields, custom([(&"ä".repeat(128), "value")]), custom([(&"ä".repeat(129), "value")])),
            ("material.custom.fields.0", sized(&[16 * KIB]), sized(&[16 * KIB + 1])),
            ("material.custom.fields.a", fields([("a".to_owned(), "ä".repeat(8 * KIB))]), fields([("a".to_owned(), "ä".repeat(8 * KIB + 1))])),
            (custom_fields, sized(&[16 * KIB; 4]), sized(&[16 * KIB, 16 * KIB, 16 * KIB, 16 * KIB, 1])),
        ];
        for (field, most, over) in cases {
            accept(&client, ada(), most).await;
            refuse(&client, ada(), over, "FIELD_INVALID", &[field]).await;
        }
        refuse(&client, ada(), basic("", ""), "FIELD_INVALID", &[username, password]).await;
        refuse(&client, ada(), client_credentials("", ""), "FIELD_INVALID", &[client_id, secret]).await;
        refuse(&client, ada(), client_certificate(""), "REFERENCE_INVALID", &["material.client_certificate.key"]).await;
        refuse(&client, ada(), client_certificate("ext:key"), "REFERENCE_INVALID", &["material.client_certificate.key"]).await;
        // One half of a pair may be empty, and so may a field: many APIs take a key as the user name without a
        // password.
        accept(&client, ada(), basic("key", "")).await;
        accept(&client, ada(), basic("", "key")).await;
        accept(&client, ada(), custom([("host", "db.example.com"), ("schema", "")])).await;
        // Neither a value nor an invalid name is repeated: it could be a misplaced secret.
        let wrong = fields([
            ("the value as\nname".to_owned(), "value".to_owned()),
            ("value".to_owned(), "\t ".to_owned()),
            ("value two".to_owned(), "****".to_owned()),
        ]);
        let refusal = refuse(
            &client,
            ada(),
            wrong,
            "FIELD_INVALID",
            &[custom_fields, "material.custom.fields.value", "material.custom.fields.`value two`"],
        ).await;
        assert!(!format!("{refusal:?}").contains("value as"), "{refusal:?}");
        assert!(refusal.description(custom_fields).contains("entry 1 "), "{refusal:?}");
        refuse(&client, ada(), custom([("", "value")]), "FIELD_INVALID", &[custom_fields]).await;
    }

    /// A line break in a header value would end the header and begin another.
    async fn header_values_have_no_control_characters(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let ada = || fixture::a_credential("ada", &link.connector);
        for broken in ["token\r\nX-Injected: 1", "token\n", "to\u{0}ken"] {
            for (material, field) in [
                (fixture::oauth2_material(broken, ""), "material.oauth2.access_token"),
                (fixture::oauth2_material("token", broken), "material.oauth2.refresh_token"),
                (fixture::api_key_material(broken), "material.api_key.api_key"),
                (fixture::basic_material("user", broken), "material.basic.password"),
                (client_credentials("client", broken), "material.client_credentials.client_secret"),
            ] {
                let refusal = refuse(&client, ada(), material, "FIELD_INVALID", &[field]).await;
                assert_eq!(refusal.description(field), "must not contain control characters");
            }
            // Custom material need not travel in a header.
            accept(&client, ada(), custom([("certificate", broken)])).await;
        }
        let blank = refuse(&client, ada(), fixture::api_key_material(" "), "FIELD_INVALID", &["material.api_key.api_key"]).await;
        assert_eq!(blank.description("material.api_key.api_key"), "must not be blank");
    }

    /// A blank or an invisible character that was copied with a token would make each call with it fail.
    async fn tokens_and_keys_have_no_blank_at_their_ends_and_no_invisible_characters(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let ada = || fixture::a_credential("ada", &link.connector);
        for slip in ["token ", " token", "token\u{a0}", "token\u{feff}", "token\u{200b}", "\u{200b}", "to\u{2060}ken"] {
            let oauth2 = v1::OAuth2Material { id_token: slip.to_owned(), ..Default::default() };
            let typed = v1::OAuth2Material { token_type: slip.to_owned(), ..Default::default() };
            for (material, field) in [
                (fixture::oauth2_material(slip, ""), "material.oauth2.access_token"),
                (fixture::oauth2_material("token", slip), "material.oauth2.refresh_token"),
                (material(Material::Oauth2(oauth2)), "material.oauth2.id_token"),
                (material(Material::Oauth2(typed)), "material.oauth2.token_type"),
                (fixture::api_key_material(slip), "material.api_key.api_key"),
                (client_credentials(slip, "secret"), "material.client_credentials.client_id"),
                (client_credentials("client", slip), "material.client_credentials.client_secret"),
            ] {
                let refusal = refuse(&client, ada(), material, "FIELD_INVALID", &[field]).await;
                assert!(refusal.description(field).starts_with("must not "), "{refusal:?}");
            }
            // Passwords and custom values may have them.
            accept(&client, ada(), fixture::basic_material("user", &format!("pass{slip}"))).await;
            accept(&client, ada(), custom([("key", slip)])).await;
        }
        accept(&client, ada(), fixture::api_key_material("two words")).await;
    }

    /// A token that there is not is an empty text.
    async fn blanks_are_no_token(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let ada = || fixture::a_credential("ada", &link.connector);
        for blank in [" ", "   ", "\t", "\n", "\u{a0}", " \u{3000} "] {
            let oauth2 = v1::OAuth2Material { id_token: blank.to_owned(), ..Default::default() };
            for (material, field) in [
                (fixture::oauth2_material(blank, "refresh"), "material.oauth2.access_token"),
                (fixture::oauth2_material("token", blank), "material.oauth2.refresh_token"),
                (material(Material::Oauth2(oauth2)), "material.oauth2.id_token"),
                (fixture::api_key_material(blank), "material.api_key.api_key"),
                (client_credentials(blank, "secret"), "material.client_credentials.client_id"),
                (client_credentials("client", blank), "material.client_credentials.client_secret"),
            ] {
                let refusal = refuse(&client, ada(), material, "FIELD_INVALID", &[field]).await;
                assert_eq!(refusal.description(field), "must not be blank", "{blank:?}");
            }
        }
    }

    async fn a_masked_placeholder_is_refused_as_a_secret(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let ada = || fixture::a_credential("ada", &link.connector);
        for placeholder in ["****", "••••••••", "xxxxxx", "REDACTED", "<redacted>", "[Masked]"] {
            let oauth2 = v1::OAuth2Material {
                access_token: placeholder.to_owned(),
                refresh_token: placeholder.to_owned(),
                id_token: placeholder.to_owned(),
                ..Default::default()
            };
            let cases: [(v1::CredentialMaterial, &[&str]); 5] = [
                (fixture::api_key_material(placeholder), &["material.api_key.api_key"]),
                (fixture::basic_material(placeholder, placeholder), &["material.basic.username", "material.basic.password"]),
                (
                    client_credentials(placeholder, placeholder),
                    &["material.client_credentials.client_id", "material.client_credentials.client_secret"],
                ),
                (custom([("field", placeholder)]), &["material.custom.fields.field"]),
                (
                    material(Material::Oauth2(oauth2)),
                    &["material.oauth2.access_token", "material.oauth2.refresh_token", "material.oauth2.id_token"],
                ),
            ];
            for (material, fields) in cases {
                refuse(&client, ada(), material, "PLACEHOLDER_SECRET", fields).await;
            }
        }
    }

    async fn facts_have_their_limits(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let key = || fixture::api_key_material("key");
        let with = |change: &dyn Fn(&mut v1::Credential)| {
            let mut facts = fixture::a_credential("ada", &link.connector);
            change(&mut facts);
            facts
        };
        let external_id = |text: &str| with(&|it| it.external_id = Some(text.to_owned()));
        let account = |text: &str| with(&|it| it.provider_account_id = Some(text.to_owned()));
        let label = |key: &str, value: &str| with(&|it| it.labels = fixture::strings([(key, value)]));
        let labels = |count: usize| with(&|it| it.labels = (0..count).map(|n| (n.to_string(), String::new())).collect());
        let (external, provider) = ("credential.external_id", "credential.provider_account_id");
        let cases = [
            (external, external_id(&"ä".repeat(191)), external_id(&"ä".repeat(192))),
            (external, external_id(&format!(" ext: {} ", long(191))), external_id(" ")),
            (external, external_id("ext:a"), external_id("ext:")),
            (external, external_id("a:ext:b"), external_id("ext:ext:b")),
            (external, external_id("Team A"), external_id("Team\u{7f}A")),
            (provider, account(&"ä".repeat(256)), account(&"ä".repeat(257))),
            (provider, account("a b"), account("a\0b")),
            ("credential.labels", labels(64), labels(65)),
            ("credential.labels", label(&long(63), ""), label(&long(64), "")),
            ("credential.labels", label("a-b_c.d/e", ""), label("a b", "")),
            ("credential.labels.team", label("team", &"ä".repeat(128)), label("team", &"ä".repeat(129))),
            ("credential.labels.team", label("team", "a b"), label("team", "a\nb")),
        ];
        for (field, most, over) in cases {
            accept(&client, most, key()).await;
            refuse(&client, over, key(), "FIELD_INVALID", &[field]).await;
        }
    }

    async fn all_violations_are_reported_at_once(server) {
        let client = server.client("alpha");
        let request = v1::CreateCredentialRequest {
            credential: Some(v1::Credential {
                external_id: Some("ext:".to_owned()),
                user_id: " ".to_owned(),
                connector: "Gmail".to_owned(),
                connection: "Gmail login".to_owned(),
                provider_account_id: Some("a\0b".to_owned()),
                labels: fixture::strings([("a b", "")]),
                ..Default::default()
            }),
            material: Some(fixture::basic_material("us:er", "****")),
            id: "1".to_owned(),
            request_id: "2".to_owned(),
            validate_only: false,
        };
        expect_status(created(&client, request).await, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[
            "credential.external_id",
            "credential.user_id",
            "credential.connector",
            "credential.connection",
            "credential.provider_account_id",
            "credential.labels",
            "material.basic.username",
            "material.basic.password",
            "id",
            "request_id",
        ]);
        let nothing = created(&client, v1::CreateCredentialRequest::default()).await;
        expect_status(nothing, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["credential", "material"]);
        let of_no_kind = create(fixture::a_credential("ada", "name:Gmail"), v1::CredentialMaterial::default());
        expect_status(created(&client, of_no_kind).await, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["material"]);
    }
}
