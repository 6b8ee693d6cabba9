//! Streaming lists: pages, orders, limits. All lists behave the same, so most tests run on all of them.

mod bytes;
mod churn;
mod damaged;
mod readers;
mod sparse;
mod tokens;
mod weight;
mod windows;

use jackfield_api::v1;
use jackfield_domain::TenantId;
use jackfield_domain::request::page::MAX_PAGE_SIZE;
use jackfield_domain::value::text::fold;
use jackfield_testkit::fill::{Filled, fill, fill_tenants};
use jackfield_testkit::list::{ListPage, Row};
use jackfield_testkit::{Ask, Client, List, Refusal, TestServer, on_both};
use tonic::Code;
use uuid::Uuid;

/// The number of rows in each list: more than a default page, and more than the store reads at once.
const ROWS: usize = 137;

on_both! {
    /// The rows do not depend on the page size, and are in the requested order.
    async fn pages_of_every_size_form_the_same_list(server) {
        let (operator, _) = full(&server).await;
        let check = |list: List| {
            let operator = operator.clone();
            async move {
                for order_by in orders(list) {
                    let golden = golden(list, &operator, &order_by).await;
                    for page_size in [1, 2, 7, 53, 100, 1_000] {
                        let ask = Ask { page_size, order_by: order_by.clone(), ..Ask::default() };
                        let pages = list.pages(&operator, &ask).await.unwrap();
                        let case = format!("{list:?} by {order_by:?} in pages of {page_size}");
                        check_pages(&pages, golden.len(), page_size as usize, &case);
                        assert!(joined(&pages) == golden, "{case}");
                    }
                }
            }
        };
        futures::future::join_all(List::ALL.map(check)).await;
    }

    /// A list can continue after every page, even with another page size.
    async fn a_list_continues_from_every_token(server) {
        let (operator, _) = full(&server).await;
        for list in List::ALL {
            for order_by in orders(list) {
                let ask = Ask { page_size: 20, order_by, ..Ask::default() };
                let pages = list.pages(&operator, &ask).await.unwrap();
                let all = joined(&pages);
                let mut read = 0;
                for page in &pages[..pages.len() - 1] {
                    read += page.rows.len();
                    let rest = Ask { page_size: 60, ..ask.from(&page.next_page_token) };
                    let rest = list.rows(&operator, &rest).await.unwrap();
                    assert!(rest == all[read..], "{list:?} {ask:?} after {read}");
                }
                assert_eq!(read + pages.last().unwrap().rows.len(), all.len());
            }
        }
    }

    /// A limit ends the stream, not the list: unless nothing follows, the last page has a token to continue.
    async fn a_limit_ends_the_stream_and_not_the_list(server) {
        let (operator, _) = full(&server).await;
        for list in List::ALL {
            let all = golden(list, &operator, "").await;
            let count = all.len();
            for (limit, page_size) in [(1, 0), (1, 1), (10, 4), (100, 100), (count, 0), (count + 5, 50), (count - 1, 1)] {
                let ask = Ask { limit: limit as i32, page_size: page_size as i32, ..Ask::default() };
                let pages = list.pages(&operator, &ask).await.unwrap();
                let page_size = if page_size == 0 { 100 } else { page_size };
                let case = format!("{list:?} {ask:?}");
                assert!(joined(&pages) == all[..limit.min(count)], "{case}");
                assert!(pages.iter().all(|page| page.rows.len() <= page_size), "{case}");
                let last = pages.last().unwrap();
                assert_eq!(last.next_page_token.is_empty(), limit >= count, "{case}");
                if limit < count {
                    let rest = list.rows(&operator, &Ask::default().from(&last.next_page_token)).await.unwrap();
                    assert!(rest == all[limit..], "{case}");
                }
            }
        }
    }

    async fn sizes_are_capped(server) {
        let (operator, alpha) = (server.client("operator"), tenant_id(&server).await);
        let store = server.store().await;
        fill(&store, alpha, MAX_PAGE_SIZE as usize + 50).await;
        let client = server.client("alpha");
        for (page_size, first) in [(0, 100), (99, 99), (1_000, 1_000), (1_001, 1_000), (i32::MAX, 1_000)] {
            let pages = List::UserConnectors.pages(&client, &Ask::pages_of(page_size)).await.unwrap();
            assert_eq!(pages[0].rows.len(), first, "{page_size}");
            assert_eq!(joined(&pages).len(), 1_050, "{page_size}");
        }
        for list in List::ALL {
            let ask = Ask { page_size: -1, limit: i32::MIN, ..Ask::default() };
            let refusal = refused(list, &operator, &ask, "FIELD_INVALID").await;
            refusal.expect_fields(&["page_size", "limit"]);
            assert_eq!(refusal.description("page_size"), "must not be negative");
        }
    }

    async fn an_empty_list_is_one_empty_page(server) {
        let client = server.client("beta");
        for list in List::ALL {
            let ask = Ask::filter("id = 01890a5d-ac96-774b-bcce-b302099a8057");
            let pages = list.pages(&client, &ask).await.unwrap();
            assert_eq!(pages, [ListPage { rows: vec![], next_page_token: String::new(), bytes: 0 }], "{list:?}");
        }
    }

    async fn each_list_has_its_own_orders(server) {
        let client = server.client("operator");
        for list in List::ALL {
            let wrong = ["name", "user_id", "update_time", "etag", "id asc desc", "ID", "id,create_time", "create_time;"];
            for order_by in wrong.into_iter().filter(|wrong| !list.orders().contains(wrong)) {
                let ask = Ask { order_by: order_by.to_owned(), ..Ask::default() };
                let refusal = refused(list, &client, &ask, "FIELD_INVALID").await;
                refusal.expect_fields(&["order_by"]);
                for allowed in list.orders() {
                    assert!(refusal.description("order_by").contains(&format!("\"{allowed}\"")), "{list:?} {refusal:?}");
                }
            }
        }
    }

    /// Scopes narrow a list as a filter does, and their pages continue like those of the whole list.
    async fn scopes_narrow_a_list(server) {
        let (operator, filled) = full(&server).await;
        let half = filled.half();
        let id = |id: Uuid| id.to_string();
        let connector = |i: usize| Ask { connector: id(filled.connectors[i].0), ..Ask::default() };
        let connection = |i: usize| Ask { connection: id(filled.connections[i].0), ..Ask::default() };
        let credential = |i: usize| Ask { credential: id(filled.credentials[i].0), ..Ask::default() };
        let application = |i: usize| Ask { application: id(filled.applications[i].0), ..Ask::default() };
        let company = |i| Ask { company_id: Filled::company(i).to_string(), ..Ask::default() };
        let user = |i| Ask { user_id: Filled::user(i), ..Ask::default() };
        let cases = [
            (List::Applications, connector(0), half),
            (List::Permissions, application(0), half),
            (List::Permissions, company(0), half),
            (List::Permissions, company(ROWS - 1), 1),
            (List::Permissions, user(None), ROWS - half),
            (List::Permissions, Ask { user_id: Filled::user(Some(3)), ..application(0) }, 1),
            (List::Permissions, Ask { company_id: Filled::company(0).to_string(), ..application(ROWS - 1) }, 0),
            (List::Sessions, application(0), half),
            (List::Sessions, user(None), ROWS - half),
            (List::Sessions, Ask { user_id: Filled::user(None), ..application(0) }, 0),
            (List::ConnectorEvents, connector(0), half),
            (List::ConnectorEvents, connector(ROWS - 1), 1),
            (List::ConnectorEvents, connector(1), 0),
            (List::Connections, connector(0), half),
            (List::Connections, connector(ROWS - 1), 1),
            (List::Connections, connector(1), 0),
            (List::UserConnectors, connector(0), half),
            (List::UserConnectors, user(None), ROWS - half),
            (List::UserConnectors, user(Some(3)), 1),
            (List::UserConnectors, Ask { user_id: Filled::user(Some(3)), ..connector(0) }, 1),
            (List::UserConnectors, Ask { user_id: Filled::user(Some(3)), ..connector(ROWS - 1) }, 0),
            (List::Credentials, connector(0), half),
            (List::Credentials, connection(0), half),
            (List::Credentials, user(None), ROWS - half),
            (List::Credentials, Ask { user_id: Filled::user(None), ..connection(ROWS - 1) }, 1),
            (List::Configurations, credential(0), half),
            (List::Configurations, connector(0), half),
            (List::Configurations, user(None), ROWS - half),
            (List::Configurations, Ask { user_id: Filled::user(None), ..credential(0) }, 0),
        ];
        for (list, ask, count) in cases {
            for order_by in orders(list) {
                let ask = Ask { order_by: order_by.clone(), ..ask.clone() };
                let all = list.rows(&operator, &Ask { page_size: 1_000, ..ask.clone() }).await.unwrap();
                assert_eq!(all.len(), count, "{list:?} {ask:?}");
                assert!(sorted(all.clone(), &order_by) == all, "{list:?} {ask:?}");
                let pages = list.pages(&operator, &Ask { page_size: 9, ..ask.clone() }).await.unwrap();
                assert!(joined(&pages) == all, "{list:?} {ask:?}");
            }
        }
    }
}

