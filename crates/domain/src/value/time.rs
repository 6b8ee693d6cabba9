//! Time as the database keeps it: microseconds since 1970 in UTC.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// A point in time in microseconds since 1970-01-01T00:00:00Z. Both databases store it as a 64-bit integer, because
/// their own types keep different precisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// The source of the time; tests set it by hand.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

// === impl Timestamp ===

impl Timestamp {
    /// 0001-01-01T00:00:00Z, the earliest time of google.protobuf.Timestamp.
    pub const MIN: Timestamp = Timestamp(-62_135_596_800_000_000);
    /// 9999-12-31T23:59:59.999999Z, the latest time of google.protobuf.Timestamp.
    pub const MAX: Timestamp = Timestamp(253_402_300_799_999_999);

    /// Makes a time from seconds and nanoseconds, as google.protobuf.Timestamp has them; `None` when out of range. Nanoseconds are cut
    /// to microseconds.
    pub fn from_parts(seconds: i64, nanos: i32) -> Option<Self> {
        let in_second = (0..1_000_000_000).contains(&nanos);
        let micros = seconds.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1_000))?;
        let timestamp = Timestamp(micros);
        (in_second && (Self::MIN..=Self::MAX).contains(&timestamp)).then_some(timestamp)
    }

    /// Whole seconds, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The rest in nanoseconds.
    pub const fn subsec_nanos(self) -> i32 {
        (self.0.rem_euclid(1_000_000) * 1_000) as i32
    }

    /// Parses RFC 3339 with an offset, as filters use it.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(text).ok().map(|time| Timestamp(time.timestamp_micros()))
    }

    /// This time moved by a number of microseconds.
    pub const fn plus_micros(self, micros: i64) -> Self {
        Timestamp(self.0.saturating_add(micros))
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match DateTime::<Utc>::from_timestamp_micros(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            None => write!(f, "{} µs", self.0),
        }
    }
}

// === impl SystemClock ===

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }
}
