//! Update masks (AIP-134, AIP-161): the fields that an update changes.

use crate::error::Violation;
use crate::value::text::readable;

/// The fields that an update changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mask {
    /// `*`: all of them, as in a PUT. Absent values become the defaults; secrets are only changed where they are given.
    All,
    /// No mask was given: the fields that are present in the message.
    Populated,
    /// The listed ones and what is inside them. Absent values become the defaults.
    Paths(Vec<Path>),
}

/// A path of field names and map keys, from the resource down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Vec<String>);

/// The reason why a text is not a path.
#[derive(Debug)]
enum PathFault {
    /// The fault, to be read after the path.
    Text(&'static str),
    /// A segment below these would need backquotes if it is a map key.
    Unquoted(Vec<String>),
}

// === impl Mask ===

impl Mask {
    /// Parses a mask.
    ///
    /// `known` are the paths that exist. The paths above them exist, too, and a segment `*` matches any map key.
    /// `output_only` are paths that may be listed without effect (AIP-161). All unknown paths are reported.
    pub fn parse(
        field: &str,
        paths: Option<&[String]>,
        known: &[&str],
        output_only: &[&str],
    ) -> Result<Self, Vec<Violation>> {
        let texts = match paths {
            None | Some([]) => return Ok(Mask::Populated),
            Some([only]) if only == "*" => return Ok(Mask::All),
            Some(texts) => texts,
        };
        let mut violations = Vec::new();
        let mut listed = Vec::new();
        for text in texts {
            match Path::parse(text) {
                Ok(_) if text == "*" => violations.push(Violation::field(field, "\"*\" must be the only path")),
                Ok(path) if output_only.iter().any(|pattern| path.is_at_or_below(pattern)) => {}
                Ok(path) if known.iter().any(|pattern| path.is_at_or_above(pattern)) => listed.push(path),
                Ok(_) => violations.push(Violation::field(field, format!("path \"{}\" is unknown", readable(text)))),
                Err(PathFault::Unquoted(above)) if !known.iter().any(|pattern| has_keys(pattern, &above)) => {
                    violations.push(Violation::field(field, format!("path \"{}\" is unknown", readable(text))));
                }
                Err(wrong) => {
                    violations.push(Violation::field(field, format!("path \"{}\" {wrong}", readable(text))));
                }
            }
        }
        if violations.is_empty() { Ok(Mask::Paths(listed)) } else { Err(violations) }
    }

    /// Returns true if the update sets the field at a path. `populated` says whether the message has a value there.
    pub fn covers(&self, path: &str, populated: bool) -> bool {
        match self {
            Mask::All => true,
            Mask::Populated => populated,
            Mask::Paths(listed) => listed.iter().any(|listed| listed.is_at_or_above(path)),
        }
    }

    /// Returns true if this very path is listed. Only that clears a secret; neither `*` nor a path above it does.
    pub fn names(&self, path: &str) -> bool {
        match self {
            Mask::All | Mask::Populated => false,
            Mask::Paths(listed) => listed.iter().any(|listed| listed.0.iter().eq(path.split('.'))),
        }
    }

    /// The map keys that are listed directly below a path, each once.
    pub fn keys_under(&self, prefix: &str) -> Vec<String> {
        let Mask::Paths(listed) = self else { return Vec::new() };
        let mut keys: Vec<String> = Vec::new();
        for Path(segments) in listed {
            let depth = prefix.split('.').count();
            if let Some(key) = segments.get(depth).filter(|_| segments[..depth].iter().eq(prefix.split('.')))
                && !keys.contains(key)
            {
                keys.push(key.clone());
            }
        }
        keys
    }
}

// === impl Path ===

impl Path {
    /// Makes a path of field names and map keys.
    pub fn new(segments: impl IntoIterator<Item = String>) -> Self {
        Path(segments.into_iter().collect())
    }

    /// Splits at dots. A map key with characters other than letters, digits, "_" and "-" is in backquotes, and a backquote
    /// in it is doubled.
    fn parse(text: &str) -> Result<Self, PathFault> {
        if text == "*" {
            return Ok(Path(vec!["*".to_owned()]));
        }
        let mut segments = Vec::new();
        let mut rest = text;
        loop {
            let (segment, after) = match rest.strip_prefix('`') {
                Some(quoted) => quoted_segment(quoted)?,
                None => {
                    let end = rest.find('.').unwrap_or(rest.len());
                    (rest[..end].to_owned(), &rest[end..])
                }
            };
            let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
            if segment.is_empty() {
                return Err(PathFault::Text("has a blank part"));
            }
            if !rest.starts_with('`') && !segment.chars().all(plain) {
                return Err(PathFault::Unquoted(segments));
            }
            segments.push(segment);
            rest = match after.strip_prefix('.') {
                Some(rest) => rest,
                None if after.is_empty() => return Ok(Path(segments)),
                None => return Err(PathFault::Text("has something between a closing backquote and the next dot")),
            };
        }
    }

    /// Returns true if this path matches a pattern, or is above it.
    fn is_at_or_above(&self, pattern: &str) -> bool {
        self.0.len() <= pattern.split('.').count() && self.matches_prefix(pattern)
    }

    /// Returns true if this path matches a pattern, or is below it.
    fn is_at_or_below(&self, pattern: &str) -> bool {
        self.0.len() >= pattern.split('.').count() && self.matches_prefix(pattern)
    }

