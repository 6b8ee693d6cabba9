//! Reading the layers. Each is checked by itself, so that an unknown key is reported with the layer it came from.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::Config;

/// The file that is read when none is named and it exists.
pub const DEFAULT_FILE: &str = "jackfield.toml";

const PREFIX: &str = "JACKFIELD__";

/// Where the configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file of `--config`. `None`: [`DEFAULT_FILE`], if it exists.
    pub file: Option<PathBuf>,
    /// The environment; only names that begin with `JACKFIELD__` matter.
    pub environment: Vec<(String, String)>,
    /// `section.key=value` of flags, later ones win.
    pub flags: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {message}")]
    Layer { origin: String, message: String },
    #[error("the configuration does not fit together:\n  - {}", .0.join("\n  - "))]
    Invalid(Vec<String>),
}

impl Config {
    /// Reads all layers, merges them and checks the whole.
    ///
    /// # Errors
    /// The first layer that cannot be read or has an unknown key or a value of the wrong type; else everything that does
    /// not fit together.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let mut merged = Table::new();
        if let Some(path) = sources.file() {
            merge(&mut merged, read_file(&path)?);
        }
        for (name, value) in &sources.environment {
            if let Some(path) = name.strip_prefix(PREFIX) {
                let keys = path.split("__").map(str::to_ascii_lowercase).collect();
                merge(&mut merged, leaf(&format!("environment variable {name}"), keys, value)?);
            }
        }
        for flag in &sources.flags {
            let origin = format!("flag --set {}", flag.split('=').next().unwrap_or_default());
            let Some((path, value)) = flag.split_once('=') else {
                let message = "write section.key=value".into();
                return Err(ConfigError::Layer { origin, message });
            };
            let keys = path.split('.').map(str::to_owned).collect();
            merge(&mut merged, leaf(&origin, keys, value)?);
        }
        let config = Config::deserialize(merged).map_err(|error| layer_error("configuration", &error))?;
        config.check()?;
        Ok(config)
    }
}

// === impl Sources ===

impl Sources {
    /// With the environment of this process. Names and values that are not UTF-8 are left out.
    pub fn from_process(file: Option<PathBuf>, flags: Vec<String>) -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let mut environment: Vec<_> = std::env::vars_os().filter_map(utf8).collect();
        environment.sort();
        Sources { file, environment, flags }
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
    toml::from_str::<Config>(&text).map_err(|error| layer_error(&origin, &error))?;
    toml::from_str(&text).map_err(|error| layer_error(&origin, &error))
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
    Config::deserialize(table.clone()).map_err(|error| layer_error(origin, &error))?;
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

fn layer_error(origin: &str, error: &toml::de::Error) -> ConfigError {
    ConfigError::Layer { origin: origin.to_owned(), message: error.to_string().trim().replace('\n', "\n  ") }
}
