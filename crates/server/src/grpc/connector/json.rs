//! Patches of the JSON form of connectors.

use jackfield_api::v1 as pb;
use jackfield_api::v1::patch_connector_request::Patch;
use jackfield_domain::connector::{Connector, ConnectorPatch, KIND_REQUIRED};
use jackfield_domain::error::Precondition;
use jackfield_domain::request::document_patch::{DocumentPatch, PatchFault};
use jackfield_domain::{Error, Resource, Result, Violation, Violations};
use jackfield_service::Expected;

use super::{patch, to_message};
use crate::grpc::document::{from_document, to_document};
use crate::grpc::fields::Fields;
use crate::grpc::update;

/// The patch of a request.
pub(super) fn parse(patch: Option<Patch>) -> Result<DocumentPatch, Violation> {
    match patch {
        Some(Patch::JsonPatch(pb::JsonPatch { json })) => DocumentPatch::operations("json_patch.json", &json),
        Some(Patch::MergePatch(pb::JsonMergePatch { json })) => DocumentPatch::merge("merge_patch.json", &json),
        None => Err(Violation::field("json_patch", "is required, unless merge_patch is given")),
    }
}

/// The change that a patch makes of a connector, and the state of the connector that the patched document states.
pub(super) fn patched(patch: &DocumentPatch, connector: Connector) -> Result<(Expected, ConnectorPatch)> {
    let id = connector.id;
    let document = patch.apply(to_document(&to_message(connector))?).map_err(|fault| match fault {
        PatchFault::Invalid(violation) => violation.into(),
        PatchFault::TestFailed { operation, path } => {
            let message =
                format!("operation {operation} failed: \"{path}\" is absent, or not what the operation states");
            Error::precondition(Precondition::PatchTestFailed, Resource::Connector, id, message)
        }
    })?;
    let (message, mask) = from_document::<pb::Connector>(document)?;
    let mut violations = Violations::default();
    if message.kind.is_none() {
        violations.push(Violation::field("connector.kind", KIND_REQUIRED));
    }
    let expected = update::expected(&mut violations, "", Some(&message));
    let patch = patch::parse(&mut Fields::new("connector", &mask, &mut violations), message);
    violations.into_result(Some((expected, patch)))
}
