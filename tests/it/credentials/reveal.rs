//! RevealCredential: returns the whole material to authorised callers, for a stated purpose, with an audit record.

use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::{
    Backend, Canary, Client, TestServer, collect, data::principal, expect_status, fixture, on_both,
};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::{client_certificate, client_credentials, custom, deleted, keys, material};
use crate::steps;

fn reveal(reference: &str, purpose: &str) -> v1::RevealCredentialRequest {
    v1::RevealCredentialRequest { reference: reference.to_owned(), purpose: purpose.to_owned() }
}

async fn revealed(
    client: &Client,
    request: v1::RevealCredentialRequest,
) -> Result<Response<v1::RevealCredentialResponse>, Status> {
    client.credentials().reveal_credential(request).await
}

async fn records(server: &TestServer) -> Vec<String> {
    server.sql("select principal || '/' || action || '/' || resource || '/' || purpose from audit_event order by create_time, id").await
}

on_both! {
    async fn the_whole_material_comes_back(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let (key, _) = keys(&server, &client).await;
        // Times are stored in microseconds, so this one is given in them.
        let oauth2 = v1::OAuth2Material {
            access_token: "access \u{1f511} \"quoted\"".to_owned(),
            refresh_token: "refresh".to_owned(),
            id_token: "id".to_owned(),
            token_type: "DPoP".to_owned(),
            expire_time: Some(prost_types::Timestamp { seconds: 4_102_444_800, nanos: 123_456_000 }),
            scopes: vec!["mail".to_owned(), "calendar".to_owned()],
        };
        let all = [
            material(Material::Oauth2(oauth2)),
            fixture::api_key_material("key \\ with { JSON } in it"),
            fixture::basic_material("user", "pass:word"),
            client_credentials("client", "client secret"),
            client_certificate(&key),
            custom([("host", "db.example.com"), ("pass word", "secret\nof two lines")]),
        ];
        for given in all {
            let facts = fixture::a_credential("ada", &link.connector);
            let credential = steps::credential(&client, facts, given.clone()).await;
            let answer = revealed(&client, reveal(&credential.id, "migration")).await.unwrap().into_inner();
            assert_eq!(answer.material, Some(given));
            assert_eq!(answer.credential_version, 1);
            let event = "select count(*) from audit_event where request_id <> '' and action = 'credentials.reveal'";
            assert_eq!(server.sql(event).await.len(), 1);
            assert!(answer.audit_event.parse::<Uuid>().is_ok());
        }
        // A certificate named by the name of its key is stored by the key's id.
        let facts = fixture::a_credential("ada", &link.connector);
        let credential = steps::credential(&client, facts, client_certificate("name:identity")).await;
        assert_eq!(steps::revealed(&client, &credential.id).await, client_certificate(&key));
    }

    async fn every_call_is_recorded(backend: Backend) {
        let mut server = TestServer::start_with(backend, |config| {
            config.identity.principals.push(principal("auditor", "alpha", &["credentials.reveal"]));
        })
        .await;
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let credential = steps::api_key(&client, &link, "key").await;
        let longest = "ä".repeat(500);
        // Refused calls are not recorded, because nothing was revealed.
        for purpose in ["", "1234567", "   1234567   ", "a\nnew line", &"a".repeat(501), "12345678\u{202e}"] {
            let refusal = expect_status(
                revealed(&client, reveal(&credential.id, purpose)).await,
                Code::InvalidArgument,
                "FIELD_INVALID",
            );
            refusal.expect_fields(&["purpose"]);
        }
        let both = revealed(&client, reveal("key", "short")).await;
        expect_status(both, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["reference", "purpose"]);
        let missing = revealed(&client, reveal("ext:none", "ticket 4711")).await;
        expect_status(missing, Code::NotFound, "CREDENTIAL_NOT_FOUND");
        let theirs = revealed(&server.client("beta"), reveal(&credential.id, "ticket 4711")).await;
        expect_status(theirs, Code::NotFound, "CREDENTIAL_NOT_FOUND");
        assert_eq!(records(&server).await, Vec::<String>::new());

        // The right is separate: it allows nothing else, and no other right includes it.
        let auditor = server.client("auditor");
        let get = v1::GetCredentialRequest { reference: credential.id.clone() };
        expect_status(auditor.credentials().get_credential(get).await, Code::PermissionDenied, "SCOPE_DENIED");
        let first = revealed(&auditor, reveal(&credential.id, " 12345678 ")).await.unwrap().into_inner();
        assert_eq!(first.material, Some(fixture::api_key_material("key")));
        let second = revealed(&client, reveal(&credential.id, &longest)).await.unwrap().into_inner();
        assert_ne!(first.audit_event, second.audit_event);
        let expected = [
            "auditor/credentials.reveal/credential/12345678".to_owned(),
            format!("alpha/credentials.reveal/credential/{longest}"),
        ];
        assert_eq!(records(&server).await, expected);
        // The record was durable before the answer was sent, and outlives the credential.
        server.crash();
        server.restart().await;
        deleted(&server.client("alpha"), &credential.id).await;
        assert_eq!(records(&server).await, expected);
        let ids = match backend {
            Backend::Sqlite => "select lower(hex(id)) || ' ' || lower(hex(resource_id)) from audit_event order by id",
            Backend::Postgres => {
                "select replace(id::text, '-', '') || ' ' || replace(resource_id::text, '-', '') from audit_event order by id"
            }
        };
        let about = |event: &str| format!("{event} {}", credential.id).replace('-', "");
        assert_eq!(server.sql(ids).await, [about(&first.audit_event), about(&second.audit_event)]);
    }

    async fn the_operator_can_disable_it(backend: Backend) {
        let mut server = TestServer::start_with(backend, |config| config.reveal.enabled = false).await;
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let credential = steps::api_key(&client, &link, "key").await;
        let result = revealed(&client, reveal(&credential.id, "ticket 4711")).await;
        expect_status(result, Code::FailedPrecondition, "REVEAL_DISABLED");
        assert_eq!(records(&server).await, Vec::<String>::new());
        let issue = v1::IssueAccessTokenRequest { reference: credential.id.clone(), ..Default::default() };
        let issued = client.credentials().issue_access_token(issue).await.unwrap().into_inner();
        assert_eq!(issued.access_token, "key");

        server.config_mut().reveal.enabled = true;
        server.restart().await;
        let answer = revealed(&server.client("alpha"), reveal(&credential.id, "ticket 4711")).await.unwrap();
        assert_eq!(answer.into_inner().material, Some(fixture::api_key_material("key")));
    }

    /// Only this call returns refresh tokens, ID tokens and client secrets.
    async fn no_other_answer_contains_its_secrets(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let [refresh, id, secret] = ["refresh token", "ID token", "client secret"].map(Canary::new);
        let oauth2 = v1::OAuth2Material {
            access_token: "access".to_owned(),
            refresh_token: refresh.secret.clone(),
            id_token: id.secret.clone(),
            ..Default::default()
        };
        let facts = || fixture::a_credential("ada", &link.connector);
        let tokens = steps::credential(&client, facts(), material(Material::Oauth2(oauth2))).await;
        let pair = steps::credential(&client, facts(), client_credentials("client", &secret.secret)).await;
        let mut answers = format!("{tokens:?} {pair:?}");
        for credential in [&tokens, &pair] {
            let reference = credential.id.clone();
            let get = v1::GetCredentialRequest { reference: reference.clone() };
            answers += &format!("{:?}", client.credentials().get_credential(get).await);
            let issue = v1::IssueAccessTokenRequest { reference: reference.clone(), ..Default::default() };
            answers += &format!("{:?}", client.credentials().issue_access_token(issue).await);
            let update = v1::UpdateCredentialRequest { reference, credential: Some(facts()), ..Default::default() };
            answers += &format!("{:?}", client.credentials().update_credential(update).await);
        }
        let list = client.credentials().list_credentials(v1::ListCredentialsRequest::default()).await;
        answers += &format!("{:?}", collect::items(list).await);
        for canary in [refresh, id, secret] {
            canary.assert_not_in("an answer", answers.as_bytes());
        }
    }
}
