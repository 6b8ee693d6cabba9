//! Pages are bounded in bytes, not only in rows: every message stays below the 4 MiB that clients accept by default.

use jackfield_api::v1;
use jackfield_testkit::{Ask, Client, List, fixture, on_both};
use prost_types::{ListValue, Struct, Value, value::Kind};

use super::joined;

/// The default message size limit of gRPC clients.
const MESSAGE: usize = 4 * 1024 * 1024;

on_both! {
    async fn pages_of_large_rows_are_cut_short(server) {
        let client = server.client("alpha");
        let text = "x".repeat(60 * 1024);
        let data = fixture::object([("text", &text)]);
        read_all(&client, 90, &data).await;
    }

    /// A list of numbers takes two bytes per number as JSON and eleven as protobuf.
    async fn pages_of_rows_that_grow_on_the_wire_are_cut_short(server) {
        let client = server.client("alpha");
        let numbers = (0..1_990).map(|_| Value { kind: Some(Kind::NumberValue(1.0)) }).collect();
        let list = Value { kind: Some(Kind::ListValue(ListValue { values: numbers })) };
        let data = Struct { fields: [("n".to_owned(), list)].into() };
        read_all(&client, 220, &data).await;
    }

    /// The same with members of objects, whose keys are separate fields on the wire.
    async fn pages_of_deep_rows_are_cut_short(server) {
        let client = server.client("alpha");
        let value = |kind| Value { kind: Some(kind) };
        let inner = (0..60).map(|i| (format!("{i}"), value(Kind::NumberValue(1.0)))).collect();
        let inner = value(Kind::StructValue(Struct { fields: inner }));
        let fields = (0..32).map(|i| (format!("{i}"), inner.clone())).collect();
        read_all(&client, 200, &Struct { fields }).await;
    }
}

/// Reads `count` connectors with this data in the largest possible pages.
async fn read_all(client: &Client, count: usize, data: &Struct) {
    let create = |i: usize| {
        let connector = v1::Connector { data: Some(data.clone()), ..fixture::a_connector(&format!("large {i:04}")) };
        let request = v1::CreateConnectorRequest { connector: Some(connector), ..Default::default() };
        async move { client.connectors().create_connector(request).await.unwrap() }
    };
    for i in (0..count).step_by(8) {
        futures::future::join_all((i..count.min(i + 8)).map(create)).await;
    }

    let ask = Ask { order_by: "name desc".to_owned(), ..Ask::pages_of(1_000) };
    let pages = List::Connectors.pages(client, &ask).await.unwrap();
    let rows = joined(&pages);
    let size: usize = rows.iter().map(|row| row.message.len()).sum();
    assert!(size > MESSAGE, "they would fit in one message: {size}");
    assert!(pages.len() > 1);
    for page in &pages {
        assert!(page.bytes < MESSAGE, "{}", page.bytes);
        assert!(page.bytes > MESSAGE / 8 || page.next_page_token.is_empty(), "the page is too short: {}", page.bytes);
    }
    assert_eq!(rows.len(), count);
    let small_pages = List::Connectors.rows(client, &Ask { page_size: 13, ..ask }).await.unwrap();
    assert!(small_pages == rows);
}
