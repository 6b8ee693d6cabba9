//! The written form of values in the configuration: durations as `"5s"`, sizes as `"64KiB"`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, written `"64KiB"`, `"1MiB"` or `"512B"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u32);

/// Serde form of [`Duration`]: a whole number and `ms`, `s`, `m`, `h` or `d`.
pub mod duration {
    use super::*;

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*duration))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).ok_or_else(|| {
            serde::de::Error::custom(
                "invalid duration: write a whole number and one of ms, s, m, h, d, such as \"250ms\"",
            )
        })
    }
}

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor).map(Duration::from_millis)
}

fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let whole = |(_, factor): &&(&str, u64)| millis >= *factor && millis.is_multiple_of(*factor);
    match UNITS.iter().rev().find(whole) {
        Some((unit, factor)) => format!("{}{unit}", millis / factor),
        None => "0s".into(),
    }
}

// === impl Size ===

impl Size {
    /// From kibibytes.
    pub const fn kib(kib: u32) -> Self {
        Size(kib * 1024)
    }

    /// From mebibytes.
    pub const fn mib(mib: u32) -> Self {
        Size(mib * 1024 * 1024)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes != 0 && bytes.is_multiple_of(1 << 20) => write!(f, "{}MiB", bytes >> 20),
            bytes if bytes != 0 && bytes.is_multiple_of(1 << 10) => write!(f, "{}KiB", bytes >> 10),
            bytes => write!(f, "{bytes}B"),
        }
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit {
            "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            _ => None,
        };
        factor
            .and_then(|factor: u32| number.parse::<u32>().ok()?.checked_mul(factor))
            .map(Size)
            .ok_or_else(|| "invalid size: write a whole number and one of B, KiB, MiB".to_owned())
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip_in_the_largest_whole_unit() {
        for (text, millis) in [("250ms", 250), ("5s", 5_000), ("90s", 90_000), ("30m", 1_800_000), ("1d", 86_400_000)] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(format_duration(duration), text);
        }
        assert_eq!(format_duration(Duration::from_secs(60)), "1m");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        for wrong in ["", "5", "s", "-5s", "5 s", "1.5s", "5S", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_round_trip() {
        for (text, bytes) in [("0B", 0), ("100B", 100), ("64KiB", 65_536), ("4MiB", 4 << 20)] {
            assert_eq!(text.parse::<Size>().unwrap(), Size(bytes));
            assert_eq!(Size(bytes).to_string(), text);
        }
        for wrong in ["", "64", "KiB", "64kb", "64 KiB", "-1B", "9999999MiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
