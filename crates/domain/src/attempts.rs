//! The limits of log-in attempts, and their counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::value::time::Timestamp;

/// A limit of attempts, named by its key. Each is within a tenant. Those of a login id are also those of one connector, or of
/// all applications that have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptLimit {
    /// A login id and the address that the end user comes from.
    UserAndSource,
    /// A login id.
    User,
    /// The address that end users come from.
    Source,
}

/// The most attempts within a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptQuota {
    /// 0 = no limit.
    pub max: u32,
    /// The time from the first attempt until attempts are counted from 0 again.
    pub window: Duration,
}

/// The limits of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptLimits {
    pub user_and_source: AttemptQuota,
    pub user: AttemptQuota,
    pub source: AttemptQuota,
}

/// The attempts that were counted in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptCount {
    pub attempts: u32,
    /// Those of them that are known to have failed. Only the counts of a user at a source have them.
    pub failures: u32,
    /// The time of the last failure; 0 if there is none.
    pub failure_time: i64,
    /// The end of the window; 0 if there is none.
    pub expire_time: i64,
}

/// The end of an attempt that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The password is right.
    Succeeded,
    /// The user is unknown or the password is wrong.
    Failed,
    /// The password did not leave Jackfield, and was not compared here.
    Unchecked,
}

/// The first delay between two attempts of a user from a source. It doubles with each failure.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(60);

/// The bits of an IPv6 address that are one source: a network of 64 bits is the least that an end user gets, with all its
/// addresses.
const SOURCE_BITS: u32 = 64;

// === impl AttemptLimit ===

impl AttemptLimit {
    pub const ALL: [AttemptLimit; 3] = [AttemptLimit::UserAndSource, AttemptLimit::User, AttemptLimit::Source];

    /// The name in metrics and details of errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            AttemptLimit::UserAndSource => "user_and_source",
            AttemptLimit::User => "user",
            AttemptLimit::Source => "source",
        }
    }
}

// === impl AttemptLimits ===

impl AttemptLimits {
    pub const fn of(&self, limit: AttemptLimit) -> AttemptQuota {
        match limit {
            AttemptLimit::UserAndSource => self.user_and_source,
            AttemptLimit::User => self.user,
            AttemptLimit::Source => self.source,
        }
    }
}

impl Default for AttemptLimits {
    fn default() -> Self {
        let quota = |max, minutes: u64| AttemptQuota { max, window: Duration::from_secs(minutes * 60) };
        AttemptLimits { user_and_source: quota(10, 15), user: quota(50, 60), source: quota(100, 60) }
    }
}

// === impl AttemptCount ===

impl AttemptCount {
    /// The count at a time: that of a window that is over is 0.
    pub fn at(self, now: Timestamp) -> Self {
        if self.expire_time <= now.0 { AttemptCount::default() } else { self }
    }

    /// The time at which the next attempt is allowed, if that is later than `now`.
    pub fn next_time(&self, limit: AttemptLimit, quota: AttemptQuota, now: Timestamp) -> Option<Timestamp> {
        if self.attempts >= quota.max {
            return Some(Timestamp(self.expire_time));
        }
        let delay = match limit {
            AttemptLimit::UserAndSource => delay(self.failures, quota.max),
            AttemptLimit::User | AttemptLimit::Source => Duration::ZERO,
        };
        // The failure may have been noted by a clock that is ahead.
        if delay.is_zero() {
            return None;
        }
        let next = self.failure_time.saturating_add(micros(delay)).min(self.expire_time);
        (next > now.0).then_some(Timestamp(next))
    }

    /// Counts an attempt. The first one begins a window.
    pub fn begin(&mut self, quota: AttemptQuota, now: Timestamp) {
        if self.attempts == 0 {
            *self = AttemptCount { expire_time: now.plus_micros(micros(quota.window)).0, ..AttemptCount::default() };
        }
        self.attempts += 1;
    }

    /// Notes the end of an attempt that was counted in the window that ends at a time. A success ends the window of a user at a source.
    /// Of a user at all sources, it takes back only itself: others may be guessing meanwhile. Of a source it takes back nothing: the
    /// source may have an account of its own, and attack others.
    pub fn end(&mut self, limit: AttemptLimit, window: i64, end: AttemptEnd, now: Timestamp) {
        match (end, limit) {
            _ if !end.changes(limit) => {}
            (AttemptEnd::Succeeded, AttemptLimit::UserAndSource) => {
                *self = AttemptCount { expire_time: now.0, ..AttemptCount::default() };
            }
            _ if self.expire_time != window => {}
            (AttemptEnd::Failed, _) => {
                self.failures = self.failures.saturating_add(1);
                self.failure_time = now.0;
            }
            (AttemptEnd::Succeeded | AttemptEnd::Unchecked, _) => {
                self.attempts = self.attempts.saturating_sub(1);
            }
        }
    }
}

