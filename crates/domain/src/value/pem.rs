//! PEM (RFC 7468) as people have it: all of it is read, or it is refused with an error that says what is wrong.
//!
//! PEM parsers skip what they do not know. A bundle of which half is skipped would lock clients out, or let revoked ones
//! in, so every section that begins must also be read.

use std::borrow::Cow;

/// The text that begins a section; its label and five dashes follow.
const BEGIN: &str = "-----BEGIN ";
/// The line that ends one section and begins the next, if files were joined and the first had no final line break.
const JOINED: &str = "----------BEGIN ";

/// The labels of unencrypted private keys, and of the curve that OpenSSL writes before them.
pub const PRIVATE_KEY_LABELS: &[&str] = &["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "EC PARAMETERS"];
/// The label of certificates.
pub const CERTIFICATE_LABELS: &[&str] = &["CERTIFICATE"];
/// The label of certificate revocation lists.
pub const CRL_LABELS: &[&str] = &["X509 CRL"];

/// A text of PEM sections, ready for a parser.
#[derive(Debug)]
pub struct Pem<'a> {
    text: Cow<'a, str>,
}

/// The reason why a text is not the PEM that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemFault {
    #[error("the text is UTF-16: save it as UTF-8")]
    Utf16,
    #[error("the file is binary, such as DER or PKCS #12: convert it to PEM")]
    Binary,
    #[error("the text has the two characters \\n where its lines should break: give it with line breaks")]
    EscapedLineBreaks,
    #[error("section {number} is {label}, which does not belong here")]
    Label { number: usize, label: String },
    #[error(
        "only {read} of {begun} sections can be read: each must begin and end on lines of its own, and be complete"
    )]
    Incomplete { begun: usize, read: usize },
}

// === impl Pem ===

impl<'a> Pem<'a> {
    /// Takes a text. It removes byte-order marks, and separates sections that were joined on one line.
    ///
    /// # Errors
    /// The text has another encoding, or escaped line breaks.
    pub fn new(text: &'a [u8]) -> Result<Self, PemFault> {
        let marked = text.starts_with(&[0xFF, 0xFE]) || text.starts_with(&[0xFE, 0xFF]);
        // Every second byte of ASCII in UTF-16 is zero, and PEM begins sections with dashes.
        if marked || text.windows(4).any(|part| part == b"-\0-\0" || part == b"\0-\0-") {
            return Err(PemFault::Utf16);
        }
        if text.contains(&0) {
            return Err(PemFault::Binary);
        }
        // The sections are ASCII, but the text around them may have another encoding.
        let mut text = String::from_utf8_lossy(text);
        if text.contains(BEGIN) && (text.contains("-----\\n") || text.contains("-----\\r\\n")) {
            return Err(PemFault::EscapedLineBreaks);
        }
        if text.contains('\u{FEFF}') {
            text = Cow::Owned(text.replace('\u{FEFF}', ""));
        }
        if text.contains(JOINED) {
            text = Cow::Owned(text.replace(JOINED, "-----\n-----BEGIN "));
        }
        Ok(Pem { text })
    }

    /// The text for a parser.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Refuses sections of other kinds than `labels`.
    ///
    /// # Errors
    /// The first section of another kind, by its number and label.
    pub fn only(&self, labels: &[&str]) -> Result<(), PemFault> {
        let other = |(_, label): &(usize, Option<&str>)| label.is_some_and(|label| !labels.contains(&label));
        match self.labels().enumerate().find(other) {
            Some((index, label)) => {
                let label = label.unwrap_or_default().chars().take(64).collect();
                Err(PemFault::Label { number: index + 1, label })
            }
            None => Ok(()),
        }
    }

    /// Refuses a text if a parser has read fewer sections than begin in it.
    ///
    /// # Errors
    /// A section was skipped.
    pub fn all_read(&self, read: usize) -> Result<(), PemFault> {
        let begun = self.labels().filter(|label| *label != Some("EC PARAMETERS")).count();
        if read == begun { Ok(()) } else { Err(PemFault::Incomplete { begun, read }) }
    }

    /// The labels of the sections. A text that is not a label may be part of a private key, so it is `None`.
    fn labels(&self) -> impl Iterator<Item = Option<&str>> {
        self.text.split(BEGIN).skip(1).map(|rest| {
            let (label, _) = rest.split_once("-----")?;
            let is_label = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ';
            label.bytes().all(is_label).then_some(label)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----";

    #[test]
    fn joined_sections_are_parted_and_marks_go() {
        let joined = format!("\u{FEFF}{A}\u{FEFF}{A}\r\n");
        let pem = Pem::new(joined.as_bytes()).unwrap();
        assert_eq!(pem.text(), format!("{A}\n{A}\r\n"));
        pem.only(CERTIFICATE_LABELS).unwrap();
        pem.all_read(2).unwrap();
        assert_eq!(pem.all_read(1), Err(PemFault::Incomplete { begun: 2, read: 1 }));
    }

    #[test]
    fn what_stands_around_sections_stays() {
        let around = format!("Bag Attributes\n  friendlyName: a\n{A}\nsubject=CN = a\n{A}\n");
        assert_eq!(Pem::new(around.as_bytes()).unwrap().text(), around);
    }

    #[test]
    fn other_sections_are_named() {
        let both = format!("{A}\n{KEY}\n");
        let fault = Pem::new(both.as_bytes()).unwrap().only(CERTIFICATE_LABELS).unwrap_err();
        assert_eq!(fault.to_string(), "section 2 is PRIVATE KEY, which does not belong here");
        let key = format!("-----BEGIN EC PARAMETERS-----\nMAA=\n-----END EC PARAMETERS-----\n{KEY}");
        let key = Pem::new(key.as_bytes()).unwrap();
        key.only(PRIVATE_KEY_LABELS).unwrap();
        key.all_read(1).unwrap();
    }

    #[test]
    fn a_body_is_never_taken_for_a_label() {
        let text = KEY.replace("KEY-----\n", "KEY----\n").replace("MAA=", "MC4CAQAwBQYDK2VwBCIEIH");
        let pem = Pem::new(text.as_bytes()).unwrap();
        assert_eq!(
            (pem.only(CERTIFICATE_LABELS), pem.all_read(0)),
            (Ok(()), Err(PemFault::Incomplete { begun: 1, read: 0 }))
        );
    }

    #[test]
    fn other_encodings_are_named() {
        for mark in [&[0xFEFF_u16][..], &[]] {
            let utf16 = mark.iter().copied().chain(A.encode_utf16());
            let utf16: Vec<u8> = utf16.flat_map(u16::to_le_bytes).collect();
            assert_eq!(Pem::new(&utf16).unwrap_err(), PemFault::Utf16);
        }
        assert_eq!(Pem::new(b"0\x82\x01\0\x02").unwrap_err(), PemFault::Binary);
        let latin1 = [b"friendlyName: B\xE4r\n", A.as_bytes()].concat();
        let latin1 = Pem::new(&latin1).unwrap();
        assert!(latin1.text().ends_with(A) && latin1.all_read(1).is_ok());
        for escape in ["\\n", "\\r\\n"] {
            let escaped = A.replace('\n', escape);
            assert_eq!(Pem::new(escaped.as_bytes()).unwrap_err(), PemFault::EscapedLineBreaks);
        }
    }
}
