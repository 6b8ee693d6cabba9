//! What all updates have in common: which resource is meant, in which state, and that something of it is to change.

use std::collections::BTreeMap;

use jackfield_domain::request::map_patch::{MapPatch, TextMap};
use jackfield_domain::request::mask::Mask;
use jackfield_domain::value::id::parse_uuid;
use jackfield_domain::{Violation, Violations};
use jackfield_service::Expected;

use super::parse::check_all;

/// The fields of a resource that say which one it is, and in which state.
pub(super) struct Identity<'a> {
    /// The field of the request that holds the resource.
    pub(super) resource: &'static str,
    pub(super) id: &'a str,
    pub(super) etag: &'a str,
}

/// What a request expects of the resource that it changes. Whoever sends back what was read sends its id and its etag inside
/// the resource; the etag of the request says the same (AIP-134, AIP-154).
pub(super) fn expected(wrong: &mut Violations, etag: &str, inside: Option<Identity<'_>>) -> Expected {
    let Some(Identity { resource, id, etag: inner }) = inside else {
        return Expected { etag: etag.to_owned(), id: None };
    };
    let field = |name: &str| format!("{resource}.{name}");
    if !etag.is_empty() && !inner.is_empty() && etag != inner {
        wrong.push(Violation::field("etag", format!("differs from {}", field("etag"))));
        wrong.push(Violation::field(field("etag"), "differs from etag"));
    }
    let given = (!id.is_empty()).then(|| parse_uuid(id).ok_or_else(|| Violation::field(field("id"), "must be a UUID")));
    let id = given.and_then(|id| wrong.check(id));
    let etag = if etag.is_empty() { inner } else { etag };
    Expected { etag: etag.to_owned(), id }
}

/// Refuses an update without a mask that has nothing to change: most likely a value was meant that cannot be told from an
/// absent one.
pub(super) fn require_change(wrong: &mut Violations, mask: &Mask, resource: &str, is_empty: bool) {
    if *mask == Mask::Populated && is_empty && wrong.is_empty() {
        let description = format!(
            "must name what to change: without it the fields that are present in {resource} are changed, and there is none \
             that may be"
        );
        wrong.push(Violation::field("update_mask", description));
    }
}

/// The change of a map. `path` is that of the map in the resource.
pub(super) fn map<M: TextMap>(
    wrong: &mut Violations,
    (resource, path): (&str, &str),
    given: BTreeMap<String, String>,
    mask: &Mask,
) -> MapPatch<M> {
    check_all(wrong, MapPatch::parse(&format!("{resource}.{path}"), path, given, mask)).unwrap_or_default()
}
