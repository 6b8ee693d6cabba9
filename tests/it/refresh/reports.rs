//! Reports that an API rejected a token: it is replaced if that may help, and a caller who reports in a loop does not have the provider asked
//! in a loop.

use std::sync::Arc;
use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::{ManualClock, ProviderOptions, TestServer, on_both};
use tonic::Code;

use super::world::{World, refused};

on_both! {
    async fn a_token_that_was_just_replaced_is_not_replaced_again(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |_| {}).await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.good("ada").await;
        world.refresh(&grant.credential).await.unwrap();
        let refusal = refused(world.report(&grant.credential, 2).await, Code::ResourceExhausted, "REFRESH_TOO_SOON");
        let wait = refusal.details.retry_info().and_then(|retry| retry.retry_delay);
        assert_eq!(wait, Some(Duration::from_secs(30)));
        let about = refusal.details.resource_info().expect("the credential");
        assert_eq!((&*about.resource_type, &*about.resource_name), ("credential", &*grant.credential));
        assert_eq!(refusal.details.error_info().unwrap().metadata["id"], grant.credential);
        clock.advance(Duration::from_secs(30));
        let report = world.report(&grant.credential, 2).await.unwrap();
        assert_eq!(report.issued.unwrap().credential_version, 3);
        assert_eq!(world.provider.exchanges(grant.family), 2);
    }

    /// An API that rejects each token has another reason for it.
    async fn replacements_that_do_not_help_become_rare(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |_| {}).await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.good("ada").await;
        // A caller reports whatever it gets, every second.
        let mut version = 1;
        for _ in 0..600 {
            match world.report(&grant.credential, version).await {
                Ok(report) => version = report.issued.unwrap().credential_version,
                refusal => drop(refused(refusal, Code::ResourceExhausted, "REFRESH_TOO_SOON")),
            }
            clock.advance(Duration::from_secs(1));
        }
        // At once, and after 60, 120 and 240 s more.
        assert_eq!((version, world.provider.exchanges(grant.family)), (5, 4));
        let explained = world.explain(&grant.credential).await;
        assert_eq!(explained.rejections.len(), 8, "of each token, that it was replaced, and that it was not yet");
        assert!(explained.rejections.iter().all(|kept| kept.status == 401 && kept.report_time.is_some()));
        assert!(explained.explanation.contains("an API rejected this token (401)"), "{explained:?}");

        // Another refresh than those that callers report for is not held back.
        world.refresh(&grant.credential).await.unwrap();
        clock.advance(Duration::from_secs(2 * 3_600));
        assert_eq!(world.report(&grant.credential, 6).await.unwrap().issued.unwrap().credential_version, 7);
        // Other material is judged for itself.
        let again = world.provider.grant("ada", &["read"]);
        world.replace_all(&grant.credential, &again.access_token, &again.refresh_token).await;
        assert_eq!(world.explain(&grant.credential).await.rejections, []);
    }

    /// A refresh adds none (RFC 6750 3.1).
    async fn scopes_that_an_api_demands_cause_no_refresh(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.good("ada").await;
        let challenge = r#"Bearer realm="api", error="insufficient_scope", scope="read admin audit""#;
        let refusal = world.report_with(&grant.credential, 1, 403, challenge).await;
        let refusal = refused(refusal, Code::FailedPrecondition, "SCOPE_MISSING");
        assert!(refusal.status.message().ends_with("demands: admin audit"), "{refusal:?}");
        let explained = world.explain(&grant.credential).await;
        let expected = (v1::ErrorReason::Unspecified, v1::NextStep::Reauthorize);
        assert_eq!((explained.obstacle(), explained.next_step()), expected, "{explained:?}");
        assert!(explained.explanation.contains("demands the scopes read admin audit"), "{explained:?}");
        let [kept] = &explained.rejections[..] else { panic!("{explained:?}") };
        let found = (kept.status, &*kept.error, kept.credential_version, &*kept.scopes);
        let scopes = ["read", "admin", "audit"].map(str::to_owned);
        assert_eq!(found, (403, "insufficient_scope", 1, &scopes[..]));
        let asked = explained.start_authorization.unwrap().scopes;
        assert_eq!(asked, ["read", "write", "admin", "audit"], "with those that there are");
        // Without a challenge, the status says it.
        let refusal = world.report_with(&grant.credential, 1, 403, "").await;
        let refusal = refused(refusal, Code::FailedPrecondition, "SCOPE_MISSING");
        assert!(refusal.status.message().contains("(403)"), "{refusal:?}");
        assert_eq!(world.provider.requests().len(), 0);
        assert_eq!(world.issue(&grant.credential).await.unwrap().access_token, grant.access_token);
        // An error code says more than a status.
        let report = world.report_with(&grant.credential, 1, 403, "Bearer error=invalid_token").await.unwrap();
        assert_eq!(report.issued.unwrap().credential_version, 2);
        // A token that is newer may have them.
        let report = world.report_with(&grant.credential, 1, 403, challenge).await.unwrap();
        assert_eq!((report.issued.unwrap().credential_version, world.provider.requests().len()), (2, 1));
    }

    async fn a_log_in_that_an_api_demands_causes_no_refresh(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.good("ada").await;
        let challenge = r#"Bearer error="insufficient_user_authentication", acr_values="gold", max_age="300""#;
        let refusal = world.report_with(&grant.credential, 1, 401, challenge).await;
        let refusal = refused(refusal, Code::FailedPrecondition, "REAUTH_REQUIRED");
        assert!(refusal.status.message().ends_with("acr_values=gold, max_age=300"), "{refusal:?}");
        assert_eq!(world.explain(&grant.credential).await.next_step(), v1::NextStep::Reauthorize);
        assert_eq!(world.provider.requests().len(), 0);
    }

    async fn an_answer_about_something_else_is_refused(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.good("ada").await;
        for (status, challenge, field) in [
            (503, "", "status"),
            (429, "", "status"),
            (7, "", "status"),
            (400, r#"Bearer error="invalid_request""#, "challenge"),
            (401, r#"DPoP error="use_dpop_nonce""#, "challenge"),
            (401, "Bearer\u{7}", "challenge"),
        ] {
            let refusal = world.report_with(&grant.credential, 1, status, challenge).await;
            refused(refusal, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);
        }
        assert_eq!((world.provider.requests().len(), world.explain(&grant.credential).await.rejections.len()), (0, 0));
    }
}
