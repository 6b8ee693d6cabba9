//! The events that are kept, and for whom.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_domain::connector::{Connector, EVENT_LIFE_MICROS, MAX_EVENTS};
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{Clock as _, ConnectorId, SystemClock, Timestamp};
use jackfield_testkit::store::Store;
use jackfield_testkit::{TestServer, collect, expect_status, fixture, logs, on_both};
use tonic::Code;

use super::{a_login, a_system, create, debugging, events, listed, log_in};
use crate::steps;

fn delete(connector: &str) -> v1::DeleteConnectorRequest {
    v1::DeleteConnectorRequest { reference: connector.to_owned(), ..Default::default() }
}

/// The list of the events of a connector.
fn list(connector: &str) -> v1::ListConnectorEventsRequest {
    v1::ListConnectorEventsRequest { connector: connector.to_owned(), ..Default::default() }
}

on_both! {
    async fn another_tenant_sees_none(server) {
        let (alpha, beta) = (server.client("alpha"), server.client("beta"));
        let system = a_system().await;
        let id = debugging(&alpha, &system, "directory").await.id;
        log_in(&alpha, a_login(&id, "ada", "right")).await;
        events(&alpha, "name:Directory", 1).await;
        for reference in [&*id, "name:directory"] {
            let refused = beta.connectors().list_connector_events(list(reference)).await;
            expect_status(refused, Code::NotFound, "CONNECTOR_NOT_FOUND");
        }
        assert_eq!(listed(&beta, "").await, []);
        let refused = alpha.connectors().list_connector_events(list("name:")).await;
        expect_status(refused, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["connector"]);
    }

    async fn the_newest_events_of_a_connector_are_kept(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let id = debugging(&alpha, &system, "directory").await.id;
        let other = debugging(&alpha, &system, "other").await.id;
        let (store, tenant) = (server.store().await, steps::tenant_id(&server, "alpha").await);
        let txn = store.write().await.unwrap();
        for i in 0..MAX_EVENTS {
            let mut event = steps::an_event(&id);
            event.login_id = format!("user {i}");
            txn.insert(tenant, &event).await.unwrap();
        }
        txn.insert(tenant, &steps::an_event(&other)).await.unwrap();
        txn.commit().await.unwrap();
        store.close().await;

        for _ in 0..3 {
            log_in(&alpha, a_login(&id, "ada", "right")).await;
        }
        for _ in 0..400 {
            if listed(&alpha, &id).await.iter().filter(|event| event.login_id == "ada").count() == 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let kept = listed(&alpha, &id).await;
        let login_ids: Vec<_> = (3..MAX_EVENTS).map(|i| format!("user {i}")).chain((0..3).map(|_| "ada".to_owned())).collect();
        assert_eq!(kept.iter().map(|event| event.login_id.clone()).collect::<Vec<_>>(), login_ids);
        assert_eq!(listed(&alpha, &other).await.len(), 1, "those of another connector stay");
        let newest = v1::ListConnectorEventsRequest { order_by: "create_time desc".to_owned(), limit: 1, ..list(&id) };
        let newest = collect::items(alpha.connectors().list_connector_events(newest).await).await.unwrap();
        assert_eq!(newest, kept[kept.len() - 1..]);
    }

    async fn old_events_are_deleted(server) {
        let alpha = server.client("alpha");
        let mut server = server;
        let system = a_system().await;
        let id = debugging(&alpha, &system, "directory").await.id;
        let at = |age: i64| Meta::new(SystemClock.now().plus_micros(-age));
        let mut old = steps::an_event(&id);
        old.meta = at(EVENT_LIFE_MICROS + 1_000_000);
        let mut young = steps::an_event(&id);
        young.meta = at(EVENT_LIFE_MICROS - 3_600_000_000);
        let expected = young.id.to_string();
        for event in [old, young] {
            steps::event(&server, "alpha", event).await;
        }
        assert_eq!(listed(&alpha, &id).await.len(), 2);
        // Maintenance begins with the server.
        server.restart().await;
        let alpha = server.client("alpha");
        for _ in 0..400 {
            if listed(&alpha, &id).await.len() == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        assert_eq!(listed(&alpha, &id).await.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), [expected]);
    }

    async fn events_are_deleted_with_their_connector(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let first = debugging(&alpha, &system, "directory").await;
        let id = first.id.clone();
        log_in(&alpha, a_login(&id, "ada", "right")).await;
        events(&alpha, &id, 1).await;
        let store = server.store().await;
        let before = stored(&store, &server, &id).await;
        alpha.connectors().delete_connector(delete(&id)).await.unwrap();
        assert_eq!(server.sql("select count(*) from connector_event").await, ["0"]);
        let refused = alpha.connectors().list_connector_events(list(&id)).await;
        expect_status(refused, Code::NotFound, "CONNECTOR_NOT_FOUND");

        // A connector that is created with the same id does not get them, not even those that were not written yet.
        let request = v1::CreateConnectorRequest { id: id.clone(), connector: Some(first), ..Default::default() };
        alpha.connectors().create_connector(request).await.unwrap();
        assert_eq!(listed(&alpha, &id).await, []);
        let connector = ConnectorId(id.parse().unwrap());
        let tenant = steps::tenant_id(&server, "alpha").await;
        for (create_time, expected) in [(before, false), (stored(&store, &server, &id).await, true)] {
            let txn = store.write().await.unwrap();
            let events = [steps::an_event(&id)];
            let added = txn.connector_events_insert(tenant, (connector, create_time), &events, MAX_EVENTS).await.unwrap();
            txn.commit().await.unwrap();
            assert_eq!((added, listed(&alpha, &id).await.len()), (expected, usize::from(expected)));
        }
        store.close().await;
    }

    async fn events_that_wait_are_written_when_the_server_stops(server) {
        let mut server = server;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let id = debugging(&alpha, &system, "directory").await.id;
        let log_ins = (0..50).map(|_| log_in(&alpha, a_login(&id, "ada", "right")));
        futures::future::join_all(log_ins).await;
        server.restart().await;
        assert_eq!(listed(&server.client("alpha"), &id).await.len(), 50);
    }

    /// While the row of the connector is held, log-ins go on, and events that cannot be written are counted. Another tenant keeps
    /// its own.
    async fn events_neither_delay_nor_fail_log_ins(backend: Backend) {
        const LOG_INS: usize = 1_500;
        // Counts of attempts need the database that is kept from being written here.
        let server = TestServer::start_with(backend, |config| config.login.attempts_per_user = 0).await;
        let (alpha, beta) = (server.client("alpha"), server.client("beta"));
        let system = a_system().await;
        let of_beta = debugging(&beta, &system, "directory").await.id;
        let generic = v1::GenericConnector { authentication_url: "http://127.0.0.1:1025/login".to_owned(), ..Default::default() };
        let definition = v1::Connector {
            kind: Some(v1::connector::Kind::Generic(generic)),
            debug: Some(true),
            ..fixture::a_connector("away")
        };
        let id = create(&alpha, definition).await.id;
        let (store, tenant) = (server.store().await, steps::tenant_id(&server, "alpha").await);
        let txn = store.write().await.unwrap();
        let connector = ConnectorId(id.parse().unwrap());
        txn.fetch_for_update::<Connector>(tenant, connector).await.unwrap().unwrap();
        for _ in 0..LOG_INS / 50 {
            let log_ins = (0..50).map(|_| log_in(&alpha, a_login(&id, "ada", "right")));
            for response in futures::future::join_all(log_ins).await {
                assert_eq!(response.outcome(), v1::LoginOutcome::UpstreamFault);
            }
        }
        log_in(&beta, a_login(&of_beta, "ada", "right")).await;
        let counted = |result| server.metric("jackfield_connector_events_total", &[("result", result)]).unwrap();
        until(|| counted("dropped") >= 1.0).await;
        txn.rollback().await.unwrap();
        store.close().await;
        until(|| counted("written") + counted("dropped") >= LOG_INS as f64 + 1.0).await;
        events(&beta, &of_beta, 1).await;
        assert_eq!(counted("written") + counted("dropped"), LOG_INS as f64 + 1.0);
        until(|| logs::text().contains("events of connectors were not written")).await;
        log_in(&alpha, a_login(&id, "bob", "right")).await;
        until(|| counted("written") + counted("dropped") >= LOG_INS as f64 + 2.0).await;
        assert!(listed(&alpha, &id).await.iter().any(|event| event.login_id == "bob"), "they are written again");
    }
}

async fn until(holds: impl Fn() -> bool) {
    for _ in 0..1_200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it does not hold");
}

/// The time at which a connector was created, as it is stored.
async fn stored(store: &Store, server: &TestServer, id: &str) -> Timestamp {
    let tenant = steps::tenant_id(server, "alpha").await;
    let id = ConnectorId(id.parse().unwrap());
    store.read().fetch::<Connector>(tenant, id).await.unwrap().unwrap().meta.create_time
}
