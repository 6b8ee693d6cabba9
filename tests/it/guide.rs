//! The operator's guide is correct: its reasons, metrics, keys and links match the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use jackfield_api::v1;
use jackfield_testkit::{Backend, Identity, TestServer};
use tonic::Request;
use tonic::client::Grpc;
use tonic_health::pb::HealthCheckRequest;

use crate::contract::reasons::contract as reason_names;
use crate::login;

/// The metrics of a page: type, names of labels, and values of each label, by name.
type Families = BTreeMap<String, Family>;

#[derive(Debug, Default)]
struct Family {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Labels that the collector adds, and the label of buckets.
const OF_PROMETHEUS: [&str; 3] = ["instance", "job", "le"];

/// Labels with few and known values.
const OF_FEW_VALUES: [&str; 8] = [
    "cap",
    "cause",
    "db_client_connection_pool_name",
    "db_client_connection_state",
    "file",
    "listener",
    "remaining",
    "result",
];

/// The prefixes of metric names.
const PREFIXES: [&str; 6] = ["db_", "http_", "jackfield_", "process_", "rpc_", "target_"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below a directory with this ending.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The lines of a page that are text, not code.
fn prose(markdown: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    markdown.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The examples can run beside each other, at the ports that the documents say.
#[test]
fn each_example_has_a_port_of_its_own() {
    let mut ports = BTreeSet::new();
    for (example, document) in [
        ("login-backend", "README.md"),
        ("oauth-provider", "README.md"),
        ("credential-source", "deploy/guide/sources.md"),
    ] {
        let source = read(&format!("examples/{example}/src/main.rs"));
        let (_, rest) = source.split_once("\"127.0.0.1:").expect("a default address");
        let port = rest.split('"').next().expect("its end").to_owned();
        assert!(
            read(document).contains(&format!("localhost:{port}")),
            "{document} does not name port {port} of {example}"
        );
        assert!(ports.insert(port.clone()), "{example} has port {port} of another example");
    }
}

/// The texts between single backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The fragments by which links name headings: lower case, letters, digits, "-" and "_", blanks as "-".
fn anchors(markdown: &str) -> BTreeSet<String> {
    let headings = prose(markdown).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// The reason that a link is broken, if it is.
fn broken(from: &Path, link: &str) -> Option<String> {
    let (path, fragment) = link.split_once('#').map_or((link, None), |(path, fragment)| (path, Some(fragment)));
    let directory = if from.is_dir() { from } else { from.parent().expect("a directory") };
    let target = if path.is_empty() { from.to_owned() } else { directory.join(path) };
    if !target.exists() {
        return Some("there is no such file".to_owned());
    }
    let fragment = fragment?;
    let found = anchors(&fs::read_to_string(&target).ok()?).contains(fragment);
    (!found).then(|| "there is no such heading".to_owned())
}

fn families(page: &str) -> Families {
    let mut families = Families::new();
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        }
    }
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once('{').expect("every series has labels");
        let labels = rest.split_once("} ").expect("labels end").0;
        let family = families.get_mut(family_name(name)).unwrap_or_else(|| panic!("{name} has no type"));
        for label in labels.split("\",") {
            let (label, value) = label.split_once("=\"").expect("a label");
            let values = family.labels.entry(label.to_owned()).or_default();
            values.insert(value.trim_end_matches('"').to_owned());
        }
    }
    families
}

/// The name of the metric that a series belongs to.
fn family_name(series: &str) -> &str {
    let base = ["_bucket", "_count", "_sum"].iter().find_map(|ending| series.strip_suffix(ending));
    base.filter(|base| base.ends_with("_seconds")).unwrap_or(series)
}

/// The keys of the configuration with their sections.
fn configuration_keys() -> BTreeSet<String> {
    let defaults = read("crates/server/config.default.toml");
    let mut keys = BTreeSet::new();
    let mut section = String::new();
    for line in defaults.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ") {
            keys.insert(format!("{section}{key}"));
        }
    }
    keys
}

