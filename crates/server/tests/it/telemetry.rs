use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{TestServer, eventually, unary};

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_page_shows_calls_by_method_and_status_and_no_method_of_the_callers_making() {
    let server = TestServer::start(|config| config.telemetry.prometheus_address = "127.0.0.1:0".into()).await;
    let channel = server.channel().await;
    unary(&channel, "Whoami", Duration::ZERO).await.unwrap();
    unary(&channel, "Fail", Duration::ZERO).await.unwrap_err();
    unary(&channel, "Canary", Duration::ZERO).await.unwrap_err();
    let address = server.metrics_address.unwrap();
    let mut page = String::new();
    eventually("all calls are counted", async || {
        page = get(address, "/metrics").await;
        page.contains("_OTHER")
    })
    .await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let counted = |parts: &[&str]| {
        page.lines()
            .filter(|line| line.starts_with("rpc_server_call_duration_seconds_count"))
            .any(|line| parts.iter().all(|part| line.contains(part)))
    };
    assert!(counted(&["rpc_method=\"test.v1.Test/Whoami\"", "rpc_response_status_code=\"OK\""]), "{page}");
    assert!(counted(&["Test/Fail", "rpc_response_status_code=\"INTERNAL\"", "error_type=\"INTERNAL\""]), "{page}");
    assert!(counted(&["rpc_method=\"_OTHER\"", "rpc_response_status_code=\"UNIMPLEMENTED\""]), "{page}");
    assert!(page.contains("le=\"0.075\""), "the buckets are those of the conventions: {page}");
    assert!(!page.contains("Canary"), "{page}");
    assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
}
