//! Files of the operator: the configuration and the keyring. They come from a trusted person, often through a template,
//! and contain secrets that no message may repeat.

use std::path::Path;

use jackfield_server::config::{Config, Sources};
use jackfield_vault::Keyring;

use super::{Target, Way, way};

pub(super) const CONFIGURATION: Target = Target {
    name: "configuration",
    check: check_configuration,
    parse: |data| drop(text(data).map(load)),
    // The file is read as a table and as a configuration, and the defaults exist twice more.
    memory: |length| 1024 * 1024 + 512 * length as u64,
    max_len: 8 * 1024,
    words: &[
        "[limits]\n",
        "[listen]\n",
        "[tls]\n",
        "[database]\n",
        "[vault]\n",
        "[identity]\n",
        "[[identity.principals]]\n",
        "[telemetry]\n",
        "[streams]\n",
        "[drain]\n",
        "[deadlines]\n",
        "[bootstrap]\n",
        "mode = ",
        "data_dir = ",
        "address = ",
        "plaintext = true\n",
        "url = ",
        "max_connections = ",
        "max_calls = ",
        "connection_age = ",
        "stream_window = ",
        "name = ",
        "tenant = ",
        "rights = ",
        "spiffe = ",
        "dns = ",
        "subject = ",
        "log_filter = ",
        "\"1s\"",
        "\"64KiB\"",
        "\"250ms\"",
        "\"18446744073709551615d\"",
        "\"4294967295B\"",
        "0",
        "1",
        "-1",
        "4294967296",
        "1e300",
        "nan",
        "true",
        "\"\"",
        "[]",
        "{}",
        "\"hunter2!\"",
        "\"postgres://u:hunter2!@h/d\"",
        "\"*\"",
        "\"development\"",
        "\"production\"",
        "\"127.0.0.1:0\"",
        "\"spiffe://a/b\"",
        "\n",
        "=",
        ".",
        "'''",
        "\"\"\"",
        "#",
        "\u{feff}",
        "\n---\n",
        "flag limits.max_calls=700\n",
        "flag database.url=postgres://u:hunter2!@h/d\n",
        "env JACKFIELD__LIMITS__MAX_CALLS=x\n",
        "env JACKFIELD_LIMITS=1\n",
        "env JACKFIELD__=hunter2!\n",
    ],
};

pub(super) const KEYRING: Target = Target {
    name: "keyring",
    check: check_keyring,
    parse: |data| drop(text(data).map(Keyring::parse)),
    memory: |length| 256 * 1024 + 256 * length as u64,
    max_len: 4 * 1024,
    words: &[
        "active = \"kek-1\"\n",
        "[[key]]\n",
        "id = \"kek-1\"\n",
        "id = \"kek-2\"\n",
        "state = \"active\"\n",
        "state = \"staged\"\n",
        "state = \"retired\"\n",
        "created = 2026-01-02T03:04:05Z\n",
        "created = 2026-01-02\n",
        "secret = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n",
        "secret = \"AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n",
        "secret = \"hunter2!\"\n",
        "key = []\n",
        "key = 1\n",
        "active = 1\n",
        "=",
        "\"",
        "'",
        "\n",
        "[",
        "]",
        "{",
        "}",
        "#",
        "\0",
    ],
};

/// Occurs in values only: no bare key can contain it.
const SECRET: &str = "hunter2!";

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// Loads a configuration from a file, and from the flags and the environment that may follow it after a line `---`.
fn load(text: &str) -> Result<Config, String> {
    thread_local! {
        static FILE: tempfile::NamedTempFile = tempfile::NamedTempFile::new().expect("a temporary file");
    }
    let (file, layers) = text.split_once("\n---\n").unwrap_or((text, ""));
    let mut sources = Sources::default();
    for line in layers.lines() {
        match line.split_once(' ') {
            Some(("flag", flag)) => sources.flags.push(flag.to_owned()),
            Some(("env", variable)) => {
                let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
                sources.environment.push((name.to_owned(), value.to_owned()));
            }
            _ => {}
        }
    }
    FILE.with(|path| {
        let path: &Path = path.path();
        std::fs::write(path, file).expect("a file");
        sources.file = Some(path.to_owned());
        Config::load(&sources).map_err(|error| error.to_string().replace(&*path.to_string_lossy(), "file"))
    })
}

/// Checks that a printed configuration loads and prints the same, and that neither a message nor a print repeats a
/// secret.
fn check_configuration(data: &[u8]) -> Way {
    let Some(text) = text(data) else { return way(&["no text"]) };
    let secret_in_url = text.contains("://u:hunter2!@");
    match load(text) {
        Ok(config) => {
            let printed = config.to_toml();
            assert!(!secret_in_url || !printed.contains("u:hunter2!@"), "{text:?} is printed with its password");
            assert!(!format!("{config:?}").contains("u:hunter2!@"), "{text:?} is shown with its password");
            match load(&printed) {
                Ok(again) => assert_eq!(again.to_toml(), printed, "{text:?}"),
                // The placeholder for the password makes the URL invalid.
                Err(_) if printed.contains("***") || printed.contains("redacted") => {}
                Err(error) => panic!("{text:?} is printed as {printed:?}, which is refused: {error}"),
            }
            let default = Config::default().to_toml();
            let changed: Vec<_> = printed.lines().filter(|line| !default.contains(line)).map(key_of).collect();
            way(&[&["accepted"], &*changed].concat())
        }
        Err(error) => {
            let named = text.match_indices(SECRET).any(|(at, _)| is_name(text, at));
            assert!(named || !error.contains("u:hunter2!@"), "{text:?} is refused with its password: {error}");
            // Errors about contradictions quote values: names and rights are no secrets, and passwords are recognised
            // by then.
            let quoted = error.starts_with("the configuration is not valid");
            assert!(named || quoted || !error.contains(SECRET), "{text:?} is refused with its value: {error}");
            way(&["refused", &error])
        }
    }
}

/// Returns whether this position is in a key or in the name of a variable: before a `=`, or in a bracketed header.
fn is_name(text: &str, at: usize) -> bool {
    let (before, after) = text.split_at(at);
    let begun = before.rsplit('\n').next().unwrap_or_default().trim_start();
    let rest = after.lines().next().unwrap_or_default();
    rest.contains('=') || begun.starts_with('[') || (begun.starts_with("env ") && !begun.contains('='))
}

fn key_of(line: &str) -> &str {
    line.split('=').next().unwrap_or_default()
}

/// Checks that a printed keyring parses to the same, and that a refusal repeats nothing of the text.
fn check_keyring(data: &[u8]) -> Way {
    let Some(text) = text(data) else { return way(&["no text"]) };
    match Keyring::parse(text) {
        Ok(keyring) => {
            let printed = keyring.to_toml();
            let again = Keyring::parse(&printed).expect("what is printed parses");
            assert_eq!(*again.to_toml(), *printed, "{text:?}");
            assert_eq!((again.active_id(), again.keys()), (keyring.active_id(), keyring.keys()));
            assert!(keyring.ids().iter().any(|id| id == keyring.active_id()), "{text:?}");
            way(&["accepted", &"i".repeat(keyring.keys().len())])
        }
        Err(error) => {
            let error = format!("{error} {error:?}");
            let secrets = text.split('"').filter(|part| part.len() >= 12 && part.ends_with('='));
            for secret in secrets {
                assert!(!error.contains(secret), "{text:?} is refused with a secret: {error}");
            }
            way(&["refused", &error])
        }
    }
}
