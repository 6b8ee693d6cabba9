//! Keys as rows. The uses of a key are counted when it is read.

use std::collections::HashMap;

use jackfield_domain::connection::Connection;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::Credential;
use jackfield_domain::key::{self, Expiry, Key};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::request::schema::Schema;
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::Name;
use jackfield_domain::{KeyId, Resource, Result, TenantId, Timestamp};
use sea_orm::sea_query::{CaseStatement, Expr, ExprTrait as _};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait as _, QueryFilter, QueryOrder as _, QuerySelect,
};
use uuid::Uuid;

use crate::crud;
use crate::database::error;
use crate::entity::key::{ActiveModel, Column, Entity};
use crate::entity::{connection, connector, credential};
use crate::list::field::{FieldSource, FilterContext};
use crate::list::{Listed, Page, PageQuery, Rows};
use crate::session::{Reader, Session, Writer};
use crate::stored::{self, ColumnOf, Stored, common_parts};

impl<C: ConnectionTrait> Session<C> {
    /// The key that a reference names, with the count of its uses.
    pub async fn key_find(&self, tenant: TenantId, reference: &Ref) -> Result<Option<Key>> {
        let Some(mut key) = self.find::<Key>(tenant, reference).await? else { return Ok(None) };
        key.used_by = self.key_dependents(tenant, key.id).await?.iter().map(|(_, count)| count).sum();
        Ok(Some(key))
    }

    /// The number of connectors, connections, credentials and credential sources that use a key. One that uses it twice counts twice.
    pub async fn key_dependents(&self, tenant: TenantId, id: KeyId) -> Result<[(Resource, u64); 4]> {
        let identities = crud::count::<Connector>(&self.conn, tenant, connector::Column::ClientIdentityKey.eq(id.0));
        let bundles = crud::count::<Connector>(&self.conn, tenant, connector::Column::TrustBundleKey.eq(id.0));
        let clients = crud::count::<Connection>(&self.conn, tenant, connection::Column::ClientKey.eq(id.0));
        let credentials = crud::count::<Credential>(&self.conn, tenant, credential::Column::KeyId.eq(id.0));
        let sources = self.credential_source_key_uses(tenant, &[id.0]).await?;
        Ok([
            (Resource::Connector, identities.await? + bundles.await?),
            (Resource::Connection, clients.await?),
            (Resource::Credential, credentials.await?),
            (Resource::CredentialSource, sources.values().sum()),
        ])
    }

    /// Adds the number of resources that name each key in a column to its uses.
    async fn key_uses_add<R: Stored>(&self, tenant: TenantId, column: ColumnOf<R>, keys: &mut [Key]) -> Result<()> {
        let select = stored::of::<R>(tenant).filter(column.is_in(keys.iter().map(|key| key.id.0))).select_only();
        let select = select.column(column).column_as(R::ID.count(), "uses").group_by(column);
        let uses = select.into_tuple::<(Uuid, i64)>().all(&self.conn).await.map_err(error::from_db)?;
        let uses: HashMap<Uuid, i64> = uses.into_iter().collect();
        for key in keys {
            key.used_by += uses.get(&key.id.0).map_or(0, |count| count.unsigned_abs());
        }
        Ok(())
    }
}

impl<C: ConnectionTrait> Session<C> {
    /// At most `limit` keys of all tenants whose renewal is due, with their expiry. Those that expire first come first.
    pub async fn keys_to_renew(&self, now: Timestamp, limit: u64) -> Result<Vec<(TenantId, KeyId, Expiry)>> {
        #[expect(clippy::disallowed_methods, reason = "metrics span all tenants")]
        let select =
            Entity::find().filter(Column::RenewalTime.lte(now.0)).order_by_asc(Column::ValidUntil).limit(limit);
        let columns = [Column::TenantId, Column::Id, Column::ValidUntil, Column::RenewalTime];
        let rows = select.select_only().columns(columns).into_tuple::<(Uuid, Uuid, i64, i64)>().all(&self.conn).await;
        let key = |(tenant, id, not_after, renewal_time)| {
            let expiry = Expiry { not_after: Timestamp(not_after), renewal_time: Timestamp(renewal_time) };
            (TenantId(tenant), KeyId(id), expiry)
        };
        Ok(rows.map_err(error::from_db)?.into_iter().map(key).collect())
    }

