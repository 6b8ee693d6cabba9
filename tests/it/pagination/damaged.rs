//! An unreadable row is omitted from lists, counted and logged, and affects no other row.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::store::{Database, PoolSettings, Store};
use jackfield_testkit::{Backend, Program, Site, TestServer, collect, expect_status, fixture, on_both};
use tonic::Code;

use crate::steps;

const ROWS: usize = 12;
const PAGE_SIZE: i32 = 4;

fn name(row: usize) -> String {
    format!("c{row:02}")
}

/// The names in each page of a list.
async fn pages(server: &TestServer, request: v1::ListConnectorsRequest) -> Vec<Vec<String>> {
    let mut stream = server.client("alpha").connectors().list_connectors(request).await.unwrap().into_inner();
    let mut pages = Vec::new();
    while let Some(page) = stream.message().await.unwrap() {
        pages.push(page.connectors.into_iter().map(|connector| connector.name).collect());
    }
    pages
}

/// The damages to a document: not JSON, JSON of something else, two lines, and on SQLite not text, as after a flipped
/// bit.
fn damages(backend: Backend) -> Vec<&'static str> {
    let mut damages = vec!["'{'", "'{\"id\":7}'", "replace(doc, '{', '{\n')"];
    if backend == Backend::Sqlite {
        damages.push("CAST(x'7bff' || CAST(doc AS BLOB) AS TEXT)");
    }
    damages
}

fn damaged(server: &TestServer) -> f64 {
    server.metric("jackfield_database_rows_damaged_total", &[]).unwrap()
}

