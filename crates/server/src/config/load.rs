//! Reading the layers. Each is checked by itself, so that an unknown key is reported with the layer it came from.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use jackfield_service::postgres_url;
use serde::Deserialize;
use toml::{Table, Value};

use super::sections::Config;

/// The file that is read when none is named and it exists.
pub const DEFAULT_FILE: &str = "jackfield.toml";

const PREFIX: &str = "JACKFIELD__";

/// Variables of libpq that say where to connect or how safely, and that the driver does not know.
const PASSED_OVER: [&str; 12] = [
    "PGCHANNELBINDING",
    "PGGSSENCMODE",
    "PGLOADBALANCEHOSTS",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGREQUIRESSL",
    "PGSERVICE",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLMAXPROTOCOLVERSION",
    "PGSSLMINPROTOCOLVERSION",
    "PGTARGETSESSIONATTRS",
];

/// The sources of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file of `--config`. `None`: [`DEFAULT_FILE`], if it exists.
    pub file: Option<PathBuf>,
    /// The environment; only names that begin with `JACKFIELD__` matter.
    pub environment: Vec<(String, String)>,
    /// Names of Jackfield's environment variables whose values are not UTF-8.
    pub not_utf8: Vec<String>,
    /// `section.key=value` of flags, later ones win.
    pub flags: Vec<String>,
}

/// The reason why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {message}")]
    Layer { origin: String, message: String },
    #[error("the configuration is not valid:\n  - {}", .0.join("\n  - "))]
    Invalid(Vec<String>),
}

impl Config {
    /// Reads all layers, merges them and checks the whole.
    ///
    /// # Errors
    /// The first layer that cannot be read or has an unknown key or a value of the wrong type; otherwise everything that is
    /// not valid.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let mut merged = Table::new();
        if let Some(path) = sources.file() {
            merge(&mut merged, read_file(&path)?);
        }
        if let Some(name) = sources.not_utf8.first() {
            let origin = format!("environment variable {name}");
            return Err(ConfigError::Layer { origin, message: "is not UTF-8".into() });
        }
        let mut set = HashMap::new();
        for (name, value) in &sources.environment {
            if let Some(path) = name.strip_prefix(PREFIX) {
                if let Some(other) = set.insert(path.to_ascii_lowercase(), name) {
                    let message = format!("sets what {other} sets: remove one of the two");
                    return Err(ConfigError::Layer { origin: format!("environment variable {name}"), message });
                }
                let keys = path.split("__").map(str::to_ascii_lowercase).collect();
                merge(&mut merged, leaf(&format!("environment variable {name}"), keys, value)?);
            }
        }
        for flag in &sources.flags {
            let (path, value) = flag.split_once('=').map_or((flag.as_str(), None), |(path, value)| (path, Some(value)));
            // A text that is not a key may be a misplaced value.
            let shown = if is_key(path) { path } else { "…" };
            let origin = format!("flag --set {shown}");
            let Some(value) = value.filter(|_| is_key(path)) else {
                let message = "write section.key=value".into();
                return Err(ConfigError::Layer { origin, message });
            };
            let keys = path.split('.').map(str::to_owned).collect();
            merge(&mut merged, leaf(&origin, keys, value)?);
        }
        let config = Config::deserialize(merged).map_err(|error| layer_error("configuration", "", &error))?;
        sources.check_names(&config)?;
        sources.check_postgres(&config)?;
        config.check()?;
        Ok(config)
    }
}

// === impl Sources ===

