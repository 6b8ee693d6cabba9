//! Log lines of the database driver. The driver quotes what it does not understand, lines of the password file for example.

use tracing::Metadata;

/// Fields of the driver's lines that hold nothing of a secret: names of files, causes, times.
const PLAIN_FIELDS: [&str; 6] =
    ["acquired_after_secs", "error", "message", "path", "permissions", "slow_acquire_threshold_secs"];

/// Returns the text that is logged in place of a line of the driver that may quote a secret.
pub fn replacement(line: &Metadata<'_>) -> Option<&'static str> {
    let mut quoted =
        line.fields().iter().map(|field| field.name()).filter(|name| !PLAIN_FIELDS.contains(name)).peekable();
    if !line.target().starts_with("sqlx") || quoted.peek().is_none() {
        return None;
    }
    Some(if quoted.any(|name| name == "line") {
        "a line of the password file (PGPASSFILE or ~/.pgpass) is not host:port:database:user:password and is skipped"
    } else {
        "a line of the database driver is left out: it may hold values"
    })
}
