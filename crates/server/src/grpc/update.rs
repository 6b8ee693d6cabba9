//! Updates: the expected state of the resource, and its changes.

use jackfield_api::message::{ResourceMessage, UpdateMessage};
use jackfield_domain::patch::Patch;
use jackfield_domain::request::mask::Mask;
use jackfield_domain::value::id::parse_uuid;
use jackfield_domain::{Violation, Violations};
use jackfield_service::Expected;

use super::fields::Fields;
use super::parse;

/// Reads an update: the expected state of the resource, and the patch. `beside` are paths that the mask may name in addition to
/// those of the resource.
pub(super) fn parse<U: UpdateMessage, P: Patch>(
    violations: &mut Violations,
    request: &mut U,
    beside: &[&str],
    read: impl FnOnce(&mut Fields<'_>, U::Resource) -> P,
) -> Option<(Expected, P)> {
    let known = [U::Resource::PATHS, beside].concat();
    let paths = request.update_mask().map(|mask| mask.paths.as_slice());
    let mask = violations.check_all(Mask::parse("update_mask", paths, &known, U::Resource::OUTPUT_ONLY));
    let resource = parse::required(violations, U::Resource::NAME, request.take_resource());
    let expected = expected(violations, request.etag(), resource.as_ref());
    let (resource, mask) = resource.zip(mask)?;
    let patch = read(&mut Fields::new(U::Resource::NAME, &mask, violations), resource);
    require_change(violations, &mask, U::Resource::NAME, &patch);
    Some((expected, patch))
}

/// The state of the resource that a request expects. A caller that sends back what it has read sends the id and the etag
/// inside the resource; the etag of the request says the same (AIP-134, AIP-154).
pub(super) fn expected<R: ResourceMessage>(violations: &mut Violations, etag: &str, resource: Option<&R>) -> Expected {
    let Some(resource) = resource else {
        return Expected { etag: etag.to_owned(), id: None };
    };
    let (id, inner) = (resource.id(), resource.etag());
    let field = |name: &str| format!("{}.{name}", R::NAME);
    if !etag.is_empty() && !inner.is_empty() && etag != inner {
        violations.push(Violation::field("etag", format!("differs from {}", field("etag"))));
        violations.push(Violation::field(field("etag"), "differs from etag"));
    }
    let given = (!id.is_empty()).then(|| parse_uuid(id).ok_or_else(|| Violation::field(field("id"), "must be a UUID")));
    let id = given.and_then(|id| violations.check(id));
    let etag = if etag.is_empty() { inner } else { etag };
    Expected { etag: etag.to_owned(), id }
}

/// Refuses an update without a mask that changes nothing: most likely the caller meant a value that cannot be distinguished from
/// an absent one.
fn require_change(violations: &mut Violations, mask: &Mask, resource: &str, patch: &impl Patch) {
    if *mask == Mask::Populated && patch.is_empty() && violations.is_empty() {
        let description = format!(
            "must name what to change: without a mask, the fields that are present in {resource} are changed, and none of \
             these may be"
        );
        violations.push(Violation::field("update_mask", description));
    }
}
