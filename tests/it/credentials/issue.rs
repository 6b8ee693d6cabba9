//! IssueAccessToken: the tokens it returns, their form, and its refusals.

use std::time::Duration;

use jackfield_api::v1::{self, credential_material::Material};
use jackfield_domain::CredentialId;
use jackfield_domain::credential::{Credential, CredentialState};
use jackfield_testkit::{Client, ManualClock, TestServer, expect_status, fixture, on_both};
use tonic::{Code, Request, Response, Status};

use super::{client_certificate, client_credentials, custom, keys, listed, material, tokens};
use crate::steps;

const METADATA: &str = "x-jackfield-credential";

fn of(reference: &str) -> v1::IssueAccessTokenRequest {
    v1::IssueAccessTokenRequest { reference: reference.to_owned(), ..Default::default() }
}

fn default_of(user_id: &str, connector: &str) -> v1::IssueAccessTokenRequest {
    v1::IssueAccessTokenRequest { user_id: user_id.to_owned(), connector: connector.to_owned(), ..Default::default() }
}

fn good_for(reference: &str, seconds: i64, nanos: i32) -> v1::IssueAccessTokenRequest {
    let min_validity = Some(prost_types::Duration { seconds, nanos });
    v1::IssueAccessTokenRequest { min_validity, ..of(reference) }
}

fn with_metadata(request: v1::IssueAccessTokenRequest, credential: &str) -> Request<v1::IssueAccessTokenRequest> {
    let mut request = Request::new(request);
    request.metadata_mut().insert(METADATA, credential.parse().unwrap());
    request
}

async fn issue(
    client: &Client,
    request: impl tonic::IntoRequest<v1::IssueAccessTokenRequest>,
) -> Result<Response<v1::IssueAccessTokenResponse>, Status> {
    client.credentials().issue_access_token(request).await
}

async fn issued(
    client: &Client,
    request: impl tonic::IntoRequest<v1::IssueAccessTokenRequest>,
) -> v1::IssueAccessTokenResponse {
    issue(client, request).await.unwrap().into_inner()
}

