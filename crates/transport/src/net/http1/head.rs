//! Heads of requests: what is refused before a body is read.

use std::net::Ipv6Addr;

use http::header::{CONTENT_ENCODING, EXPECT, HOST, HeaderName, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Version, request};

use crate::call::http::Unread;

/// Checks a head, and the size that it states for its body.
pub(super) fn check(head: &request::Parts, stated: u64, max: usize) -> Result<(), Unread> {
    check_host(head)?;
    if head.headers.get_all(EXPECT).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Unread::ExpectationUnknown);
    }
    check_transfer(&head.headers)?;
    if codings(&head.headers, CONTENT_ENCODING).any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(Unread::Encoded);
    }
    if usize::try_from(stated).map_or(true, |stated| stated > max) {
        return Err(Unread::TooLarge(max));
    }
    Ok(())
}

/// Checks that a request names its host as its version demands.
fn check_host(head: &request::Parts) -> Result<(), Unread> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if head.version < Version::HTTP_11 => Ok(()),
        (Some(host), None) if is_host(host) => Ok(()),
        _ => Err(Unread::HostInvalid),
    }
}

/// Returns true for a host, with or without a port. It may not be empty: a URI of HTTP must have one (RFC 9110 4.2.1).
fn is_host(value: &HeaderValue) -> bool {
    let Some(authority) = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok()) else { return false };
    let text = authority.as_str();
    if text.contains('@') {
        return false;
    }
    let host = authority.host();
    let is_named = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty(),
    };
    // A colon without a number is permitted (RFC 3986 3.2.3).
    let is_number = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_port = |port: &str| port.is_empty() || is_number(port);
    let is_end = |rest: &str| rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    is_named && text.strip_prefix(host).is_some_and(is_end)
}

/// Checks that a body is transferred as it is or in chunks. The HTTP library looks at the last coding alone, and would take what the
/// others made for the body (RFC 9112 6.1).
fn check_transfer(headers: &HeaderMap) -> Result<(), Unread> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if codings(headers, TRANSFER_ENCODING).any(|coding| !is_chunked(coding)) {
        return Err(Unread::TransferUnknown);
    }
    if codings(headers, TRANSFER_ENCODING).count() > 1 { Err(Unread::Malformed) } else { Ok(()) }
}

/// The codings in a header, which may be there several times.
fn codings(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    values.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_name_or_an_address_and_perhaps_a_port() {
        let is = |text: &str| is_host(&HeaderValue::from_bytes(text.as_bytes()).unwrap());
        for good in ["a", "a.example", "a_b", "A:1", "a:65535", "a:", "127.0.0.1:80", "[::1]", "[::1]:8443", "a:0080"] {
            assert!(is(good), "{good}");
        }
        for wrong in [
            "",
            ":",
            ":80",
            "a:x",
            "a:65536",
            "a:99999999999999999999",
            "a:-1",
            "a:+1",
            "a:1:2",
            "a: 1",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "a\"b",
            "a<b>",
            "a{b",
            "a|b",
            "a^b",
            "a\\b",
            "ann@a",
            "@a",
            "@",
            "::1",
            "[]",
            "[::1",
            "::1]",
            "[a]",
            "[::1]x",
            "[::1]80",
            "[::1]:x",
            "[127.0.0.1]",
            "[::1%25lo]",
            "a%20b",
            "http://a",
            "é",
        ] {
            assert!(!is(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_body_is_as_it_is_or_in_chunks() {
        let check = |values: &[&'static str]| {
            let header = |value: &&'static str| (TRANSFER_ENCODING, HeaderValue::from_static(value));
            let headers: HeaderMap = values.iter().map(header).collect();
            check_transfer(&headers)
        };
        for good in [&[][..], &["chunked"], &["CHUNKED"], &[" , chunked"]] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for twice in [&["chunked, chunked"][..], &["chunked", "chunked"], &["chunked,chunked,chunked"]] {
            assert_eq!(check(twice), Err(Unread::Malformed), "{twice:?}");
        }
        for unknown in [&["gzip, chunked"][..], &["gzip", "chunked"], &["identity, chunked"], &["chunked;q=1"], &["x"]]
        {
            assert_eq!(check(unknown), Err(Unread::TransferUnknown), "{unknown:?}");
        }
    }
}
