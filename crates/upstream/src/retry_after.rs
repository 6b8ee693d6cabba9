//! The header `retry-after` (RFC 9110 10.2.3): a number of seconds, or a date.

use std::time::{Duration, SystemTime};

use http::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use jackfield_domain::{Clock, SystemClock};

/// The longest wait that a server can ask for.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// The wait that a response asks for. A date that is over means none.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, RETRY_AFTER)?;
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let wait = match is_number {
        // More digits than a number can have are too long as well.
        true => value.parse().map_or(MAX_WAIT, Duration::from_secs),
        false => date(value)?.duration_since(sent_time(headers)).unwrap_or_default(),
    };
    Some(wait.min(MAX_WAIT))
}

/// The time of a response, by the clock of its server if that tells it: the date is by the same clock then.
fn sent_time(headers: &HeaderMap) -> SystemTime {
    text(headers, DATE).and_then(date).unwrap_or_else(now)
}

/// A date in one of the three forms that recipients must take (RFC 9110 5.6.7).
fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn now() -> SystemTime {
    let micros = u64::try_from(SystemClock.now().0).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The wait in seconds, of a response with this header, and with another one for its date.
    fn wait(value: &str, date: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        headers.extend(date.map(|date| (DATE, HeaderValue::from_str(date).unwrap())));
        retry_after(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_are_capped() {
        for (value, seconds) in [
            ("0", Some(0)),
            ("30", Some(30)),
            (" 5 ", Some(5)),
            ("3601", Some(3600)),
            ("99999999999999999999999999", Some(3600)),
            ("-1", None),
            ("+5", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(wait(value, None), seconds, "{value}");
        }
    }

    #[test]
    fn a_date_counts_from_that_of_the_response() {
        let sent = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (value, seconds) in [
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:50:07 GMT", Some(30)),
            ("Sun Nov  6 08:50:07 1994", Some(30)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(0)),
            ("Mon, 07 Nov 1994 08:49:37 GMT", Some(3600)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:07 CET", None),
            ("1994-11-06T08:50:07Z", None),
        ] {
            assert_eq!(wait(value, sent), seconds, "{value}");
        }
    }

    #[test]
    fn a_date_counts_from_now_if_the_response_has_none() {
        let in_a_minute = httpdate::fmt_http_date(now() + Duration::from_secs(60));
        for sent in [None, Some("yesterday")] {
            let seconds = wait(&in_a_minute, sent).unwrap();
            assert!((55..=60).contains(&seconds), "{seconds}");
            assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", sent), Some(0));
        }
    }
}