impl Sources {
    /// Takes the environment of this process.
    pub fn from_process(file: Option<PathBuf>, flags: Vec<String>) -> Self {
        let (mut environment, mut not_utf8) = (Vec::new(), Vec::new());
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Ok(value) => environment.push((name, value)),
                Err(_) if name.starts_with(PREFIX) => not_utf8.push(name),
                Err(_) => {}
            }
        }
        environment.sort();
        Sources { file, environment, not_utf8, flags }
    }

    /// Refuses names that were meant as keys but have one underscore where two belong: they would have no effect.
    fn check_names(&self, config: &Config) -> Result<(), ConfigError> {
        let known = Table::try_from(Config::default()).unwrap_or_default();
        for (name, _) in &self.environment {
            // Names are case-sensitive, and only those in upper case count.
            let rest = name.to_ascii_lowercase();
            let rest = rest.strip_prefix("jackfield_").filter(|_| !name.starts_with(PREFIX)).unwrap_or_default();
            let rest = rest.trim_start_matches('_');
            let meant = known.keys().find(|key| {
                rest.strip_prefix(key.as_str()).is_some_and(|rest| {
                    // Kubernetes sets such variables for services whose names begin with "jackfield-".
                    let service = ["_port", "_service_"].iter().any(|service| rest.starts_with(service));
                    (rest.is_empty() || rest.starts_with('_')) && !service
                })
            });
            if let (Some(key), true) = (meant, *name != config.vault.variable) {
                let example = match known[key] {
                    Value::Table(_) => format!("{PREFIX}{}__<KEY>", key.to_ascii_uppercase()),
                    _ => format!("{PREFIX}{}", key.to_ascii_uppercase()),
                };
                let origin = format!("environment variable {name}");
                let message =
                    format!("has no effect: names are in upper case and have two underscores, as in {example}");
                return Err(ConfigError::Layer { origin, message });
            }
        }
        Ok(())
    }

    /// Refuses variables of libpq that the driver would ignore: an operator who sets one relies on it.
    fn check_postgres(&self, config: &Config) -> Result<(), ConfigError> {
        if !config.database.url.expose().starts_with("postgres") {
            return Ok(());
        }
        for (name, value) in &self.environment {
            let message = match name.as_str() {
                "PGSSLMODE" if !postgres_url::SSL_MODES.contains(&value.as_str()) => {
                    format!("is not one of {}", postgres_url::SSL_MODES.join(", "))
                }
                "PGPORT" if !postgres_url::is_port(value) => "is not a number from 1 to 65535".into(),
                "PGHOST" | "PGHOSTADDR" if value.contains(',') => {
                    "names several hosts: give the one address that leads to the primary".into()
                }
                name if PASSED_OVER.contains(&name) => {
                    "has no effect here: set it in database.url, or not at all".into()
                }
                _ => continue,
            };
            return Err(ConfigError::Layer { origin: format!("environment variable {name}"), message });
        }
        Ok(())
    }

    fn file(&self) -> Option<PathBuf> {
        self.file.clone().or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()))
    }
}

/// The value of an environment variable that the configuration names; `None` if it is not set or not UTF-8.
#[expect(clippy::disallowed_methods, reason = "this module is the one place that reads the environment")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let origin = format!("file {}", path.display());
    // Read as `Config` for the check, with line numbers in the message, and as a table for merging.
    toml::from_str::<Config>(&text).map_err(|error| layer_error(&origin, &text, &error))?;
    toml::from_str(&text).map_err(|error| layer_error(&origin, &text, &error))
}

/// A table with one key. The value is read as TOML if that fits the key (numbers, booleans, lists), else as text.
fn leaf(origin: &str, keys: Vec<String>, value: &str) -> Result<Table, ConfigError> {
    let nest = |value: Value| {
        let nested = keys.iter().rev().fold(value, |inner, key| Value::Table(Table::from_iter([(key.clone(), inner)])));
        match nested {
            Value::Table(table) => table,
            other => Table::from_iter([(String::new(), other)]),
        }
    };
    let as_toml = toml::from_str::<Table>(&format!("value = {value}")).ok().and_then(|mut table| table.remove("value"));
    if let Some(table) = as_toml.map(nest)
        && Config::deserialize(table.clone()).is_ok()
    {
        return Ok(table);
    }
    let table = nest(Value::String(value.to_owned()));
    Config::deserialize(table.clone()).map_err(|error| layer_error(origin, "", &error))?;
    Ok(table)
}

/// Lays one table over another; tables merge, everything else replaces.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Says what is wrong and where, and never with which value: it may be a password, and so may the line around it.
fn layer_error(origin: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let mut message = without_value(error.message());
    // Without its input the library names the key instead of showing the line.
    let mut bare = error.clone();
    bare.set_input(None);
    if let Some((_, key)) = bare.to_string().trim_end().rsplit_once("\nin `") {
        message = format!("{}: {message}", key.trim_end_matches('`'));
    }
    if let Some(before) = error.span().and_then(|span| text.get(..span.start)).filter(|_| !text.is_empty()) {
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        message = format!("line {line}, column {column}: {message}");
    }
    ConfigError::Layer { origin: origin.to_owned(), message }
}

/// A message of serde without the value that it quotes.
fn without_value(message: &str) -> String {
    let quotes = ["invalid type: ", "invalid value: ", "unknown variant "].iter().any(|kind| message.starts_with(kind));
    if let (true, Some((found, expected))) = (quotes, message.rsplit_once(", expected ")) {
        let kind = found.split(['"', '`']).next().unwrap_or_default().trim_end();
        return format!("{kind}, expected {expected}");
    }
    match message.strip_prefix("unknown field `").and_then(|rest| rest.rsplit_once("`, expected ")) {
        Some((name, expected)) if !is_key(name.split('`').next().unwrap_or_default()) => {
            format!("unknown field, expected {expected}")
        }
        _ => message.to_owned(),
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