// === impl AttemptEnd ===

impl AttemptEnd {
    /// Returns whether it changes counts of a limit.
    pub const fn changes(self, limit: AttemptLimit) -> bool {
        match (self, limit) {
            (AttemptEnd::Succeeded, limit) => !matches!(limit, AttemptLimit::Source),
            // Only attempts of a user from a source are delayed after failures.
            (AttemptEnd::Failed, limit) => matches!(limit, AttemptLimit::UserAndSource),
            (AttemptEnd::Unchecked, _) => true,
        }
    }
}

/// The source of attempts from an address: the IPv4 address, or the IPv6 network. An IPv4 address behind a translator (RFC 6052) is
/// itself, because all of IPv4 would be one network otherwise.
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if matches!(address.segments(), [0x64, 0xff9b, 0, 0, 0, 0, ..]) => {
            IpAddr::V4(Ipv4Addr::from_bits(u128::from(address) as u32))
        }
        IpAddr::V6(address) => {
            let network = u128::from(address) >> (u128::BITS - SOURCE_BITS) << (u128::BITS - SOURCE_BITS);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// The delay after failures: none for the first half of the attempts that are allowed.
fn delay(failures: u32, max: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(max.div_ceil(2)) else { return Duration::ZERO };
    FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(MAX_DELAY)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: AttemptQuota = AttemptQuota { max: 10, window: Duration::from_secs(900) };
    const BOTH: AttemptLimit = AttemptLimit::UserAndSource;
    const SECOND: i64 = 1_000_000;

    /// A count after failures at time 0.
    fn failed(failures: u32) -> AttemptCount {
        let (now, mut count) = (Timestamp(0), AttemptCount::default());
        for _ in 0..failures {
            count.begin(QUOTA, now);
            count.end(BOTH, count.expire_time, AttemptEnd::Failed, now);
        }
        count
    }

    #[test]
    fn the_delay_doubles_once_several_attempts_have_failed() {
        let delays = (0..=9)
            .map(|failures| failed(failures).next_time(BOTH, QUOTA, Timestamp(0)).map_or(0, |next| next.0 / SECOND));
        assert_eq!(delays.collect::<Vec<_>>(), [0, 0, 0, 0, 0, 1, 2, 4, 8, 16]);
        assert_eq!(failed(6).next_time(BOTH, QUOTA, Timestamp(2 * SECOND)), None);
        assert_eq!(failed(9).next_time(AttemptLimit::User, QUOTA, Timestamp(0)), None);
        // Another server's clock is ahead.
        assert_eq!(failed(4).next_time(BOTH, QUOTA, Timestamp(-SECOND)), None);
        assert_eq!(delay(49, 100), Duration::ZERO);
        assert_eq!(delay(99, 100), MAX_DELAY);
    }

    #[test]
    fn the_limit_lasts_until_the_window_of_the_first_attempt_ends() {
        let full = failed(10);
        assert_eq!(full.next_time(BOTH, QUOTA, Timestamp(899 * SECOND)), Some(Timestamp(900 * SECOND)));
        assert_eq!(full.at(Timestamp(900 * SECOND)), AttemptCount::default());
        assert_eq!(full.at(Timestamp(899 * SECOND)), full);
    }

    #[test]
    fn an_attempt_that_was_not_checked_is_not_counted() {
        let mut count = failed(3);
        count.begin(QUOTA, Timestamp(0));
        count.end(BOTH, count.expire_time, AttemptEnd::Unchecked, Timestamp(0));
        assert_eq!(count, failed(3));
        // It belongs to a window that is over.
        count.end(BOTH, 1, AttemptEnd::Unchecked, Timestamp(0));
        assert_eq!(count, failed(3));
    }

    #[test]
    fn a_success_ends_the_window_of_a_user_at_a_source_alone() {
        for (limit, attempts) in [(BOTH, 0), (AttemptLimit::User, 2), (AttemptLimit::Source, 3)] {
            let mut count = failed(3);
            count.end(limit, count.expire_time, AttemptEnd::Succeeded, Timestamp(0));
            assert_eq!((count.attempts, count.at(Timestamp(0)).attempts), (attempts, attempts), "{limit:?}");
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let source = |text: &str| source_of(text.parse().unwrap()).to_string();
        assert_eq!(source("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(source("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(source("192.0.2.1"), "192.0.2.1");
        assert_eq!(source("64:ff9b::192.0.2.1"), "192.0.2.1");
        assert_eq!(source("64:ff9b:1::192.0.2.1"), "64:ff9b:1::");
    }
}