/// The metrics of a server that has a key which expires, and has answered calls, one of them with a server error, and one of
/// them with a call to another system.
async fn metrics() -> Families {
    let mut server = TestServer::start_with(Backend::Sqlite, |config| {
        config.license_api.address = "127.0.0.1:0".to_owned();
        config.license_api.tenant = "alpha".to_owned();
    })
    .await;
    let leaf = server.pki().client_for(Identity::of("a connector"), Duration::from_secs(600));
    let key = v1::Key { name: "expires".to_owned(), certificate_pem: leaf.certificate_pem, ..Default::default() };
    let request = v1::ImportKeyRequest { key: Some(key), private_key_pem: leaf.key_pem, ..Default::default() };
    server.client("alpha").keys().import_key(request).await.expect("a key");
    // Maintenance looks for such keys at the start.
    server.restart().await;
    let start = Instant::now();
    while server.metric("jackfield_keys_expiring", &[("remaining", "third")]) != Some(1.0) {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", server.metrics_page());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (alpha, system) = (server.client("alpha"), login::a_system().await);
    let connector = login::create(&alpha, login::connector(&alpha, &system, "directory").await).await;
    login::log_in(&alpha, login::a_login(&connector.id, "unknown", "wrong")).await;
    let mut client = Grpc::new(server.client("alpha").channel());
    client.ready().await.expect("a connection");
    let path = PathAndQuery::from_static("/jackfield.v1.ConnectorService/NoSuchMethod");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
    let answer = client.unary(Request::new(HealthCheckRequest::default()), path, codec).await;
    assert_eq!(answer.expect_err("there is no such method").code(), tonic::Code::Unimplemented);
    families(&server.metrics_page())
}

#[test]
fn every_reason_has_a_section_and_there_are_no_others() {
    let page = read("deploy/guide/errors.md");
    let sections: Vec<_> = prose(&page).filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    assert_eq!(sections.iter().cloned().collect::<BTreeSet<_>>(), reason_names());
    assert_eq!(sections.len(), reason_names().len(), "each has one section");
}

/// The reasons for which a refresh can fail: faults of calls, error codes of token endpoints, flaws of their answers, and reasons of the attempt
/// itself. Those of errors are apart.
fn failure_reasons() -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    for source in [
        "crates/domain/src/credential/explain.rs",
        "crates/service/src/refresh/attempt.rs",
        "crates/service/src/refresh/hold.rs",
        "crates/service/src/refresh/resend.rs",
        "crates/upstream/src/error.rs",
        "crates/upstream/src/oauth/fault.rs",
        "crates/upstream/src/oauth/response.rs",
    ] {
        let text = read(source);
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_reason =
            |text: &&str| text.len() > 3 && text.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c == '2');
        let before = reasons.len();
        reasons.extend(text.split('"').filter(is_reason).map(str::to_owned));
        let codes = text.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split_once("\", TokenFailure::"));
        reasons.extend(codes.map(|(code, _)| code.to_owned()));
        assert!(reasons.len() > before, "{source}");
    }
    &reasons - &reason_names()
}

#[test]
fn every_reason_of_a_failed_refresh_has_one_row_and_there_are_no_others() {
    let page = read("deploy/guide/credentials.md");
    let section = prose(&page).skip_while(|line| *line != "### What failed").skip(1);
    let rows = section.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("| `"));
    let mut described = BTreeSet::new();
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
        for reason in quoted(cells[0]) {
            assert!(described.insert(reason.to_owned()), "{reason} has two rows");
        }
    }
    let reasons = failure_reasons();
    assert!(reasons.len() > 50, "{reasons:?}");
    assert_eq!(reasons.difference(&described).collect::<Vec<_>>(), Vec::<&String>::new(), "they have no row");
    let of_errors = reason_names();
    let unknown: Vec<_> = described.difference(&reasons).filter(|reason| !of_errors.contains(*reason)).collect();
    assert_eq!(unknown, Vec::<&String>::new(), "there are no such reasons");
}

#[tokio::test]
async fn every_metric_is_described_with_type_and_values_and_there_are_no_others() {
    let page = read("deploy/guide/metrics.md");
    let families = metrics().await;
    let described: BTreeMap<&str, &str> = prose(&page)
        .filter(|line| line.starts_with('`'))
        .filter_map(|line| line.trim_start_matches('`').split_once("`, "))
        .map(|(name, rest)| (name, rest.split([',', '.']).next().unwrap_or_default()))
        .filter(|(_, kind)| ["counter", "gauge", "histogram"].contains(kind))
        .collect();
    let shown: BTreeMap<&str, &str> =
        families.iter().map(|(name, family)| (name.as_str(), family.kind.as_str())).collect();
    assert_eq!(described, shown);

    let words: BTreeSet<&str> = prose(&page).flat_map(quoted).collect();
    for (name, family) in families.iter().filter(|(name, _)| *name != "target_info") {
        for (label, values) in &family.labels {
            let named = words.contains(label.as_str()) || words.contains(format!("{label}=\"jackfield\"").as_str());
            assert!(named || label == "le", "{name}: the label {label} is not described");
            // Methods and statuses are described by their form; reasons have a separate page.
            if OF_FEW_VALUES.contains(&label.as_str()) {
                for value in values {
                    assert!(words.contains(value.as_str()), "{name}: {label}=\"{value}\" is not described");
                }
            }
        }
    }
    let reasons = &families["jackfield_server_errors_total"].labels["reason"];
    assert_eq!(*reasons, reason_names(), "every reason has a series from the start");
}

