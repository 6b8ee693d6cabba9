//! Answers of token endpoints without tokens. Each has its own reason, and leaves what was there as it was. A code is sent again only if the
//! answer says that it was not processed.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_api::v1::AuthorizationFailure as Failure;
use jackfield_testkit::{Reply, TestServer, fixture, on_both};

use super::{World, complete, issue, tokens};
use crate::steps;

fn json(status: u16, body: &str) -> Reply {
    Reply { headers: vec![("content-type", "application/json".to_owned())], ..Reply::new(status, body.to_owned()) }
}

/// Has all credentials vanish beside the server: a caller who deletes one ends the sessions that are for it.
async fn vanish(server: &TestServer) {
    for table in ["configuration", "refresh_lease", "refresh_attempt", "credential"] {
        server.sql(&format!("DELETE FROM {table}")).await;
    }
    server.sql("DELETE FROM secret WHERE owner = 'credential'").await;
}

on_both! {
    async fn what_comes_back_without_tokens_changes_nothing(backend: Backend) {
        // Enough for two more tries, which together do not open the circuit breaker.
        let server = TestServer::start_with(backend, |config| config.refresh.timeout = Duration::from_millis(1_500)).await;
        let world = World::new(&server).await;
        let credential = world.authorized("ada").await.credential;
        let before = steps::credential_now(&world.client, &credential).await;
        let material = steps::revealed(&world.client, &credential).await;
        let refused = |code: &str| json(400, &format!(r#"{{"error": "{code}"}}"#));
        let granted = |rest: &str| json(200, &format!(r#"{{"access_token": "a"{rest}}}"#));
        let moved = |status| {
            let headers = vec![("location", "https://evil.example/".to_owned())];
            Reply { headers, ..Reply::new(status, "") }
        };
        let cases = [
            (refused("invalid_grant"), Failure::GrantRefused, "invalid_grant"),
            (json(401, r#"{"error": "invalid_client"}"#), Failure::ClientRefused, "invalid_client"),
            (refused("unauthorized_client"), Failure::ClientRefused, "unauthorized_client"),
            (refused("invalid_scope"), Failure::RequestRefused, "invalid_scope"),
            (refused("interaction_required"), Failure::UserActionRequired, "interaction_required"),
            (refused("<script>"), Failure::RequestRefused, "UNKNOWN_ERROR_CODE"),
            (json(404, r#"{"error": {"code": 1}}"#), Failure::RequestRefused, "UNKNOWN_ERROR_CODE"),
            (json(429, r#"{"error": "too_many"}"#), Failure::EndpointUnavailable, "UNKNOWN_ERROR_CODE"),
            (json(503, r#"{"error": "<script>"}"#), Failure::EndpointUnavailable, "UNKNOWN_ERROR_CODE"),
            (json(502, r#"{"error": "<script>"}"#), Failure::AnswerLost, "UNKNOWN_ERROR_CODE"),
            (json(200, r#"{"error": "bad_verification_code"}"#), Failure::GrantRefused, "bad_verification_code"),
            (json(503, ""), Failure::EndpointUnavailable, "STATUS_UNEXPECTED"),
            (json(429, ""), Failure::EndpointUnavailable, "STATUS_UNEXPECTED"),
            (json(500, "<html>"), Failure::AnswerLost, "STATUS_UNEXPECTED"),
            (Reply::new(200, "<html>You are in a hotel</html>"), Failure::AnswerLost, "BODY_MALFORMED"),
            (Reply::new(200, vec![b' '; 10 << 20]), Failure::AnswerLost, "BODY_TOO_LARGE"),
            (moved(307), Failure::ClientRefused, "STATUS_UNEXPECTED"),
            (moved(302), Failure::AnswerLost, "STATUS_UNEXPECTED"),
            (moved(303), Failure::AnswerLost, "STATUS_UNEXPECTED"),
            (json(408, ""), Failure::AnswerLost, "STATUS_UNEXPECTED"),
            (json(421, r#"{"error": "<script>"}"#), Failure::EndpointUnavailable, "UNKNOWN_ERROR_CODE"),
            (json(425, ""), Failure::EndpointUnavailable, "STATUS_UNEXPECTED"),
            (refused("temporarily_unavailable"), Failure::EndpointUnavailable, "temporarily_unavailable"),
            (json(200, r#"{"error": "slow_down"}"#), Failure::EndpointUnavailable, "slow_down"),
            (json(404, ""), Failure::ClientRefused, "STATUS_UNEXPECTED"),
            (json(200, "{}"), Failure::TokenUnusable, "ACCESS_TOKEN_MISSING"),
            (json(200, r#"{"access_token": "a b\n"}"#), Failure::TokenUnusable, "ACCESS_TOKEN_UNUSABLE"),
            (granted(r#", "expires_in": -1"#), Failure::TokenUnusable, "EXPIRES_IN_INVALID"),
            (granted(r#", "expires_in": "soon""#), Failure::TokenUnusable, "EXPIRES_IN_INVALID"),
            (granted(r#", "token_type": "\u0007""#), Failure::TokenUnusable, "TOKEN_TYPE_INVALID"),
            (granted(r#", "scope": 7"#), Failure::TokenUnusable, "SCOPE_INVALID"),
            (granted(r#", "refresh_token": 7"#), Failure::TokenUnusable, "REFRESH_TOKEN_INVALID"),
        ];
        let mut sent = world.provider.redeemed().len();
        for (reply, failure, detail) in cases {
            world.provider.reply(Some(reply));
            let session = world.again(&before).await;
            assert_eq!((session.state(), session.failure()), (v1::AuthorizationState::Failed, failure), "{session:?}");
            assert_eq!(session.failure_detail, detail);
            assert!(!session.failure_message.is_empty() && session.credential == credential);
            let again = world.provider.redeemed().len() - sent;
            assert_eq!(again > 1, failure == Failure::EndpointUnavailable, "sent {again} times: {session:?}");
            sent += again;
        }
        assert_eq!(steps::credential_now(&world.client, &credential).await, before);
        assert_eq!(steps::revealed(&world.client, &credential).await, material);
    }

    /// The user need not go to the provider again.
    async fn a_code_that_was_not_processed_is_sent_again(server) {
        let world = World::new(&server).await;
        let (session, brought) = world.visited("ada").await;
        world.provider.reply(Some(json(503, "")));
        let back = async {
            while world.provider.redeemed().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            world.provider.reply(None);
        };
        let (completed, ()) = tokio::join!(complete(&world.client, brought.completion("ada")), back);
        let completed = completed.unwrap();
        assert_eq!((completed.state(), completed.id), (v1::AuthorizationState::Completed, session.id));
    }

    async fn an_absent_or_absurd_expiry_means_that_there_is_none(server) {
        let world = World::new(&server).await;
        for body in [r#"{"access_token": "a"}"#, r#"{"access_token": "a", "expires_in": 99999999999}"#] {
            world.provider.reply(Some(json(200, body)));
            let credential = world.authorized("ada").await.credential;
            let credential = steps::credential_now(&world.client, &credential).await;
            assert_eq!((credential.expire_time, credential.refreshable), (None, false));
            assert_eq!(credential.scopes, ["read", "write"], "the scopes are those that were asked for");
        }
        world.provider.reply(Some(json(200, r#"{"access_token": "a", "scope": "read"}"#)));
        let session = world.authorized("ada").await;
        assert_eq!((session.scopes.len(), session.granted_scopes), (2, vec!["read".to_owned()]));
        let credential = steps::credential_now(&world.client, &session.credential).await;
        assert_eq!(credential.scopes, ["read"]);
        assert_eq!(credential.requested_scopes, ["read", "write"]);
        assert_eq!(credential.missing_scopes, ["write"]);
        let issued = issue(&world.client, &credential.id).await;
        assert_eq!((issued.scopes, issued.missing_scopes), (vec!["read".to_owned()], vec!["write".to_owned()]));

        // Another authorisation grants them, and nothing is known of what a caller asked for.
        world.provider.reply(Some(json(200, r#"{"access_token": "b"}"#)));
        assert_eq!(world.again(&credential).await.state(), v1::AuthorizationState::Completed);
        let again = steps::credential_now(&world.client, &credential.id).await;
        assert_eq!((again.requested_scopes, again.missing_scopes.len()), (credential.requested_scopes, 0));
        let request = v1::UpdateCredentialRequest {
            reference: credential.id.clone(),
            credential: Some(v1::Credential::default()),
            material: Some(fixture::oauth2_material("own", "")),
            ..Default::default()
        };
        let stored = world.client.credentials().update_credential(request).await.unwrap().into_inner();
        assert_eq!(stored.credential.unwrap().requested_scopes.len(), 0);
    }

    async fn the_end_of_an_authorisation_is_a_fact_where_the_provider_tells_it(server) {
        let world = World::new(&server).await;
        let body = r#"{"access_token": "a", "refresh_token": "r", "refresh_token_expires_in": 60, "authorization_expires_in": 86400}"#;
        world.provider.reply(Some(json(200, body)));
        let credential = steps::credential_now(&world.client, &world.authorized("ada").await.credential).await;
        let rest = credential.authorization_expire_time.unwrap().seconds - credential.create_time.unwrap().seconds;
        assert!((86_340..=86_400).contains(&rest), "{rest}");
        let revoke = v1::RevokeCredentialRequest { reference: credential.id.clone(), ..Default::default() };
        world.provider.reply(None);
        world.client.credentials().revoke_credential(revoke).await.unwrap();
        let revoked = steps::credential_now(&world.client, &credential.id).await;
        assert_eq!((revoked.authorization_expire_time, revoked.missing_scopes.len()), (None, 0));
        let explain = v1::ExplainCredentialRequest { reference: credential.id.clone() };
        let explained = world.client.credentials().explain_credential(explain).await.unwrap().into_inner();
        let expected = v1::StartAuthorizationRequest {
            credential: credential.id.clone(),
            scopes: credential.requested_scopes,
            ..world.request("ada")
        };
        assert_eq!(explained.start_authorization.as_ref(), Some(&expected));
        // It works as it is.
        let brought = world.provider.visit(&world.start(expected).await.1).await;
        let session = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!((session.state(), session.credential), (v1::AuthorizationState::Completed, credential.id));
    }

    async fn a_credential_that_is_gone_gets_no_tokens(server) {
        let world = World::new(&server).await;
        let credential = world.authorized("ada").await.credential;
        let request = v1::StartAuthorizationRequest { credential, ..world.request("ada") };
        let brought = world.provider.visit(&world.start(request).await.1).await;
        vanish(&server).await;
        let session = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!(session.failure(), Failure::CredentialMissing, "{session:?}");
    }

    async fn a_credential_that_was_made_again_gets_no_tokens(server) {
        let world = World::new(&server).await;
        steps::link(&world.client, "eve", &world.connection.connector).await;
        // With the id of Ada's credential, once for another user, and once for Ada herself.
        for user in ["eve", "ada"] {
            let credential = world.authorized("ada").await.credential;
            let request = v1::StartAuthorizationRequest { credential: credential.clone(), ..world.request("ada") };
            let brought = world.provider.visit(&world.start(request).await.1).await;
            vanish(&server).await;
            let connection = world.connection.id.clone();
            let facts = v1::Credential { connection, ..fixture::a_credential(user, &world.connection.connector) };
            let request = v1::CreateCredentialRequest {
                id: credential.clone(),
                credential: Some(facts),
                material: Some(fixture::oauth2_material("own", "rt")),
                ..Default::default()
            };
            let made = world.client.credentials().create_credential(request).await.unwrap().into_inner();
            let session = complete(&world.client, brought.completion("ada")).await.unwrap();
            assert_eq!(session.failure(), Failure::CredentialMissing, "{session:?}");
            assert_eq!(steps::credential_now(&world.client, &credential).await, made.credential.unwrap());
            assert_eq!(tokens(steps::revealed(&world.client, &credential).await).access_token, "own");
        }
    }
}
