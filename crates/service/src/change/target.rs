//! The resource that an update or a delete is about: it must exist and be the one that the caller means.

use jackfield_domain::error::Use;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Error, Resource, Result, TenantId, Violation};
use jackfield_store::{Store, Stored, Writer};
use uuid::Uuid;

/// The options that all deletions share.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Empty = any state.
    pub etag: String,
    pub allow_missing: bool,
    pub cascade: bool,
}

/// The resource that the caller of an update means, and its state.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Empty = any state.
    pub etag: String,
    /// The id that the resource in the request has, if it has one.
    pub id: Option<Uuid>,
}

/// The error for a reference that names nothing.
pub(crate) fn missing<R: Stored>(reference: &Ref) -> Error {
    Error::not_found(R::RESOURCE, reference)
}

/// The parent that a new resource names. No other transaction deletes it until this one ends.
pub(crate) async fn lock_parent<R: Stored>(txn: &Writer, tenant: TenantId, reference: &Ref) -> Result<R> {
    txn.lock_shared::<R>(tenant, reference).await?.ok_or_else(|| missing::<R>(reference))
}

/// The resource that a reference names, if there is a reference.
pub(crate) async fn found_if_named<R: Stored>(
    store: &Store,
    tenant: TenantId,
    reference: Option<&Ref>,
) -> Result<Option<R>> {
    let Some(reference) = reference else { return Ok(None) };
    let found = store.read().find::<R>(tenant, reference).await?;
    found.map(Some).ok_or_else(|| missing::<R>(reference))
}

/// Returns true if a reference names the resource with an id.
pub(crate) async fn names<R: Stored>(
    txn: &Writer,
    tenant: TenantId,
    reference: &Ref,
    id: Option<Uuid>,
) -> Result<bool> {
    Ok(txn.find::<R>(tenant, reference).await?.is_some_and(|found| Some(found.id()) == id))
}

/// Returns what an update found, if it is the resource and in the state that the caller expects.
pub(crate) fn found_for_update<T: Stored>(
    found: Option<T>,
    missing: impl FnOnce() -> Error,
    expected: &Expected,
) -> Result<T> {
    let found = found.ok_or_else(missing)?;
    let (id, resource) = (found.id(), T::RESOURCE.as_str());
    if expected.id.is_some_and(|expected| expected != id) {
        let description = format!("is not that of the {resource} that reference names: {id}");
        return Err(Violation::field(format!("{resource}.id"), description).into());
    }
    check_etag(&found, &expected.etag)?;
    Ok(found)
}

/// Returns what a delete found, if it is in the state that the caller expects; `None` if there is nothing to delete and the caller
/// allows that.
pub(crate) fn found_for_delete<T: Stored>(
    found: Option<T>,
    missing: impl FnOnce() -> Error,
    options: &DeleteOptions,
) -> Result<Option<T>> {
    match found {
        Some(found) => {
            check_etag(&found, &options.etag)?;
            Ok(Some(found))
        }
        None if options.allow_missing => Ok(None),
        None => Err(missing()),
    }
}

/// Returns true if an update changes nothing but times and version.
pub(crate) fn unchanged<T: Stored + Clone + PartialEq>(before: &T, after: &T) -> bool {
    let mut after = after.clone();
    after.set_meta(*before.meta());
    after == *before
}

/// Refuses to delete a resource that others use.
pub(crate) fn refuse_in_use<T: Stored>(target: &T, uses: impl IntoIterator<Item = (Resource, u64)>) -> Result<()> {
    let by: Vec<Use> =
        uses.into_iter().filter(|(_, count)| *count > 0).map(|(resource, count)| Use { resource, count }).collect();
    if by.is_empty() { Ok(()) } else { Err(Error::InUse { resource: T::RESOURCE, id: target.id().to_string(), by }) }
}

fn check_etag<T: Stored>(target: &T, etag: &str) -> Result<()> {
    if target.meta().matches(etag) {
        return Ok(());
    }
    Err(Error::EtagMismatch { resource: T::RESOURCE, id: target.id().to_string() })
}
