//! Device authorisations (RFC 8628): the user decides at the provider with a code, and the token endpoint is polled meanwhile.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::document::is_default;
use crate::value::secret::Secret;
use crate::value::url::HttpUrl;

/// The pace at which the token endpoint is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePolling {
    /// The least time between two polls, in seconds.
    pub interval: u32,
    /// The polls in a row that were not answered.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unanswered: u32,
    /// True if a poll before may have had the tokens, and its answer is lost.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_answer_lost: bool,
}

/// The code that a user types at the provider, and the place for it.
#[derive(Debug)]
pub struct DeviceInvitation {
    /// It is no secret of this server, but a person who has it can decide for the user (RFC 8628 5.1).
    pub user_code: Secret,
    pub verification_uri: HttpUrl,
    /// The same with the code in it.
    pub verification_uri_complete: Option<Secret>,
}

/// The column of the sealed device code.
pub const DEVICE_CODE_COLUMN: &str = "device_code";
/// The longest time for which a device code is polled for: 30 minutes, in microseconds.
pub const DEVICE_MICROS: i64 = 30 * 60 * 1_000_000;
/// The interval of a provider that names none, in seconds (RFC 8628 3.2).
const DEFAULT_INTERVAL: u32 = 5;
/// The longest interval, in seconds. No device code is polled for longer.
const MAX_INTERVAL: u32 = 30 * 60;
/// The seconds that `slow_down` adds to the interval (RFC 8628 3.5).
const SLOW_DOWN: u32 = 5;
/// The longest wait after polls without an answer, in seconds, unless the interval is longer.
const MAX_BACK_OFF: u32 = 60;

// === impl DevicePolling ===

impl DevicePolling {
    /// The pace that a provider asks for.
    pub fn new(interval: Option<Duration>) -> Self {
        let seconds = interval.map_or(u64::from(DEFAULT_INTERVAL), |interval| {
            interval.as_secs() + u64::from(interval.subsec_nanos() > 0)
        });
        let interval = u32::try_from(seconds).unwrap_or(MAX_INTERVAL).clamp(1, MAX_INTERVAL);
        DevicePolling { interval, unanswered: 0, is_answer_lost: false }
    }

    /// The pace after an answer.
    #[must_use]
    pub fn answered(self) -> Self {
        DevicePolling { unanswered: 0, is_answer_lost: false, ..self }
    }

    /// The pace after the answer `slow_down`, which holds for good.
    #[must_use]
    pub fn slowed_down(self) -> Self {
        DevicePolling { interval: self.interval.saturating_add(SLOW_DOWN).min(MAX_INTERVAL), ..self.answered() }
    }

    /// The pace after a poll that was not sent, or not looked at.
    #[must_use]
    pub fn unsent(self) -> Self {
        DevicePolling { unanswered: self.unanswered.saturating_add(1), ..self }
    }

    /// The pace after a poll whose answer is lost.
    #[must_use]
    pub fn lost(self) -> Self {
        DevicePolling { is_answer_lost: true, ..self.unsent() }
    }

    /// The wait before the next poll. It doubles with each poll that is not answered.
    pub fn wait(self) -> Duration {
        let doubled = self.interval.saturating_mul(1 << self.unanswered.min(16));
        Duration::from_secs(doubled.min(self.interval.max(MAX_BACK_OFF)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_the_answers() {
        let seconds = |polling: DevicePolling| polling.wait().as_secs();
        for (interval, expected) in [(None, 5), (Some(0), 1), (Some(200), 1), (Some(7_001), 8), (Some(u64::MAX), 1_800)]
        {
            assert_eq!(seconds(DevicePolling::new(interval.map(Duration::from_millis))), expected, "{interval:?}");
        }
        let mut polling = DevicePolling::new(None).slowed_down();
        assert_eq!(seconds(polling), 10);
        for expected in [20, 40, 60, 60] {
            polling = polling.lost();
            assert_eq!(seconds(polling), expected);
        }
        assert_eq!(seconds(polling.answered()), 10, "what slow_down added stays");
        assert_eq!(seconds(polling.slowed_down()), 15);
        // A slow provider is not polled faster because an answer is lost.
        let slow = DevicePolling::new(Some(Duration::from_secs(90)));
        assert_eq!((seconds(slow), seconds(slow.lost())), (90, 90));
        let lost = (0..100).fold(DevicePolling::new(None), |polling, _| polling.lost());
        assert_eq!(seconds(lost), 60);
    }
}
