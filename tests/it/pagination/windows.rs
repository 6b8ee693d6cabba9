//! Lists that their clients leave unread, limited by HTTP/2 windows: they delay no other call, use bounded memory, and
//! end with a status.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::fill::fill_connections;
use jackfield_testkit::http2::{Answer, Http2, USUAL_WINDOW};
use jackfield_testkit::{Ask, List, Refusal, TestServer, fixture, on_both};
use prost::Message as _;
use tonic::{Code, Status};

use super::tenant_id;

const LIST: &str = "/jackfield.v1.ConnectionService/ListConnections";
const LIST_KEYS: &str = "/jackfield.v1.KeyService/ListKeys";
const LIST_CONNECTORS: &str = "/jackfield.v1.ConnectorService/ListConnectors";
const ROWS: usize = 6_000;

on_both! {
    /// A client may open several lists first and then read them one after the other.
    async fn unread_lists_do_not_delay_others(server) {
        fill_connections(&server.store().await, tenant_id(&server).await, ROWS).await;
        let connection = server.http2("alpha", USUAL_WINDOW).await;
        let mut opened = Vec::new();
        for _ in 0..4 {
            let mut list = connections(&connection).await.unwrap();
            // It is stalled in the middle of its first page.
            list.fill().await;
            opened.push(list);
        }
        for (connection, whose) in [(&connection, "the same"), (&server.http2("alpha", USUAL_WINDOW).await, "another")] {
            let (pages, status) = connections(connection).await.unwrap().read().await;
            assert_eq!((rows(&pages), status.code()), (ROWS, Code::Ok), "on {whose} connection: {status:?}");
            let keys = connection.call(LIST_KEYS, &v1::ListKeysRequest::default()).await.unwrap();
            let (pages, status) = keys.read().await;
            assert_eq!((pages.len(), status.code()), (1, Code::Ok), "on {whose} connection: {status:?}");
        }
        for list in opened {
            let (pages, status) = list.read().await;
            assert_eq!((rows(&pages), status.code()), (ROWS, Code::Ok), "{status:?}");
            assert_eq!(pages.len(), 6, "there is room for whole pages");
        }
    }

    /// An identity that exceeds its share is refused; others can read, in its tenant and in another.
    async fn one_identity_cannot_use_all_lists(server) {
        let mut open = Vec::new();
        let mut refused = 0;
        for _ in 0..12 {
            let connection = server.http2("reader", 0).await;
            for _ in 0..90 {
                match connection.call(LIST_CONNECTORS, &v1::ListConnectorsRequest::default()).await {
                    Ok(list) => open.push(list),
                    Err(status) => {
                        Refusal::check(status, Code::ResourceExhausted, "RATE_LIMITED");
                        refused += 1;
                    }
                }
            }
        }
        assert_eq!((open.len(), refused), (200, 12 * 90 - 200));
        for principal in ["alpha", "beta"] {
            for list in [List::Connectors, List::Connections, List::Keys] {
                assert!(list.rows(&server.client(principal), &Ask::default()).await.unwrap().is_empty());
            }
        }
    }

    async fn one_tenant_cannot_use_all_lists(backend: Backend) {
        let server = TestServer::start_with(backend, |config| {
            config.streams.max_open = 4;
            config.streams.max_open_per_tenant = 3;
            config.streams.max_open_per_identity = 2;
        }).await;
        let (reader, alpha) = (server.http2("reader", 0).await, server.http2("alpha", 0).await);
        let list = async |connection: &Http2| connection.call(LIST_KEYS, &v1::ListKeysRequest::default()).await;
        let refused = |answer: Result<Answer, Status>, code, reason| {
            Refusal::check(answer.err().expect("a refusal"), code, reason)
        };
        let _of_reader = (list(&reader).await.unwrap(), list(&reader).await.unwrap());
        refused(list(&reader).await, Code::ResourceExhausted, "RATE_LIMITED");
        let _of_alpha = list(&alpha).await.unwrap();
        refused(list(&alpha).await, Code::ResourceExhausted, "RATE_LIMITED");
        let beta = server.http2("beta", 0).await;
        let _of_beta = list(&beta).await.unwrap();
        refused(list(&beta).await, Code::Unavailable, "SERVER_UNAVAILABLE");
    }

    /// With far more lists of large rows than memory for them, readers reach the end, and all others get a status.
    async fn memory_of_unread_lists_goes_to_readers(backend: Backend) {
        let server = TestServer::start_with(backend, |config| {
            config.streams.page_memory = config.streams.page_memory_per_tenant;
            config.streams.idle_timeout = Duration::from_secs(10);
            config.limits.write_stall_timeout = Duration::from_secs(10);
        }).await;
        let client = server.client("alpha");
        let data = Some(fixture::object([("text", &"x".repeat(60 * 1024))]));
        for i in 0..60 {
            let connector = v1::Connector { data: data.clone(), ..fixture::a_connector(&format!("large {i}")) };
            let request = v1::CreateConnectorRequest { connector: Some(connector), ..Default::default() };
            client.connectors().create_connector(request).await.unwrap();
        }
        let mut unread = Vec::new();
        for _ in 0..2 {
            let connection = server.http2("reader", 16 * 1024).await;
            for _ in 0..90 {
                let request = v1::ListConnectorsRequest { page_size: 1_000, ..Default::default() };
                unread.push(connection.call(LIST_CONNECTORS, &request).await.unwrap());
            }
        }
        assert_eq!(List::Connectors.rows(&client, &Ask::pages_of(1_000)).await.unwrap().len(), 60);
        assert_eq!(List::Keys.rows(&client, &Ask::default()).await.unwrap().len(), 0);
        assert_eq!(List::Connectors.rows(&server.client("beta"), &Ask::default()).await.unwrap().len(), 0);
        for status in futures::future::join_all(unread.into_iter().map(Answer::status)).await {
            match status.code() {
                Code::ResourceExhausted => drop(Refusal::check(status, Code::ResourceExhausted, "RATE_LIMITED")),
                _ => drop(Refusal::check(status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED")),
            }
        }
        assert_eq!(List::Connectors.rows(&client, &Ask::pages_of(1_000)).await.unwrap().len(), 60);
    }
}

async fn connections(connection: &Http2) -> Result<Answer, Status> {
    let request = v1::ListConnectionsRequest { page_size: 1_000, ..Default::default() };
    connection.call(LIST, &request).await
}

fn rows(pages: &[impl AsRef<[u8]>]) -> usize {
    pages.iter().map(|page| v1::ListConnectionsResponse::decode(page.as_ref()).unwrap().connections.len()).sum()
}
