//! Users as rows.

use jackfield_domain::request::schema::Schema;
use jackfield_domain::user::{self, User, login_key};
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{Resource, Result, TenantId, UserUuid};
use sea_orm::sea_query::Condition;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait};
use uuid::Uuid;

use crate::crud;
use crate::entity::user::{ActiveModel, Column, Entity};
use crate::list::Listed;
use crate::list::field::FieldSource;
use crate::session::{Session, Writer};
use crate::stored::{Stored, common_parts};

impl<C: ConnectionTrait> Session<C> {
    /// The user with a login id, given as its [`login_key`]. There is one at most, because login ids of all kinds share one name
    /// space.
    pub async fn user_fetch_by_login(&self, tenant: TenantId, key: &str) -> Result<Option<User>> {
        crud::fetch(&self.conn, tenant, has_login(key)).await
    }
}

impl Writer {
    /// Returns one of these login ids that another user has. No other transaction gives login ids to users of the tenant until
    /// this one ends.
    pub async fn user_login_id_taken<'a>(
        &self,
        tenant: TenantId,
        id: UserUuid,
        login_ids: &[&'a str],
    ) -> Result<Option<&'a str>> {
        self.tenant_lock_exclusive(tenant).await?;
        for login_id in login_ids {
            let others = Condition::all().add(Column::Id.ne(id.0)).add(has_login(&login_key(login_id)));
            if crud::count::<User>(&self.conn, tenant, others).await? > 0 {
                return Ok(Some(login_id));
            }
        }
        Ok(None)
    }

    /// Deletes a user with the hash of the password.
    pub async fn user_delete(&self, tenant: TenantId, id: UserUuid) -> Result<()> {
        self.owned_delete(tenant, Resource::User, &[id.0]).await?;
        self.delete_row::<User>(tenant, id.0).await
    }
}

impl Stored for User {
    type Id = UserUuid;
    type Table = Entity;

    common_parts!(TenantId);
    const EXTERNAL_ID: Option<Column> = Some(Column::UserId);
    const UNIQUE_FIELDS: &'static [&'static str] = &["user_id", "username", "email", "phone_number"];
    const HAS_GENERATION: bool = false;

    fn columns(&self) -> ActiveModel {
        ActiveModel {
            user_id: Set(self.user_id.as_str().to_owned()),
            username_key: Set(self.username.as_ref().map(|username| login_key(username.as_str()))),
            email_key: Set(self.email.as_ref().map(|email| login_key(email.as_str()))),
            phone_number: Set(self.phone_number.as_ref().map(|number| number.as_str().to_owned())),
            first_name: Set(self.first_name.clone()),
            last_name: Set(self.last_name.clone()),
            enabled: Set(self.enabled),
            password_set: Set(self.password_set),
            connector_id: Set(self.connector.map(Uuid::from)),
            ..ActiveModel::default()
        }
    }

    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.user_id.as_str(), &self.first_name, &self.last_name];
        texts.extend(self.login_ids());
        for registration in &self.registrations {
            texts.push(&registration.application_id);
            texts.extend(registration.roles.iter().map(String::as_str));
        }
        texts.extend(self.labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]));
        texts
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }

    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        vec![("user_id", self.user_id.as_str()), ("first_name", &self.first_name), ("last_name", &self.last_name)]
    }

    fn external_id(&self) -> Option<&str> {
        Some(self.user_id.as_str())
    }
}

impl Listed for User {
    const SCHEMA: &'static Schema = &user::SCHEMA;
    const USER_ID: Option<Column> = Some(Column::UserId);

    fn field(name: &str) -> Option<FieldSource> {
        Some(match name {
            "username" => FieldSource::column(Column::UsernameKey),
            "email" => FieldSource::column(Column::EmailKey),
            "phone_number" => FieldSource::column(Column::PhoneNumber),
            "first_name" => FieldSource::column(Column::FirstName),
            "last_name" => FieldSource::column(Column::LastName),
            "enabled" => FieldSource::column(Column::Enabled),
            "password_set" => FieldSource::column(Column::PasswordSet),
            "connector" => FieldSource::column(Column::ConnectorId),
            "labels" => FieldSource::labels(Resource::User, Column::Id),
            _ => return None,
        })
    }
}

/// The condition on the user whose login id has a key.
fn has_login(key: &str) -> Condition {
    let columns = [Column::UsernameKey, Column::EmailKey, Column::PhoneNumber];
    columns.into_iter().fold(Condition::any(), |any, column| any.add(column.eq(key)))
}