on_both! {
    async fn a_damaged_row_is_omitted_and_all_others_are_listed(server) {
        let client = server.client("alpha");
        let mut ids = Vec::new();
        for number in 0..ROWS {
            let connector = steps::connector(&client, fixture::a_connector(&name(number))).await;
            steps::link(&client, "ada", &connector.id).await;
            ids.push(connector.id);
        }
        // At both ends of the list, in the middle of a page, at its end, at the beginning of the next one, and several
        // at once.
        for rows in [vec![0], vec![5], vec![7], vec![8], vec![11], vec![3, 4, 7], vec![4, 5, 6, 7]] {
            for damage in damages(server.backend()) {
                let names: Vec<_> = rows.iter().map(|row| format!("'{}'", name(*row))).collect();
                let these = format!("WHERE name_key IN ({})", names.join(", "));
                server.sql(&format!("CREATE TABLE kept AS SELECT id, doc FROM connector {these}")).await;
                let before = damaged(&server);
                server.sql(&format!("UPDATE connector SET doc = {damage} {these}")).await;

                let expected: Vec<_> = (0..ROWS).filter(|row| !rows.contains(row)).map(name).collect();
                for order in ["name", "name desc", "create_time", "id"] {
                    for page_size in [PAGE_SIZE, 1, 1_000] {
                        let request = v1::ListConnectorsRequest { page_size, order_by: order.to_owned(), ..Default::default() };
                        let mut listed = pages(&server, request).await.concat();
                        if order == "name desc" {
                            listed.reverse();
                        }
                        assert_eq!(listed, expected, "{rows:?} {damage} {order} {page_size}");
                    }
                }
                for filter in ["name = \"c*\"", "enabled = true", "c0", "NOT description = x"] {
                    let request = v1::ListConnectorsRequest { filter: filter.to_owned(), ..Default::default() };
                    let listed = pages(&server, request).await.concat();
                    let expected: Vec<_> = expected.iter().filter(|name| filter != "c0" || name.contains("c0")).cloned().collect();
                    assert_eq!(listed, expected, "{rows:?} {damage} {filter}");
                }
                assert!(damaged(&server) >= before + rows.len() as f64, "it is counted");

                // Its dependents are listed, with its name as of before.
                let links = client.user_connectors().list_user_connectors(v1::ListUserConnectorsRequest::default()).await;
                let mut links: Vec<_> =
                    collect::items(links).await.unwrap().into_iter().map(|link| link.connector_name).collect();
                links.sort();
                assert_eq!(links, (0..ROWS).map(name).collect::<Vec<_>>());

                // A get of it explains the problem; the others are unchanged.
                for (row, id) in ids.iter().enumerate() {
                    let reference = format!("name:{}", name(row));
                    let found = client.connectors().get_connector(v1::GetConnectorRequest { reference }).await;
                    if !rows.contains(&row) {
                        assert_eq!(found.unwrap().into_inner().connector.unwrap().name, name(row));
                        continue;
                    }
                    // The server never writes two lines, but can read them all the same.
                    if damage.contains('\n') {
                        found.unwrap();
                        continue;
                    }
                    let refusal = expect_status(found, Code::DataLoss, "DATA_DAMAGED");
                    assert_eq!(refusal.metadata("resource"), "connector");
                    assert_eq!(refusal.metadata("id"), *id);
                    assert_eq!(refusal.status.message(), format!("the stored row of connector {} cannot be read", *id));
                }
                server.sql("UPDATE connector SET doc = (SELECT doc FROM kept WHERE kept.id = connector.id) WHERE id IN (SELECT id FROM kept)").await;
                server.sql("DROP TABLE kept").await;
            }
        }
        assert_eq!(pages(&server, v1::ListConnectorsRequest::default()).await.concat().len(), ROWS, "the list is whole again");
    }

    /// A document can be intact but differ from its row. The columns determine the position of a row in a list.
    async fn a_document_that_disagrees_with_its_row_does_not_change_the_order(server) {
        let client = server.client("alpha");
        let mut ids = Vec::new();
        for number in 0..ROWS {
            ids.push(steps::connector(&client, fixture::a_connector(&name(number))).await.id);
        }
        // In the middle of a page, at its end, and at the beginning and the end of the list.
        for row in [0, 1, 3, 7, 11] {
            let other = &ids[(row + 6) % ROWS];
            let time = "'\"create_time\":' || create_time";
            for (from, to) in [
                (format!("'\"id\":\"{}\"'", ids[row]), format!("'\"id\":\"{other}\"'")),
                (format!("'\"name\":\"{}\"'", name(row)), "'\"name\":\"a\"'".to_owned()),
                (format!("'\"name\":\"{}\"'", name(row)), "'\"name\":\"z\"'".to_owned()),
                (time.to_owned(), "'\"create_time\":1'".to_owned()),
                (time.to_owned(), "'\"create_time\":4000000000000000'".to_owned()),
            ] {
                let this = format!("WHERE name_key = '{}'", name(row));
                server.sql(&format!("CREATE TABLE kept AS SELECT id, doc FROM connector {this}")).await;
                server.sql(&format!("UPDATE connector SET doc = replace(doc, {from}, {to}) {this}")).await;
                let changed = "SELECT count(*) FROM connector JOIN kept ON kept.id = connector.id WHERE kept.doc <> connector.doc";
                assert_eq!(server.sql(changed).await, ["1"]);

                // A document with another id is not returned under this id. Everything else is returned as stored.
                let listed_name = |number: usize| match () {
                    () if number != row => Some(name(number)),
                    () if from.contains("\"id\"") => None,
                    () if from.contains("\"name\"") => Some(to.trim_matches('\'')[8..9].to_owned()),
                    () => Some(name(number)),
                };
                let expected: Vec<_> = (0..ROWS).filter_map(listed_name).collect();
                for order in ["name", "name desc", "create_time", "create_time desc", "id"] {
                    for page_size in [PAGE_SIZE, 1, 1_000] {
                        // An endless list would never end without a limit.
                        let limit = 2 * ROWS as i32;
                        let request = v1::ListConnectorsRequest { page_size, limit, order_by: order.to_owned(), ..Default::default() };
                        let mut listed = pages(&server, request).await.concat();
                        if order.ends_with("desc") {
                            listed.reverse();
                        }
                        assert_eq!(listed, expected, "{row} {from} {to} {order} {page_size}");
                    }
                }
                let request = v1::GetConnectorRequest { reference: ids[row].clone() };
                let found = client.connectors().get_connector(request).await;
                if from.contains("\"id\"") {
                    let refusal = expect_status(found, Code::DataLoss, "DATA_DAMAGED");
                    assert_eq!(refusal.metadata("id"), ids[row]);
                } else {
                    found.unwrap();
                }
                server.sql("UPDATE connector SET doc = (SELECT doc FROM kept WHERE kept.id = connector.id) WHERE id IN (SELECT id FROM kept)").await;
                server.sql("DROP TABLE kept").await;
            }
        }
        assert_eq!(pages(&server, v1::ListConnectorsRequest::default()).await.concat().len(), ROWS);
    }

    /// A list may read a row several times before it skips it.
    async fn an_omitted_row_is_logged_once_per_list(backend: Backend) {
        const MANY: usize = 40;
        let site = Site::new(backend, Program::Jackfield);
        site.prepare().await;
        let process = site.start();
        let client = process.client("alpha");
        let mut ids = Vec::new();
        for number in 0..MANY {
            let connector = steps::connector(&client, fixture::a_connector(&name(number))).await;
            ids.push(steps::link(&client, "ada", &connector.id).await.id);
        }
        // Around the ends of pages and of the store's batches.
        let damaged = [0, 3, 4, 14, 15, 16, 17, 31, 39].map(|row: usize| ids[row].clone());
        let these = damaged.iter().map(|id| format!("'{}'", id.replace('-', ""))).collect::<Vec<_>>().join(", ");
        match backend {
            Backend::Sqlite => {
                let settings = PoolSettings { max_connections: 1, acquire_timeout: Duration::from_secs(30) };
                let store = Store::connect(&Database::Sqlite(site.sqlite_file()), settings).await.unwrap();
                store.raw_write(&format!("UPDATE user_connector SET doc = '{{' WHERE lower(hex(id)) IN ({these})")).await.unwrap();
                store.close().await;
            }
            Backend::Postgres => {
                site.postgres().run(&format!("UPDATE user_connector SET doc = '{{' WHERE id IN ({these})"));
            }
        }
        let mut lists = 0;
        for page_size in [1, 4, 15, 16, 1_000] {
            for filter in ["", "user_id = \"a*\""] {
                let request = v1::ListUserConnectorsRequest { page_size, filter: filter.to_owned(), ..Default::default() };
                let listed = collect::items(client.user_connectors().list_user_connectors(request).await).await.unwrap();
                let listed: Vec<_> = listed.into_iter().map(|link| link.id).collect();
                let expected: Vec<_> = ids.iter().filter(|id| !damaged.contains(id)).cloned().collect();
                assert_eq!(listed, expected, "{page_size} {filter}");
                lists += 1;
            }
        }
        let log = process.stop();
        for id in damaged {
            let logged = log.lines().filter(|line| line.contains("was left out of a list") && line.contains(&id));
            assert_eq!(logged.count(), lists, "{id}");
        }
    }

    /// A tenant that cannot be read has secrets like any other, and they are resealed as well.
    async fn a_damaged_tenant_is_resealed(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "one").await;
        let credential = steps::api_key(&client, &link, "token").await;
        let kept = server.sql("SELECT doc FROM tenant WHERE name_key = 'alpha'").await;
        let before = server.sql("SELECT data_key_id FROM secret").await;
        server.sql("UPDATE tenant SET doc = '{' WHERE name_key = 'alpha'").await;
        let status = crate::admin::rewrap_ended(&server.client("operator"), true).await;
        assert_eq!((status.state(), status.secrets_done), (v1::RewrapState::Done, 1), "{status:?}");
        assert_ne!(server.sql("SELECT data_key_id FROM secret").await, before);
        server.sql(&format!("UPDATE tenant SET doc = '{}' WHERE name_key = 'alpha'", kept[0].replace('\'', "''"))).await;
        assert_eq!(steps::credential_now(&client, &credential.id).await.id, credential.id);
    }

    /// Damaged folded texts of filters do no harm either: the row's document is read instead, and other rows use their
    /// own folded texts.
    async fn a_damaged_folded_text_does_not_break_filters(server) {
        let client = server.client("alpha");
        let quoted = "Öl \\ \"Ähre\"\n\tEnde";
        for (name, description) in [("one", "Ärger"), ("two", "Ähnlich"), ("three", "plain"), ("four", quoted)] {
            let connector = v1::Connector { description: Some(description.to_owned()), ..fixture::a_connector(name) };
            steps::connector(&client, connector).await;
        }
        let listed = async |filter: &str| {
            let request = v1::ListConnectorsRequest { filter: filter.to_owned(), ..Default::default() };
            pages(&server, request).await.concat()
        };
        for damage in ["{", "", "[1]", "{\"description\":\"\\u00e", "{\"description\":\"\\x\"}"] {
            server.sql(&format!("UPDATE connector SET folded = '{damage}' WHERE name_key = 'one'")).await;
            assert_eq!(listed("description:ähn").await, ["two"], "{damage}");
            assert_eq!(listed("description:PLAIN").await, ["three"], "{damage}");
            assert_eq!(listed("description:rger").await, ["one"], "{damage}");
            assert_eq!(listed(r#"description:"ÖL \\ \"ähre\"""#).await, ["four"], "{damage}");
        }
    }
}
