//! Marked secrets, and a search for them in every form in which they may leak.

use std::io::Read as _;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use uuid::Uuid;

/// A secret that occurs nowhere else, with the name of the place it was planted in.
#[derive(Clone, Debug)]
pub struct Canary {
    /// The name of the place it was planted in, for messages: "connector.generic.http_authentication_password".
    pub planted_as: String,
    /// The secret.
    pub secret: String,
}

/// A search for many secrets at once, in one pass over the bytes.
#[derive(Debug)]
pub struct Sweep {
    searcher: AhoCorasick,
    /// The description of each pattern of the searcher.
    patterns: Vec<String>,
    /// Finds where compressed data may begin.
    gzip: AhoCorasick,
}

/// The first bytes of gzip data whose method is deflate.
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];
/// The limit of decompressed bytes for each place.
const MAX_PLAIN: u64 = 16 * 1024 * 1024;

impl Canary {
    /// A fresh canary. It consists of letters, digits and "-" only, and so fits every secret field.
    pub fn new(planted_as: impl Into<String>) -> Self {
        let id = Uuid::now_v7().simple().to_string();
        // The end of a UUIDv7 is random, but the beginning is not.
        Self { planted_as: planted_as.into(), secret: format!("cnry-{}", &id[12..]) }
    }

    /// The names of the forms in which these bytes contain it; empty if they do not.
    pub fn forms_in(&self, bytes: &[u8]) -> Vec<&'static str> {
        self.forms().into_iter().filter(|(_, form)| contains(bytes, form)).map(|(name, _)| name).collect()
    }

    /// # Panics
    /// Panics if these bytes contain it in any form.
    pub fn assert_not_in(&self, place: &str, bytes: &[u8]) {
        let forms = self.forms_in(bytes);
        assert!(forms.is_empty(), "the secret of {} is in {place}, as {forms:?}", self.planted_as);
    }

    /// Its forms. It contains no character that URLs or JSON escape, so its escaped form is the text itself.
    fn forms(&self) -> Vec<(&'static str, Vec<u8>)> {
        forms(self.secret.as_bytes())
    }
}

impl Sweep {
    /// A search for these canaries, and for other named secrets, such as the bytes of keys.
    ///
    /// # Panics
    /// Panics if there are more forms than a searcher supports.
    pub fn new(canaries: &[Canary], others: &[(String, Vec<u8>)]) -> Self {
        let canaries = canaries.iter().map(|canary| (canary.planted_as.as_str(), canary.secret.as_bytes()));
        let others = others.iter().map(|(name, secret)| (name.as_str(), secret.as_slice()));
        let (mut patterns, mut names) = (Vec::new(), Vec::new());
        for (name, secret) in canaries.chain(others) {
            for (form, pattern) in forms(secret) {
                patterns.push(pattern);
                names.push(format!("{name}, as {form}"));
            }
        }
        let searcher = AhoCorasick::builder().match_kind(MatchKind::Standard).build(patterns).expect("a searcher");
        let gzip = AhoCorasick::new([GZIP]).expect("a searcher");
        Self { searcher, patterns: names, gzip }
    }

    /// The secrets that these bytes contain and the form of each, including compressed data (gzip, RFC 1952). Sorted,
    /// without duplicates.
    pub fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let mut found: Vec<_> = self.search(bytes).collect();
        for at in self.gzip.find_iter(bytes).map(|found| found.start()) {
            let mut plain = Vec::new();
            // Data that is cut off or not gzip after all is searched as far as it decompresses.
            let _ = flate2::read::GzDecoder::new(&bytes[at..]).take(MAX_PLAIN).read_to_end(&mut plain);
            found.extend(self.search(&plain));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn search<'a>(&'a self, bytes: &[u8]) -> impl Iterator<Item = &'a str> {
        self.searcher.find_overlapping_iter(bytes).map(|found| self.patterns[found.pattern()].as_str())
    }

    /// # Panics
    /// Panics if these bytes contain any of the secrets in any form.
    #[track_caller]
    pub fn assert_not_in(&self, place: &str, bytes: &[u8]) {
        let found = self.found_in(bytes);
        assert!(found.is_empty(), "secrets are in {place}: {found:#?}");
    }
}