#[tokio::test]
async fn dashboard_and_alerts_use_existing_metrics_and_labels() {
    let families = metrics().await;
    let labels: BTreeSet<&str> =
        families.values().flat_map(|family| family.labels.keys().map(String::as_str)).collect();
    for file in ["deploy/grafana/jackfield.json", "deploy/prometheus/alerts.yaml"] {
        let text = read(file).replace("\\\"", "\"");
        let mut asked = BTreeSet::new();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for word in text.split(|c| !is_word(c)).filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix))) {
            assert!(families.contains_key(family_name(word)) || labels.contains(word), "{file}: there is no {word}");
            asked.insert(family_name(word));
        }
        // name{label="value", …}: the labels are those of this metric.
        for (start, _) in text.match_indices('{') {
            let name = text[..start].rsplit(|c| !is_word(c)).next().unwrap_or_default();
            let Some(family) = families.get(family_name(name)) else { continue };
            let matchers = text[start + 1..].split('}').next().unwrap_or_default();
            for matcher in matchers.split(", ").filter(|matcher| !matcher.trim().is_empty()) {
                let label = matcher.split(['=', '!']).next().unwrap_or_default().trim();
                let known = family.labels.contains_key(label) || OF_PROMETHEUS.contains(&label);
                assert!(known, "{file}: {name} has no label {label}");
                let value = matcher.split('"').nth(1).unwrap_or_default();
                if label == "reason" || OF_FEW_VALUES.contains(&label) {
                    for value in value.split('|').filter(|value| !value.is_empty()) {
                        assert!(family.labels[label].contains(value), "{file}: {name} has no {label}=\"{value}\"");
                    }
                }
            }
        }
        assert!(asked.len() >= 12, "{file} uses only {asked:?}");
    }
    let board: serde_json::Value = serde_json::from_str(&read("deploy/grafana/jackfield.json")).expect("JSON");
    assert!(board["panels"].as_array().expect("panels").len() > 10);
}

#[test]
fn runbooks_of_alerts_are_sections_of_the_guide() {
    let alerts = read("deploy/prometheus/alerts.yaml");
    let names = alerts.lines().filter(|line| line.trim_start().starts_with("- alert: ")).count();
    let runbooks: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")).collect();
    assert_eq!(runbooks.len(), names, "each alert has one");
    assert!(names > 25, "{names}");
    for runbook in runbooks {
        assert!(runbook.contains('#'), "{runbook} is a section");
        assert_eq!(broken(root(), runbook), None, "{runbook}");
    }
}

#[test]
fn links_are_not_broken() {
    let pages = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"];
    let pages = pages.iter().map(|page| root().join(page));
    let pages = pages.chain(["deploy", "docs", "fuzz", "proto"].iter().flat_map(|directory| files(directory, ".md")));
    let mut checked = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page");
        for link in prose(&text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            checked += 1;
            assert_eq!(broken(&page, link), None, "{}: {link}", page.display());
        }
    }
    assert!(checked > 50, "{checked}");
}

#[test]
fn a_broken_link_is_detected() {
    let guide = root().join("deploy/README.md");
    for link in ["guide/missing.md", "guide/keys.md#missing", "#missing"] {
        assert!(broken(&guide, link).is_some(), "{link}");
    }
    assert_eq!(broken(&guide, "guide/keys.md#rotate"), None);
}

#[test]
fn every_limit_is_on_the_page_of_limits() {
    let page = read("deploy/guide/sizing.md");
    let named: BTreeSet<&str> = prose(&page).flat_map(quoted).collect();
    let keys = configuration_keys();
    let limits = keys.iter().filter(|key| key.starts_with("limits.") || key.starts_with("streams."));
    let missing: Vec<_> = limits.clone().filter(|key| !named.contains(key.as_str())).collect();
    assert!(limits.count() > 20, "{keys:?}");
    assert!(missing.is_empty(), "sizing.md does not name {missing:?}");
}

#[test]
fn configuration_keys_in_the_guide_exist() {
    let keys = configuration_keys();
    let sections: BTreeSet<_> = keys.iter().filter_map(|key| key.split_once('.')).map(|(section, _)| section).collect();
    let mut named = BTreeSet::new();
    for page in files("deploy", ".md") {
        let text = fs::read_to_string(&page).expect("a page");
        for word in prose(&text).flat_map(quoted) {
            let key: String = word.chars().take_while(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.')).collect();
            let Some((section, _)) = key.split_once('.').filter(|(section, _)| sections.contains(section)) else {
                continue;
            };
            // A file name, or an example of another kind.
            if ["toml", "pem"].iter().any(|ending| key.ends_with(ending)) {
                continue;
            }
            assert!(keys.contains(&key), "{}: {section} has no key {key}", page.display());
            named.insert(key);
        }
    }
    assert!(named.len() > 30, "{named:?}");
}

#[test]
fn the_image_is_built_with_the_pinned_toolchain() {
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).expect("a channel");
    let dockerfile = read("deploy/docker/Dockerfile");
    let version = dockerfile.lines().find_map(|line| line.strip_prefix("ARG RUST_VERSION=")).expect("a version");
    assert_eq!(channel.trim_matches('"'), version);
}