/// A caller that sees a tenant with [`ROWS`] rows of everything, and as many tenants.
async fn full(server: &TestServer) -> (Client, Filled) {
    let store = server.store().await;
    let filled = fill(&store, tenant_id_of(server, "default").await, ROWS).await;
    fill_tenants(&store, ROWS).await;
    (server.client("operator"), filled)
}

async fn tenant_id(server: &TestServer) -> TenantId {
    tenant_id_of(server, "alpha").await
}

async fn tenant_id_of(server: &TestServer, name: &str) -> TenantId {
    let request = v1::GetTenantRequest { reference: format!("name:{name}") };
    let answer = server.client("operator").admin().get_tenant(request).await.unwrap().into_inner();
    TenantId(answer.tenant.unwrap().id.parse().unwrap())
}

/// Every order of a list, in both directions.
fn orders(list: List) -> Vec<String> {
    list.orders().iter().flat_map(|field| [(*field).to_owned(), format!("{field} desc")]).collect()
}

/// All rows of a list, sorted here.
async fn golden(list: List, client: &Client, order_by: &str) -> Vec<Row> {
    let rows = list.rows(client, &Ask::pages_of(1_000)).await.unwrap();
    assert!(rows.len() >= ROWS, "{list:?}");
    sorted(rows, order_by)
}

