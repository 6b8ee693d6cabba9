//! Sessions of applications as rows.

use std::collections::BTreeMap;

use jackfield_domain::application::{self, Session as ApplicationSession, TokenDigest};
use jackfield_domain::request::schema::Schema;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::UserId;
use jackfield_domain::{ApplicationId, Resource, Result, SessionId, TenantId, Timestamp};
use sea_orm::sea_query::{Condition, LockBehavior, LockType};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};
use uuid::Uuid;

use crate::crud;
use crate::database::error;
use crate::entity::session::{ActiveModel, Column, Entity};
use crate::list::field::FieldSource;
use crate::list::{Listed, Page, PageQuery, Rows, Scope};
use crate::session::{Reader, Session, Writer};
use crate::stored::{self, Stored, common_parts};

impl<C: ConnectionTrait> Session<C> {
    /// The session with a token.
    pub async fn session_find(&self, tenant: TenantId, digest: &TokenDigest) -> Result<Option<ApplicationSession>> {
        crud::fetch(&self.conn, tenant, Column::TokenDigest.eq(digest.as_str())).await
    }
}

impl Writer {
    /// Ends a session. Returns whether there was one.
    pub async fn session_delete(&self, tenant: TenantId, id: SessionId) -> Result<bool> {
        Ok(!self.sessions_delete(tenant, Condition::all().add(Column::Id.eq(id.0))).await?.is_empty())
    }

    /// Ends all sessions of an application, and returns how many.
    pub async fn sessions_delete_of(&self, tenant: TenantId, application: ApplicationId) -> Result<u64> {
        let sessions = Condition::all().add(Column::ApplicationId.eq(application.0));
        Ok(self.sessions_delete(tenant, sessions).await?.len() as u64)
    }

    /// Ends all sessions of a user.
    pub async fn sessions_delete_of_user(&self, tenant: TenantId, user_id: &UserId) -> Result<()> {
        let sessions = Condition::all().add(Column::UserId.eq(user_id.as_str()));
        self.sessions_delete(tenant, sessions).await.map(|_| ())
    }

    /// Ends the oldest sessions of a user in an application, so that at most `keep` are left.
    pub async fn sessions_trim(
        &self,
        tenant: TenantId,
        application: ApplicationId,
        user_id: &UserId,
        keep: u64,
    ) -> Result<()> {
        let of_user = stored::of::<ApplicationSession>(tenant)
            .filter(Column::ApplicationId.eq(application.0))
            .filter(Column::UserId.eq(user_id.as_str()));
        // Ids sort in the order in which they were made. SQLite has no OFFSET without a LIMIT.
        let oldest = of_user.select_only().column(Column::Id).order_by_desc(Column::Id).offset(keep).limit(TRIMMED);
        let oldest = oldest.into_tuple::<Uuid>().all(&self.conn).await.map_err(error::from_db)?;
        if !oldest.is_empty() {
            self.sessions_delete(tenant, Condition::all().add(Column::Id.is_in(oldest))).await?;
        }
        Ok(())
    }

    /// Deletes at most `limit` sessions of all tenants that have expired, and returns how many. Sessions that another transaction
    /// deletes stay.
    pub async fn sessions_purge(&self, now: Timestamp, limit: u64) -> Result<u64> {
        #[expect(clippy::disallowed_methods, reason = "maintenance spans all tenants")]
        let expired =
            Entity::find().filter(Column::ExpireTime.lte(now.0)).order_by_asc(Column::ExpireTime).limit(limit);
        let expired = expired.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked).select_only();
        let expired = expired.columns([Column::TenantId, Column::Id]).into_tuple::<(Uuid, Uuid)>();
        let mut by_tenant: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
        for (tenant, id) in expired.all(&self.conn).await.map_err(error::from_db)? {
            by_tenant.entry(tenant).or_default().push(id);
        }
        let mut count = 0;
        for (tenant, ids) in by_tenant {
            count += self.sessions_delete(TenantId(tenant), Condition::all().add(Column::Id.is_in(ids))).await?.len();
        }
        Ok(count as u64)
    }

    /// Deletes the sessions that fit a condition, and their secrets.
    async fn sessions_delete(&self, tenant: TenantId, condition: Condition) -> Result<Vec<Uuid>> {
        let ids = self.delete_returning::<ApplicationSession>(tenant, condition).await?;
        self.owned_delete(tenant, Resource::Session, &ids).await?;
        Ok(ids)
    }
}

/// The most sessions that are ended at once because a user has too many. There is rarely more than one.
const TRIMMED: u64 = 100;

impl Stored for ApplicationSession {
    type Id = SessionId;
    type Table = Entity;

    common_parts!(TenantId);
    const HAS_GENERATION: bool = false;

    fn columns(&self) -> ActiveModel {
        ActiveModel {
            application_id: Set(self.application.0),
            user_id: Set(self.user_id.as_str().to_owned()),
            token_digest: Set(self.token_digest.as_str().to_owned()),
            expire_time: Set(self.expire_time.0),
            ..ActiveModel::default()
        }
    }

    fn texts(&self) -> Vec<&str> {
        vec![self.user_id.as_str()]
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        vec![("user_id", self.user_id.as_str())]
    }
}

impl Listed for ApplicationSession {
    const SCHEMA: &'static Schema = &application::SESSIONS;
    const USER_ID: Option<Column> = Some(Column::UserId);

    /// Leaves out sessions that have expired and are not deleted yet.
    async fn completed(
        _: &Reader,
        query: &PageQuery<'_>,
        page: Page<ApplicationSession>,
    ) -> Result<Page<ApplicationSession>> {
        let Page { rows, next, hints } = page;
        let bytes = rows.bytes();
        let (mut sessions, left_out) = rows.read_unlogged();
        sessions.retain(|session| session.is_live(query.now));
        Ok(Page { rows: Rows::of(sessions, bytes, left_out), next, hints })
    }

    fn scope(scope: &Scope) -> Condition {
        Condition::all()
            .add_option(scope.user_id.as_ref().map(|user| Column::UserId.eq(user.as_str())))
            .add_option(scope.application.map(|id| Column::ApplicationId.eq(id.0)))
    }

    fn field(name: &str) -> Option<FieldSource> {
        Some(match name {
            "application" => FieldSource::column(Column::ApplicationId),
            "expire_time" => FieldSource::column(Column::ExpireTime),
            _ => return None,
        })
    }
}
