//! Checks of alerts and metrics with Prometheus's own tool. The test command skips this module by name if the tool is
//! missing.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use jackfield_api::v1::GetConnectorRequest;
use jackfield_testkit::{Backend, TestServer};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const ALERTS: &str = "deploy/prometheus/alerts.yaml";
const SERIES: &str = "tests/it/promtool/alerts.yaml";

/// Names from OpenTelemetry's conventions that differ from Prometheus's style.
const NAMED_BY_CONVENTION: [&str; 2] = ["db_client_connection_count", "process_unix_file_descriptor_count"];
const OF_COUNTS: &str = "non-histogram and non-summary metrics should not have \"_count\" suffix";

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new("promtool");
    command.current_dir(ROOT).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool, of the Debian package prometheus");
    // It may fail without reading its input.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("its end")
}

/// Asserts that promtool has no complaints.
#[track_caller]
fn assert_good(output: &Output) {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}

#[tokio::test]
async fn metrics_follow_the_conventions_of_prometheus() {
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
    assert!(!promtool(&["check", "metrics"], misnamed).status.success(), "a gauge that is called total is detected");
}

#[test]
fn alerts_are_well_formed() {
    assert_good(&promtool(&["check", "rules", "--lint=all", "--lint-fatal", ALERTS], ""));
}

#[test]
fn alerts_fire_for_server_faults_but_not_for_client_mistakes() {
    let read = |file: &str| std::fs::read_to_string(format!("{ROOT}/{file}")).expect(file);
    let (alerts, series) = (read(ALERTS), read(SERIES));
    let alerts: BTreeSet<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let firing: BTreeSet<_> = series.split("{alertname=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(alerts.len() > 25, "{alerts:?}");
    assert_eq!(firing, alerts, "every alert fires in a test");
    assert_good(&promtool(&["test", "rules", SERIES], ""));
}
