//! Audit records. They are added and never changed.

use jackfield_domain::{Resource, Result, TenantId, Timestamp};
use sea_orm::{ActiveValue::Set, EntityTrait};
use uuid::Uuid;

use crate::database::error;
use crate::entity::audit_event;
use crate::session::Writer;

/// A record of an action: its principal, its resource and its purpose.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    pub id: Uuid,
    pub time: Timestamp,
    pub principal: String,
    pub action: &'static str,
    pub resource: Resource,
    pub resource_id: Uuid,
    pub purpose: String,
    pub request_id: String,
}

impl Writer {
    pub async fn audit_insert(&self, tenant: TenantId, event: AuditEvent) -> Result<()> {
        let AuditEvent { id, time, principal, action, resource, resource_id, purpose, request_id } = event;
        let row = audit_event::ActiveModel {
            tenant_id: Set(tenant.0),
            id: Set(id),
            create_time: Set(time.0),
            principal: Set(principal),
            action: Set(action.to_owned()),
            resource: Set(resource.as_str().to_owned()),
            resource_id: Set(resource_id),
            purpose: Set(purpose),
            request_id: Set(request_id),
        };
        audit_event::Entity::insert(row).exec_without_returning(&self.conn).await.map_err(error::from_db)?;
        Ok(())
    }
}