/// A secret as text, as hexadecimal, as base64 at each of the three offsets, as the `Debug` of bytes, escaped for URLs
/// and for JSON, as UTF-16, and backwards.
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let list = secret.iter().map(u8::to_string).collect::<Vec<_>>();
    let mut forms = vec![
        ("text", secret.to_vec()),
        ("lower-case hexadecimal", hex::encode(secret).into_bytes()),
        ("upper-case hexadecimal", hex::encode_upper(secret).into_bytes()),
        ("base64", base64_inside(secret, 0)),
        ("base64 at offset 1", base64_inside(secret, 1)),
        ("base64 at offset 2", base64_inside(secret, 2)),
        ("list of bytes", list.join(", ").into_bytes()),
        ("JSON list of bytes", list.join(",").into_bytes()),
        ("text backwards", secret.iter().rev().copied().collect()),
        ("percent-encoding", secret.iter().flat_map(|byte| format!("%{byte:02X}").into_bytes()).collect()),
        ("JSON escapes", secret.iter().flat_map(|byte| format!("\\u{byte:04x}").into_bytes()).collect()),
    ];
    if let Ok(text) = std::str::from_utf8(secret) {
        forms.push(("UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()));
        forms.push(("UTF-16, big-endian", text.encode_utf16().flat_map(u16::to_be_bytes).collect()));
    }
    forms
}

/// Returns whether the bytes contain the sequence.
pub fn contains(bytes: &[u8], sequence: &[u8]) -> bool {
    let Some((first, rest)) = sequence.split_first() else { return true };
    let mut at = bytes;
    // Finding the first byte is fast; the rest is compared only there.
    while let Some(found) = at.iter().position(|byte| byte == first) {
        at = &at[found + 1..];
        if at.starts_with(rest) {
            return true;
        }
    }
    false
}

/// The base64 characters that depend on these bytes alone, if this many others precede them (modulo 3). Both alphabets
/// agree because a canary is ASCII without the bytes that give "+" or "/".
fn base64_inside(bytes: &[u8], before: usize) -> Vec<u8> {
    let padded = [&vec![0; before], bytes].concat();
    let whole = STANDARD_NO_PAD.encode(&padded).into_bytes();
    let start = (before * 8).div_ceil(6);
    let end = padded.len() * 8 / 6;
    whole[start..end].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_found_among_other_bytes() {
        let canary = Canary::new("test");
        for (name, form) in canary.forms() {
            let haystack = [b"before c", form.as_slice(), b" after"].concat();
            assert!(canary.forms_in(&haystack).contains(&name), "{name}");
        }
        assert_eq!(canary.forms_in(b"nothing here, cnry-"), Vec::<&str>::new());
    }

    #[test]
    fn base64_of_a_longer_text_is_found() {
        let canary = Canary::new("test");
        for before in ["", "a", "ab", "abc", "user:"] {
            for after in ["", "x", "xy"] {
                let encoded = STANDARD_NO_PAD.encode(format!("{before}{}{after}", canary.secret));
                assert!(!canary.forms_in(encoded.as_bytes()).is_empty(), "{before:?} {after:?}");
            }
        }
    }

    #[test]
    fn a_sweep_finds_every_form_of_every_secret() {
        let canaries = [Canary::new("one"), Canary::new("two")];
        let others = [("key".to_owned(), vec![0xff, 0, 0xfe, 0xc3, 0x28, 7, 9])];
        let sweep = Sweep::new(&canaries, &others);
        for (name, secret) in canaries
            .iter()
            .map(|canary| (canary.planted_as.as_str(), canary.secret.as_bytes()))
            .chain([("key", &*others[0].1)])
        {
            for (form, bytes) in forms(secret) {
                let found = format!("{name}, as {form}");
                assert!(sweep.found_in(&[b"before", &*bytes, b"after"].concat()).contains(&&*found), "{found}");
            }
        }
        assert_eq!(sweep.found_in(b"nothing here, cnry-"), Vec::<&str>::new());
    }

    #[test]
    fn a_sweep_searches_compressed_data() {
        use std::io::Write as _;
        let canary = Canary::new("one");
        let sweep = Sweep::new(std::slice::from_ref(&canary), &[]);
        let mut gzip = flate2::write::GzEncoder::new(b"before".to_vec(), flate2::Compression::best());
        gzip.write_all(format!("{}{}", "x".repeat(5_000), canary.secret).as_bytes()).unwrap();
        let bytes = [gzip.finish().unwrap(), b"after".to_vec()].concat();
        assert_eq!(sweep.found_in(&bytes), ["one, as text"]);
    }

    #[test]
    #[should_panic(expected = "the secret of a field is in a log")]
    fn a_leak_is_a_panic() {
        let canary = Canary::new("a field");
        canary.assert_not_in("a log", format!("password={}", canary.secret).as_bytes());
    }
}
