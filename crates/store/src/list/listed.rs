//! The trait of stored resources that can be listed.

use std::future::{Future, ready};

use jackfield_domain::request::order::OrderBy;
use jackfield_domain::request::schema::Schema;
use jackfield_domain::{Result, TenantId};
use sea_orm::sea_query::{Condition, Expr, ExprTrait as _};
use sea_orm::{EntityTrait as _, QueryFilter as _, Select};

use super::field::FieldSource;
use super::query::{Page, PageQuery, Scope};
use crate::session::Reader;
use crate::stored::{self, ColumnOf, Stored};

/// A stored resource that can be listed.
pub trait Listed: Stored {
    /// The filter fields and orders of the list.
    const SCHEMA: &'static Schema;
    /// The column of the user, if the resource belongs to one.
    const USER_ID: Option<ColumnOf<Self>> = None;
    /// True if a list spans all tenants. Only the list of tenants does.
    const ACROSS_TENANTS: bool = false;

    /// The condition on the rows of a scope. Parts of the scope that the list does not know are not set.
    fn scope(_: &Scope) -> Condition {
        Condition::all()
    }

    /// The source of a field that only this resource has.
    fn field(name: &str) -> Option<FieldSource>;

    /// The page with values that are not stored but computed when they are read.
    fn completed(_: &Reader, _: &PageQuery<'_>, page: Page<Self>) -> impl Future<Output = Result<Page<Self>>> + Send {
        ready(Ok(page))
    }
}

/// The source of a field of a filter; `None` if the resource does not have the field.
pub(crate) fn source_of<S: Listed>(field: &str) -> Option<FieldSource> {
    let column = match field {
        "id" => Some(S::ID),
        "name" => S::NAME_KEY,
        "external_id" => S::EXTERNAL_ID,
        "user_id" => S::USER_ID,
        "create_time" => Some(S::CREATE_TIME),
        "update_time" => Some(S::UPDATE_TIME),
        _ => None,
    };
    column.map(FieldSource::column).or_else(|| S::field(field))
}

/// The column of an order; `None` for the order by id.
pub(crate) fn order_column<S: Listed>(by: OrderBy) -> Option<ColumnOf<S>> {
    match by {
        OrderBy::CreateTime => Some(S::CREATE_TIME),
        OrderBy::Name => S::NAME_KEY,
        OrderBy::UserId => S::USER_ID,
        OrderBy::Id => None,
    }
}

/// The rows of a list: those of a tenant, except for the list of tenants.
pub(crate) fn rows<S: Listed>(tenant: TenantId) -> Select<S::Table> {
    if S::ACROSS_TENANTS {
        #[expect(clippy::disallowed_methods, reason = "the list of tenants is not in a tenant")]
        return S::Table::find();
    }
    stored::of::<S>(tenant)
}

/// As [`rows`], for a statement that has an index of its own. SQLite prefers any index of a tenant, unless the expression that
/// names the tenant does not look like a column.
pub(crate) fn rows_by_other_index<S: Listed>(tenant: TenantId) -> Select<S::Table> {
    #[expect(clippy::disallowed_methods, reason = "the next line narrows it to the tenant, or there is none")]
    let all = S::Table::find();
    if S::ACROSS_TENANTS {
        return all;
    }
    let column = Expr::col((S::Table::default(), S::TENANT_ID));
    all.filter(Expr::cust_with_expr("+?", column).eq(tenant.0))
}

#[cfg(test)]
mod tests {
    use jackfield_domain::request::schema::FieldKind;

    use super::*;
    use crate::stored::for_each_resource;

    fn check<S: Listed>() {
        assert_eq!(S::SCHEMA.resource, S::RESOURCE);
        for field in S::SCHEMA.fields {
            let source = source_of::<S>(field.name);
            let is_map = matches!(source, Some(FieldSource::Labels { .. }));
            assert!(source.is_some(), "the field {} of {} has no column", field.name, S::RESOURCE);
            assert_eq!(is_map, field.kind == FieldKind::Map, "{} of {}", field.name, S::RESOURCE);
        }
        for by in S::SCHEMA.orders {
            let has_column = *by == OrderBy::Id || order_column::<S>(*by).is_some();
            assert!(has_column, "the order {} of {} has no column", by.as_str(), S::RESOURCE);
        }
        assert!(source_of::<S>("unknown").is_none());
    }

    #[test]
    fn each_filter_field_and_each_order_has_a_column() {
        for_each_resource!(R => { check::<R>() });
    }
}
