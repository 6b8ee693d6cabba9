//! Filters that match few of many rows: each page examines a limited number of rows, and has a token to continue.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jackfield_testkit::{Ask, Backend, Client, List, TestServer, on_both};

use super::churn::{Numbers, churn, scan_with_cuts};
use super::{joined, orders, sorted, tenant_id};
use crate::steps;

/// The number of links of the tenant. A page examines 50,000.
const LINKS: usize = 60_000;
/// The interval of links whose user is not a common one.
const STEP: usize = 8_000;
/// The number of links whose users have the word "late": too many for the word index.
const LATE: usize = 9_000;
/// The least number of rows added or removed while lists are read.
const CHANGES: usize = 20;

on_both! {
    /// The rows are those that a single statement would find, and each message is one bounded piece of the work.
    async fn a_sparse_filter_finds_its_rows_in_bounded_pages(server) {
        let client = fill(&server).await;
        for order_by in orders(List::UserConnectors) {
            let ask = Ask { order_by: order_by.clone(), ..Ask::filter("-common") };
            let pages = List::UserConnectors.pages(&client, &ask).await.unwrap();
            let rows = joined(&pages);
            assert_eq!(rows.len(), LINKS / STEP, "{order_by}");
            assert!(rows.iter().all(|row| row.user_id.starts_with("seldom")), "{order_by}");
            assert!(sorted(rows.clone(), &order_by) == rows, "{order_by}");
            assert_eq!(pages.len(), 2, "{order_by}: {LINKS} rows are more than one page examines");
            assert_ne!(pages[0].next_page_token, "", "{order_by}");
            assert_eq!(pages[1].next_page_token, "", "{order_by}");
            let rest = List::UserConnectors.rows(&client, &ask.from(&pages[0].next_page_token)).await.unwrap();
            assert!(rest == pages[1].rows, "{order_by}");

            // The search stops when a page is full.
            for limit in [1, 3, 7] {
                let page = Ask { limit, page_size: limit, ..ask.clone() };
                let found = List::UserConnectors.pages(&client, &page).await.unwrap();
                assert!(joined(&found) == rows[..limit as usize], "{order_by} {limit}");
                let next = &found.last().unwrap().next_page_token;
                if next.is_empty() {
                    assert_eq!(rows.len(), limit as usize, "{order_by}");
                    continue;
                }
                let rest = List::UserConnectors.rows(&client, &ask.from(next)).await.unwrap();
                assert!(rest == rows[limit as usize..], "{order_by} {limit}");
            }
        }
        let nothing = List::UserConnectors.pages(&client, &Ask::filter("state = DISABLED")).await.unwrap();
        assert_eq!(nothing.iter().map(|page| (page.rows.len(), page.next_page_token.is_empty())).collect::<Vec<_>>(), [
            (0, false),
            (0, true),
        ]);
    }

    /// Rows found through an index take one page, however many rows precede them.
    async fn an_index_is_used_where_there_is_one(server) {
        let client = fill(&server).await;
        let all = List::UserConnectors.rows(&client, &Ask::filter("-common")).await.unwrap();
        let last = all.last().unwrap();
        let time = jackfield_domain::Timestamp(last.create_time);
        for (filter, order_by, found) in [
            ("seldom".to_owned(), "", LINKS / STEP),
            ("seldom OR absent".to_owned(), "user_id desc", LINKS / STEP),
            ("seldom common".to_owned(), "create_time", 0),
            ("seldom NOT 012000".to_owned(), "id desc", LINKS / STEP - 1),
            (last.user_id.clone(), "", 1),
            (format!("id = {}", last.id), "create_time", 1),
            (format!("user_id = \"{}\"", last.user_id), "user_id", 1),
            (format!("user_id = \"{}\" AND state = ATTACHED", last.user_id), "", 1),
            (format!("create_time >= \"{time}\" -common"), "create_time", 1),
            (format!("create_time >= \"{time}\" -common"), "create_time desc", 1),
        ] {
            let ask = Ask { order_by: order_by.to_owned(), ..Ask::filter(&filter) };
            let pages = List::UserConnectors.pages(&client, &ask).await.unwrap();
            assert_eq!(pages.iter().map(|page| page.rows.len()).collect::<Vec<_>>(), [found], "{filter}");
        }
    }

    /// A word of many rows, all of them at the end, does not use the index, but the rows are found all the same.
    async fn a_word_of_many_rows_is_found_by_keys(server) {
        let client = fill(&server).await;
        for order_by in orders(List::UserConnectors) {
            let ask = Ask { page_size: 1_000, order_by: order_by.clone(), ..Ask::filter("late") };
            let rows = List::UserConnectors.rows(&client, &ask).await.unwrap();
            assert_eq!(rows.len(), LATE, "{order_by}");
            assert!(rows.iter().all(|row| row.user_id.contains("late")), "{order_by}");
            assert!(sorted(rows.clone(), &order_by) == rows, "{order_by}");
        }
    }

    async fn sparse_pages_lose_nothing_while_rows_are_added_and_removed(server) {
        let client = fill(&server).await;
        for (filter, seed) in [("-common", 1), ("seldom", 2)] {
            let staying = List::UserConnectors.rows(&client, &Ask::filter(filter)).await.unwrap();
            let staying: HashSet<String> = staying.into_iter().map(|row| row.id).collect();
            assert_eq!(staying.len(), LINKS / STEP);
            let (ended, changes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
            let churn = tokio::spawn(churn(client.clone(), Numbers(seed + 100), ended.clone(), changes.clone()));
            let mut numbers = Numbers(seed);
            let orders = ["id", "user_id desc", "create_time"];
            for scan in 0.. {
                let order_by = orders[scan % orders.len()];
                scan_with_cuts(List::UserConnectors, &client, filter, order_by, &staying, &mut numbers).await;
                if scan + 1 >= orders.len() && changes.load(Ordering::Relaxed) >= CHANGES {
                    break;
                }
            }
            ended.store(true, Ordering::Relaxed);
            churn.await.unwrap();
        }
    }
}

/// Creates a tenant with [`LINKS`] links of one connector, one per second. Most users are common ones.
async fn fill(server: &TestServer) -> Client {
    let client = server.client("alpha");
    let connector = steps::connector(&client, jackfield_testkit::fixture::a_connector("of many")).await;
    steps::link(&client, "pattern", &connector.id).await;
    let tenant = tenant_id(server).await.0;
    let (tenant, numbers, hex, padded, id, doc) = match server.backend() {
        Backend::Sqlite => (
            format!("x'{}'", tenant.simple()),
            format!(
                "(WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {LINKS}) SELECT i FROM n)"
            ),
            "printf('%08x', i)",
            "printf('%06d', i)",
            "unhex(replace(id, '-', ''))",
            "json_set(doc, '$.id', id, '$.user_id', \"user\", '$.meta.create_time', time)",
        ),
        Backend::Postgres => (
            format!("'{tenant}'"),
            format!("(SELECT i::bigint FROM generate_series(0, {LINKS} - 1) i)"),
            "lpad(to_hex(i), 8, '0')",
            "lpad(i::text, 6, '0')",
            "id::uuid",
            "(doc::jsonb || jsonb_build_object('id', id, 'user_id', \"user\", 'meta', (doc::jsonb -> 'meta') || \
             jsonb_build_object('create_time', time)))::text",
        ),
    };
    let first_late = LINKS - LATE;
    server
        .sql(&format!(
            "INSERT INTO user_connector (tenant_id, id, user_id, connector_id, doc, search_text, version, create_time, update_time) \
             SELECT tenant_id, {id}, \"user\", connector_id, {doc}, \"user\", version, time, update_time FROM ( \
               SELECT p.tenant_id, p.connector_id, p.doc, p.version, p.update_time, \
                 {hex} || '-0000-7000-8000-000000000000' AS id, \
                 CASE WHEN i % {STEP} = {STEP} / 2 THEN 'seldom-' WHEN i < {first_late} THEN 'common-' ELSE 'common-late-' END \
                   || {padded} || CASE WHEN i % {STEP} = {STEP} / 2 AND i >= {first_late} THEN '-late' ELSE '' END AS \"user\", \
                 p.create_time + i * 1000000 AS time \
               FROM user_connector p CROSS JOIN {numbers} AS n WHERE p.tenant_id = {tenant}) AS made"
        ))
        .await;
    server.sql(&format!("DELETE FROM user_connector WHERE tenant_id = {tenant} AND user_id = 'pattern'")).await;
    if server.backend() == Backend::Postgres {
        // Until then, inserted rows are in the pending list of the word index, which each search reads completely.
        server.sql("VACUUM ANALYZE user_connector").await;
    }
    client
}