/// The order that the contract promises: by the bytes of names without regard to letter case, or of user ids, or by time;
/// then by id.
fn sorted(mut rows: Vec<Row>, order_by: &str) -> Vec<Row> {
    let (field, descending) = match order_by.split_once(' ') {
        Some((field, "desc")) => (field, true),
        _ => (order_by, false),
    };
    let key = |row: &Row| {
        let id: Uuid = row.id.parse().unwrap();
        match field {
            "" | "id" => (String::new(), 0, id),
            "name" => (fold(&row.name), 0, id),
            "user_id" => (row.user_id.clone(), 0, id),
            "create_time" => (String::new(), row.create_time, id),
            other => panic!("{other}"),
        }
    };
    rows.sort_by_key(key);
    if descending {
        rows.reverse();
    }
    rows
}

fn joined(pages: &[ListPage]) -> Vec<Row> {
    pages.iter().flat_map(|page| page.rows.clone()).collect()
}

/// Checks that all pages but the last are full, and that each of them has a different token.
fn check_pages(pages: &[ListPage], rows: usize, page_size: usize, case: &str) {
    assert_eq!(pages.len(), rows.div_ceil(page_size), "{case}");
    let (last, others) = pages.split_last().unwrap();
    assert!(others.iter().all(|page| page.rows.len() == page_size && !page.next_page_token.is_empty()), "{case}");
    assert_eq!(last.next_page_token, "", "{case}");
    let tokens: std::collections::HashSet<_> = pages.iter().map(|page| &page.next_page_token).collect();
    assert_eq!(tokens.len(), pages.len(), "{case}");
}

/// Checks that a list is refused as invalid before its first page.
async fn refused(list: List, client: &Client, ask: &Ask, reason: &str) -> Refusal {
    match list.open(client, ask).await {
        Ok(_) => panic!("expected {reason}, but {list:?} {ask:?} is answered"),
        Err(status) => Refusal::check(status, Code::InvalidArgument, reason),
    }
}
