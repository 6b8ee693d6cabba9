//! What Prometheus's own tool says of alerts and metrics. Left out by the name of this module where there is none.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use jackfield_api::v1::GetConnectorRequest;
use jackfield_testkit::{Backend, TestServer};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const ALERTS: &str = "deploy/prometheus/alerts.yaml";
const SERIES: &str = "tests/it/promtool/alerts.yaml";

/// Names of OpenTelemetry's conventions that Prometheus has another taste in.
const NAMED_BY_CONVENTION: [&str; 2] = ["db_client_connection_count", "process_unix_file_descriptor_count"];
const OF_COUNTS: &str = "non-histogram and non-summary metrics should not have \"_count\" suffix";

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new("promtool");
    command.current_dir(ROOT).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool, of the Debian package prometheus");
    // It may refuse without reading.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("its end")
}

/// That promtool has nothing to say against it.
#[track_caller]
fn assert_good(output: &Output) {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}

#[tokio::test]
async fn metrics_are_named_and_described_as_prometheus_has_it() {
    let server = TestServer::start(Backend::Sqlite).await;
    let request = GetConnectorRequest { reference: "name:none".to_owned() };
    server.client("alpha").connectors().get_connector(request).await.expect_err("there is none");
    let page = server.metrics_page();
    for part in
        ["rpc_server_call_duration_seconds_bucket", "jackfield_rewrap_secrets_planned", "process_uptime_seconds"]
    {
        assert!(page.contains(part), "no {part} to check");
    }
    let checked = promtool(&["check", "metrics"], &page);
    let advice = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    let advised: Vec<_> = advice.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(advised, NAMED_BY_CONVENTION.map(|name| format!("{name} {OF_COUNTS}")), "{advice}");
    let misnamed =
        "# HELP jackfield_done_total Things done\n# TYPE jackfield_done_total gauge\njackfield_done_total 1\n";
    assert!(!promtool(&["check", "metrics"], misnamed).status.success(), "a gauge that is called total is found");
}

#[test]
fn alerts_are_well_formed() {
    assert_good(&promtool(&["check", "rules", "--lint=all", "--lint-fatal", ALERTS], ""));
}

#[test]
fn alerts_fire_for_faults_of_the_server_and_not_for_mistakes_of_clients() {
    let read = |file: &str| std::fs::read_to_string(format!("{ROOT}/{file}")).expect(file);
    let (alerts, series) = (read(ALERTS), read(SERIES));
    let alerts: BTreeSet<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let firing: BTreeSet<_> = series.split("{alertname=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(alerts.len() > 25, "{alerts:?}");
    assert_eq!(firing, alerts, "each is made to fire");
    assert_good(&promtool(&["test", "rules", SERIES], ""));
}
