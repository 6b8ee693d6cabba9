//! A row that cannot be read ends a list where it stands, and nothing else.

use jackfield_api::v1;
use jackfield_testkit::{collect, expect_status, fixture, on_both};
use tonic::Code;

const ROWS: usize = 12;
const PAGE_SIZE: i32 = 4;

on_both! {
    async fn a_damaged_row_ends_the_list_after_the_pages_before(server) {
        let client = server.client("alpha");
        for number in 0..ROWS {
            let connector = Some(fixture::a_connector(&format!("c{number:02}")));
            let request = v1::CreateConnectorRequest { connector, ..Default::default() };
            client.connectors().create_connector(request).await.unwrap();
        }
        // In the middle of the second page, at its end, and at the beginning of the third.
        for damaged in [5, 7, 8] {
            let row = format!("WHERE name_key = 'c{damaged:02}'");
            let kept = server.sql(&format!("SELECT doc FROM connector {row}")).await;
            server.sql(&format!("UPDATE connector SET doc = '{{' {row}")).await;
            let order_by = "name".to_owned();
            let request = v1::ListConnectorsRequest { page_size: PAGE_SIZE, order_by, ..Default::default() };
            let mut pages = client.connectors().list_connectors(request).await.unwrap().into_inner();
            for page in 0..damaged / PAGE_SIZE as usize {
                let read = pages.message().await.unwrap().expect("a page before the damage");
                let names: Vec<_> = read.connectors.into_iter().map(|connector| connector.name).collect();
                let expected: Vec<_> = (0..PAGE_SIZE as usize).map(|row| format!("c{:02}", page * PAGE_SIZE as usize + row)).collect();
                assert_eq!(names, expected);
            }
            let end = pages.message().await.map(tonic::Response::new);
            expect_status(end, Code::Internal, "INTERNAL");
            server.sql(&format!("UPDATE connector SET doc = '{}' {row}", kept[0].replace('\'', "''"))).await;
            let request = v1::ListConnectorsRequest::default();
            let all = collect::items(client.connectors().list_connectors(request).await).await.unwrap();
            assert_eq!(all.len(), ROWS, "the list is whole again");
        }
    }
}
