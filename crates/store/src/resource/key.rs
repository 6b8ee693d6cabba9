//! Keys as rows. The uses of a key are counted when it is read.

use std::collections::HashMap;

use jackfield_domain::connector::Connector;
use jackfield_domain::credential::Credential;
use jackfield_domain::key::{self, Key};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::request::schema::Schema;
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{KeyId, Resource, Result, TenantId};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, QueryFilter, QuerySelect};
use uuid::Uuid;

use crate::database::error;
use crate::entity::key::{ActiveModel, Column, Entity};
use crate::entity::{connector, credential};
use crate::list::field::FieldSource;
use crate::list::{Listed, Page, PageQuery, Rows};
use crate::session::{Reader, Session, Writer};
use crate::stored::{self, Stored, common_parts};

impl<C: ConnectionTrait> Session<C> {
    /// The key that a reference names, with the count of its uses.
    pub async fn key_find(&self, tenant: TenantId, reference: &Ref) -> Result<Option<Key>> {
        let Some(mut key) = self.find::<Key>(tenant, reference).await? else { return Ok(None) };
        let uses = self.key_uses(tenant, vec![key.id]).await?;
        let (connectors, credentials) = uses.get(&key.id.0).copied().unwrap_or_default();
        key.used_by = connectors + credentials;
        Ok(Some(key))
    }

    /// The number of connectors and credentials that use each key. Keys without uses are left out. A connector that uses a
    /// key twice counts twice.
    pub async fn key_uses(&self, tenant: TenantId, keys: Vec<KeyId>) -> Result<HashMap<Uuid, (u64, u64)>> {
        let ids: Vec<Uuid> = keys.into_iter().map(Uuid::from).collect();
        let mut uses: HashMap<Uuid, (u64, u64)> = HashMap::new();
        if ids.is_empty() {
            return Ok(uses);
        }
        for column in [connector::Column::ClientIdentityKey, connector::Column::TrustBundleKey] {
            let select = stored::of::<Connector>(tenant).filter(column.is_in(ids.clone())).select_only().column(column);
            let select = select.column_as(connector::Column::Id.count(), "uses").group_by(column);
            for (key, count) in select.into_tuple::<(Uuid, i64)>().all(&self.conn).await.map_err(error::from_db)? {
                uses.entry(key).or_default().0 += u64::try_from(count).unwrap_or_default();
            }
        }
        let column = credential::Column::KeyId;
        let select = stored::of::<Credential>(tenant).filter(column.is_in(ids)).select_only().column(column);
        let select = select.column_as(credential::Column::Id.count(), "uses").group_by(column);
        for (key, count) in select.into_tuple::<(Uuid, i64)>().all(&self.conn).await.map_err(error::from_db)? {
            uses.entry(key).or_default().1 += u64::try_from(count).unwrap_or_default();
        }
        Ok(uses)
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

    const RESOURCE: Resource = Resource::Key;
    common_parts!(TenantId);
    const NAME_KEY: Option<Column> = Some(Column::NameKey);

    fn columns(&self) -> ActiveModel {
        ActiveModel {
            name_key: Set(self.name.key()),
            kind: Set(self.kind.as_str().to_owned()),
            not_after: Set(self.not_after.0),
            ..ActiveModel::default()
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

    fn name(&self) -> Option<&str> {
        Some(self.name.as_str())
    }
}

impl Listed for Key {
    const SCHEMA: &'static Schema = &key::SCHEMA;
    async fn completed(read: &Reader, query: &PageQuery<'_>, page: Page<Key>) -> Result<Page<Key>> {
        let Page { rows, next, hints } = page;
        let bytes = rows.bytes();
        let (mut keys, left_out) = rows.read_unlogged();
        let uses = read.key_uses(query.tenant, keys.iter().map(|key| key.id).collect()).await?;
        for key in &mut keys {
            let (connectors, credentials) = uses.get(&key.id.0).copied().unwrap_or_default();
            key.used_by = connectors + credentials;
        }
        Ok(Page { rows: Rows::of(keys, bytes, left_out), next, hints })
    }

    fn field(name: &str) -> Option<FieldSource> {
        Some(match name {
            "type" => FieldSource::column(Column::Kind),
            "not_after" => FieldSource::column(Column::NotAfter),
            "labels" => FieldSource::labels(Resource::Key, Column::Id),
            _ => return None,
        })
    }
}
