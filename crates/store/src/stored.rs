//! The trait of resources that are stored as rows.

use jackfield_domain::error::Taken;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::id::ResourceId;
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::Name;
use jackfield_domain::{Resource, TenantId, Timestamp};
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveModelBehavior, ColumnTrait as _, EntityTrait, IntoActiveModel, QueryFilter as _, Select};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// A resource that is stored as a row.
pub trait Stored: Serialize + DeserializeOwned + Send + Sync {
    /// Its id.
    type Id: ResourceId;
    /// Its table.
    type Table: EntityTrait<ActiveModel: ActiveModelBehavior + Send, Model: IntoActiveModel<ActiveModelOf<Self>> + Sync>;

    const RESOURCE: Resource = Self::Id::RESOURCE;
    const TENANT_ID: ColumnOf<Self>;
    const ID: ColumnOf<Self>;
    const DOC: ColumnOf<Self>;
    const SEARCH_TEXT: ColumnOf<Self>;
    const FOLDED: ColumnOf<Self>;
    const VERSION: ColumnOf<Self>;
    const CREATE_TIME: ColumnOf<Self>;
    const UPDATE_TIME: ColumnOf<Self>;
    /// The key of its name, if it has a name. The name is unique within a tenant.
    const NAME_KEY: Option<ColumnOf<Self>> = None;
    /// Its external id, if it has one that is unique within a tenant.
    const EXTERNAL_ID: Option<ColumnOf<Self>> = None;
    /// Its other fields of filters that no two rows of a tenant have the same value in.
    const UNIQUE_FIELDS: &'static [&'static str] = &[];
    /// True if a change of a row advances its generation, so that caches may depend on it (see
    /// [`Generations`](crate::Generations)).
    const HAS_GENERATION: bool = true;

    fn id(&self) -> Uuid;
    fn meta(&self) -> &Meta;
    fn set_meta(&mut self, meta: Meta);
    /// The columns that only this resource has.
    fn columns(&self) -> ActiveModelOf<Self>;
    /// The texts that a bare word in a filter is looked up in.
    fn texts(&self) -> Vec<&str>;
    /// The texts that a filter compares by field. A field whose column is folded already is left out.
    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        Vec::new()
    }
    fn labels(&self) -> Option<&Labels> {
        None
    }
    /// The name, if the resource has one.
    fn name(&self) -> Option<&str> {
        None
    }
    /// This resource with another name, if it has one that callers could not always change. Only a migration changes such a name.
    fn renamed(&self, _name: Name, _now: Timestamp) -> Option<Self> {
        None
    }
    /// The external id, if the resource has one.
    fn external_id(&self) -> Option<&str> {
        None
    }
    /// Another row whose generation advances with this one.
    fn also_advances(&self) -> Option<Uuid> {
        None
    }
}

pub(crate) type ColumnOf<S> = <<S as Stored>::Table as EntityTrait>::Column;
pub(crate) type ActiveModelOf<S> = <<S as Stored>::Table as EntityTrait>::ActiveModel;
pub(crate) type ModelOf<S> = <<S as Stored>::Table as EntityTrait>::Model;

/// Runs statements for each resource that is stored, parents first. The argument is the name of its type in the statements.
macro_rules! for_each_resource {
    ($resource:ident => $statements:block) => {{
        type $resource = jackfield_domain::tenant::Tenant;
        $statements
    }
    {
        type $resource = jackfield_domain::key::Key;
        $statements
    }
    {
        type $resource = jackfield_domain::connector::Connector;
        $statements
    }
    {
        type $resource = jackfield_domain::connector::ConnectorEvent;
        $statements
    }
    {
        type $resource = jackfield_domain::application::Application;
        $statements
    }
    {
        type $resource = jackfield_domain::application::PermissionGrant;
        $statements
    }
    {
        type $resource = jackfield_domain::application::Session;
        $statements
    }
    {
        type $resource = jackfield_domain::connection::Connection;
        $statements
    }
    {
        type $resource = jackfield_domain::user_connector::UserConnector;
        $statements
    }
    {
        type $resource = jackfield_domain::credential::Credential;
        $statements
    }
    {
        type $resource = jackfield_domain::configuration::Configuration;
        $statements
    }
    {
        type $resource = jackfield_domain::user::User;
        $statements
    }};
}
pub(crate) use for_each_resource;

/// The parts of [`Stored`] that all resources have in the same words. The argument is the column that names the tenant.
macro_rules! common_parts {
    ($tenant:ident) => {
        const TENANT_ID: Column = Column::$tenant;
        const ID: Column = Column::Id;
        const DOC: Column = Column::Doc;
        const SEARCH_TEXT: Column = Column::SearchText;
        const FOLDED: Column = Column::Folded;
        const VERSION: Column = Column::Version;
        const CREATE_TIME: Column = Column::CreateTime;
        const UPDATE_TIME: Column = Column::UpdateTime;

        fn id(&self) -> Uuid {
            self.id.0
        }

        fn meta(&self) -> &Meta {
            &self.meta
        }

        fn set_meta(&mut self, meta: Meta) {
            self.meta = meta;
        }
    };
}
pub(crate) use common_parts;

/// The rows of a tenant.
pub(crate) fn of<S: Stored>(tenant: TenantId) -> Select<S::Table> {
    #[expect(clippy::disallowed_methods, reason = "this is the tenant-scoped finder")]
    S::Table::find().filter(S::TENANT_ID.eq(tenant.0))
}

/// The value of a unique constraint.
pub(crate) fn unique_value<S: Stored>(value: &S, what: Taken) -> String {
    match what {
        Taken::Id => value.id().to_string(),
        Taken::Name => value.name().unwrap_or_default().to_owned(),
        Taken::ExternalId => value.external_id().unwrap_or_default().to_owned(),
        // It is looked up before a row is written, because the login ids of a row share a name space.
        Taken::LoginId => String::new(),
    }
}

/// The condition on the row that a reference names; `None` if no row of this resource can be named like that.
pub(crate) fn named<S: Stored>(reference: &Ref) -> Option<Expr> {
    Some(match reference {
        Ref::Id(id) => S::ID.eq(*id),
        Ref::Name(name) => S::NAME_KEY?.eq(name.key()),
        Ref::External(external) => S::EXTERNAL_ID?.eq(external.as_str()),
    })
}

/// Returns whether no two rows of a tenant have the same value in a field of a filter, which an index ensures.
pub(crate) fn is_unique<S: Stored>(field: &str) -> bool {
    match field {
        "id" => true,
        "name" => S::NAME_KEY.is_some(),
        "external_id" => S::EXTERNAL_ID.is_some(),
        _ => S::UNIQUE_FIELDS.contains(&field),
    }
}
