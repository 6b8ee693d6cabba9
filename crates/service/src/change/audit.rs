//! Audit events: records of actions, written in the transaction of the action.

use jackfield_domain::{Resource, Result, TenantId, Timestamp};
use jackfield_store::{AuditEvent, Writer};
use uuid::Uuid;

use crate::caller::Actor;

/// The name of the server in audit events of what it does by itself.
const SYSTEM: &str = "system";

/// An action that is recorded.
pub(crate) struct Action {
    pub(crate) name: &'static str,
    pub(crate) resource: Resource,
    pub(crate) resource_id: Uuid,
    /// The reason that the caller gave.
    pub(crate) purpose: String,
}

/// Writes the audit event of an action and returns its id.
pub(crate) async fn record(
    txn: &Writer,
    tenant: TenantId,
    actor: Actor<'_>,
    action: Action,
    time: Timestamp,
) -> Result<Uuid> {
    let Action { name, resource, resource_id, purpose } = action;
    let (principal, request_id) = match actor {
        Actor::Caller { name, request_id, .. } => (name, request_id.to_string()),
        Actor::System => (SYSTEM, String::new()),
    };
    let id = Uuid::now_v7();
    let principal = principal.to_owned();
    let event = AuditEvent { id, time, principal, action: name, resource, resource_id, purpose, request_id };
    txn.audit_insert(tenant, event).await?;
    Ok(id)
}
