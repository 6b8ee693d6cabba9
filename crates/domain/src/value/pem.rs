//! PEM (RFC 7468) as people have it: all of it is read, or it is refused with an error that says what is wrong.
//!
//! PEM parsers skip what they do not know. A bundle of which half is skipped would lock clients out, or let revoked ones
//! in, so every section that begins must also be read.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::error::Violation;

/// The text that begins a section; its label and five dashes follow.
const BEGIN: &str = "-----BEGIN ";
/// The line that ends one section and begins the next, if files were joined and the first had no final line break.
const JOINED: &str = "----------BEGIN ";

/// The labels of unencrypted private keys, and of the curve that OpenSSL writes before them.
pub const PRIVATE_KEY_LABELS: &[&str] = &["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "EC PARAMETERS"];
/// The label of certificates.
pub const CERTIFICATE_LABELS: &[&str] = &[CERTIFICATE];
const CERTIFICATE: &str = "CERTIFICATE";
/// The label of certificate revocation lists.
pub const CRL_LABELS: &[&str] = &["X509 CRL"];

/// The bytes of one line of a section, which has 64 characters (RFC 7468 2).
const LINE: usize = 48;

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
    #[error("section {0} is not an X.509 certificate")]
    NoCertificate(usize),
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

    /// Reads certificates. There must be no other section.
    ///
    /// # Errors
    /// A section is of another kind, or was skipped.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, PemFault> {
        self.only(CERTIFICATE_LABELS)?;
        let read: Vec<_> = CertificateDer::pem_slice_iter(self.text.as_bytes()).map_while(Result::ok).collect();
        self.all_read(read.len())?;
        match read.iter().position(|der| !has_form_of_certificate(der)) {
            Some(index) => Err(PemFault::NoCertificate(index + 1)),
            None => Ok(read),
        }
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

/// Writes a section (RFC 7468 3). A text of a caller is never stored as it was given: what stands around its sections may be anything,
/// also a private key in another form. The text is made in one piece, so that no part of a key stays behind in memory.
pub fn encode(label: &str, der: &[u8]) -> String {
    let lines = der.len().div_ceil(LINE);
    let mut text = String::with_capacity(64 + 2 * label.len() + lines * 65);
    text.extend([BEGIN, label, "-----\n"]);
    for line in der.chunks(LINE) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}

/// Writes certificates, as they are stored.
pub fn encode_certificates(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|der| encode(CERTIFICATE, der)).collect()
}

/// Takes certificates of a caller, and returns them as they are stored. They are public and given back to every reader, so nothing else is
/// kept: not the text around them, which tools such as OpenSSL write.
///
/// # Errors
/// There is none, a section cannot be read, or one is not a certificate.
pub fn stored_certificates(field: &str, text: &str) -> Result<String, Violation> {
    if text.contains("PRIVATE KEY-----") {
        return Err(Violation::field(field, "must not hold a private key: it is given back to readers"));
    }
    let read = Pem::new(text.as_bytes()).and_then(|text| text.certificates());
    match read {
        Ok(certificates) if certificates.is_empty() => Err(Violation::field(field, "holds no certificate in PEM")),
        Ok(certificates) => Ok(encode_certificates(&certificates)),
        Err(fault) => Err(Violation::field(field, format!("cannot be read: {fault}"))),
    }
}

/// Returns true for a sequence of a sequence, a sequence and a bit string, which no private key is (RFC 5280 4.1, RFC 5958 2).
fn has_form_of_certificate(der: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    let form = || {
        let (certificate, rest) = element(SEQUENCE, der)?;
        let (_, algorithm) = element(SEQUENCE, certificate)?;
        let (_, signature) = element(SEQUENCE, algorithm)?;
        let (_, after) = element(BIT_STRING, signature)?;
        Some(rest.is_empty() && after.is_empty())
    };
    form().unwrap_or(false)
}

/// The contents of an element of DER with a tag, and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = der.split_at_checked(2)?;
    if head[0] != tag {
        return None;
    }
    match head[1] {
        length @ ..0x80 => rest.split_at_checked(length.into()),
        size => {
            let (bytes, rest) = rest.split_at_checked((size & 0x7f).into()).filter(|(bytes, _)| bytes.len() <= 4)?;
            let length = bytes.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
            rest.split_at_checked(length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest DER of the form of a certificate.
    const A: &str = "-----BEGIN CERTIFICATE-----\nMAYwADAAAwA=\n-----END CERTIFICATE-----";
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
    fn nothing_around_certificates_is_kept() {
        let canonical = format!("{A}\n");
        let private = &format!("MC4CAQAwBQYDK2VwBCIEI{}", "A".repeat(43));
        let jwk = r#"{"kty":"OKP","crv":"Ed25519","d":"AAAA"}"#;
        for around in ["subject=CN = a\nissuer=CN = b", "Bag Attributes\n  friendlyName: a", private.as_str(), jwk] {
            for text in [format!("{around}\n{A}"), format!("{A}\n{around}"), format!("{A} {around}")] {
                assert_eq!(stored_certificates("f", &text), Ok(canonical.clone()), "{text}");
            }
            let both = format!("{around}\r\n{A}\r\n{around}\r\n{A}{around}");
            assert_eq!(stored_certificates("f", &both), Ok(canonical.repeat(2)));
        }
        assert_eq!(stored_certificates("f", &canonical), Ok(canonical.clone()), "it is a fixed point");
        for wrong in
            ["", private.as_str(), &KEY.replace("PRIVATE KEY", "CERTIFICATE"), &A.replace("MAYwADAAAwA=", private)]
        {
            assert!(stored_certificates("f", wrong).is_err(), "{wrong}");
        }
        let refused = stored_certificates("f", &format!("{A}\n{KEY}")).unwrap_err();
        assert!(refused.description.contains("private key"), "{refused:?}");
    }

    #[test]
    fn sections_are_written_in_lines_of_64_characters() {
        for length in [0, 1, 47, 48, 49, 96, 1_000] {
            let der: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let text = encode("X509 CRL", &der);
            let body: Vec<&str> = text.lines().filter(|line| !line.starts_with('-')).collect();
            assert!(body.iter().rev().skip(1).all(|line| line.len() == 64), "{text}");
            assert_eq!(STANDARD.decode(body.concat()).unwrap(), der);
            assert!(text.starts_with("-----BEGIN X509 CRL-----\n") && text.ends_with("\n-----END X509 CRL-----\n"));
        }
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
