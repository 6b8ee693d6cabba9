//! How a resource becomes a row: facts that queries need as columns, the whole of it as a document.

use std::collections::BTreeMap;

use jackfield_domain::error::Taken;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::maps::Labels;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::fold;
use jackfield_domain::{Error, Resource, Result, TenantId};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelBehavior, ActiveModelTrait as _, ColumnTrait as _, EntityTrait, IntoActiveModel, QueryFilter as _,
    Select,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::document;

/// A resource that is stored as a row.
pub trait Stored: Serialize + DeserializeOwned + Send + Sync {
    /// Its id.
    type Id: Into<Uuid> + Copy + Send;
    /// Its table.
    type Table: EntityTrait<ActiveModel: ActiveModelBehavior + Send, Model: IntoActiveModel<ActiveModelOf<Self>> + Sync>;

    const RESOURCE: Resource;
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
    /// Whether a change of a row advances its generation, so that caches may depend on it (see [`crate::generations`]).
    const HAS_GENERATION: bool = true;

    fn id(&self) -> Uuid;
    fn meta(&self) -> &Meta;
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
    /// The value that a violated unique constraint is about.
    fn taken(&self, what: Taken) -> String;
    /// Another row whose generation advances with this one.
    fn also_advances(&self) -> Option<Uuid> {
        None
    }
}

pub(crate) type ColumnOf<S> = <<S as Stored>::Table as EntityTrait>::Column;
pub(crate) type ActiveModelOf<S> = <<S as Stored>::Table as EntityTrait>::ActiveModel;
pub(crate) type ModelOf<S> = <<S as Stored>::Table as EntityTrait>::Model;

/// The columns that every table of a resource has. The argument is the column that names the tenant.
macro_rules! common_columns {
    ($tenant:ident) => {
        const TENANT_ID: Column = Column::$tenant;
        const ID: Column = Column::Id;
        const DOC: Column = Column::Doc;
        const SEARCH_TEXT: Column = Column::SearchText;
        const FOLDED: Column = Column::Folded;
        const VERSION: Column = Column::Version;
        const CREATE_TIME: Column = Column::CreateTime;
        const UPDATE_TIME: Column = Column::UpdateTime;
    };
}
pub(crate) use common_columns;

/// The row of a resource with all its columns.
pub(crate) fn row<S: Stored>(tenant: TenantId, value: &S) -> Result<ActiveModelOf<S>> {
    let meta = value.meta();
    let mut row = value.columns();
    row.set(S::TENANT_ID, tenant.0.into());
    row.set(S::ID, value.id().into());
    row.set(S::DOC, document::encode(value)?.into());
    row.set(S::SEARCH_TEXT, fold(&value.texts().join("\n")).into());
    row.set(S::FOLDED, folded_texts(value)?.into());
    row.set(S::VERSION, meta.version.into());
    row.set(S::CREATE_TIME, meta.create_time.0.into());
    row.set(S::UPDATE_TIME, meta.update_time.0.into());
    Ok(row)
}

/// The folded texts of fields as JSON, by the name of the field. Only texts are kept that differ in more than the case of
/// ASCII letters, which is all that both databases can fold. `None` if there are none.
fn folded_texts<S: Stored>(value: &S) -> Result<Option<String>> {
    let folded: BTreeMap<_, _> = value
        .field_texts()
        .into_iter()
        .map(|(field, text)| (field, text, fold(text)))
        .filter(|(_, text, folded)| text.to_ascii_lowercase() != *folded)
        .map(|(field, _, folded)| (field, folded))
        .collect();
    let folded = (!folded.is_empty()).then(|| serde_json::to_string(&folded)).transpose();
    folded.map_err(Error::internal)
}

/// The rows of a tenant.
pub(crate) fn of<S: Stored>(tenant: TenantId) -> Select<S::Table> {
    #[expect(clippy::disallowed_methods, reason = "this is the tenant-scoped finder")]
    S::Table::find().filter(S::TENANT_ID.eq(tenant.0))
}

/// The condition on the row that a reference names; `None` if no row of this resource can be named like that.
pub(crate) fn named<S: Stored>(reference: &Ref) -> Option<Expr> {
    Some(match reference {
        Ref::Id(id) => S::ID.eq(*id),
        Ref::Name(name) => S::NAME_KEY?.eq(name.key()),
        Ref::External(external) => S::EXTERNAL_ID?.eq(external.as_str()),
    })
}

/// Whether no two rows of a tenant have the same value in a field of a filter, which an index ensures.
pub(crate) fn is_unique<S: Stored>(field: &str) -> bool {
    match field {
        "id" => true,
        "name" => S::NAME_KEY.is_some(),
        "external_id" => S::EXTERNAL_ID.is_some(),
        _ => false,
    }
}
