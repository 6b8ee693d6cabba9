//! UpdateCredential: masks, and replacement of material.

use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::{Client, expect_status, fixture, on_both};
use tonic::{Code, Response, Status};

use super::{client_certificate, client_credentials, create, created, custom, keys, material, tokens};
use crate::steps;

async fn update(
    client: &Client,
    request: v1::UpdateCredentialRequest,
) -> Result<Response<v1::UpdateCredentialResponse>, Status> {
    client.credentials().update_credential(request).await
}

async fn updated(client: &Client, request: v1::UpdateCredentialRequest) -> v1::Credential {
    update(client, request).await.unwrap().into_inner().credential.unwrap()
}

fn facts(reference: &str, credential: v1::Credential) -> v1::UpdateCredentialRequest {
    v1::UpdateCredentialRequest { reference: reference.to_owned(), credential: Some(credential), ..Default::default() }
}

fn new_material(reference: &str, material: v1::CredentialMaterial) -> v1::UpdateCredentialRequest {
    v1::UpdateCredentialRequest { material: Some(material), ..facts(reference, v1::Credential::default()) }
}

on_both! {
    async fn blanks_replace_no_token(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let tokens = fixture::oauth2_material("token", "refresh");
        let before = steps::credential(&client, fixture::a_credential("ada", &link.connector), tokens).await;
        let material = steps::revealed(&client, &before.id).await;
        let named = |path| v1::UpdateCredentialRequest {
            update_mask: fixture::mask([path]),
            ..new_material(&before.id, fixture::oauth2_material("", " "))
        };
        for request in [
            new_material(&before.id, fixture::oauth2_material("other", " ")),
            named("material.oauth2.refresh_token"),
            named("material"),
        ] {
            let refusal = expect_status(update(&client, request).await, Code::InvalidArgument, "FIELD_INVALID");
            assert_eq!(refusal.fields(), ["material.oauth2.refresh_token"]);
            assert_eq!(refusal.description("material.oauth2.refresh_token"), "must not be blank");
        }
        assert_eq!(steps::credential_now(&client, &before.id).await, before);
        assert_eq!(steps::revealed(&client, &before.id).await, material);
    }

    async fn only_named_fields_change(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let full = v1::Credential {
            external_id: Some("work".to_owned()),
            provider_account_id: Some("1084".to_owned()),
            provider_data: Some(fixture::object([("plan", "pro")])),
            labels: fixture::strings([("team", "a"), ("stage", "test")]),
            ..fixture::a_credential("ada", &link.connector)
        };
        let before = steps::credential(&client, full, fixture::oauth2_material("token", "refresh")).await;
        let reference = before.id.clone();
        let reference = reference.as_str();
        let changed = v1::Credential {
            external_id: Some("ext: home ".to_owned()),
            provider_account_id: Some("2000".to_owned()),
            labels: fixture::strings([("team", "b")]),
            ..Default::default()
        };
        // Without a mask, the present fields change.
        let after = updated(&client, facts(reference, changed.clone())).await;
        let expected = v1::Credential {
            external_id: Some("home".to_owned()),
            provider_account_id: Some("2000".to_owned()),
            labels: fixture::strings([("team", "b")]),
            update_time: after.update_time,
            etag: after.etag.clone(),
            ..before.clone()
        };
        assert_eq!(after, expected);
        assert_ne!(after.etag, before.etag);
        assert!(after.update_time.unwrap().nanos != before.update_time.unwrap().nanos);
        assert_eq!(steps::credential_now(&client, "ext:home").await, after);
        let result = client.credentials().get_credential(v1::GetCredentialRequest { reference: "ext:work".to_owned() }).await;
        expect_status(result, Code::NotFound, "CREDENTIAL_NOT_FOUND");

        // With a mask, the fields it names change, present or not.
        let masked = v1::UpdateCredentialRequest {
            update_mask: fixture::mask(["provider_account_id", "labels"]),
            ..facts("ext:home", v1::Credential { external_id: Some("ignored".to_owned()), ..Default::default() })
        };
        let after = updated(&client, masked).await;
        assert_eq!((after.external_id(), after.provider_account_id()), ("home", ""));
        assert!(after.labels.is_empty() && after.provider_data.is_some());
        assert_eq!(server.sql("select count(*) from label").await, ["0"]);

        // Output-only fields may be named but have no effect.
        let fixed = v1::UpdateCredentialRequest {
            update_mask: fixture::mask(["user_connector", "state", "version", "etag", "external_id"]),
            ..facts(reference, v1::Credential {
                user_connector: "none".to_owned(),
                state: v1::CredentialState::Revoked.into(),
                version: 9,
                external_id: Some("third".to_owned()),
                ..Default::default()
            })
        };
        let after = updated(&client, fixed).await;
        assert_eq!((after.state(), after.version), (v1::CredentialState::Valid, 1));
        assert_eq!((after.external_id(), &after.user_connector), ("third", &link.id));

        // "*" is a PUT: absent facts are cleared, material and the default mark stay.
        let put = v1::UpdateCredentialRequest { update_mask: fixture::mask(["*"]), ..facts(reference, Default::default()) };
        let after = updated(&client, put).await;
        let expected = v1::Credential {
            external_id: None,
            provider_account_id: None,
            provider_data: None,
            labels: Default::default(),
            update_time: after.update_time,
            etag: after.etag.clone(),
            ..before
        };
        assert_eq!(after, expected);
        let Some(Material::Oauth2(stored)) = steps::revealed(&client, reference).await.material else { panic!("OAuth") };
        assert_eq!((stored.access_token.as_str(), stored.refresh_token.as_str()), ("token", "refresh"));
    }

    async fn wrong_updates_change_nothing(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let taken = v1::Credential { external_id: Some("taken".to_owned()), ..fixture::a_credential("ada", &link.connector) };
        steps::credential(&client, taken, fixture::api_key_material("key")).await;
        let before = steps::api_key(&client, &link, "key").await;
        let reference = before.id.as_str();
        let refused = |request: v1::UpdateCredentialRequest, code, reason: &'static str| {
            let client = client.clone();
            async move { expect_status(update(&client, request).await, code, reason) }
        };
        let mask = |paths: [&str; 2]| v1::UpdateCredentialRequest { update_mask: fixture::mask(paths), ..facts(reference, Default::default()) };
        let invalid = Code::InvalidArgument;
        refused(mask(["material", "labels"]), invalid, "FIELD_INVALID").await.expect_fields(&["material"]);
        refused(mask(["nothing", "*"]), invalid, "FIELD_INVALID").await.expect_fields(&["update_mask", "update_mask"]);
        let empty = v1::UpdateCredentialRequest { reference: "work".to_owned(), ..Default::default() };
        refused(empty, invalid, "FIELD_INVALID").await.expect_fields(&["reference", "credential"]);
        let kind = refused(new_material(reference, tokens("token", "")), invalid, "FIELD_INVALID").await;
        assert_eq!(kind.description("material"), "must be of the kind of the credential, API_KEY");
        for placeholder in ["****", "[REDACTED]"] {
            let request = new_material(reference, fixture::api_key_material(placeholder));
            let refusal = refused(request, invalid, "PLACEHOLDER_SECRET").await;
            refusal.expect_fields(&["material.api_key.api_key"]);
        }
        let changed = || v1::Credential { provider_account_id: Some("1".to_owned()), ..Default::default() };
        let external = v1::Credential { external_id: Some("taken".to_owned()), ..Default::default() };
        refused(facts(reference, external), Code::AlreadyExists, "EXTERNAL_ID_TAKEN").await;
        let stale = v1::UpdateCredentialRequest {
            etag: "stale".to_owned(),
            ..new_material(reference, fixture::api_key_material("another"))
        };
        refused(stale.clone(), Code::Aborted, "ETAG_MISMATCH").await;
        refused(facts("ext:none", changed()), Code::NotFound, "CREDENTIAL_NOT_FOUND").await;
        let theirs = update(&server.client("beta"), facts(reference, changed())).await;
        expect_status(theirs, Code::NotFound, "CREDENTIAL_NOT_FOUND");
        assert_eq!(steps::credential_now(&client, reference).await, before);
        assert_eq!(steps::revealed(&client, reference).await, fixture::api_key_material("key"));

        let tried = v1::UpdateCredentialRequest { etag: before.etag.clone(), validate_only: true, ..stale };
        assert_eq!(updated(&client, tried.clone()).await.version, 2);
        assert_eq!(steps::credential_now(&client, reference).await, before);
        assert_eq!(steps::revealed(&client, reference).await, fixture::api_key_material("key"));
        let request_id = uuid::Uuid::now_v7().to_string();
        let request = v1::UpdateCredentialRequest { validate_only: false, request_id, ..tried };
        let after = updated(&client, request.clone()).await;
        assert_eq!(updated(&client, request).await, after, "a repeat, although the etag is stale by now");
        assert_eq!(after.version, 2);
    }

    /// Providers that issue a new access token often issue no new refresh token: the stored one stays valid.
    async fn absent_refresh_and_id_tokens_are_kept(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let oauth2 = |access: &str, refresh: &str, id: &str| v1::OAuth2Material {
            access_token: access.to_owned(),
            refresh_token: refresh.to_owned(),
            id_token: id.to_owned(),
            token_type: "Bearer".to_owned(),
            ..Default::default()
        };
        let given = |it: v1::OAuth2Material| material(Material::Oauth2(it));
        let first = v1::OAuth2Material {
            expire_time: Some(fixture::seconds_from_now(3600)),
            scopes: vec!["email".to_owned()],
            ..oauth2("access 1", "refresh 1", "id 1")
        };
        let facts = fixture::a_credential("ada", &link.connector);
        let credential = steps::credential(&client, facts, given(first)).await;
        let reference = credential.id.as_str();

        // Expiry and scopes belong to the access token and are replaced with it.
        let after = updated(&client, new_material(reference, given(oauth2("access 2", "", "")))).await;
        assert_eq!((after.version, after.expire_time, after.refreshable), (2, None, false));
        assert_eq!(after.scopes, Vec::<String>::new());
        assert_eq!(steps::revealed(&client, reference).await, given(oauth2("access 2", "refresh 1", "id 1")));

        // Another refresh token may be of another account, and then the ID token is not its.
        let after = updated(&client, new_material(reference, given(oauth2("access 3", "refresh 3", "")))).await;
        assert_eq!(after.version, 3);
        assert_eq!(steps::revealed(&client, reference).await, given(oauth2("access 3", "refresh 3", "")));
        updated(&client, new_material(reference, given(oauth2("access 4", "", "id 4")))).await;
        assert_eq!(steps::revealed(&client, reference).await, given(oauth2("access 4", "refresh 3", "id 4")));

        // An absent access token means none: the user has to authorise again until there is one.
        let after = updated(&client, new_material(reference, given(oauth2("", "", "")))).await;
        assert_eq!((after.version, after.state()), (5, v1::CredentialState::NeedsReauth));
        assert_eq!(steps::revealed(&client, reference).await, given(oauth2("", "refresh 3", "id 4")));
        let after = updated(&client, new_material(reference, given(oauth2("access 6", "", "")))).await;
        assert_eq!((after.version, after.state()), (6, v1::CredentialState::Valid));
        assert_eq!(server.sql("select count(*) from secret").await, ["1"], "old material is removed");
    }

    /// The account has to be said with the material.
    async fn an_account_goes_with_the_material_of_which_it_was(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let account = || v1::Credential { provider_account_id: Some("1084".to_owned()), ..Default::default() };
        let of_account = || v1::Credential {
            provider_account_id: Some("1084".to_owned()),
            ..fixture::a_credential("ada", &link.connector)
        };
        let refresh = ["material.oauth2.refresh_token"];
        let id_token = ["material.oauth2.id_token"];
        for (name, before, after, paths, keeps) in [
            ("another key", fixture::api_key_material("a"), fixture::api_key_material("b"), &[] as &[&str], false),
            ("all fields", custom([("a", "1")]), custom([("a", "2")]), &[], false),
            ("one field", custom([("a", "1")]), custom([("a", "2")]), &["material.custom.fields.a"], true),
            ("an access token alone", tokens("a", ""), tokens("b", ""), &[], false),
            ("an access token beside a refresh token", tokens("a", "r"), tokens("b", ""), &[], true),
            ("a refresh token", tokens("a", "r"), tokens("b", "s"), &[], false),
            ("a refresh token by its path", tokens("a", "r"), tokens("", "s"), &refresh, false),
            ("no refresh token by its path", tokens("a", "r"), tokens("", ""), &refresh, true),
            ("an ID token by its path", tokens("a", "r"), tokens("", ""), &id_token, true),
        ] {
            let reference = steps::credential(&client, of_account(), before).await.id;
            let named = prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() };
            let update_mask = Some(named).filter(|_| !paths.is_empty());
            let request = v1::UpdateCredentialRequest { update_mask, ..new_material(&reference, after.clone()) };
            let changed = updated(&client, request).await;
            assert_eq!(changed.provider_account_id(), if keeps { "1084" } else { "" }, "{name}");
            if paths.is_empty() {
                let given = v1::UpdateCredentialRequest { credential: Some(account()), ..new_material(&reference, after) };
                assert_eq!(updated(&client, given).await.provider_account_id(), "1084", "{name}");
            }
        }
    }

    async fn material_of_every_kind_can_be_replaced(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let (key, bundle) = keys(&server, &client).await;
        let certificate = client_certificate(&key);
        let pairs = [
            (fixture::api_key_material("old"), fixture::api_key_material("new")),
            (fixture::basic_material("old", "password"), fixture::basic_material("new", "password")),
            (client_credentials("old", "client secret"), client_credentials("new", "client secret")),
            (custom([("old", "value"), ("both", "1")]), custom([("new", "value"), ("both", "2")])),
            (certificate.clone(), certificate),
        ];
        for (old, new) in pairs {
            let credential = steps::credential(&client, fixture::a_credential("ada", &link.connector), old.clone()).await;
            assert_eq!(steps::revealed(&client, &credential.id).await, old);
            let after = updated(&client, new_material(&credential.id, new.clone())).await;
            assert_eq!((after.version, after.kind, after.state), (2, credential.kind, credential.state));
            assert_eq!(steps::revealed(&client, &credential.id).await, new);
        }
        let wrong = [(bundle.as_str(), Code::InvalidArgument, "FIELD_INVALID"), ("name:none", Code::NotFound, "KEY_NOT_FOUND")];
        for (key, code, reason) in wrong {
            let request = create(fixture::a_credential("ada", &link.connector), client_certificate(key));
            expect_status(created(&client, request).await, code, reason);
        }
    }
}
