//! A row that cannot be read is left out of lists, counted and told, and takes nothing with it.

use jackfield_api::v1;
use jackfield_testkit::{Backend, TestServer, collect, expect_status, fixture, on_both};
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

/// What a document becomes: no JSON, JSON of something else, two lines, and on SQLite no text, as when a bit changes.
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
    async fn a_damaged_row_is_left_out_and_all_others_are_listed(server) {
        let client = server.client("alpha");
        let mut ids = Vec::new();
        for number in 0..ROWS {
            let connector = steps::connector(&client, fixture::a_connector(&name(number))).await;
            steps::link(&client, "ada", &connector.id).await;
            ids.push(connector.id);
        }
        // At both ends of the list, in the middle of a page, at its end and at the beginning of the next one; and several.
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

                // What hangs on it is listed, with the name that it had.
                let links = client.user_connectors().list_user_connectors(v1::ListUserConnectorsRequest::default()).await;
                let mut links: Vec<_> =
                    collect::items(links).await.unwrap().into_iter().map(|link| link.connector_name).collect();
                links.sort();
                assert_eq!(links, (0..ROWS).map(name).collect::<Vec<_>>());

                // Where it is asked for, it is said what is the matter; the others are as they were.
                for (row, id) in ids.iter().enumerate() {
                    let reference = format!("name:{}", name(row));
                    let found = client.connectors().get_connector(v1::GetConnectorRequest { reference }).await;
                    if !rows.contains(&row) {
                        assert_eq!(found.unwrap().into_inner().connector.unwrap().name, name(row));
                        continue;
                    }
                    // Two lines are no document that was written here, and can be read all the same.
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

    /// A tenant that cannot be read has secrets like any other: they are sealed anew as well.
    async fn a_damaged_tenant_is_sealed_anew(server) {
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
}

/// The index of words and the folded texts are of no use to damage either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_text_of_a_filter_takes_no_list_with_it() {
    let server = TestServer::start(Backend::Sqlite).await;
    let client = server.client("alpha");
    for (name, description) in [("one", "Ärger"), ("two", "Ähnlich"), ("three", "plain")] {
        let connector = v1::Connector { description: Some(description.to_owned()), ..fixture::a_connector(name) };
        steps::connector(&client, connector).await;
    }
    server.sql("UPDATE connector SET folded = '{' WHERE name_key = 'one'").await;
    let filter = "description:ähn".to_owned();
    let listed = pages(&server, v1::ListConnectorsRequest { filter, ..Default::default() }).await.concat();
    assert_eq!(listed, ["two"]);
}
