//! Definitions that change while log-ins are under way: nothing of one goes where another leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_testkit::{Reply, System, TestServer, fixture, on_both};

use serde_json::Value;

use super::{a_login, a_system, connector, create, der, log_in, rotate};
use crate::key;

const ROUNDS: usize = 12;
const CALLERS: usize = 6;
const CONNECTORS: usize = 4;
const ROTATIONS: usize = 3;

on_both! {
    async fn a_secret_never_goes_to_the_system_of_another_version(server) {
        let alpha = server.client("alpha");
        let systems = [a_system().await, a_system().await];
        let mut versions = Vec::new();
        for (index, system) in systems.iter().enumerate() {
            let mut version = connector(&alpha, system, &format!("version {index}")).await;
            version.name = "moving".to_owned();
            version.secret_headers = fixture::strings([("x-secret", &*format!("for {index}"))]);
            versions.push(version);
        }
        let id = create(&alpha, versions[0].clone()).await.id;
        let done = Arc::new(AtomicBool::new(false));
        let callers = (0..CALLERS).map(|_| {
            let (alpha, id, done) = (alpha.clone(), id.clone(), Arc::clone(&done));
            async move {
                let mut accepted = 0;
                while !done.load(Ordering::Relaxed) {
                    let response = log_in(&alpha, a_login(&id, "ada", "right")).await;
                    assert_eq!(response.outcome(), v1::LoginOutcome::Accepted);
                    accepted += 1;
                }
                accepted
            }
        });
        let swaps = async {
            for round in 1..=ROUNDS {
                let request = v1::UpdateConnectorRequest {
                    reference: id.clone(),
                    connector: Some(versions[round % 2].clone()),
                    ..Default::default()
                };
                alpha.connectors().update_connector(request).await.unwrap();
                log_in(&alpha, a_login(&id, "ada", "right")).await;
            }
            done.store(true, Ordering::Relaxed);
        };
        let (accepted, ()) = futures::join!(futures::future::join_all(callers), swaps);
        assert!(accepted.iter().all(|accepted: &usize| *accepted > 0), "{accepted:?}");
        for (index, system) in systems.iter().enumerate() {
            let received = system.received();
            assert!(received.len() >= ROUNDS / 2, "{}", received.len());
            let certificate = der(&key::get(&alpha, versions[index].client_identity_key()).await.unwrap());
            for request in received {
                assert_eq!(request.headers["x-secret"], format!("for {index}"), "{}", request.line);
                assert!(request.certificate == certificate, "{}", request.line);
            }
        }
    }

    async fn no_connector_presents_the_identity_of_another_while_keys_are_rotated(server) {
        let (alpha, system) = (server.client("alpha"), a_system().await);
        let mut connectors = Vec::new();
        for index in 0..CONNECTORS {
            let mut definition = connector(&alpha, &system, &format!("connector {index}")).await;
            definition.secret_headers = fixture::strings([("x-secret", &*index.to_string())]);
            let key = key::get(&alpha, definition.client_identity_key()).await.unwrap();
            connectors.push((create(&alpha, definition).await.id, key));
        }
        let done = AtomicBool::new(false);
        let accepted = async |request| {
            assert_eq!(log_in(&alpha, request).await.outcome(), v1::LoginOutcome::Accepted);
        };
        let callers = connectors.iter().map(async |(id, _)| {
            while !done.load(Ordering::Relaxed) {
                accepted(a_login(id, "ada", "right")).await;
            }
        });
        // The certificates of each connector, and those that were the newest at log-ins that name an application.
        let mut own: Vec<_> = connectors.iter().map(|(_, key)| BTreeSet::from([der(key)])).collect();
        let mut newest = BTreeMap::new();
        let rotations = async {
            for rotation in 0..ROTATIONS * CONNECTORS {
                let (index, application_id) = (rotation % CONNECTORS, rotation.to_string());
                let (id, key) = &connectors[index];
                let certificate = der(&rotate(&alpha, &system, &key.id).await);
                own[index].insert(certificate.clone());
                newest.insert(application_id.clone(), certificate);
                accepted(v1::AuthenticateUserRequest { application_id, ..a_login(id, "ada", "right") }).await;
            }
            done.store(true, Ordering::Relaxed);
        };
        futures::join!(futures::future::join_all(callers), rotations);
        for request in system.received() {
            let index: usize = request.headers["x-secret"].to_str().unwrap().parse().unwrap();
            assert!(own[index].contains(&request.certificate), "{index} presents another identity");
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            if let Some(rotation) = body["applicationId"].as_str() {
                assert!(newest.remove(rotation).unwrap() == request.certificate, "{index} presents a previous identity");
            }
        }
        assert!(newest.is_empty());
    }

    async fn rejections_take_the_same_time_whatever_the_system_does(backend: Backend) {
        const INTERVAL: Duration = Duration::from_millis(400);
        let server = TestServer::start_with(backend, |config| config.login.rejection_interval = INTERVAL).await;
        let alpha = server.client("alpha");
        // It takes long for a user whom it knows, and no time for others.
        let system = System::start(|request| {
            if request.body.windows(5).any(|window| window == b"\"ada\"") {
                std::thread::sleep(INTERVAL / 3);
            }
            Reply::new(404, "")
        })
        .await;
        let id = create(&alpha, connector(&alpha, &system, "slow").await).await.id;
        log_in(&alpha, a_login(&id, "ada", "wrong")).await;
        for login_id in ["ada", "unknown"] {
            let start = Instant::now();
            log_in(&alpha, a_login(&id, login_id, "wrong")).await;
            // Never before the interval is over: that is the promise. How much later depends on the machine.
            assert!(start.elapsed() >= INTERVAL, "{login_id}: {:?}", start.elapsed());
        }
    }
}
