//! Events of connectors as rows.

use std::collections::BTreeMap;

use jackfield_domain::connector::{self, Connector, ConnectorEvent};
use jackfield_domain::request::schema::Schema;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{ConnectorEventId, ConnectorId, Result, TenantId, Timestamp};
use sea_orm::sea_query::{Condition, LockBehavior, LockType};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};
use uuid::Uuid;

use crate::crud;
use crate::database::error;
use crate::entity::connector::Column as ConnectorColumn;
use crate::entity::connector_event::{ActiveModel, Column, Entity};
use crate::list::field::FieldSource;
use crate::list::{Listed, Scope};
use crate::session::Writer;
use crate::stored::{self, Stored, common_parts};

impl Writer {
    /// Adds events of a connector, and deletes the oldest ones, so that at most `keep` are left. Returns whether they were added: a
    /// connector that was deleted since, or deleted and created again with the same id, does not get them.
    pub async fn connector_events_insert(
        &self,
        tenant: TenantId,
        (connector, create_time): (ConnectorId, Timestamp),
        events: &[ConnectorEvent],
        keep: u64,
    ) -> Result<bool> {
        // Only those who add events wait for each other, and those who change or delete the connector.
        let by_id = ConnectorColumn::Id.eq(connector.0);
        let found = crud::fetch_locked::<Connector>(&self.conn, tenant, by_id, LockType::NoKeyUpdate).await?;
        if found.is_none_or(|found| found.meta.create_time != create_time) {
            return Ok(false);
        }
        for event in events {
            self.insert(tenant, event).await?;
        }
        self.connector_events_trim(tenant, connector, keep).await?;
        Ok(true)
    }

    /// Deletes at most `limit` events of all tenants whose time has passed, and returns how many. Events that another transaction
    /// deletes stay.
    pub async fn connector_events_purge(&self, now: Timestamp, limit: u64) -> Result<u64> {
        #[expect(clippy::disallowed_methods, reason = "maintenance spans all tenants")]
        let old = Entity::find().filter(Column::ExpireTime.lte(now.0)).order_by_asc(Column::ExpireTime).limit(limit);
        let old = old.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked).select_only();
        let old = old.columns([Column::TenantId, Column::Id]).into_tuple::<(Uuid, Uuid)>();
        let mut by_tenant: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
        for (tenant, id) in old.all(&self.conn).await.map_err(error::from_db)? {
            by_tenant.entry(tenant).or_default().push(id);
        }
        let mut count = 0;
        for (tenant, ids) in by_tenant {
            count += ids.len() as u64;
            self.delete_rows::<ConnectorEvent>(TenantId(tenant), &ids, Column::Id.is_in(ids.iter().copied())).await?;
        }
        Ok(count)
    }

    /// Deletes all events of a connector. They have neither secrets nor labels.
    pub(super) async fn connector_events_delete(&self, tenant: TenantId, connector: ConnectorId) -> Result<()> {
        self.delete_rows::<ConnectorEvent>(tenant, &[], Column::ConnectorId.eq(connector.0)).await
    }

    async fn connector_events_trim(&self, tenant: TenantId, connector: ConnectorId, keep: u64) -> Result<()> {
        let of_connector = stored::of::<ConnectorEvent>(tenant).filter(Column::ConnectorId.eq(connector.0));
        // Ids sort in the order in which they were made. All ids up to the first one too many are deleted.
        let newest = of_connector.select_only().column(Column::Id).order_by_desc(Column::Id).offset(keep).limit(1);
        let last = newest.into_tuple::<Uuid>().one(&self.conn).await.map_err(error::from_db)?;
        let Some(last) = last else { return Ok(()) };
        let oldest = Condition::all().add(Column::ConnectorId.eq(connector.0)).add(Column::Id.lte(last));
        self.delete_rows::<ConnectorEvent>(tenant, &[], oldest).await
    }
}

impl Stored for ConnectorEvent {
    type Id = ConnectorEventId;
    type Table = Entity;

    common_parts!(TenantId);
    const HAS_GENERATION: bool = false;

    fn columns(&self) -> ActiveModel {
        ActiveModel {
            connector_id: Set(self.connector.0),
            operation: Set(self.operation.as_str().to_owned()),
            outcome: Set(self.outcome.as_str().to_owned()),
            reason: Set(self.reason.clone()),
            http_status: Set(self.http_status.map(i64::from)),
            request_id: Set(self.request_id),
            login_id: Set(self.login_id.clone()),
            application_id: Set(self.application_id.clone()),
            expire_time: Set(self.expire_time().0),
            ..ActiveModel::default()
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![&self.reason, self.cause.as_str(), &self.login_id, &self.application_id]
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        let (reason, login, application) = (&*self.reason, &*self.login_id, &*self.application_id);
        vec![("reason", reason), ("login_id", login), ("application_id", application)]
    }
}

impl Listed for ConnectorEvent {
    const SCHEMA: &'static Schema = &connector::EVENTS;

    fn scope(scope: &Scope) -> Condition {
        Condition::all().add_option(scope.connector.map(|id| Column::ConnectorId.eq(id.0)))
    }

    fn field(name: &str) -> Option<FieldSource> {
        Some(match name {
            "connector" => FieldSource::column(Column::ConnectorId),
            "operation" => FieldSource::column(Column::Operation),
            "outcome" => FieldSource::column(Column::Outcome),
            "reason" => FieldSource::column(Column::Reason),
            "http_status" => FieldSource::column(Column::HttpStatus),
            "request_id" => FieldSource::column(Column::RequestId),
            "login_id" => FieldSource::column(Column::LoginId),
            "application_id" => FieldSource::column(Column::ApplicationId),
            _ => return None,
        })
    }
}
