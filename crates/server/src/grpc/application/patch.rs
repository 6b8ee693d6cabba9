//! Application messages as patches.

use std::time::Duration;

use jackfield_api::v1 as pb;
use jackfield_domain::Violation;
use jackfield_domain::application::{
    ApplicationPatch, DEFAULT_SESSION_LIFETIME, MAX_SESSION_LIFETIME, MIN_SESSION_LIFETIME, Permission,
    parse_vocabulary,
};
use jackfield_domain::request::reference::ReferenceForms;
use jackfield_domain::value::text::{ExternalId, MAX_NAME, Name};

use crate::grpc::fields::Fields;
use crate::grpc::parse;

/// The patch that a message asks for.
pub(super) fn parse(fields: &mut Fields<'_>, application: pb::Application) -> ApplicationPatch {
    let pb::Application {
        name,
        external_id,
        enabled,
        permissions,
        connector,
        session_lifetime,
        labels,
        id: _,
        create_time: _,
        update_time: _,
        etag: _,
    } = application;
    ApplicationPatch {
        name: fields.required("name", &name, |field, name| Name::parse(field, name, MAX_NAME)),
        external_id: fields.optional("external_id", external_id, ExternalId::parse),
        enabled: fields.switch("enabled", enabled, true),
        permissions: vocabulary(fields, permissions),
        connector: fields.reference("connector", connector, ReferenceForms::ID_NAME),
        session_lifetime: fields.value("session_lifetime", session_lifetime, lifetime),
        labels: fields.map("labels", labels),
    }
}

fn vocabulary(fields: &mut Fields<'_>, given: Vec<pb::Permission>) -> Option<Vec<Permission>> {
    const PATH: &str = "permissions";
    if !fields.mask().covers(PATH, !given.is_empty()) {
        return None;
    }
    let given = given.into_iter().map(|pb::Permission { slug, description }| (slug, description)).collect();
    let parsed = parse_vocabulary(&fields.name(PATH), given);
    fields.violations.check_all(parsed)
}

fn lifetime(field: &str, lifetime: Option<prost_types::Duration>) -> Result<Duration, Violation> {
    let Some(lifetime) = lifetime else { return Ok(DEFAULT_SESSION_LIFETIME) };
    let range = MIN_SESSION_LIFETIME..=MAX_SESSION_LIFETIME;
    let outside = || {
        let [min, max] = [MIN_SESSION_LIFETIME, MAX_SESSION_LIFETIME].map(|bound| bound.as_secs());
        Violation::field(field, format!("must be {min} s to {max} s"))
    };
    parse::duration(lifetime).filter(|lifetime| range.contains(lifetime)).ok_or_else(outside)
}
