//! Slow readers, stalled readers, too many readers, and the shutdown of the server: the cost and the end of streams.

use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_testkit::list::{ListPage, Pages, Row};
use jackfield_testkit::{Ask, Client, List, Refusal, TestServer, fixture, on_both};
use prost::Message as _;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tonic::{Code, Status};

const LIST_CONNECTORS: &str = "/jackfield.v1.ConnectorService/ListConnectors";
/// The window of a reader; an item is a little larger.
const WINDOW: u32 = 16 * 1024;
/// The number of items, far more than fit into all buffers between server and reader.
const ITEMS: usize = 60;

on_both! {
    /// Ten stalled readers do not occupy the only connection of the pool.
    async fn a_stalled_reader_holds_no_database_connection(backend: Backend) {
        let server = TestServer::start_with(backend, |config| {
            config.database.max_connections = 1;
        }).await;
        let all = fill_large(&server).await;
        let slow = server.client_with_window("alpha", WINDOW);
        let mut stopped = Vec::new();
        for _ in 0..10 {
            let mut pages = large(&slow, "").await;
            let first = pages.next().await.unwrap().unwrap();
            stopped.push((first, pages));
        }
        sleep(Duration::from_millis(300)).await;

        let client = server.client("alpha");
        for i in 0..5 {
            let name = format!("made beside them {i}");
            let connector = Some(fixture::a_connector(&name));
            client.connectors().create_connector(v1::CreateConnectorRequest { connector, ..Default::default() }).await.unwrap();
            let request = v1::GetConnectorRequest { reference: format!("name:{name}") };
            client.connectors().get_connector(request).await.unwrap();
            let request = v1::DeleteConnectorRequest { reference: format!("name:{name}"), ..Default::default() };
            client.connectors().delete_connector(request).await.unwrap();
            assert_eq!(List::Connectors.rows(&client, &Ask::default()).await.unwrap().len(), ITEMS);
        }
        // They continue to read, and have missed nothing.
        for (first, pages) in stopped {
            let rest: Result<Vec<ListPage>, Status> = pages.collect().await;
            let rows: Vec<Row> = std::iter::once(first).chain(rest.unwrap()).flat_map(|page| page.rows).collect();
            assert!(rows == all);
        }
    }

    async fn a_stalled_reader_is_dropped(backend: Backend) {
        let server = TestServer::start_with(backend, |config| {
            config.streams.idle_timeout = Duration::from_secs(3);
            config.streams.max_open = 1;
        }).await;
        let all = fill_large(&server).await;
        let slow = server.client_with_window("alpha", WINDOW);
        let client = server.client("alpha");

        // A slow reader is not a stalled one.
        let mut rows = Vec::new();
        let mut pages = large(&slow, "").await;
        let start = Instant::now();
        while let Some(page) = pages.next().await {
            rows.extend(page.unwrap().rows);
            sleep(Duration::from_millis(60)).await;
        }
        assert!(rows == all && start.elapsed() > Duration::from_millis(3_200));

        let start = Instant::now();
        let mut pages = large(&slow, "").await;
        let mut taken = pages.next().await.unwrap().unwrap();
        let refusal = refused(&client).await;
        assert_eq!(refusal.status.code(), Code::Unavailable);
        // The stream ends on its own, and its place is free again.
        while List::Connectors.open(&client, &Ask::default()).await.is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "a stalled reader keeps its place");
            sleep(Duration::from_millis(50)).await;
        }
        assert!(start.elapsed() > Duration::from_secs(3), "dropped too early");

        // A reader that continues gets the data in transit, complete, and the reason that there is no more.
        let mut rows = taken.rows.clone();
        let refusal = loop {
            match pages.next().await.expect("an end without a status") {
                Ok(page) => {
                    rows.extend(page.rows.clone());
                    taken = page;
                }
                Err(status) => break Refusal::check(status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            }
        };
        assert!(rows.len() < ITEMS, "{refusal:?}");
        free_place(&client).await;
        rows.extend(List::Connectors.rows(&client, &Ask::default().from(&taken.next_page_token)).await.unwrap());
        assert!(rows == all);
    }

    /// A stream ends in time, however fast it is read; its last token continues the list.
    async fn a_stream_has_a_total_deadline(backend: Backend) {
        let mut server = TestServer::start_with(backend, |config| config.drain.delay = Duration::ZERO).await;
        // All rows are read once without that deadline.
        let all = fill_large(&server).await;
        server.config_mut().streams.total_timeout = Duration::from_millis(400);
        server.config_mut().streams.max_open = 1;
        server.restart().await;
        let slow = server.client_with_window("alpha", WINDOW);
        let mut rows: Vec<Row> = Vec::new();
        let mut token = String::new();
        let mut streams = 0;
        'list: loop {
            let start = Instant::now();
            let mut pages = large_or_late(&slow, &token).await;
            streams += 1;
            assert!(streams < 200, "no page comes in time");
            loop {
                match pages.next().await.expect("an end without a status") {
                    Ok(page) => {
                        rows.extend(page.rows);
                        token = page.next_page_token;
                        if token.is_empty() {
                            break 'list;
                        }
                    }
                    Err(status) => {
                        Refusal::check(status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
                        break;
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
            let took = start.elapsed();
            assert!(took > Duration::from_millis(350) && took < Duration::from_secs(10), "{took:?}");
            // The task of the stream may end a moment after the answer.
            free_place(&server.client("alpha")).await;
        }
        assert!(streams > 1, "{streams}");
        assert!(rows == all);

        // An unread stream does not last longer either.
        let unread = loop {
            free_place(&server.client("alpha")).await;
            match List::Connectors.open(&slow, &Ask::pages_of(1)).await {
                Ok(pages) => break pages,
                Err(status) => drop(Refusal::check(status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED")),
            }
        };
        sleep(Duration::from_millis(400)).await;
        free_place(&server.client("alpha")).await;
        drop(unread);
    }

    async fn streams_continue_for_a_part_of_the_grace_period_and_then_on_the_next_server(backend: Backend) {
        let mut server = TestServer::start_with(backend, |config| {
            config.drain.delay = Duration::ZERO;
            config.drain.grace = Duration::from_secs(10);
        }).await;
        let all = fill_large(&server).await;
        let slow = server.client_with_window("alpha", WINDOW);
        let (mut stopped, mut reading) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            for readers in [&mut stopped, &mut reading] {
                let mut pages = large(&slow, "").await;
                let first = pages.next().await.unwrap().unwrap();
                readers.push((first, pages));
            }
        }
        let to_the_end = reading.into_iter().map(|(first, pages)| async move {
            let rest: Result<Vec<ListPage>, Status> = pages.collect().await;
            let rest = rest.expect("a list that is read reaches its end");
            std::iter::once(first).chain(rest).flat_map(|page| page.rows).collect::<Vec<Row>>()
        });
        let (ended, read) = tokio::join!(server.stop(), futures::future::join_all(to_the_end));
        assert!(ended, "a call did not finish");
        assert!(read.iter().all(|rows| *rows == all));
        server.restart().await;
        // The others get the data in transit, and the reason that there is no more.
        for (first, mut pages) in stopped {
            let (mut rows, mut token) = (first.rows, first.next_page_token);
            let status = loop {
                match timeout(Duration::from_secs(5), pages.next()).await.unwrap().expect("an end without a status") {
                    Ok(page) => {
                        rows.extend(page.rows);
                        token = page.next_page_token;
                    }
                    Err(status) => break status,
                }
            };
            let refusal = Refusal::check(status, Code::Unavailable, "SERVER_UNAVAILABLE");
            assert!(refusal.details.retry_info().is_some_and(|retry| retry.retry_delay.is_some()), "{refusal:?}");
            assert!(rows.len() < ITEMS);
            let rest = List::Connectors.rows(&server.client("alpha"), &Ask::default().from(&token)).await.unwrap();
            rows.extend(rest);
            assert!(rows == all);
        }
    }

    /// A reader in the middle of a page when lists end gets the rest of it, with the token to continue.
    async fn a_page_in_transit_when_the_server_stops_arrives_complete(backend: Backend) {
        let mut server = TestServer::start_with(backend, |config| {
            config.drain.delay = Duration::ZERO;
            config.drain.grace = Duration::from_secs(10);
        }).await;
        let all = fill_large(&server).await;
        let ask = v1::ListConnectorsRequest { page_size: 1, ..Default::default() };
        let mut list = server.http2("alpha", WINDOW).await.call(LIST_CONNECTORS, &ask).await.unwrap();
        let mut pages = vec![list.message().await.unwrap()];
        list.fill().await;
        // Nothing of this list is in transit: when it ends, lists end.
        let unread = server.http2("alpha", 0).await.call(LIST_CONNECTORS, &ask).await.unwrap();
        let reading = async {
            let begin = Instant::now();
            Refusal::check(unread.status().await, Code::Unavailable, "SERVER_UNAVAILABLE");
            let took = begin.elapsed();
            assert!(took >= Duration::from_secs(4), "lists have a part of the grace period: {took:?}");
            list.read().await
        };
        let (ended, (rest, status)) = tokio::join!(server.stop(), reading);
        assert!(ended, "a call did not finish");
        Refusal::check(status, Code::Unavailable, "SERVER_UNAVAILABLE");
        assert!(!rest.is_empty(), "the page in transit is cut");
        pages.extend(rest);
        let pages: Vec<_> = pages.into_iter().map(|page| v1::ListConnectorsResponse::decode(page).unwrap()).collect();
        assert!(pages.len() < ITEMS, "no further page is begun");
        let mut ids: Vec<_> = pages.iter().flat_map(|page| &page.connectors).map(|connector| connector.id.clone()).collect();
        let token = &pages.last().unwrap().next_page_token;
        server.restart().await;
        let rows = List::Connectors.rows(&server.client("alpha"), &Ask::default().from(token)).await.unwrap();
        ids.extend(rows.into_iter().map(|row| row.id));
        assert!(ids.iter().eq(all.iter().map(|row| &row.id)));
    }

    /// A reader that never reads the end of its stream is cut when the grace period is over.
    async fn a_stalled_reader_does_not_delay_the_shutdown(backend: Backend) {
        let mut server = TestServer::start_with(backend, |config| {
            config.drain.delay = Duration::ZERO;
            config.drain.grace = Duration::from_secs(1);
        }).await;
        fill_large(&server).await;
        let pages = large(&server.client_with_window("alpha", WINDOW), "").await;
        sleep(Duration::from_millis(200)).await;
        let start = Instant::now();
        server.stop().await;
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        let rest: Result<Vec<ListPage>, Status> = pages.collect().await;
        assert!(rest.is_err(), "a list that was cut has no proper end");
    }

    async fn the_number_of_streams_is_limited(backend: Backend) {
        let server = TestServer::start_with(backend, |config| config.streams.max_open = 3).await;
        let all = fill_large(&server).await;
        let slow = server.client_with_window("alpha", WINDOW);
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut pages = large(&slow, "").await;
            pages.next().await.unwrap().unwrap();
            open.push(pages);
        }
        let client = server.client("alpha");
        let refusal = refused(&client).await;
        let retry = refusal.details.retry_info().and_then(|retry| retry.retry_delay);
        assert_eq!(retry, Some(Duration::from_secs(1)), "{refusal:?}");
        let request = v1::GetConnectorRequest { reference: all[0].id.clone() };
        client.connectors().get_connector(request).await.expect("unary calls are answered");
        // A dropped stream makes room, and so does a finished one.
        drop(open.pop());
        free_place(&client).await;
        let rest: Vec<Result<ListPage, Status>> = open.pop().unwrap().collect().await;
        assert_eq!(rest.len(), ITEMS - 1);
        for _ in 0..10 {
            assert_eq!(List::Connectors.rows(&client, &Ask::default()).await.unwrap().len(), ITEMS);
        }
    }
}

/// Creates [`ITEMS`] connectors in the tenant alpha, each larger than a window, and returns them in order.
async fn fill_large(server: &TestServer) -> Vec<Row> {
    let client = server.client("alpha");
    let text = "x".repeat(WINDOW as usize);
    for i in 0..ITEMS {
        let data = Some(fixture::object([("text", &text)]));
        let connector = Some(v1::Connector { data, ..fixture::a_connector(&format!("large {i}")) });
        let request = v1::CreateConnectorRequest { connector, ..Default::default() };
        client.connectors().create_connector(request).await.unwrap();
    }
    let rows = List::Connectors.rows(&client, &Ask::default()).await.unwrap();
    assert_eq!(rows.len(), ITEMS);
    rows
}

/// A list with one large item per page.
async fn large(client: &Client, token: &str) -> Pages {
    List::Connectors.open(client, &Ask::pages_of(1).from(token)).await.unwrap()
}

/// As [`large`]. Opening counts towards its deadline: if that has passed, the list contains only the error.
async fn large_or_late(client: &Client, token: &str) -> Pages {
    match List::Connectors.open(client, &Ask::pages_of(1).from(token)).await {
        Ok(pages) => pages,
        Err(status) => {
            Refusal::check(status.clone(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
            Box::pin(tokio_stream::once(Err::<ListPage, _>(status)))
        }
    }
}

async fn refused(client: &Client) -> Refusal {
    match List::Connectors.open(client, &Ask::default()).await {
        Ok(_) => panic!("there was room for one more stream"),
        Err(status) => Refusal::check(status, Code::Unavailable, "SERVER_UNAVAILABLE"),
    }
}

/// Waits until there is room for a stream, by opening a short one.
async fn free_place(client: &Client) {
    let start = Instant::now();
    let one = Ask { limit: 1, ..Ask::pages_of(1) };
    while List::Connectors.rows(client, &one).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "no stream ends");
        sleep(Duration::from_millis(20)).await;
    }
}