on_both! {
    async fn each_kind_is_issued_in_its_wire_form(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let (key, _) = keys(&server, &client).await;
        let give = |material| steps::credential(&client, fixture::a_credential("ada", &link.connector), material);
        let plain = |credential: &v1::Credential, access_token: &str, token_type: &str| v1::IssueAccessTokenResponse {
            access_token: access_token.to_owned(),
            token_type: token_type.to_owned(),
            expire_time: credential.expire_time,
            scopes: credential.scopes.clone(),
            credential: credential.id.clone(),
            credential_version: 1,
            ..Default::default()
        };
        let oauth2 = give(fixture::oauth2_material("access 1", "refresh 1")).await;
        let answer = issued(&client, of(&oauth2.id)).await;
        assert_eq!(answer, plain(&oauth2, "access 1", "Bearer"));
        assert!(answer.expire_time.is_some());
        assert_eq!(answer.scopes, ["email", "profile"]);

        let dpop = v1::OAuth2Material {
            access_token: "access 2".to_owned(),
            token_type: "DPoP".to_owned(),
            ..Default::default()
        };
        let dpop = give(material(Material::Oauth2(dpop))).await;
        assert_eq!(issued(&client, of(&dpop.id)).await, plain(&dpop, "access 2", "DPoP"));
        let api_key = give(fixture::api_key_material("key 1")).await;
        assert_eq!(issued(&client, of(&api_key.id)).await, plain(&api_key, "key 1", "ApiKey"));
        // The example of RFC 7617, section 2, and the one with UTF-8 of its section 2.1.
        for (username, password, encoded) in [
            ("Aladdin", "open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("test", "123£", "dGVzdDoxMjPCow=="),
            // A key as one half, and nothing as the other.
            ("key", "", "a2V5Og=="),
            ("", "key", "OmtleQ=="),
        ] {
            let basic = give(fixture::basic_material(username, password)).await;
            assert_eq!(issued(&client, of(&basic.id)).await, plain(&basic, encoded, "Basic"));
        }
        let fields = give(custom([("host", "db.example.com"), ("password", "secret 1"), ("schema", "")])).await;
        let expected = v1::IssueAccessTokenResponse {
            fields: fixture::strings([("host", "db.example.com"), ("password", "secret 1"), ("schema", "")]),
            ..plain(&fields, "", "Custom")
        };
        assert_eq!(issued(&client, of(&fields.id)).await, expected);
        for material in [client_credentials("client", "client secret"), client_certificate(&key)] {
            let credential = give(material).await;
            let refusal = expect_status(
                issue(&client, of(&credential.id)).await,
                Code::FailedPrecondition,
                "CREDENTIAL_NOT_VALID",
            );
            assert_eq!((refusal.metadata("resource"), refusal.metadata("id")), ("credential", credential.id.as_str()));
            assert!(!format!("{refusal:?}").contains("client secret"));
        }
        // New material has a new version, which shows that a copy of the old token is outdated.
        let request = v1::UpdateCredentialRequest {
            reference: oauth2.id.clone(),
            credential: Some(v1::Credential::default()),
            material: Some(tokens("access 3", "")),
            ..Default::default()
        };
        client.credentials().update_credential(request).await.unwrap();
        let answer = issued(&client, of(&oauth2.id)).await;
        assert_eq!((answer.access_token.as_str(), answer.credential_version), ("access 3", 2));
        assert_eq!(answer.expire_time, None);
    }

    async fn the_credential_is_named_in_one_way(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let work = v1::Credential { external_id: Some("work".to_owned()), ..fixture::a_credential("ada", &link.connector) };
        let work = steps::credential(&client, work, fixture::api_key_material("key of work")).await;
        let home = v1::Credential { external_id: Some("home".to_owned()), ..fixture::a_credential("ada", &link.connector) };
        steps::credential(&client, home, fixture::api_key_material("key of home")).await;
        steps::link(&client, "grace", &link.connector).await;
        let token = |request: Request<v1::IssueAccessTokenRequest>| async { issued(&client, request).await.access_token };
        assert_eq!(token(Request::new(of(&work.id))).await, "key of work");
        assert_eq!(token(Request::new(of("ext:home"))).await, "key of home");
        assert_eq!(token(Request::new(default_of("ada", "name:gmail"))).await, "key of work");
        assert_eq!(token(Request::new(default_of("ada", &link.connector))).await, "key of work");
        assert_eq!(token(with_metadata(of(""), "ext:home")).await, "key of home");
        assert_eq!(token(with_metadata(of("ext:home"), "ext:home")).await, "key of home");
        let mark = v1::UpdateCredentialRequest {
            reference: "ext:home".to_owned(),
            credential: Some(v1::Credential { is_default: Some(true), ..Default::default() }),
            ..Default::default()
        };
        client.credentials().update_credential(mark).await.unwrap();
        assert_eq!(token(Request::new(default_of("ada", "name:Gmail"))).await, "key of home", "the mark was moved");

        let both = v1::IssueAccessTokenRequest { reference: work.id.clone(), ..default_of("ada", "name:Gmail") };
        let wrong: [(Request<v1::IssueAccessTokenRequest>, &str, &[&str]); 10] = [
            (Request::new(of("")), "REFERENCE_INVALID", &["reference"]),
            (Request::new(of("work")), "REFERENCE_INVALID", &["reference"]),
            (Request::new(of("name:work")), "REFERENCE_INVALID", &["reference"]),
            (Request::new(both), "REFERENCE_INVALID", &["reference"]),
            (Request::new(default_of("ada", "")), "REFERENCE_INVALID", &["connector"]),
            (Request::new(default_of("", "name:Gmail")), "FIELD_INVALID", &["user_id"]),
            (with_metadata(of("ext:home"), "ext:work"), "REFERENCE_INVALID", &["reference"]),
            (with_metadata(of(&work.id), "ext:work"), "REFERENCE_INVALID", &["reference"]),
            (with_metadata(default_of("ada", "name:Gmail"), "ext:work"), "REFERENCE_INVALID", &["reference"]),
            (with_metadata(of(""), "work"), "REFERENCE_INVALID", &["reference"]),
        ];
        for (request, reason, fields) in wrong {
            let shown = format!("{request:?}");
            let refusal = expect_status(issue(&client, request).await, Code::InvalidArgument, reason);
            assert_eq!(refusal.fields(), fields, "{shown}");
        }
        let missing = [
            (of("ext:none"), "CREDENTIAL_NOT_FOUND"),
            (default_of("ada", "name:Slack"), "CONNECTOR_NOT_FOUND"),
            (default_of("unknown", "name:Gmail"), "USER_CONNECTOR_NOT_FOUND"),
            (default_of("grace", "name:Gmail"), "CREDENTIAL_NOT_FOUND"),
        ];
        for (request, reason) in missing {
            expect_status(issue(&client, request).await, Code::NotFound, reason);
        }
        expect_status(issue(&server.client("beta"), of(&work.id)).await, Code::NotFound, "CREDENTIAL_NOT_FOUND");
    }

    async fn validity_and_scopes_can_be_requested(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let give = |material| steps::credential(&client, fixture::a_credential("ada", &link.connector), material);
        let hour = give(steps::tokens_for(&clock, 3600, "token", "refresh")).await.id;
        let ever = give(tokens("token", "")).await.id;
        let refresh_only = give(tokens("", "refresh")).await.id;
        let day = 24 * 3600;
        for request in [good_for(&hour, 0, 0), good_for(&hour, 3599, 0), good_for(&ever, day, 0)] {
            assert_eq!(issued(&client, request).await.access_token, "token");
        }
        for request in [good_for(&hour, 3599, 999_999_001), good_for(&hour, 3600, 0), good_for(&hour, day, 0), of(&refresh_only)] {
            let refusal = expect_status(issue(&client, request).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
            let violations = &refusal.details.precondition_failure().unwrap().violations;
            assert_eq!(violations[0].r#type, "REAUTH_REQUIRED");
        }
        for (seconds, nanos) in [(-1, 0), (0, -1), (-1, -1), (day, 1), (day + 1, 0), (i64::MAX, 0), (0, 1_000_000_000), (1, -1)] {
            let result = issue(&client, good_for(&ever, seconds, nanos)).await;
            expect_status(result, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["min_validity"]);
        }
        let scoped = |scopes: &[&str]| v1::IssueAccessTokenRequest {
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            ..of(&hour)
        };
        for scopes in [&[][..], &["email"], &["profile", "email"], &["email", "email"]] {
            assert_eq!(issued(&client, scoped(scopes)).await.scopes, ["email", "profile"]);
        }
        for scopes in [&["calendar"][..], &["email", "calendar"], &["Email"]] {
            expect_status(issue(&client, scoped(scopes)).await, Code::FailedPrecondition, "SCOPE_MISSING");
        }
        let several = issue(&client, scoped(&["", "email", "a b"])).await;
        expect_status(several, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["scopes[0]", "scopes[2]"]);
        for scopes in [&[""][..], &["email profile"], &["a\nb"]] {
            let result = issue(&client, scoped(scopes)).await;
            expect_status(result, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["scopes[0]"]);
        }
        // It is issued up to the last moment, and not after that.
        clock.advance(Duration::from_micros(3_599_999_999));
        assert_eq!(issued(&client, of(&hour)).await.access_token, "token");
        clock.advance(Duration::from_micros(1));
        expect_status(issue(&client, of(&hour)).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        assert_eq!(issued(&client, of(&ever)).await.access_token, "token");
    }

    async fn disabled_connectors_and_inactive_connections_issue_no_token(server) {
        let client = server.client("alpha");
        let connector = steps::connector(&client, fixture::an_oauth2_connector("Gmail")).await.id;
        steps::link(&client, "ada", &connector).await;
        let connection = v1::CreateConnectionRequest {
            connection: Some(fixture::a_connection("Gmail login", &connector)),
            ..Default::default()
        };
        let connection = client.connections().create_connection(connection).await.unwrap().into_inner().connection.unwrap();
        let from = v1::Credential { connection: connection.id.clone(), ..fixture::a_credential("ada", &connector) };
        let credential = steps::credential(&client, from, tokens("token", "")).await.id;
        let plain = steps::credential(&client, fixture::a_credential("ada", &connector), tokens("token", "")).await.id;

        let activate = |active: bool| v1::UpdateConnectionRequest {
            reference: connection.id.clone(),
            connection: Some(v1::Connection { active: Some(active), ..Default::default() }),
            update_mask: fixture::mask(["active"]),
            ..Default::default()
        };
        client.connections().update_connection(activate(false)).await.unwrap();
        let refusal = expect_status(issue(&client, of(&credential)).await, Code::FailedPrecondition, "CONNECTION_INACTIVE");
        assert_eq!((refusal.metadata("resource"), refusal.metadata("id")), ("connection", connection.id.as_str()));
        assert_eq!(issued(&client, of(&plain)).await.access_token, "token", "it does not belong to that connection");
        client.connections().update_connection(activate(true)).await.unwrap();
        assert_eq!(issued(&client, of(&credential)).await.access_token, "token");

        steps::enable(&client, &connector, false).await;
        for request in [of(&credential), of(&plain), default_of("ada", "name:Gmail")] {
            let refusal = expect_status(issue(&client, request).await, Code::FailedPrecondition, "CONNECTOR_DISABLED");
            assert_eq!((refusal.metadata("resource"), refusal.metadata("id")), ("connector", connector.as_str()));
        }
        steps::enable(&client, &connector, true).await;
        assert_eq!(issued(&client, of(&credential)).await.access_token, "token");
    }

    /// A valid token is issued in every state except REVOKED; PENDING has none yet.
    async fn states_that_no_call_sets_yet(backend: Backend) {
        // They are written directly to the database, so the server cannot know that its cache is stale.
        let server = TestServer::start_with(backend, |config| config.token_cache.max_tokens = 0).await;
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let facts = fixture::a_credential("ada", &link.connector);
        let credential = steps::credential(&client, facts, fixture::oauth2_material("token", "refresh")).await;
        let tenant = steps::tenant_id(&server, "alpha").await;
        let id = CredentialId(credential.id.parse().unwrap());
        let store = server.store().await;
        let states = [
            (CredentialState::Revoked, v1::CredentialState::Revoked, Some("CREDENTIAL_NOT_VALID")),
            (CredentialState::Pending, v1::CredentialState::Pending, Some("CREDENTIAL_NOT_VALID")),
            (CredentialState::Indeterminate, v1::CredentialState::Indeterminate, None),
            (CredentialState::NeedsReauth, v1::CredentialState::NeedsReauth, None),
            (CredentialState::Valid, v1::CredentialState::Valid, None),
        ];
        for (stored, read, refused) in states {
            let txn = store.write().await.unwrap();
            let mut row = txn.fetch_for_update::<Credential>(tenant, id).await.unwrap().unwrap();
            row.state = stored;
            row.meta = row.meta.changed(row.meta.update_time);
            txn.replace(tenant, &row).await.unwrap();
            txn.commit().await.unwrap();
            assert_eq!(steps::credential_now(&client, &credential.id).await.state(), read);
            let request = v1::ListCredentialsRequest {
                filter: format!("state = {}", stored.as_str()),
                ..Default::default()
            };
            assert_eq!(listed(&client, request).await.len(), 1, "{read:?}");
            match refused {
                Some(reason) => drop(expect_status(issue(&client, of(&credential.id)).await, Code::FailedPrecondition, reason)),
                None => assert_eq!(issued(&client, of(&credential.id)).await.access_token, "token"),
            }
        }
        store.close().await;
    }
}
