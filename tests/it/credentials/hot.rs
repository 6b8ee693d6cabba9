//! Frequently requested tokens come from memory, and the next call after any change reflects it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_testkit::{Backend, Client, ManualClock, TestServer, expect_status, fixture, on_both};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{deleted, tokens};
use crate::steps;

/// A credential of ada with a connection, the external id "work" and the default mark, whose token is requested in four
/// ways.
#[derive(Clone)]
struct Hot {
    client: Client,
    connector: String,
    connection: String,
    credential: String,
}

/// An answer of IssueAccessToken: the token, or the reason that there is none.
type Answer = Result<String, String>;

/// A staleness limit far longer than any test.
const LONG: Duration = Duration::from_secs(60);

impl Hot {
    async fn on(server: &TestServer, name: &str) -> Self {
        let client = server.client("alpha");
        let connector = steps::connector(&client, fixture::an_oauth2_connector(name)).await.id;
        steps::link(&client, "ada", &connector).await;
        // Without a token endpoint, so that no token is refreshed.
        let connection =
            v1::Connection { token_url: None, ..fixture::a_connection(&format!("{name} login"), &connector) };
        let connection = Some(connection);
        let request = v1::CreateConnectionRequest { connection, ..Default::default() };
        let connection =
            client.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap().id;
        let mut hot = Hot { client, connector, connection, credential: String::new() };
        hot.credential = hot.another("work", "one", None).await;
        hot
    }

    /// Stores another credential of the same user with this token, and returns its id.
    async fn another(&self, external_id: &str, token: &str, is_default: Option<bool>) -> String {
        let facts = v1::Credential {
            external_id: Some(external_id.to_owned()),
            connection: self.connection.clone(),
            is_default,
            ..fixture::a_credential("ada", &self.connector)
        };
        steps::credential(&self.client, facts, fixture::oauth2_material(token, "refresh")).await.id
    }

    /// Requests the token by id, by external id, and as the default of the connector by id and by name.
    async fn ask(&self, name: &str) -> [Answer; 4] {
        let of =
            |reference: &str| v1::IssueAccessTokenRequest { reference: reference.to_owned(), ..Default::default() };
        let default_of = |connector: &str| v1::IssueAccessTokenRequest {
            user_id: "ada".to_owned(),
            connector: connector.to_owned(),
            ..Default::default()
        };
        let name = format!("name:{name}");
        let asked = [of(&self.credential), of("ext:work"), default_of(&self.connector), default_of(&name)];
        join_all(asked.map(|request| self.answer(request))).await.try_into().unwrap()
    }

    async fn answer(&self, request: v1::IssueAccessTokenRequest) -> Answer {
        answer(self.client.credentials().issue_access_token(request).await.map(|it| it.into_inner().access_token))
    }

    async fn update(&self, reference: &str, request: v1::UpdateCredentialRequest) {
        let credential = Some(request.credential.unwrap_or_default());
        let request = v1::UpdateCredentialRequest { reference: reference.to_owned(), credential, ..request };
        self.client.credentials().update_credential(request).await.unwrap();
    }

    async fn activate(&self, active: bool) {
        let request = v1::UpdateConnectionRequest {
            reference: self.connection.clone(),
            connection: Some(v1::Connection { active: Some(active), ..Default::default() }),
            update_mask: fixture::mask(["active"]),
            ..Default::default()
        };
        self.client.connections().update_connection(request).await.unwrap();
    }

    async fn rename(&self, name: &str) {
        let request = v1::UpdateConnectorRequest {
            reference: self.connector.clone(),
            connector: Some(v1::Connector { name: name.to_owned(), ..Default::default() }),
            update_mask: fixture::mask(["name"]),
            ..Default::default()
        };
        self.client.connectors().update_connector(request).await.unwrap();
    }
}

fn answer(result: Result<String, Status>) -> Answer {
    result.map_err(|status| match status.get_details_error_info() {
        Some(info) => info.reason,
        None => format!("{status:?}"),
    })
}

fn token(text: &str) -> Answer {
    Ok(text.to_owned())
}

fn refused(reason: &str) -> Answer {
    Err(reason.to_owned())
}

fn with_material(material: v1::CredentialMaterial) -> v1::UpdateCredentialRequest {
    v1::UpdateCredentialRequest { material: Some(material), ..Default::default() }
}

fn with_facts<const N: usize>(facts: v1::Credential, paths: [&str; N]) -> v1::UpdateCredentialRequest {
    let update_mask = fixture::mask(paths);
    v1::UpdateCredentialRequest { credential: Some(facts), update_mask, ..Default::default() }
}

