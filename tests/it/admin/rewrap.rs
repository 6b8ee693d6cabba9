//! RewrapSecrets: alone, under load, with a secret that fails, and after the death of its worker.

mod clocks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_domain::rewrap::{Rewrap, RewrapState};
use jackfield_domain::{Clock, Resource, SecretAddress, SystemClock, TenantId, Timestamp};
use jackfield_testkit::store::{DataKeyRow, Store};
use jackfield_testkit::{Backend, Client, ManualClock, TestServer, expect_status, fixture, on_both};
use tokio::time::{Instant, sleep};
use tonic::Code;
use uuid::Uuid;

use super::keyring::{activate_new_key, until, watching_server, wrapped_with};
use super::server_info;
use crate::steps;

async fn start(client: &Client, reseal: bool) -> v1::Rewrap {
    let request = v1::RewrapSecretsRequest { reseal, ..Default::default() };
    client.admin().rewrap_secrets(request).await.unwrap().into_inner().rewrap.unwrap()
}

async fn newest(client: &Client) -> v1::Rewrap {
    client.admin().get_rewrap(v1::GetRewrapRequest {}).await.unwrap().into_inner().rewrap.unwrap()
}

/// Waits for the end of the newest re-wrap.
async fn end(client: &Client) -> v1::Rewrap {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let rewrap = newest(client).await;
        if rewrap.state() != v1::RewrapState::Running {
            assert!(rewrap.end_time.is_some());
            return rewrap;
        }
        assert!(rewrap.end_time.is_none());
        assert!(Instant::now() < patience, "timed out with {rewrap:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Starts a re-wrap and waits for its end.
pub(crate) async fn ended(client: &Client, reseal: bool) -> v1::Rewrap {
    let started = start(client, reseal).await;
    let ended = end(client).await;
    assert_eq!(ended.id, started.id);
    ended
}

async fn data_keys(store: &Store, tenant: TenantId) -> Vec<DataKeyRow> {
    store.read().data_keys_fetch(tenant).await.unwrap()
}

/// The number of a tenant's secrets that are sealed with a data key other than this one.
async fn sealed_otherwise(store: &Store, tenant: TenantId, data_key: Uuid) -> usize {
    store.read().secrets_of_other_keys(tenant, data_key, 100_000).await.unwrap().len()
}

fn running(kek_id: &str, reseal: bool, heartbeat_time: Timestamp) -> Rewrap {
    Rewrap {
        id: Uuid::now_v7(),
        state: RewrapState::Running,
        kek_id: kek_id.to_owned(),
        reseal,
        data_keys_total: 4,
        data_keys_done: 1,
        secrets_total: if reseal { 1 } else { 0 },
        secrets_done: 0,
        failed: 0,
        start_time: heartbeat_time,
        end_time: None,
        heartbeat_time,
    }
}

async fn insert(store: &Store, row: &Rewrap) {
    let txn = store.write().await.unwrap();
    txn.rewrap_insert(row).await.unwrap();
    txn.commit().await.unwrap();
}

/// Changes the sealed material of a credential so that it does not open.
async fn break_material(store: &Store, tenant: TenantId, credential: &str, data_key: Uuid) {
    let owner_id = credential.parse().unwrap();
    let address = SecretAddress { tenant, owner: Resource::Credential, owner_id, name: "material" };
    let mut sealed = store.read().secret_fetch(address).await.unwrap().unwrap();
    *sealed.last_mut().unwrap() ^= 1;
    let txn = store.write().await.unwrap();
    txn.secret_put(address, data_key, sealed).await.unwrap();
    txn.commit().await.unwrap();
}

/// Statements that keep re-wraps from ending, and that let them end again.
fn obstacle(backend: Backend) -> (&'static str, &'static str) {
    match backend {
        Backend::Sqlite => (
            "create trigger broken before update on rewrap when new.state <> 'RUNNING' \
             begin select raise(abort, 'broken'); end",
            "drop trigger broken",
        ),
        Backend::Postgres => (
            "alter table rewrap add constraint broken check (state = 'RUNNING')",
            "alter table rewrap drop constraint broken",
        ),
    }
}

async fn update(
    client: &Client,
    reference: &str,
    material: v1::CredentialMaterial,
) -> Result<v1::Credential, tonic::Status> {
    let request = v1::UpdateCredentialRequest {
        reference: reference.to_owned(),
        credential: Some(v1::Credential::default()),
        material: Some(material),
        ..Default::default()
    };
    Ok(client.credentials().update_credential(request).await?.into_inner().credential.unwrap())
}

on_both! {
    async fn secrets_are_resealed(server) {
        let (client, operator) = (server.client("alpha"), server.client("operator"));
        let nothing = operator.admin().get_rewrap(v1::GetRewrapRequest {}).await;
        expect_status(nothing, Code::NotFound, "REWRAP_NOT_FOUND");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let mut given = BTreeMap::new();
        for number in 0..120 {
            let credential = steps::api_key(&client, &link, &format!("key {number}")).await.id;
            given.insert(credential, fixture::api_key_material(&format!("key {number}")));
        }
        let page = v1::ListCredentialsRequest { page_size: 50, limit: 50, ..Default::default() };
        let mut stream = client.credentials().list_credentials(page.clone()).await.unwrap().into_inner();
        let page_token = stream.message().await.unwrap().unwrap().next_page_token;

        let (store, alpha) = (server.store().await, steps::tenant_id(&server, "alpha").await);
        let [before] = &data_keys(&store, alpha).await[..] else { panic!("one data key") };
        let [system] = &data_keys(&store, TenantId::SYSTEM).await[..] else { panic!("one data key of the system") };
        let kek = server_info(&operator).await.active_key_encryption_key;
        let rewrap = ended(&operator, true).await;
        assert_eq!((rewrap.state(), rewrap.failed, rewrap.reseal), (v1::RewrapState::Done, 0, true));
        assert_eq!((rewrap.secrets_total, rewrap.secrets_done), (120, 120));
        assert_eq!((rewrap.data_keys_total, rewrap.data_keys_done), (0, 0), "the key-encryption key has not changed");
        assert_eq!(rewrap.key_encryption_key, kek);
        assert!(rewrap.start_time.unwrap().seconds <= rewrap.end_time.unwrap().seconds);

        let [after] = &data_keys(&store, alpha).await[..] else { panic!("the previous data key is gone") };
        assert_ne!(after.id, before.id);
        assert_eq!(sealed_otherwise(&store, alpha, after.id).await, 0);
        assert_eq!(sealed_otherwise(&store, alpha, before.id).await, 120);
        for (credential, material) in &given {
            assert_eq!(steps::revealed(&client, credential).await, *material);
        }
        // The system's own key stays and is only re-wrapped, so that page tokens survive a rotation.
        assert_eq!(data_keys(&store, TenantId::SYSTEM).await[0].id, system.id);
        let request = v1::ListCredentialsRequest { page_token, ..page };
        let rest = client.credentials().list_credentials(request).await.unwrap().into_inner().message().await;
        assert_eq!(rest.unwrap().unwrap().credentials.len(), 50);
        store.close().await;
    }

    /// Reads and writes on two replicas while keys and secrets are replaced repeatedly. No call fails. An SQLite file
    /// belongs to one process, so there it is one server.
    async fn a_rewrap_under_load_affects_no_call(backend: Backend) {
        const ROUNDS: usize = 6;
        const SECRETS: usize = 100;
        let server = watching_server(backend).await;
        let replica = server.replica().await;
        let replica = replica.as_ref().unwrap_or(&server);
        let operator = server.client("operator");
        let first_kek = server_info(&operator).await.active_key_encryption_key;
        let oauth2 = |version: usize| fixture::oauth2_material(&format!("access {version}"), "");
        // Each tenant has half of the secrets, and the expected token of each credential is known.
        let mut credentials = Vec::new();
        for tenant in ["alpha", "beta"] {
            let client = server.client(tenant);
            let link = steps::linked(&client, "ada", "Gmail").await;
            let store = |number: usize| {
                let (client, facts) = (client.clone(), fixture::a_credential("ada", &link.connector));
                async move {
                    let material = fixture::oauth2_material("access 0", &format!("refresh {number}"));
                    steps::credential(&client, facts, material).await.id
                }
            };
            for number in 0..SECRETS {
                credentials.push((tenant, store(number).await));
            }
        }
        let (store, mut previous) = (server.store().await, Vec::new());
        for tenant in ["alpha", "beta", "default"] {
            previous.push((steps::tenant_id(&server, tenant).await, Vec::new()));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let calls = Arc::new(AtomicUsize::new(0));
        let at = |index: usize, tenant: &str| if index.is_multiple_of(2) { server.client(tenant) } else { replica.client(tenant) };

        // Each writer has its own credentials. An update without a refresh token opens the stored one and keeps it.
        let writers = (0..4).map(|writer| {
            let mine: Vec<_> = credentials.iter().skip(writer).step_by(4).cloned().collect();
            let clients: BTreeMap<_, _> = ["alpha", "beta"].map(|tenant| (tenant, at(writer, tenant))).into();
            let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
            async move {
                let mut versions = vec![0; mine.len()];
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    let index = turn % mine.len();
                    let (tenant, credential) = &mine[index];
                    versions[index] += 1;
                    let updated = update(&clients[tenant], credential, oauth2(versions[index])).await;
                    let updated = updated.unwrap_or_else(|status| panic!("an update failed: {status:?}"));
                    assert_eq!(updated.version, i64::try_from(versions[index]).unwrap() + 1);
                    if turn % 5 == 0 {
                        let facts = fixture::a_credential("ada", "name:Gmail");
                        let made = steps::credential(&clients[tenant], facts, fixture::api_key_material("short")).await;
                        assert_eq!(steps::revealed(&clients[tenant], &made.id).await, fixture::api_key_material("short"));
                        let request = v1::DeleteCredentialRequest { reference: made.id, ..Default::default() };
                        clients[tenant].credentials().delete_credential(request).await.expect("a deletion");
                        calls.fetch_add(3, Ordering::Relaxed);
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                    turn += 1;
                }
                mine.into_iter().zip(versions).collect::<Vec<_>>()
            }
        });
        let readers = (0..4).map(|reader| {
            let all = credentials.clone();
            let clients: BTreeMap<_, _> = ["alpha", "beta"].map(|tenant| (tenant, at(reader, tenant))).into();
            let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
            async move {
                let mut turn = reader * 37;
                while !stop.load(Ordering::Relaxed) {
                    let (tenant, credential) = &all[turn % all.len()];
                    let request = v1::IssueAccessTokenRequest { reference: credential.clone(), ..Default::default() };
                    let token = clients[tenant].credentials().issue_access_token(request).await;
                    let token = token.unwrap_or_else(|status| panic!("a read failed: {status:?}")).into_inner();
                    assert!(token.access_token.starts_with("access "), "{}", token.access_token);
                    calls.fetch_add(1, Ordering::Relaxed);
                    turn += 7;
                }
            }
        });
        let rewraps = async {
            let mut kek = first_kek;
            for round in 0..ROUNDS {
                for (tenant, keys) in &mut previous {
                    *keys = data_keys(&store, *tenant).await.into_iter().map(|row| row.id).collect::<Vec<_>>();
                }
                if round % 2 == 0 {
                    kek = activate_new_key(&server).await;
                    until(replica, |info| info.active_key_encryption_key == kek).await;
                }
                let before = calls.load(Ordering::Relaxed);
                let worker = if round % 3 == 0 { &operator } else { &replica.client("operator") };
                let rewrap = ended(worker, true).await;
                assert_eq!((rewrap.state(), rewrap.failed), (v1::RewrapState::Done, 0), "round {round}: {rewrap:?}");
                assert_eq!(rewrap.key_encryption_key, kek);
                assert!(calls.load(Ordering::Relaxed) > before, "no calls were made meanwhile");
                for (tenant, keys) in &previous {
                    let [after] = &data_keys(&store, *tenant).await[..] else { panic!("previous data keys are left") };
                    assert!(!keys.contains(&after.id));
                    assert_eq!(sealed_otherwise(&store, *tenant, after.id).await, 0);
                }
            }
            stop.store(true, Ordering::Relaxed);
            kek
        };
        let (versions, _, kek) = tokio::join!(join_all(writers), join_all(readers), rewraps);
        assert_eq!(wrapped_with(&server, &["alpha", "beta", "default"]).await, vec![kek; 4]);
        let versions: BTreeMap<_, _> = versions.into_iter().flatten().collect();
        assert_eq!(versions.len(), 2 * SECRETS);
        for (index, (tenant, credential)) in credentials.iter().enumerate() {
            let version = versions[&(*tenant, credential.clone())];
            let material = steps::revealed(&at(index, tenant), credential).await.material;
            let Some(v1::credential_material::Material::Oauth2(stored)) = material else { panic!("OAuth tokens") };
            let expected = (format!("access {version}"), format!("refresh {}", index % SECRETS));
            assert_eq!((stored.access_token, stored.refresh_token), expected);
        }
        store.close().await;
    }

    async fn one_rewrap_runs_at_a_time(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let (operator, store) = (server.client("operator"), server.store().await);
        let request = v1::RewrapSecretsRequest { request_id: "1".to_owned(), ..Default::default() };
        let result = operator.admin().rewrap_secrets(request).await;
        expect_status(result, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["request_id"]);
        let row = running("of another replica", true, clock.now());
        insert(&store, &row).await;
        let found = start(&operator, false).await;
        assert_eq!(found.id, row.id.to_string());
        assert_eq!((found.state(), found.reseal, found.data_keys_done), (v1::RewrapState::Running, true, 1));
        assert_eq!(newest(&operator).await, found);

        // A worker without a heartbeat for a minute is considered dead, and a new one begins.
        clock.advance(Duration::from_secs(60));
        assert_eq!(start(&operator, false).await.id, row.id.to_string());
        clock.advance(Duration::from_micros(1));
        let request_id = Uuid::now_v7().to_string();
        let request = v1::RewrapSecretsRequest { reseal: false, request_id, validate_only: false };
        let started = operator.admin().rewrap_secrets(request.clone()).await.unwrap().into_inner().rewrap.unwrap();
        assert_ne!(started.id, row.id.to_string());
        let ended = end(&operator).await;
        assert_eq!((&ended.id, ended.state()), (&started.id, v1::RewrapState::Done));
        let states = "select state from rewrap where end_time is not null order by id";
        assert_eq!(server.sql(states).await, ["FAILED", "DONE"], "the previous one does not stay RUNNING");
        // A repeat returns the state of that time, and starts nothing.
        let repeat = operator.admin().rewrap_secrets(request.clone()).await.unwrap().into_inner().rewrap.unwrap();
        assert_eq!(repeat, started);
        assert_eq!(newest(&operator).await, ended);
        let other = v1::RewrapSecretsRequest { reseal: true, ..request };
        expect_status(operator.admin().rewrap_secrets(other).await, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
        store.close().await;
    }

    /// A worker writes only if no other worker has written a heartbeat since its own.
    async fn only_one_of_two_workers_continues(server) {
        let store = server.store().await;
        let row = running("of another replica", true, SystemClock.now());
        insert(&store, &row).await;
        let advance = async |done: i64, beat: Timestamp, last: Timestamp, state: RewrapState| {
            let row = Rewrap { data_keys_done: done, heartbeat_time: beat, state, ..row.clone() };
            let txn = store.write().await.unwrap();
            let advanced = txn.rewrap_advance(&row, last).await.unwrap();
            txn.commit().await.unwrap();
            advanced
        };
        let (first, second, third) = (row.heartbeat_time, row.heartbeat_time.plus_micros(1), row.heartbeat_time.plus_micros(2));
        assert!(advance(2, second, first, RewrapState::Running).await, "the worker that takes over");
        assert!(!advance(9, third, first, RewrapState::Running).await, "the worker that was replaced");
        let found = store.read().rewrap_fetch().await.unwrap().unwrap();
        assert_eq!((found.data_keys_done, found.heartbeat_time), (2, second));
        assert!(advance(3, third, second, RewrapState::Done).await);
        assert!(!advance(9, third, third, RewrapState::Running).await, "ended");
        store.close().await;
    }

    /// Another process finishes a re-wrap that was left half done, with the key that is active by then.
    async fn a_dead_rewrap_is_taken_over(backend: Backend) {
        let clock = ManualClock::at_present();
        let mut server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let credential = steps::api_key(&client, &link, "key").await.id;
        let (store, alpha) = (server.store().await, steps::tenant_id(&server, "alpha").await);
        let before = data_keys(&store, alpha).await[0].id;
        server.crash();
        clock.advance(Duration::from_secs(1));
        let row = running("a key that is not there any more", true, clock.now());
        insert(&store, &row).await;
        clock.advance(Duration::from_secs(61));
        server.restart().await;
        let operator = server.client("operator");
        let rewrap = end(&operator).await;
        assert_eq!((rewrap.id.as_str(), rewrap.state()), (&*row.id.to_string(), v1::RewrapState::Done));
        assert_eq!(rewrap.key_encryption_key, server_info(&operator).await.active_key_encryption_key);
        assert_eq!((rewrap.secrets_done, rewrap.failed), (1, 0));
        let [after] = &data_keys(&store, alpha).await[..] else { panic!("one data key") };
        assert_ne!(after.id, before);
        assert_eq!(sealed_otherwise(&store, alpha, after.id).await, 0);
        assert_eq!(steps::revealed(&server.client("alpha"), &credential).await, fixture::api_key_material("key"));
        store.close().await;
    }

    /// Metrics show a re-wrap that cannot end, and its progress.
    async fn its_progress_is_counted(server) {
        let (client, operator) = (server.client("alpha"), server.client("operator"));
        let link = steps::linked(&client, "ada", "Gmail").await;
        for number in 0..3 {
            steps::api_key(&client, &link, &format!("key {number}")).await;
        }
        let shown = || ["running", "data_keys_done", "data_keys_planned", "secrets_done", "secrets_planned", "failed_total"].map(|name| {
            server.metric(&format!("jackfield_rewrap_{name}"), &[]).expect("a series")
        });
        let shows = async |expected: [f64; 6]| {
            let patience = Instant::now() + Duration::from_secs(20);
            while shown() != expected {
                assert!(Instant::now() < patience, "{:?}", shown());
                sleep(Duration::from_millis(20)).await;
            }
        };
        assert_eq!(shown(), [0.0; 6]);
        let (never_ends, ends) = obstacle(server.backend());
        server.sql(never_ends).await;
        start(&operator, true).await;
        shows([1.0, 0.0, 0.0, 3.0, 3.0, 0.0]).await;
        assert_eq!(newest(&operator).await.state(), v1::RewrapState::Running);
        server.sql(ends).await;
        assert_eq!(end(&operator).await.state(), v1::RewrapState::Done);
        shows([0.0, 0.0, 0.0, 3.0, 3.0, 0.0]).await;
    }

    /// A secret that does not open stays as it is, with its key; the others are resealed.
    async fn a_broken_secret_fails_alone(server) {
        let (client, operator) = (server.client("alpha"), server.client("operator"));
        let link = steps::linked(&client, "ada", "Gmail").await;
        let mut credentials = Vec::new();
        for number in 0..3 {
            credentials.push(steps::api_key(&client, &link, &format!("key {number}")).await.id);
        }
        let (store, alpha) = (server.store().await, steps::tenant_id(&server, "alpha").await);
        let previous = data_keys(&store, alpha).await[0].id;
        let owner = credentials[1].parse().unwrap();
        let address =
            SecretAddress { tenant: alpha, owner: Resource::Credential, owner_id: owner, name: "material" };
        let good = store.read().secret_fetch(address).await.unwrap().unwrap();
        let put = |sealed: Vec<u8>| {
            let store = store.clone();
            async move {
                let txn = store.write().await.unwrap();
                txn.secret_put(address, previous, sealed).await.unwrap();
                txn.commit().await.unwrap();
            }
        };
        let mut broken = good.clone();
        *broken.last_mut().unwrap() ^= 1;
        put(broken).await;

        let rewrap = ended(&operator, true).await;
        assert_eq!((rewrap.state(), rewrap.failed), (v1::RewrapState::Failed, 1));
        assert_eq!((rewrap.secrets_total, rewrap.secrets_done), (3, 2));
        assert_eq!(server.metric("jackfield_rewrap_failed_total", &[]), Some(1.0));
        let keys = data_keys(&store, alpha).await;
        assert_eq!(keys.len(), 2, "the previous key stays as long as it seals anything");
        assert_eq!(sealed_otherwise(&store, alpha, keys[0].id).await, 1);
        for (number, credential) in credentials.iter().enumerate() {
            let request = v1::RevealCredentialRequest { reference: credential.clone(), purpose: "a look in a test".to_owned() };
            let result = client.credentials().reveal_credential(request).await;
            match number {
                1 => drop(expect_status(result, Code::DataLoss, "DECRYPT_FAILED")),
                _ => assert_eq!(result.unwrap().into_inner().material, Some(fixture::api_key_material(&format!("key {number}")))),
            }
        }
        // After the repair, the next one succeeds.
        put(good).await;
        let rewrap = ended(&operator, true).await;
        assert_eq!((rewrap.state(), rewrap.failed, rewrap.secrets_done), (v1::RewrapState::Done, 0, 3));
        assert_eq!(data_keys(&store, alpha).await.len(), 1);
        assert_eq!(steps::revealed(&client, &credentials[1]).await, fixture::api_key_material("key 1"));
        store.close().await;
    }

    /// A worker that is interrupted starts again from the beginning. It passes over the secret that failed, keeps its data key, and
    /// writes nothing where nothing is left to do.
    async fn a_broken_secret_and_an_interruption(server) {
        let (client, operator) = (server.client("alpha"), server.client("operator"));
        let link = steps::linked(&client, "ada", "Gmail").await;
        let broken = steps::api_key(&client, &link, "key").await.id;
        steps::api_key(&client, &link, "another key").await;
        let (store, alpha) = (server.store().await, steps::tenant_id(&server, "alpha").await);
        let data_key = data_keys(&store, alpha).await[0].id;
        break_material(&store, alpha, &broken, data_key).await;

        let (never_ends, ends) = obstacle(server.backend());
        server.sql(never_ends).await;
        let started = start(&operator, true).await;
        let beats = async |patience: Duration| {
            sleep(patience).await;
            store.read().rewrap_fetch().await.unwrap().unwrap().heartbeat_time
        };
        let before = beats(Duration::from_millis(1_500)).await;
        assert_eq!(beats(Duration::from_secs(2)).await, before, "the next tries make no progress");
        server.sql(ends).await;
        let rewrap = end(&operator).await;
        assert_eq!((&rewrap.id, rewrap.state(), rewrap.failed), (&started.id, v1::RewrapState::Failed, 1));
        assert_eq!((rewrap.secrets_total, rewrap.secrets_done), (2, 1));
        assert_eq!(data_keys(&store, alpha).await.len(), 2, "the earlier key stays as long as it seals anything");
        store.close().await;
    }
}
