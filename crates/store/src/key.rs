//! Keys as rows. How often a key is used is counted when it is read.

use std::collections::HashMap;

use jackfield_domain::error::Taken;
use jackfield_domain::key::Key;
use jackfield_domain::meta::Meta;
use jackfield_domain::page::OrderBy;
use jackfield_domain::reference::Ref;
use jackfield_domain::text::Labels;
use jackfield_domain::{KeyId, Resource, Result, TenantId};
use sea_orm::sea_query::{Condition, Expr};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, QueryFilter, QuerySelect};
use uuid::Uuid;

use crate::entity::key::{ActiveModel, Column, Entity};
use crate::entity::{connector, credential};
use crate::error;
use crate::filter::FieldSql;
use crate::page::{self, Page, PageQuery, Rows, Scope};
use crate::row::{self, RowTexts, Stored};
use crate::session::{Reader, Session, Writer};

impl<C: ConnectionTrait> Session<C> {
    /// The key that a reference names. Keys have no external id.
    pub async fn key_find(&self, tenant: TenantId, reference: &Ref) -> Result<Option<Key>> {
        let key = match named(reference) {
            Some(condition) => row::fetch(&self.conn, tenant, condition).await?,
            None => None,
        };
        self.key_with_uses(tenant, key).await
    }

    /// How many connectors and credentials use each of some keys; keys without uses are left out. A connector that uses a
    /// key twice counts twice.
    pub async fn key_uses(&self, tenant: TenantId, keys: Vec<KeyId>) -> Result<HashMap<Uuid, (u64, u64)>> {
        let ids: Vec<Uuid> = keys.into_iter().map(Uuid::from).collect();
        let mut uses: HashMap<Uuid, (u64, u64)> = HashMap::new();
        if ids.is_empty() {
            return Ok(uses);
        }
        for column in [connector::Column::ClientIdentityKey, connector::Column::TrustBundleKey] {
            let select = connector::of(tenant).filter(column.is_in(ids.clone())).select_only().column(column);
            let select = select.column_as(connector::Column::Id.count(), "uses").group_by(column);
            for (key, count) in select.into_tuple::<(Uuid, i64)>().all(&self.conn).await.map_err(error::from_db)? {
                uses.entry(key).or_default().0 += u64::try_from(count).unwrap_or_default();
            }
        }
        let column = credential::Column::KeyId;
        let select = credential::of(tenant).filter(column.is_in(ids)).select_only().column(column);
        let select = select.column_as(credential::Column::Id.count(), "uses").group_by(column);
        for (key, count) in select.into_tuple::<(Uuid, i64)>().all(&self.conn).await.map_err(error::from_db)? {
            uses.entry(key).or_default().1 += u64::try_from(count).unwrap_or_default();
        }
        Ok(uses)
    }

    async fn key_with_uses(&self, tenant: TenantId, key: Option<Key>) -> Result<Option<Key>> {
        let Some(mut key) = key else { return Ok(None) };
        let uses = self.key_uses(tenant, vec![key.id]).await?;
        let (connectors, credentials) = uses.get(&key.id.0).copied().unwrap_or_default();
        key.used_by = connectors + credentials;
        Ok(Some(key))
    }
}

impl Reader {
    pub async fn key_page(&self, query: &PageQuery<'_>) -> Result<Page<Key>> {
        let Page { rows, next, hints } = page::page(&self.conn, query).await?;
        let bytes = rows.bytes();
        let (mut keys, left_out): (Vec<Key>, _) = rows.untold();
        let uses = self.key_uses(query.tenant, keys.iter().map(|key| key.id).collect()).await?;
        for key in &mut keys {
            let (connectors, credentials) = uses.get(&key.id.0).copied().unwrap_or_default();
            key.used_by = connectors + credentials;
        }
        Ok(Page { rows: Rows::of(keys, bytes, left_out), next, hints })
    }
}

impl Writer {
    /// The key that a reference names, without the count of its uses.
    pub async fn key_find_for_update(&self, tenant: TenantId, reference: &Ref) -> Result<Option<Key>> {
        match named(reference) {
            Some(condition) => row::fetch_for_update(&self.conn, tenant, condition).await,
            None => Ok(None),
        }
    }

    /// The key that a reference names, to make use of it. Its uses are not counted.
    pub async fn key_hold(&self, tenant: TenantId, reference: &Ref) -> Result<Option<Key>> {
        match named(reference) {
            Some(condition) => row::fetch_held(&self.conn, tenant, condition).await,
            None => Ok(None),
        }
    }

    pub async fn key_insert(&self, tenant: TenantId, key: &Key) -> Result<()> {
        row::insert(self, tenant, key).await
    }

    /// Deletes a key that nothing uses, its private part included.
    pub async fn key_delete(&self, tenant: TenantId, id: KeyId) -> Result<()> {
        self.owned_delete(tenant, Resource::Key, &[id.0]).await?;
        row::delete::<Key>(self, tenant, id.0).await?;
        Ok(())
    }
}

/// The key that a reference names. Keys have no external id.
fn named(reference: &Ref) -> Option<Expr> {
    match reference {
        Ref::Id(id) => Some(Column::Id.eq(*id)),
        Ref::Name(name) => Some(Column::NameKey.eq(name.key())),
        Ref::External(_) => None,
    }
}

impl Stored for Key {
    type Table = Entity;

    const RESOURCE: Resource = Resource::Key;
    const TENANT_ID: Column = Column::TenantId;
    const ID: Column = Column::Id;
    const DOC: Column = Column::Doc;
    const SEARCH_TEXT: Column = Column::SearchText;
    const FOLDED: Column = Column::Folded;
    const VERSION: Column = Column::Version;
    const UNIQUE: &'static [&'static str] = &["id", "name"];

    fn id(&self) -> Uuid {
        self.id.0
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn row(&self, tenant: TenantId, texts: RowTexts) -> ActiveModel {
        let RowTexts { doc, search_text, folded } = texts;
        ActiveModel {
            tenant_id: Set(tenant.0),
            id: Set(self.id.0),
            name_key: Set(self.name.key()),
            kind: Set(self.kind.as_str().to_owned()),
            not_after: Set(self.not_after.0),
            doc: Set(doc),
            search_text: Set(search_text),
            folded: Set(folded),
            version: Set(self.meta.version),
            create_time: Set(self.meta.create_time.0),
            update_time: Set(self.meta.update_time.0),
        }
    }

    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.name.as_str(), self.kind.as_str()];
        for certificate in &self.certificates {
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

    fn taken(&self, what: Taken) -> String {
        match what {
            Taken::Id => self.id.to_string(),
            Taken::Name | Taken::ExternalId => self.name.to_string(),
        }
    }

    fn order_column(by: OrderBy) -> Option<Column> {
        match by {
            OrderBy::CreateTime => Some(Column::CreateTime),
            OrderBy::Name => Some(Column::NameKey),
            OrderBy::Id | OrderBy::UserId => None,
        }
    }

    fn scope(_: &Scope) -> Condition {
        Condition::all()
    }

    fn field(name: &str) -> Option<FieldSql> {
        Some(match name {
            "id" => FieldSql::column(Column::Id),
            "name" => FieldSql::column(Column::NameKey),
            "type" => FieldSql::column(Column::Kind),
            "not_after" => FieldSql::column(Column::NotAfter),
            "labels" => FieldSql::labels(Resource::Key, Column::Id),
            "create_time" => FieldSql::column(Column::CreateTime),
            "update_time" => FieldSql::column(Column::UpdateTime),
            _ => return None,
        })
    }
}