/// Reseals everything, and returns the number of failures.
async fn resealed(operator: &Client) -> i64 {
    let request = v1::RewrapSecretsRequest { reseal: true, ..Default::default() };
    operator.admin().rewrap_secrets(request).await.unwrap();
    let patience = Instant::now() + LONG;
    loop {
        let rewrap = operator.admin().get_rewrap(v1::GetRewrapRequest {}).await.unwrap().into_inner().rewrap.unwrap();
        if rewrap.state() != v1::RewrapState::Running {
            return rewrap.failed;
        }
        assert!(Instant::now() < patience, "timed out with {rewrap:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn patient(backend: Backend) -> TestServer {
    TestServer::start_with(backend, |config| config.token_cache.max_staleness = LONG).await
}

on_both! {
    async fn a_hot_token_comes_from_memory_unless_the_cache_is_disabled(backend: Backend) {
        let mut server = patient(backend).await;
        for (max_tokens, hot) in [(10_000, true), (0, false)] {
            server.config_mut().token_cache.max_tokens = max_tokens;
            server.restart().await;
            let name = format!("Gmail {max_tokens}");
            let hot_one = Hot::on(&server, &name).await;
            assert_eq!(hot_one.ask(&name).await, [(); 4].map(|()| token("one")));
            // Directly in the database, so that the server cannot know.
            server.sql("DELETE FROM secret WHERE owner = 'credential'").await;
            let expected = if hot { token("one") } else { refused("CREDENTIAL_NOT_FOUND") };
            assert_eq!(hot_one.ask(&name).await, [(); 4].map(|()| expected.clone()));
            deleted(&hot_one.client, "ext:work").await;
        }
    }

    async fn changes_of_credentials_are_seen_by_the_next_call(backend: Backend) {
        let server = patient(backend).await;
        let hot = Hot::on(&server, "Gmail").await;
        // The first round fills the cache, the second is served from it.
        let expect = |expected: [Answer; 4], why: &'static str| {
            let hot = &hot;
            async move {
                for round in 0..2 {
                    assert_eq!(hot.ask("Gmail").await, expected, "{why}, round {round}");
                }
            }
        };
        let all = |text: &str| [(); 4].map(|()| token(text));
        expect(all("one"), "fresh").await;
        hot.update("ext:work", with_material(tokens("two", ""))).await;
        expect(all("two"), "new material").await;
        hot.update("ext:work", with_material(tokens("", "refresh"))).await;
        expect([(); 4].map(|()| refused("CONNECTION_INCOMPLETE")), "no token any more").await;
        hot.update("ext:work", with_material(tokens("three", ""))).await;
        expect(all("three"), "a token again").await;

        let home = hot.another("home", "of home", Some(true)).await;
        expect([token("three"), token("three"), token("of home"), token("of home")], "a new default").await;
        let default = v1::Credential { is_default: Some(true), ..Default::default() };
        hot.update("ext:work", with_facts(default, ["is_default"])).await;
        expect(all("three"), "the mark moved back").await;
        let unnamed = v1::Credential::default();
        hot.update("ext:work", with_facts(unnamed, ["external_id"])).await;
        expect([token("three"), refused("CREDENTIAL_NOT_FOUND"), token("three"), token("three")], "no external id").await;
        let work = v1::Credential { external_id: Some("work".to_owned()), ..Default::default() };
        hot.update(&home, with_facts(work, ["external_id"])).await;
        expect([token("three"), token("of home"), token("three"), token("three")], "its external id is another's").await;
        deleted(&hot.client, &hot.credential).await;
        let of_home = token("of home");
        expect([refused("CREDENTIAL_NOT_FOUND"), of_home.clone(), of_home.clone(), of_home], "deleted").await;
        deleted(&hot.client, &home).await;
        expect([(); 4].map(|()| refused("CREDENTIAL_NOT_FOUND")), "the heir deleted").await;
    }

    async fn changes_of_its_parents_are_seen_by_the_next_call(backend: Backend) {
        let server = patient(backend).await;
        let expect = |hot: &Hot, expected: [Answer; 4], why: &'static str| {
            let hot = hot.clone();
            async move {
                for round in 0..2 {
                    assert_eq!(hot.ask("Gmail").await, expected, "{why}, round {round}");
                }
            }
        };
        let all = |answer: Answer| [(); 4].map(|()| answer.clone());
        let hot = Hot::on(&server, "Gmail").await;
        expect(&hot, all(token("one")), "fresh").await;
        steps::enable(&hot.client, &hot.connector, false).await;
        expect(&hot, all(refused("CONNECTOR_DISABLED")), "connector disabled").await;
        steps::enable(&hot.client, &hot.connector, true).await;
        expect(&hot, all(token("one")), "connector enabled").await;
        hot.activate(false).await;
        expect(&hot, all(refused("CONNECTION_INACTIVE")), "connection inactive").await;
        hot.activate(true).await;
        expect(&hot, all(token("one")), "connection active").await;
        hot.rename("Mail").await;
        let one = token("one");
        expect(&hot, [one.clone(), one.clone(), one.clone(), refused("CONNECTOR_NOT_FOUND")], "renamed").await;
        let namesake = steps::connector(&hot.client, fixture::an_oauth2_connector("Gmail")).await.id;
        expect(&hot, [one.clone(), one.clone(), one, refused("USER_CONNECTOR_NOT_FOUND")], "another of its name").await;
        let request = v1::DeleteConnectorRequest { reference: namesake, ..Default::default() };
        hot.client.connectors().delete_connector(request).await.unwrap();
        hot.rename("Gmail").await;
        expect(&hot, all(token("one")), "renamed back").await;

        let gone = |by_link: &str, by_name: &str| {
            let credential = refused("CREDENTIAL_NOT_FOUND");
            [credential.clone(), credential, refused(by_link), refused(by_name)]
        };
        let (user_id, connector) = ("ada".to_owned(), hot.connector.clone());
        let request = v1::RemoveUserConnectorRequest { user_id, connector, ..Default::default() };
        hot.client.user_connectors().remove_user_connector(request).await.unwrap();
        expect(&hot, gone("USER_CONNECTOR_NOT_FOUND", "USER_CONNECTOR_NOT_FOUND"), "link removed").await;
        steps::link(&hot.client, "ada", &hot.connector).await;
        let again = Hot { credential: hot.another("work", "two", None).await, ..hot.clone() };
        expect(&again, all(token("two")), "linked again").await;
        let reference = hot.connection.clone();
        let request = v1::DeleteConnectionRequest { reference, cascade: true, ..Default::default() };
        hot.client.connections().delete_connection(request).await.unwrap();
        expect(&again, gone("CREDENTIAL_NOT_FOUND", "CREDENTIAL_NOT_FOUND"), "connection deleted").await;
        let without = Hot { connection: String::new(), ..hot.clone() };
        let last = Hot { credential: without.another("work", "three", None).await, ..without };
        expect(&last, all(token("three")), "without a connection").await;
        let reference = hot.connector.clone();
        let request = v1::DeleteConnectorRequest { reference, cascade: true, ..Default::default() };
        hot.client.connectors().delete_connector(request).await.unwrap();
        expect(&last, gone("CONNECTOR_NOT_FOUND", "CONNECTOR_NOT_FOUND"), "connector deleted").await;
    }

    async fn a_deleted_tenant_issues_no_token(backend: Backend) {
        let server = patient(backend).await;
        let hot = Hot::on(&server, "Gmail").await;
        assert_eq!(hot.ask("Gmail").await, [(); 4].map(|()| token("one")));
        let reference = "name:alpha".to_owned();
        let request = v1::DeleteTenantRequest { reference, cascade: true, ..Default::default() };
        server.client("operator").admin().delete_tenant(request).await.unwrap();
        assert_eq!(hot.ask("Gmail").await, [(); 4].map(|()| refused("TENANT_UNKNOWN")));
    }

    async fn rights_scopes_and_expiry_are_checked_for_hot_tokens_too(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |config| {
            config.token_cache.max_staleness = LONG;
            config.identity.principals.push(jackfield_testkit::data::principal("reader", "alpha", &["credentials.read"]));
        })
        .await;
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let facts = fixture::a_credential("ada", &link.connector);
        let credential = steps::credential(&client, facts, steps::tokens_for(&clock, 3600, "token", "")).await.id;
        let request = v1::IssueAccessTokenRequest { reference: credential, ..Default::default() };
        let issue = |client: Client, request: v1::IssueAccessTokenRequest| async move {
            client.credentials().issue_access_token(request).await
        };
        issue(client.clone(), request.clone()).await.unwrap();
        expect_status(issue(server.client("reader"), request.clone()).await, Code::PermissionDenied, "SCOPE_DENIED");
        expect_status(issue(server.client("beta"), request.clone()).await, Code::NotFound, "CREDENTIAL_NOT_FOUND");
        let scoped = v1::IssueAccessTokenRequest { scopes: vec!["calendar".to_owned()], ..request.clone() };
        expect_status(issue(client.clone(), scoped).await, Code::FailedPrecondition, "SCOPE_MISSING");
        let long = v1::IssueAccessTokenRequest { min_validity: Some(fixture::milliseconds(3_600_000)), ..request.clone() };
        expect_status(issue(client.clone(), long).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        issue(client.clone(), request.clone()).await.unwrap();
        clock.advance(Duration::from_secs(3600));
        expect_status(issue(client, request).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
    }

    /// Opened secrets do not stay in memory longer than their data key.
    async fn resealing_clears_opened_secrets(backend: Backend) {
        let server = patient(backend).await;
        let hot = Hot::on(&server, "Gmail").await;
        let all = |answer: Answer| [(); 4].map(|()| answer.clone());
        assert_eq!(hot.ask("Gmail").await, all(token("one")));
        let operator = server.client("operator");
        assert_eq!(resealed(&operator).await, 0);
        assert_eq!(hot.ask("Gmail").await, all(token("one")));
        assert_eq!(resealed(&operator).await, 0);
        server.sql("DELETE FROM secret WHERE owner = 'credential'").await;
        assert_eq!(hot.ask("Gmail").await, all(refused("CREDENTIAL_NOT_FOUND")));
    }

    /// Writers see their writes, and readers never see a version older than one they have seen or that was
    /// acknowledged.
    async fn reads_are_never_stale(backend: Backend) {
        const CREDENTIALS: usize = 3;
        const UPDATES: i64 = 40;
        let server = patient(backend).await;
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let mut credentials = Vec::new();
        for number in 0..CREDENTIALS {
            let external_id = format!("c{number}");
            let facts = v1::Credential { external_id: Some(external_id), ..fixture::a_credential("ada", &link.connector) };
            let id = steps::credential(&client, facts, tokens("token 1", "")).await.id;
            credentials.push((id, format!("ext:c{number}"), Arc::new(AtomicI64::new(1))));
        }
        let writing = Arc::new(AtomicUsize::new(CREDENTIALS));
        let hits = Arc::new(AtomicBool::new(false));
        let version_of = |client: Client, reference: String| async move {
            let request = v1::IssueAccessTokenRequest { reference, ..Default::default() };
            let issued = client.credentials().issue_access_token(request).await.unwrap().into_inner();
            assert_eq!(issued.access_token, format!("token {}", issued.credential_version), "token and facts belong together");
            issued.credential_version
        };
        let mut tasks = JoinSet::new();
        for (id, external, acknowledged) in &credentials {
            let (id, external, acknowledged) = (id.clone(), external.clone(), Arc::clone(acknowledged));
            let (client, writing) = (client.clone(), Arc::clone(&writing));
            tasks.spawn(async move {
                for version in 2..=UPDATES {
                    let request = v1::UpdateCredentialRequest {
                        reference: id.clone(),
                        credential: Some(v1::Credential::default()),
                        material: Some(tokens(&format!("token {version}"), "")),
                        ..Default::default()
                    };
                    client.credentials().update_credential(request).await.unwrap();
                    acknowledged.store(version, Ordering::SeqCst);
                    let reference = if version % 2 == 0 { &id } else { &external };
                    assert_eq!(version_of(client.clone(), reference.clone()).await, version);
                }
                writing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for reader in 0..2 * CREDENTIALS {
            let (id, external, acknowledged) = credentials[reader % CREDENTIALS].clone();
            let (client, writing, hits) = (client.clone(), Arc::clone(&writing), Arc::clone(&hits));
            tasks.spawn(async move {
                let (mut last, mut turn) = (0, 0_u32);
                while writing.load(Ordering::SeqCst) > 0 {
                    let before = acknowledged.load(Ordering::SeqCst);
                    // Alternates between memory, in two ways, and the database.
                    let now = match turn % 3 {
                        0 => version_of(client.clone(), id.clone()).await,
                        1 => version_of(client.clone(), external.clone()).await,
                        _ => steps::credential_now(&client, &id).await.version,
                    };
                    assert!(now >= before, "version {now} after {before} was acknowledged, turn {turn}");
                    assert!(now >= last, "version {now} after {last} was seen, turn {turn}");
                    hits.fetch_or(now == last, Ordering::Relaxed);
                    (last, turn) = (now, turn + 1);
                }
            });
        }
        // After a panic of one task, readers would wait for writers for ever.
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert!(hits.load(Ordering::Relaxed), "nothing came from memory");
    }
}

mod postgres {
    use super::*;

    /// A replica sees the changes of another within the configured time.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn other_replicas_see_changes_in_time() {
        const STALENESS: Duration = Duration::from_millis(400);
        let server =
            TestServer::start_with(Backend::Postgres, |config| config.token_cache.max_staleness = STALENESS).await;
        let replica = server.replica().await.expect("PostgreSQL has replicas");
        let hot = Hot::on(&server, "Gmail").await;
        let there = Hot { client: replica.client("alpha"), ..hot.clone() };
        for turn in 0..5 {
            assert_eq!(there.ask("Gmail").await, hot.ask("Gmail").await);
            let new = format!("turn {turn}");
            hot.update("ext:work", with_material(tokens(&new, ""))).await;
            let acknowledged = Instant::now();
            let new = [(); 4].map(|()| token(&new));
            assert_eq!(hot.ask("Gmail").await, new, "its own changes are visible at once");
            loop {
                let in_time = acknowledged.elapsed() < STALENESS;
                if there.ask("Gmail").await == new {
                    break;
                }
                assert!(in_time, "a stale token after {:?}", acknowledged.elapsed());
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
}
