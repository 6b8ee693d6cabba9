//! The files of `deploy/`: their configurations are valid, and their stop timeouts are long enough.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jackfield_server::config::{Config, Mode, Sources};

/// The time after the grace period and the last refresh when the server ends itself (`cli/serve.rs`).
const MARGIN: Duration = Duration::from_secs(12);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn configurations() -> Vec<PathBuf> {
    let (mut found, mut directories) = (Vec::new(), vec![deploy()]);
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                found.push(path);
            }
        }
    }
    found
}

fn load(path: &Path) -> Config {
    let sources = Sources { file: Some(path.to_owned()), ..Sources::default() };
    Config::load(&sources).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn configurations_are_valid_and_for_production() {
    let files = configurations();
    assert!(files.len() >= 5, "{files:?}");
    for path in files {
        let config = load(&path);
        let name = path.display();
        assert_eq!(config.mode, Mode::Production, "{name}");
        assert!(!config.listen.plaintext && !config.reveal.enabled, "{name}");
        assert!(!config.listen.health_address.is_empty(), "{name}: probes have no certificate");
    }
}

#[test]
fn stop_timeouts_are_long_enough_for_a_drain() {
    for (file, key, configuration) in [
        ("systemd/jackfield.service", "TimeoutStopSec=", "systemd/jackfield.toml"),
        ("docker/compose.yaml", "    stop_grace_period: ", "docker/compose.toml"),
        ("kubernetes/base/deployment.yaml", "terminationGracePeriodSeconds: ", "kubernetes/base/jackfield.toml"),
        ("kubernetes/base/deployment.yaml", "terminationGracePeriodSeconds: ", "kubernetes/sqlite/jackfield.toml"),
    ] {
        let text = std::fs::read_to_string(deploy().join(file)).unwrap();
        // The compose file starts with PostgreSQL, whose timeout is unrelated.
        let value = text.lines().filter_map(|line| line.split_once(key)).next_back().unwrap().1;
        let waits = Duration::from_secs(value.trim_end_matches('s').parse().unwrap());
        let Config { drain, refresh, .. } = load(&deploy().join(configuration));
        assert!(waits > drain.delay + drain.grace + refresh.timeout + MARGIN, "{file} waits {waits:?} for {drain:?}");
    }
}
