//! Rotation of the key-encryption key without a restart: the keyring file changes, the server reloads it, and the
//! previous key is removed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jackfield_api::v1;
use jackfield_domain::TenantId;
use jackfield_testkit::{Backend, Client, TestServer, backend::in_time, fixture, logs, on_both};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::rewrap::ended;
use super::{create, created, server_info};
use crate::steps;

/// A server that checks its keyring file often.
pub(super) async fn watching_server(backend: Backend) -> TestServer {
    TestServer::start_with(backend, |config| config.vault.reload_interval = Duration::from_millis(20)).await
}

fn file(server: &TestServer) -> PathBuf {
    server.data_dir().join("keyring.toml")
}

/// Replaces the keyring file atomically, as tools that rotate keys do.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    fs::rename(new, path).unwrap();
}

/// The text of a keyring with an additional key, which is active.
fn with_new_key(text: &str) -> (String, String) {
    let id = format!("kek-{}", Uuid::now_v7().simple());
    let previous = text.lines().find_map(|line| line.strip_prefix("active = ")).expect("an active key");
    let text = text.replace(&format!("active = {previous}"), &format!("active = \"{id}\""));
    let text = text.replace("state = \"active\"", "state = \"retired\"");
    // 32 bytes in base64: 43 characters of the alphabet, the last without unused bits, and padding.
    let random = [Uuid::now_v7(), Uuid::now_v7()].map(|id| id.simple().to_string()).concat();
    let secret = format!("{}A=", &random[22..]);
    let key = format!(
        "\n[[key]]\nid = \"{id}\"\nstate = \"active\"\ncreated = 2026-01-01T00:00:00Z\nsecret = \"{secret}\"\n"
    );
    (text + &key, id)
}

/// The text of a keyring without a key.
fn without_key(text: &str, id: &str) -> String {
    let (head, keys) = text.split_once("\n[[key]]\n").expect("a key");
    let keys: Vec<_> = keys.split("\n[[key]]\n").filter(|key| !key.starts_with(&format!("id = \"{id}\"\n"))).collect();
    keys.iter().fold(format!("{head}\n"), |text, key| format!("{text}\n[[key]]\n{}\n", key.trim_end()))
}

/// Adds a key to the keyring file, makes it the active one, and waits until the server has reloaded it.
pub(super) async fn activate_new_key(server: &TestServer) -> String {
    let (text, id) = with_new_key(&fs::read_to_string(file(server)).unwrap());
    replace(&file(server), &text);
    until(server, |info| info.active_key_encryption_key == id).await;
    id
}

