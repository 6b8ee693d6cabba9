//! Log lines about calls.

use std::process::{Child, Stdio};

use jackfield_api::v1;
use jackfield_testkit::frame::{ACK, PING, PREFACE, SETTINGS, frame, next_frame};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tonic::Code;

use crate::process::{Process, command};
use crate::raw::{Raw, framed};
use crate::support::{PATIENCE, eventually};
use crate::telemetry::get;

/// Starts a server that knows its callers and logs as `settings` ask for.
async fn start(settings: &[&str]) -> (tempfile::TempDir, Process, Raw) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let settings: Vec<_> = settings.iter().copied().map(str::to_owned).collect();
    let start = move || {
        let plain = ["listen.plaintext=true", "listen.plaintext_principal=operator"];
        Process::start(&path, &[&plain[..], &settings.iter().map(String::as_str).collect::<Vec<_>>()].concat())
    };
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let client = Raw::connect(server.address.parse().unwrap()).await;
    (directory, server, client)
}

/// Calls are answered, and the server stops, even if its log is never read.
#[tokio::test]
async fn an_unread_log_does_not_block_the_server() {
    const GET: &str = "/jackfield.v1.ConnectorService/GetConnector";
    let directory = tempfile::tempdir().unwrap();
    for (signals, code) in [(1, 0), (2, 1)] {
        let [free, page] = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [free, page] = [free, page].map(|listener| listener.local_addr().unwrap());
        let (address, metrics) = (free.to_string(), format!("telemetry.prometheus_address={page}"));
        let delay = if signals == 1 { "drain.delay=0s" } else { "drain.delay=1h" };
        let mut arguments = vec!["serve", "--listen", &address];
        let plain = ["listen.plaintext=true", "listen.plaintext_principal=operator"];
        for setting in plain.into_iter().chain(["telemetry.log_filter=debug", delay, &metrics]) {
            arguments.extend(["--set", setting]);
        }
        let (unread, log) = std::io::pipe().unwrap();
        // Both outputs are one pipe, as with `2>&1`.
        let mut server = command(directory.path(), &arguments);
        let server = server.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut server = Killed(server.spawn().unwrap());
        eventually("the server listens", async || tokio::net::TcpStream::connect(free).await.is_ok()).await;
        let calls = async {
            let mut client = Raw::connect(free).await;
            let get = framed(&v1::GetConnectorRequest { reference: "name:none".to_owned() });
            // More lines than the pipe and the queue hold.
            for _ in 0..12_000 {
                let answer = client.post(GET, &[], get.clone()).await;
                assert_eq!(answer.status.unwrap().code(), Code::NotFound);
            }
        };
        tokio::time::timeout(PATIENCE * 3, calls).await.expect("calls are answered");
        let dropped = get(page, "/metrics").await;
        let dropped = dropped.lines().find_map(|line| line.strip_prefix("jackfield_server_log_dropped_lines_total"));
        let dropped = dropped.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        assert!(dropped.is_some_and(|lines| lines > 0.0), "{dropped:?}");
        let id = rustix::process::Pid::from_child(&server.0);
        for _ in 0..signals {
            rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        let mut ended = None;
        eventually("the server ends", async || {
            ended = server.0.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        assert_eq!(ended.unwrap().code(), Some(code), "after {signals} signals");
        drop(unread);
    }
}

/// A process that is killed when this value is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Stops it and returns the lines of its log.
async fn stop(server: Process) -> Vec<serde_json::Value> {
    let stopped = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || server.stop())).await;
    let log = stopped.unwrap().unwrap();
    log.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The library that speaks HTTP/2 has a line for each of them, so a client that sends them would fill the log.
#[tokio::test]
async fn acknowledgements_that_nobody_asked_for_are_not_logged() {
    let (_directory, server, client) = start(&[]).await;
    drop(client);
    let mut socket = TcpStream::connect(&server.address).await.unwrap();
    let (settings, ping) = (frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[1; 8]));
    let unasked = frame(PING, ACK, 0, &[2; 8]).repeat(10);
    socket.write_all(&[PREFACE, &settings, &unasked, &ping].concat()).await.unwrap();
    // It is answered after those before it.
    while next_frame(&mut socket).await.unwrap().kind != PING {}
    drop(socket);
    let log = stop(server).await;
    let of_library = |line: &&serde_json::Value| line["target"].as_str().is_some_and(|target| target.starts_with("h2"));
    assert_eq!(log.iter().find(of_library), None);
}

/// Client mistakes at this level can neither flood the log nor raise alerts.
#[tokio::test]
async fn mistakes_of_clients_are_logged_at_debug() {
    const GET: &str = "/jackfield.v1.ConnectorService/GetConnector";
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    // The directive of the default file covers the lines of all crates.
    let filter = "info,jackfield=debug";
    assert!(jackfield_server::config::DEFAULTS.contains(filter));
    let (_directory, server, mut client) = start(&[&format!("telemetry.log_filter={filter}")]).await;
    for (method, content_type, status) in [("GET", "text/html", 405), ("POST", "application/grpc-web+proto", 415)] {
        let request = http::Request::builder().method(method).uri(format!("http://localhost{GET}"));
        let request = request.header("content-type", content_type).body(http_body_util::Full::default()).unwrap();
        assert_eq!(client.send(request).await.http_status, status);
    }
    let get = framed(&v1::GetConnectorRequest { reference: "name:none".to_owned() });
    for (path, header, body, code) in [
        (GET, ("grpc-encoding", "zstd"), vec![1, 0, 0, 0, 1, 0], Code::Unimplemented),
        (GET, ("grpc-timeout", "soon"), get.clone(), Code::InvalidArgument),
        (GET, ("x-nothing", "0"), get.clone(), Code::NotFound),
        (GET, ("x-nothing", "0"), Vec::new(), Code::Unimplemented),
        (GET, ("x-nothing", "0"), [&get[..], &get].concat(), Code::Unimplemented),
        (CHECK, ("x-nothing", "0"), Vec::new(), Code::Unimplemented),
        (CHECK, ("x-nothing", "0"), [0; 10].to_vec(), Code::Unimplemented),
        ("/jackfield.v1.ConnectorService/Nothing", ("x-nothing", "0"), get.clone(), Code::Unimplemented),
    ] {
        assert_eq!(client.post(path, &[header], body).await.status.unwrap().code(), code, "{path} {header:?}");
    }
    // Timers have a resolution of milliseconds, so a quick call may still be in time.
    let mut late = false;
    for _ in 0..5_000 {
        let answer = client.post(GET, &[("grpc-timeout", "1n")], get.clone()).await;
        late |= answer.status.unwrap().code() == Code::DeadlineExceeded;
        if late {
            break;
        }
    }
    assert!(late, "one call exceeded its deadline");
    let log = stop(server).await;
    let of_calls: Vec<_> = log.iter().filter(|line| line["rpc.response.status_code"].is_string()).collect();
    for status in ["UNIMPLEMENTED", "INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED"] {
        assert!(of_calls.iter().any(|line| line["rpc.response.status_code"] == status), "{status} is logged: {log:?}");
    }
    for line in of_calls {
        assert_eq!(line["level"], "DEBUG", "{line}");
        assert_ne!(line["rpc.response.status_code"], "UNKNOWN", "{line}");
    }
}
