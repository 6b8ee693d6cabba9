//! The URL of a PostgreSQL database, parsed strictly. The driver skips parameters that it does not know, logs their values, and
//! takes part of a password for a host or a parameter if a character of the password is not encoded. So the driver gets a URL
//! that is made here from the parsed parts.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::str::FromStr as _;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sqlx::postgres::PgConnectOptions;

/// The reason why a URL is refused. No error text holds a value, because the value may be a password or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("must begin with postgres:// or postgresql://")]
    Scheme,
    #[error(
        "holds {0} where none is allowed: in user name, password and values, write a blank % ? # / @ & as %20 %25 %3F %23 %2F \
         %40 %26"
    )]
    Character(&'static str),
    #[error("the port is not a number from 1 to 65535")]
    Port,
    #[error("the host is not one that a URL can have")]
    Host,
    #[error("it names several hosts: give the one address that leads to the primary")]
    Hosts,
    #[error("it names the database by more than one word: a / in it is %2F")]
    Path,
    #[error("a parameter has no value, or no name")]
    Nameless,
    #[error("{0} has no value")]
    Empty(&'static str),
    #[error("{0} is given twice")]
    Twice(&'static str),
    #[error("hostaddr is not an IP address, or is given with a host")]
    HostAddress,
    #[error("sslmode is not one of {}", SSL_MODES.join(", "))]
    SslMode,
    #[error("options sets {0}, which Jackfield sets itself")]
    Options(&'static str),
    #[error("the parameter {name} has no effect here: {why}")]
    WithoutEffect { name: &'static str, why: &'static str },
    #[error("the parameter {0} is unknown; there are {list}", list = PARAMETERS.join(", "))]
    Unknown(String),
    #[error("a parameter is unknown, and its name might be part of a secret; there are {}", PARAMETERS.join(", "))]
    UnknownUnnamed,
    #[error("it cannot be used")]
    Unusable,
}

/// The parameters that a URL may have, as libpq names them.
const PARAMETERS: [&str; 11] = [
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// Parameters that libpq knows, and the reasons why they are refused here.
const WITHOUT_EFFECT: [(&str, &str); 6] = [
    ("application_name", "sessions are called jackfield"),
    ("connect_timeout", "database.acquire_timeout is how long a call waits"),
    ("fallback_application_name", "sessions are called jackfield"),
    ("load_balance_hosts", "there is one address, that of the primary"),
    ("sslpassword", "keys of clients are read unencrypted"),
    ("target_session_attrs", "the address has to lead to the primary, and sessions that cannot write are not used"),
];

/// The values of `sslmode`.
pub const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// The settings that Jackfield makes itself; see `session`.
pub(crate) const OWN_SETTINGS: [&str; 6] = [
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "synchronous_commit",
    "jit",
    "timezone",
];

/// The parts of a URL, decoded, by the name of their parameter.
#[derive(Default)]
struct Parts(Vec<(&'static str, String)>);

/// Refuses a URL if a part of it would have no effect.
///
/// # Errors
/// The first fault of the URL.
pub fn check(url: &str) -> Result<(), UrlError> {
    options(url).map(|_| ())
}

/// The options of a URL.
pub(crate) fn options(url: &str) -> Result<PgConnectOptions, UrlError> {
    let Parts(parts) = parse(url)?;
    let mut spelt = String::from("postgres:///?");
    for (name, value) in &parts {
        // Writing to a String does not fail.
        let _ = write!(spelt, "{name}={}&", utf8_percent_encode(value, NON_ALPHANUMERIC));
    }
    PgConnectOptions::from_str(&spelt).map_err(|_| UrlError::Unusable)
}

fn parse(url: &str) -> Result<Parts, UrlError> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let rest = rest.ok_or(UrlError::Scheme)?;
    if rest.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(UrlError::Character("a blank or a line break"));
    }
    if rest.contains('#') {
        return Err(UrlError::Character("a #"));
    }
    let (address, query) = rest.split_once('?').map_or((rest, None), |(address, query)| (address, Some(query)));
    let (authority, database) = address.split_once('/').unwrap_or((address, ""));
    // These characters cannot follow the host. They mean that a password with a ? or a / continues there.
    for (part, character, name) in [
        (database, '@', "a second @"),
        (query.unwrap_or_default(), '@', "a second @"),
        (query.unwrap_or_default(), '?', "a second ?"),
    ] {
        if part.contains(character) {
            return Err(UrlError::Character(name));
        }
    }
    if database.contains('/') {
        return Err(UrlError::Path);
    }
    let mut parts = Parts::default();
    parts.authority(authority)?;
    if !database.is_empty() {
        parts.add("dbname", decoded(database)?)?;
    }
    if let Some(query) = query {
        parts.query(query)?;
    }
    parts.check()?;
    Ok(parts)
}

/// A text without its percent-encoding.
fn decoded(text: &str) -> Result<String, UrlError> {
    let percent = UrlError::Character("a % that encodes nothing");
    let digits = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if text.split('%').skip(1).any(|rest| !digits(rest)) {
        return Err(percent);
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| percent)?;
    if text.contains('\0') { Err(UrlError::Character("a NUL")) } else { Ok(text.into_owned()) }
}

// === impl Parts ===

impl Parts {
    /// Reads `user:password@host:port`, any of which may be missing.
    fn authority(&mut self, authority: &str) -> Result<(), UrlError> {
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains('@') {
            return Err(UrlError::Character("a second @"));
        }
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let (host, port) = match host.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or(UrlError::Host)?;
                if address.parse::<std::net::Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                    return Err(UrlError::Host);
                }
                (address, rest.strip_prefix(':').unwrap_or_default())
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        for (name, text) in [("user", user), ("password", password), ("host", host), ("port", port)] {
            if !text.is_empty() {
                self.add(name, decoded(text)?)?;
            }
        }
        Ok(())
    }

    fn query(&mut self, query: &str) -> Result<(), UrlError> {
        let mut after_secret = false;
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').ok_or(UrlError::Nameless)?;
            let name = decoded(name)?;
            if name.is_empty() {
                return Err(UrlError::Nameless);
            }
            match PARAMETERS.into_iter().find(|known| *known == name) {
                Some(name) if value.is_empty() => return Err(UrlError::Empty(name)),
                Some(name) => self.add(name, decoded(value)?)?,
                None => return Err(unknown(name, after_secret)),
            }
            after_secret |= name == "password";
        }
        Ok(())
    }

    fn add(&mut self, name: &'static str, value: String) -> Result<(), UrlError> {
        if self.get(name).is_some() {
            return Err(UrlError::Twice(name));
        }
        self.0.push((name, value));
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Checks the values.
    fn check(&self) -> Result<(), UrlError> {
        if [self.get("host"), self.get("port")].iter().flatten().any(|value| value.contains(',')) {
            return Err(UrlError::Hosts);
        }
        if self.get("port").is_some_and(|port| !is_port(port)) {
            return Err(UrlError::Port);
        }
        let is_address = |address: &str| address.parse::<IpAddr>().is_ok();
        if self.get("hostaddr").is_some_and(|address| !is_address(address) || self.get("host").is_some()) {
            return Err(UrlError::HostAddress);
        }
        if self.get("sslmode").is_some_and(|mode| !SSL_MODES.contains(&mode)) {
            return Err(UrlError::SslMode);
        }
        let options = self.get("options").unwrap_or_default().to_ascii_lowercase().replace('-', "_");
        match OWN_SETTINGS.into_iter().find(|setting| options.contains(setting)) {
            Some(setting) => Err(UrlError::Options(setting)),
            None => Ok(()),
        }
    }
}

/// Returns whether a text is a port that a server can have.
pub fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port != 0)
}

/// The error of a parameter that has no effect. After a password, the name may be a part of the password that follows an &.
fn unknown(name: String, after_secret: bool) -> UrlError {
    if let Some((name, why)) = WITHOUT_EFFECT.into_iter().find(|(known, _)| *known == name) {
        return UrlError::WithoutEffect { name, why };
    }
    let is_name = name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_name && !after_secret { UrlError::Unknown(name) } else { UrlError::UnknownUnnamed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_of_a_url_have_an_effect() {
        for (url, expected) in [
            ("postgres://", ""),
            ("postgres://db.example/jackfield", "host=db.example dbname=jackfield"),
            ("postgresql://me@db:5433", "user=me host=db port=5433"),
            ("postgres://me:a:b%3Fc%40d%25%2B+@db/j", "user=me password=a:b?c@d%++ host=db dbname=j"),
            ("postgres://[::1]:5433/j", "host=::1 port=5433 dbname=j"),
            ("postgres://%2Frun%2Fpostgresql/j", "host=/run/postgresql dbname=j"),
            ("postgres:///j?host=/run/postgresql&user=me", "dbname=j host=/run/postgresql user=me"),
            ("postgres:///?hostaddr=::1&password=a%26b+c", "hostaddr=::1 password=a&b+c"),
            (
                "postgres://db/j?sslmode=verify-full&sslrootcert=/a%20b.pem",
                "host=db dbname=j sslmode=verify-full sslrootcert=/a b.pem",
            ),
            ("postgres://db/j?options=-csearch_path%3Da", "host=db dbname=j options=-csearch_path=a"),
        ] {
            let Parts(parts) = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            let parts: Vec<_> = parts.iter().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(parts.join(" "), expected, "{url}");
            check(url).unwrap();
        }
        let options = options("postgres://me:a+b%2Bc@db:5433/j?sslmode=require").unwrap();
        assert_eq!((options.get_host(), options.get_port(), options.get_username()), ("db", 5433, "me"));
        assert_eq!(options.get_database(), Some("j"));
    }

    #[test]
    fn a_url_with_a_part_without_effect_is_refused_without_its_value() {
        use UrlError::*;
        let without_effect = |name| {
            let (name, why) = WITHOUT_EFFECT.into_iter().find(|(known, _)| *known == name).unwrap();
            WithoutEffect { name, why }
        };
        for (url, expected) in [
            ("mysql://me:hunter2@db/j", Scheme),
            ("postgres:/me:hunter2@db/j", Scheme),
            // A password with a character that is not encoded.
            ("postgres://me:hun?hunter2@db/j", Character("a second @")),
            ("postgres://me:12?hunter2@db/j", Character("a second @")),
            ("postgres://me:12?a=hunter2&b=c@db/j", Character("a second @")),
            ("postgres://me:12?hunter2@db/j?sslmode=require", Character("a second @")),
            ("postgres://me:12/hunter2@db/j", Character("a second @")),
            ("postgres://me:12#hunter2@db/j", Character("a #")),
            ("postgres://me:hun@hunter2@db/j", Character("a second @")),
            ("postgres://me:hun%hunter2@db/j", Character("a % that encodes nothing")),
            ("postgres://me:hun%ffhunter2@db/j", Character("a % that encodes nothing")),
            ("postgres://me:hun%00hunter2@db/j", Character("a NUL")),
            ("postgres://me:hun hunter2@db/j", Character("a blank or a line break")),
            ("postgres://me:hunter2@db/j\n", Character("a blank or a line break")),
            ("postgres://me:hunter2/j", Port),
            ("postgres://db:0/j", Port),
            ("postgres://db:+1/j", Port),
            ("postgres://db/j?port=hunter2", Port),
            ("postgres://[hunter2]/j", Host),
            ("postgres://[::1]hunter2/j", Host),
            ("postgres://a,b/j", Hosts),
            ("postgres://a:1,b:2/j", Hosts),
            ("postgres:///j?host=a,b", Hosts),
            ("postgres://db/j/k", Path),
            // Parameters.
            ("postgres://db/j?sslpassword=hunter2", without_effect("sslpassword")),
            ("postgres://db/j?target_session_attrs=hunter2", without_effect("target_session_attrs")),
            ("postgres://db/j?application_name=hunter2", without_effect("application_name")),
            ("postgres://db/j?sslmod=hunter2", Unknown("sslmod".to_owned())),
            ("postgres://db/j?ssl-mode=hunter2", Unknown("ssl-mode".to_owned())),
            ("postgres://db/j?SSLMODE=hunter2", Unknown("SSLMODE".to_owned())),
            ("postgres://db/j?statement-cache-capacity=5", Unknown("statement-cache-capacity".to_owned())),
            ("postgres://db/j?password=a&hunter2=b", UnknownUnnamed),
            ("postgres://db/j?a%3Ahunter2=b", UnknownUnnamed),
            ("postgres://db/j?password=a&hunter2", Nameless),
            ("postgres://db/j?", Nameless),
            ("postgres://db/j?=hunter2", Nameless),
            ("postgres://db/j?sslmode=require&", Nameless),
            ("postgres://db/j?sslmode=", Empty("sslmode")),
            ("postgres://db/j?sslmode=verify-ful", SslMode),
            ("postgres://db/j?sslmode=require&sslmode=disable", Twice("sslmode")),
            ("postgres://me@db/j?user=you", Twice("user")),
            ("postgres://db/j?hostaddr=::1", HostAddress),
            ("postgres:///j?hostaddr=hunter2", HostAddress),
            ("postgres://db/j?options=-c%20statement_timeout%3D0", Options("statement_timeout")),
            ("postgres://db/j?options=--lock-timeout%3D0", Options("lock_timeout")),
        ] {
            let error = check(url).expect_err(url);
            assert_eq!(error, expected, "{url}");
            assert!(!error.to_string().contains("hunter2"), "{url}: {error}");
        }
    }
}