/// Waits until the server info satisfies a condition.
pub(super) async fn until(server: &TestServer, holds: impl Fn(&v1::GetServerInfoResponse) -> bool) {
    let (client, patience) = (server.client("operator"), Instant::now() + Duration::from_secs(20));
    loop {
        let info = server_info(&client).await;
        if holds(&info) {
            return;
        }
        assert!(Instant::now() < patience, "timed out with {info:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The key-encryption keys that wrap the data keys of these tenants.
pub(super) async fn wrapped_with(server: &TestServer, tenants: &[&str]) -> Vec<String> {
    let store = server.store().await;
    let mut ids = vec![TenantId::SYSTEM];
    for name in tenants {
        ids.push(steps::tenant_id(server, name).await);
    }
    let mut keks = Vec::new();
    for id in ids {
        keks.extend(store.read().data_keys_fetch(id).await.unwrap().into_iter().map(|row| row.kek_id));
    }
    store.close().await;
    keks
}

/// Waits until the server has logged another complaint about its keyring file.
async fn until_complaint(server: &TestServer, before: usize) {
    let patience = Instant::now() + Duration::from_secs(20);
    while complaints(server) == before {
        assert!(Instant::now() < patience, "no complaint");
        sleep(Duration::from_millis(20)).await;
    }
}

fn complaints(server: &TestServer) -> usize {
    let path = file(server).display().to_string();
    logs::text().lines().filter(|line| line.contains("keyring not reloaded") && line.contains(&path)).count()
}

async fn token(client: &Client) -> String {
    let request = v1::IssueAccessTokenRequest { reference: "ext:work".to_owned(), ..Default::default() };
    client.credentials().issue_access_token(request).await.unwrap().into_inner().access_token
}

on_both! {
    async fn a_key_is_rotated_while_the_server_runs(backend: Backend) {
        let mut server = watching_server(backend).await;
        let replica = server.replica().await;
        let other = replica.as_ref().unwrap_or(&server);
        let (client, operator) = (server.client("alpha"), server.client("operator"));
        let link = steps::linked(&client, "ada", "Gmail").await;
        let facts = v1::Credential { external_id: Some("work".to_owned()), ..fixture::a_credential("ada", &link.connector) };
        steps::credential(&client, facts, fixture::api_key_material("key of work")).await;
        let previous = server_info(&operator).await.active_key_encryption_key;
        let tenants = ["default", "alpha", "beta"];
        assert_eq!(wrapped_with(&server, &tenants).await, vec![previous.clone(); 4]);

        // The new key wraps new data keys; the previous one still opens old ones.
        let new = activate_new_key(&server).await;
        until(other, |info| info.active_key_encryption_key == new).await;
        let info = server_info(&operator).await;
        assert_eq!(info.key_encryption_keys.len(), 2);
        assert!(info.key_encryption_keys.contains(&previous));
        created(&operator, create(fixture::a_tenant("gamma"))).await.unwrap();
        assert_eq!(wrapped_with(&server, &["gamma"]).await, [previous.clone(), new.clone()]);
        assert_eq!(token(&client).await, "key of work");

        let rewrap = ended(&operator, false).await;
        assert_eq!((rewrap.state(), rewrap.key_encryption_key.as_str()), (v1::RewrapState::Done, &*new));
        assert_eq!((rewrap.data_keys_total, rewrap.data_keys_done, rewrap.failed), (4, 4, 0));
        assert_eq!((rewrap.secrets_total, rewrap.secrets_done, rewrap.reseal), (0, 0, false));
        assert_eq!(wrapped_with(&server, &["default", "alpha", "beta", "gamma"]).await, vec![new.clone(); 5]);
        // A second re-wrap finds nothing to do.
        let rewrap = ended(&operator, false).await;
        assert_eq!((rewrap.state(), rewrap.data_keys_total, rewrap.data_keys_done), (v1::RewrapState::Done, 0, 0));

        // Nothing uses the previous key any more. It can be removed, and everything opens without it, even after a
        // restart.
        let text = without_key(&fs::read_to_string(file(&server)).unwrap(), &previous);
        replace(&file(&server), &text);
        until(&server, |info| info.key_encryption_keys == [new.clone()]).await;
        until(other, |info| info.key_encryption_keys == [new.clone()]).await;
        for client in [&client, &other.client("alpha")] {
            assert_eq!(token(client).await, "key of work");
        }
        server.restart().await;
        assert_eq!(token(&server.client("alpha")).await, "key of work");
    }

    async fn an_unusable_file_changes_nothing(backend: Backend) {
        let server = watching_server(backend).await;
        let (client, operator) = (server.client("alpha"), server.client("operator"));
        let link = steps::linked(&client, "ada", "Gmail").await;
        let facts = v1::Credential { external_id: Some("work".to_owned()), ..fixture::a_credential("ada", &link.connector) };
        steps::credential(&client, facts, fixture::api_key_material("key of work")).await;
        let before = server_info(&operator).await;
        let previous = before.active_key_encryption_key.clone();
        let good = fs::read_to_string(file(&server)).unwrap();
        let (with_new, new) = with_new_key(&good);
        let other_secret = {
            let line = good.lines().find(|line| line.starts_with("secret = ")).unwrap();
            let changed: String = line.chars().map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c }).collect();
            good.replace(line, &changed.replace("SECRET", "secret"))
        };
        let unusable = [
            String::new(),
            "active = ".to_owned(),
            good.replace("state = \"active\"", "state = \"staged\""),
            // The missing key still wraps data keys.
            without_key(&with_new, &previous),
            other_secret,
        ];
        for text in unusable {
            let complained = complaints(&server);
            replace(&file(&server), &text);
            until_complaint(&server, complained).await;
            assert_eq!(server_info(&operator).await, before);
            assert_eq!(token(&client).await, "key of work");
        }
        // A file that others can read is refused.
        let complained = complaints(&server);
        replace(&file(&server), &with_new);
        until(&server, |info| info.active_key_encryption_key == new).await;
        let open = file(&server).with_extension("open");
        fs::write(&open, &good).unwrap();
        fs::rename(&open, file(&server)).unwrap();
        until_complaint(&server, complained).await;
        assert_eq!(server_info(&operator).await.active_key_encryption_key, new);
        let log = logs::text();
        for line in good.lines().filter_map(|line| line.strip_prefix("secret = ")) {
            assert!(!log.contains(line.trim_matches('"')), "a key is in the log");
        }
    }
}

/// Only the database knows which keys are in use.
mod postgres {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_change_is_not_lost_while_the_database_is_unavailable() {
        let test = async {
            let server = watching_server(Backend::Postgres).await;
            let (text, id) = with_new_key(&fs::read_to_string(file(&server)).unwrap());
            server.postgres().set_reachable(false);
            let complained = complaints(&server);
            replace(&file(&server), &text);
            until_complaint(&server, complained).await;
            server.postgres().set_reachable(true);
            let (client, patience) = (server.client("operator"), Instant::now() + Duration::from_secs(30));
            // The database may still be unavailable to the first calls.
            while client.admin().get_server_info(v1::GetServerInfoRequest {}).await.is_err() {
                assert!(Instant::now() < patience, "the server does not recover");
                sleep(Duration::from_millis(50)).await;
            }
            until(&server, |info| info.active_key_encryption_key == id).await;
        };
        in_time(test).await;
    }
}
