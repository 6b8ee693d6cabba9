//! Reads the fields of a resource in a request: each as far as the update mask covers it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use jackfield_domain::request::map_patch::{MapPatch, TextMap};
use jackfield_domain::request::mask::Mask;
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::json::JsonObject;
use jackfield_domain::value::text::{bounded_text, identifier};
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{Result, Secret, SecretPatch, Violation, Violations};
use prost_types::Struct;

use super::parse;

/// The longest URL of fields without a limit of their own, in characters.
pub(super) const MAX_URL: usize = 2_048;

/// The reader of one resource. Its methods take the path of a field in the resource; the name of the field in a violation is
/// that of the resource with the path. `None` means that the field stays as it is, or that there was a violation.
pub(super) struct Fields<'a> {
    resource: &'static str,
    mask: &'a Mask,
    /// True if the resource is being created.
    is_new: bool,
    pub(super) violations: &'a mut Violations,
}

// === impl Fields ===

impl<'a> Fields<'a> {
    pub(super) fn new(resource: &'static str, mask: &'a Mask, violations: &'a mut Violations) -> Self {
        Fields { resource, mask, is_new: false, violations }
    }

    /// Makes the reader of a new resource: it reads every field, given or not.
    pub(super) fn of_new(resource: &'static str, violations: &'a mut Violations) -> Self {
        Fields { resource, mask: &Mask::All, is_new: true, violations }
    }

