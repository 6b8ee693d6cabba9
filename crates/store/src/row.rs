//! The row of a resource: facts that queries need as columns, the whole of it as a document.

use std::collections::BTreeMap;

use jackfield_domain::value::text::fold;
use jackfield_domain::{Error, Result, TenantId};
use sea_orm::ActiveModelTrait as _;

use crate::document;
use crate::stored::{ActiveModelOf, Stored};

/// The row of a resource with all its columns.
pub(crate) fn of<S: Stored>(tenant: TenantId, value: &S) -> Result<ActiveModelOf<S>> {
    let meta = value.meta();
    let mut row = value.columns();
    row.set(S::TENANT_ID, tenant.0.into());
    row.set(S::ID, value.id().into());
    row.set(S::DOC, document::encode(value)?.into());
    row.set(S::SEARCH_TEXT, fold(&value.texts().join("\n")).into());
    row.set(S::FOLDED, folded_texts(value)?.into());
    row.set(S::VERSION, meta.version.into());
    row.set(S::CREATE_TIME, meta.create_time.0.into());
    row.set(S::UPDATE_TIME, meta.update_time.0.into());
    Ok(row)
}

/// The folded texts of fields as JSON, by the name of the field. Only texts that differ in more than the case of ASCII
/// letters are kept, because both databases can fold those letters. `None` if there are none.
fn folded_texts<S: Stored>(value: &S) -> Result<Option<String>> {
    let folded: BTreeMap<_, _> = value
        .field_texts()
        .into_iter()
        .map(|(field, text)| (field, text, fold(text)))
        .filter(|(_, text, folded)| text.to_ascii_lowercase() != *folded)
        .map(|(field, _, folded)| (field, folded))
        .collect();
    let folded = (!folded.is_empty()).then(|| serde_json::to_string(&folded)).transpose();
    folded.map_err(Error::internal)
}