    /// Returns true if the segments that both have are the same.
    fn matches_prefix(&self, pattern: &str) -> bool {
        self.0.iter().zip(pattern.split('.')).all(|(segment, pattern)| pattern == "*" || segment == pattern)
    }
}

impl std::fmt::Display for PathFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PathFault::Text(text) => text,
            PathFault::Unquoted(_) => {
                "needs backquotes around a map key with characters other than letters, digits, \"_\" and \"-\""
            }
        })
    }
}

/// Returns true if a pattern has map keys below a path.
fn has_keys(pattern: &str, above: &[String]) -> bool {
    let mut pattern = pattern.split('.');
    above.iter().all(|segment| pattern.next() == Some(segment.as_str())) && pattern.next() == Some("*")
}

/// The segment up to the closing backquote, and what follows.
fn quoted_segment(quoted: &str) -> Result<(String, &str), PathFault> {
    let mut segment = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('`').ok_or(PathFault::Text("has an open backquote"))?;
        segment.push_str(part);
        match after.strip_prefix('`') {
            Some(more) => {
                segment.push('`');
                rest = more;
            }
            None => return Ok((segment, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: &[&str] = &[
        "name",
        "labels.*",
        "generic.authentication_url",
        "generic.http_authentication_password",
        "workflow_settings.*",
        "connect_timeout",
    ];
    const OUTPUT_ONLY: &[&str] = &["id", "etag", "create_time", "generic.http_authentication_password_set"];

    fn parse(paths: &[&str]) -> Result<Mask, Vec<Violation>> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        Mask::parse("update_mask", Some(&paths), KNOWN, OUTPUT_ONLY)
    }

    #[test]
    fn backquotes_are_spoken_of_where_map_keys_are() {
        let said = |path: &str| parse(&[path]).unwrap_err()[0].description.clone();
        for path in ["name ", "generic.authentication_url ", "a b", "nothing.a b"] {
            assert_eq!(said(path), format!("path \"{path}\" is unknown"));
        }
        assert!(said("workflow_settings.my flow").contains("needs backquotes"));
        assert!(said("labels.a+b").contains("needs backquotes"));
    }

    #[test]
    fn absent_empty_and_star() {
        assert_eq!(Mask::parse("update_mask", None, KNOWN, OUTPUT_ONLY), Ok(Mask::Populated));
        assert_eq!(parse(&[]), Ok(Mask::Populated));
        assert_eq!(parse(&["*"]), Ok(Mask::All));
        assert_eq!(parse(&["*", "name"]).unwrap_err()[0].description, "\"*\" must be the only path");
        assert!(Mask::All.covers("name", false) && !Mask::All.names("name"));
        assert!(Mask::Populated.covers("name", true) && !Mask::Populated.covers("name", false));
        assert!(!Mask::Populated.names("name") && Mask::All.keys_under("labels").is_empty());
    }

    #[test]
    fn a_path_covers_what_is_below_it() {
        let mask = parse(&["generic", "name"]).unwrap();
        assert!(mask.covers("generic.authentication_url", false) && mask.covers("generic", false));
        assert!(mask.covers("name", false) && !mask.covers("connect_timeout", true));
        assert!(!mask.names("generic.http_authentication_password"), "secrets are named themselves");
        let mask = parse(&["generic.http_authentication_password"]).unwrap();
        assert!(mask.names("generic.http_authentication_password") && !mask.names("generic"));
        assert!(!mask.covers("generic", true) && !mask.covers("generic.authentication_url", true));
    }

    #[test]
    fn output_only_paths_do_nothing() {
        let mask = parse(&["id", "create_time.seconds", "generic.http_authentication_password_set"]).unwrap();
        assert_eq!(mask, Mask::Paths(vec![]));
        assert!(!mask.covers("name", true));
    }

    #[test]
    fn unknown_paths_are_all_reported() {
        let wrong = ["", " ", ".", "name.", ".name", "Name", "nmae", "name.x", "generic..x", "connect_timeout.seconds"];
        let violations = parse(&wrong).unwrap_err();
        assert_eq!(violations.len(), wrong.len());
        for (violation, wrong) in violations.iter().zip(wrong) {
            assert!(violation.description.contains(&format!("\"{wrong}\"")), "{}", violation.description);
        }
    }

    #[test]
    fn map_keys_may_stand_in_backquotes() {
        let mask = parse(&[
            "workflow_settings.`Team A.b`",
            "labels.env",
            "workflow_settings.a-b_1",
            "labels.env",
            "labels.`a``b`",
        ])
        .unwrap();
        assert_eq!(mask.keys_under("workflow_settings"), ["Team A.b", "a-b_1"]);
        assert_eq!(mask.keys_under("labels"), ["env", "a`b"]);
        assert!(!mask.covers("labels", true));
        for wrong in ["labels.a b", "labels.`a", "labels.``", "labels.`a`b", "labels.a.b", "labels.*", "labels.`a`.b"] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(texts in proptest::collection::vec("[a-z_.`* ä]{0,12}", 1..4)) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            if let Ok(mask) = parse(&texts) {
                mask.covers("generic.authentication_url", false);
                mask.keys_under("labels");
            }
        }

        #[test]
        fn every_key_can_be_named(key in "\\PC{1,20}") {
            let path = format!("labels.`{}`", key.replace('`', "``"));
            prop_assert_eq!(parse(&[&path]).unwrap().keys_under("labels"), [key]);
        }
    }
}