    /// At most `limit` keys of all tenants whose next material is to become the current one.
    pub async fn keys_to_activate(&self, now: Timestamp, limit: u64) -> Result<Vec<(TenantId, KeyId)>> {
        #[expect(clippy::disallowed_methods, reason = "maintenance spans all tenants")]
        let select = Entity::find().filter(Column::ActivateTime.lte(now.0)).order_by_asc(Column::ActivateTime);
        let select = select.limit(limit).select_only().columns([Column::TenantId, Column::Id]);
        let rows = select.into_tuple::<(Uuid, Uuid)>().all(&self.conn).await.map_err(error::from_db)?;
        Ok(rows.into_iter().map(|(tenant, id)| (TenantId(tenant), KeyId(id))).collect())
    }
}

impl Writer {
    /// Deletes a key that nothing uses, and its private part.
    pub async fn key_delete(&self, tenant: TenantId, id: KeyId) -> Result<()> {
        self.owned_delete(tenant, Resource::Key, &[id.0]).await?;
        self.delete_row::<Key>(tenant, id.0).await
    }
}

impl Stored for Key {
    type Id = KeyId;
    type Table = Entity;

    common_parts!(TenantId);
    const NAME_KEY: Option<Column> = Some(Column::NameKey);

    fn columns(&self) -> ActiveModel {
        let expiry = self.expiry();
        ActiveModel {
            name_key: Set(self.name.key()),
            kind: Set(self.kind.as_str().to_owned()),
            not_after: Set(self.current.not_after.map(|time| time.0)),
            activate_time: Set(self.activation().map(|time| time.0)),
            next_not_after: Set(self.next.as_ref().and_then(|next| next.material.not_after).map(|time| time.0)),
            valid_until: Set(expiry.map(|expiry| expiry.not_after.0)),
            renewal_time: Set(expiry.map(|expiry| expiry.renewal_time.0)),
            ..ActiveModel::default()
        }
    }

    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.name.as_str(), self.kind.as_str()];
        let next = self.next.iter().flat_map(|next| &next.material.certificates);
        for certificate in self.current.certificates.iter().chain(next) {
            texts.extend([certificate.subject.as_str(), &certificate.issuer, &certificate.serial_number]);
            texts.extend([certificate.fingerprint_sha256.as_str(), &certificate.public_key_algorithm]);
            texts.extend(certificate.subject_alternative_names.iter().map(String::as_str));
        }
        texts.extend(self.labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]));
        texts
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }

    fn name(&self) -> Option<&str> {
        Some(self.name.as_str())
    }

    fn renamed(&self, name: Name, now: Timestamp) -> Option<Self> {
        Some(Key { name, meta: self.meta.changed(now), ..self.clone() })
    }
}

impl Listed for Key {
    const SCHEMA: &'static Schema = &key::SCHEMA;
    async fn completed(read: &Reader, query: &PageQuery<'_>, page: Page<Key>) -> Result<Page<Key>> {
        let Page { rows, next, hints } = page;
        let bytes = rows.bytes();
        let (mut keys, left_out) = rows.read_unlogged();
        if !keys.is_empty() {
            for column in [connector::Column::ClientIdentityKey, connector::Column::TrustBundleKey] {
                read.key_uses_add::<Connector>(query.tenant, column, &mut keys).await?;
            }
            read.key_uses_add::<Connection>(query.tenant, connection::Column::ClientKey, &mut keys).await?;
            read.key_uses_add::<Credential>(query.tenant, credential::Column::KeyId, &mut keys).await?;
            let ids: Vec<Uuid> = keys.iter().map(|key| key.id.0).collect();
            let uses = read.credential_source_key_uses(query.tenant, &ids).await?;
            keys.iter_mut().for_each(|key| key.used_by += uses.get(&key.id.0).copied().unwrap_or_default());
        }
        Ok(Page { rows: Rows::of(keys, bytes, left_out), next, hints })
    }

    fn field(name: &str) -> Option<FieldSource> {
        Some(match name {
            "type" => FieldSource::column(Column::Kind),
            "not_after" => FieldSource::Computed(|context: &FilterContext| not_after(context.now)),
            "labels" => FieldSource::labels(Resource::Key, Column::Id),
            _ => return None,
        })
    }
}

/// The expiry at a time as an expression. It gives the same as `Key::activate`.
fn not_after(now: Timestamp) -> Expr {
    let column = |column: Column| Expr::col((Entity, column));
    let is_replaced = column(Column::ActivateTime).lte(now.0);
    CaseStatement::new().case(is_replaced, column(Column::NextNotAfter)).finally(column(Column::NotAfter)).into()
}