    pub(super) fn mask(&self) -> &'a Mask {
        self.mask
    }

    /// The name of a field in violations.
    pub(super) fn name(&self, path: &str) -> String {
        format!("{}.{path}", self.resource)
    }

    pub(super) fn refuse(&mut self, path: &str, description: impl Into<String>) {
        self.violations.push(Violation::field(self.name(path), description));
    }

    /// A field whose absence has a meaning: `parse` decides.
    pub(super) fn value<V, T>(
        &mut self,
        path: &str,
        value: Option<V>,
        parse: impl FnOnce(&str, Option<V>) -> Result<T, Violation>,
    ) -> Option<T> {
        self.read(path, value.is_some(), |name| parse(name, value))
    }

    /// A text that must not be empty.
    pub(super) fn required<T>(
        &mut self,
        path: &str,
        text: &str,
        parse: impl FnOnce(&str, &str) -> Result<T, Violation>,
    ) -> Option<T> {
        self.read(path, !text.is_empty(), |name| parse(name, text))
    }

    /// A text that may be removed: an empty one removes it.
    pub(super) fn optional<T>(
        &mut self,
        path: &str,
        text: Option<String>,
        parse: impl FnOnce(&str, &str) -> Result<T, Violation>,
    ) -> Option<Option<T>> {
        self.value(path, text, |name, text| {
            let text = text.as_deref().and_then(parse::non_empty);
            text.map(|text| parse(name, text)).transpose()
        })
    }

    /// The parent of a resource. A new one must have it. Later it cannot be changed, and an empty text keeps it, whatever the
    /// mask.
    pub(super) fn parent<T>(
        &mut self,
        path: &str,
        text: &str,
        parse: impl FnOnce(&str, &str) -> Result<T, Violation>,
    ) -> Option<T> {
        if text.is_empty() && !self.is_new { None } else { self.required(path, text, parse) }
    }

    /// A line of text; it may be empty.
    pub(super) fn text(&mut self, path: &str, text: Option<String>, max: usize) -> Option<String> {
        self.value(path, text, |name, text| bounded_text(name, &text.unwrap_or_default(), max, true))
    }

    /// An identifier that a provider gave; it may be empty.
    pub(super) fn identifier(&mut self, path: &str, text: Option<String>, max: usize) -> Option<String> {
        self.value(path, text, |name, text| identifier(name, &text.unwrap_or_default(), max, true))
    }

    pub(super) fn url(&mut self, path: &str, text: Option<String>) -> Option<Option<HttpUrl>> {
        self.optional(path, text, url)
    }

    pub(super) fn reference(&mut self, path: &str, text: Option<String>, forms: ReferenceForms) -> Option<Option<Ref>> {
        self.optional(path, text, |name, text| Ref::parse(name, text, forms))
    }

    pub(super) fn switch(&mut self, path: &str, value: Option<bool>, default: bool) -> Option<bool> {
        self.value(path, value, |_, value| Ok(value.unwrap_or(default)))
    }

    /// An enum of the contract. Numbers that the contract does not have are refused.
    pub(super) fn choice<E: TryFrom<i32>, T>(
        &mut self,
        path: &str,
        number: i32,
        convert: impl FnOnce(E) -> T,
    ) -> Option<T> {
        self.read(path, number != 0, |name| {
            let unknown = |_| Violation::field(name, format!("has the unknown enum value {number}"));
            E::try_from(number).map(convert).map_err(unknown)
        })
    }

    /// A timeout of more than 0 and at most `max`.
    pub(super) fn timeout(
        &mut self,
        path: &str,
        value: Option<prost_types::Duration>,
        max: Duration,
    ) -> Option<Option<Duration>> {
        self.value(path, value, |name, value| {
            let Some(value) = value else { return Ok(None) };
            let timeout = parse::duration(value).filter(|timeout| *timeout > Duration::ZERO && *timeout <= max);
            let wrong = || Violation::field(name, format!("must be more than 0 and at most {} s", max.as_secs()));
            timeout.ok_or_else(wrong).map(Some)
        })
    }

    /// A number with bounds; an absent one and 0 ask for the default.
    pub(super) fn within(
        &mut self,
        path: &str,
        value: Option<i32>,
        bounds: RangeInclusive<u32>,
    ) -> Option<Option<u32>> {
        self.value(path, value, |name, value| {
            let Some(value) = value.filter(|value| *value != 0) else { return Ok(None) };
            let wrong = || Violation::field(name, format!("must be {} to {}", bounds.start(), bounds.end()));
            u32::try_from(value).ok().filter(|value| bounds.contains(value)).ok_or_else(wrong).map(Some)
        })
    }

    pub(super) fn json(&mut self, path: &str, value: Option<Struct>) -> Option<JsonObject> {
        self.value(path, value, parse::json)
    }

    pub(super) fn map<M: TextMap>(&mut self, path: &str, given: BTreeMap<String, String>) -> MapPatch<M> {
        let patch = MapPatch::parse(&self.name(path), path, given, self.mask);
        self.violations.check_all(patch).unwrap_or_default()
    }

    /// A list, which is replaced as a whole.
    pub(super) fn list<T, P>(
        &mut self,
        path: &str,
        items: Vec<T>,
        parse: impl FnOnce(&str, Vec<T>) -> Result<P, Vec<Violation>>,
    ) -> Option<P> {
        if !self.mask.covers(path, !items.is_empty()) {
            return None;
        }
        self.violations.check_all(parse(&self.name(path), items))
    }

    /// A password that is sent in a header.
    pub(super) fn secret(&mut self, path: &str, value: String, max: usize) -> SecretPatch {
        self.secret_as(path, value, |name, value| Secret::parse_line(name, value, max))
    }

    /// A secret. It is removed only if the mask lists its very path.
    pub(super) fn secret_as<S>(
        &mut self,
        path: &str,
        value: String,
        parse: impl FnOnce(&str, String) -> Result<S, Violation>,
    ) -> SecretPatch<S> {
        if value.is_empty() {
            return if self.mask.names(path) { SecretPatch::Clear } else { SecretPatch::Keep };
        }
        let secret = self.read(path, true, |name| parse(name, value));
        secret.map_or(SecretPatch::Keep, SecretPatch::Set)
    }

    /// A field that the mask covers. `is_populated` says whether the message has a value there.
    fn read<T>(
        &mut self,
        path: &str,
        is_populated: bool,
        parse: impl FnOnce(&str) -> Result<T, Violation>,
    ) -> Option<T> {
        if !self.mask.covers(path, is_populated) {
            return None;
        }
        self.violations.check(parse(&self.name(path)))
    }
}

/// Parses a URL of a field without a limit of its own.
pub(super) fn url(field: &str, text: &str) -> Result<HttpUrl, Violation> {
    HttpUrl::parse(field, text, MAX_URL)
}
