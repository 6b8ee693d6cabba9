//! Filters as conditions. Values are bound parameters, never text of the statement.
//!
//! Conditions are never null: a comparison with a field that has no value is false, and its negation is true. `!=` is the
//! negation of `=`, so a field without a value is not equal to any. A text without a value equals the empty text.

use jackfield_domain::Resource;
use jackfield_domain::request::filter::{Expr as Filter, Op, Pattern, Value};
use jackfield_domain::request::order::OrderBy;
use jackfield_domain::value::id::{ApplicationId, ConnectionId, ConnectorId, CredentialId};
use jackfield_domain::value::text::{CompanyId, UserId};
use sea_orm::DbBackend;
use sea_orm::sea_query::extension::postgres::PgExpr as _;
use sea_orm::sea_query::{Alias, CaseStatement, Condition, Expr, ExprTrait, Func, LikeExpr, Query};

use super::field::{FieldSource, FilterContext, qualified};
use super::listed::{Listed, source_of};
use super::query::Scope;
use super::search;
use crate::entity::label;
use crate::stored;

/// The condition of a filter.
pub(crate) fn condition<S: Listed>(filter: &Filter, context: &FilterContext) -> Condition {
    match filter {
        Filter::And(all) => all.iter().fold(Condition::all(), |sum, part| sum.add(condition::<S>(part, context))),
        Filter::Or(any) => any.iter().fold(Condition::any(), |sum, part| sum.add(condition::<S>(part, context))),
        Filter::Not(inner) => condition::<S>(inner, context).not(),
        Filter::Word(word) => {
            let text = qualified(S::SEARCH_TEXT);
            // PostgreSQL has an index for LIKE and decides itself whether to use it. A function hides the word from the index.
            let by_index =
                context.by_words && context.backend == DbBackend::Postgres && search::knows(word, context.backend);
            Condition::all().add(match by_index {
                true => text.like(LikeExpr::new(format!("%{}%", escape_like(word)))),
                false => contains(text, word, context),
            })
        }
        Filter::Compare { field, op, value } => match source_of::<S>(field) {
            Some(FieldSource::Column(column)) => match (op, value) {
                (Op::Has, Value::Text(pattern)) => {
                    let (folded, text) = (folded::<S>(field, column.clone(), context), pattern.text());
                    present(column).add(match pattern {
                        Pattern::Prefix(_) => prefix(folded, text),
                        Pattern::Suffix(_) => suffix(folded, text, context),
                        Pattern::Exact(_) | Pattern::Contains(_) => contains(folded, text, context),
                    })
                }
                _ => compare(column, *op, value, context),
            },
            Some(FieldSource::Computed(expr)) => compare(expr(context), *op, value, context),
            Some(FieldSource::Labels { .. }) | None => never(),
        },
        Filter::MapCompare { field, key, op, value } => match source_of::<S>(field) {
            Some(FieldSource::Labels { owner, owner_id }) => {
                let value = label_value(value, context);
                let equal = labelled(owner, owner_id, Some(key), value, context);
                if *op == Op::Ne { equal.not() } else { equal }
            }
            _ => never(),
        },
        Filter::Present { field, key } => match source_of::<S>(field) {
            Some(FieldSource::Column(column)) => present(column),
            Some(FieldSource::Computed(expr)) => present(expr(context)),
            Some(FieldSource::Labels { owner, owner_id }) => {
                labelled(owner, owner_id, key.as_ref(), Condition::all(), context)
            }
            None => never(),
        },
    }
}

/// A scope narrowed by the values that a filter fixes, such as the user. The filter keeps these values as well.
pub(crate) fn narrowed(scope: &Scope, filter: &Filter) -> Scope {
    let mut scope = scope.clone();
    for part in conjuncts(filter) {
        let Filter::Compare { field, op: Op::Eq, value } = part else { continue };
        match (*field, value) {
            ("user_id", Value::Text(Pattern::Exact(user))) => {
                scope.user_id.get_or_insert_with(|| UserId::stored(user.clone()));
            }
            ("connector", Value::Id(id)) => {
                scope.connector.get_or_insert(ConnectorId(*id));
            }
            ("connection", Value::Id(id)) => {
                scope.connection.get_or_insert(ConnectionId(*id));
            }
            ("credential", Value::Id(id)) => {
                scope.credential.get_or_insert(CredentialId(*id));
            }
            ("application", Value::Id(id)) => {
                scope.application.get_or_insert(ApplicationId(*id));
            }
            ("company_id", Value::Text(Pattern::Exact(company))) => {
                scope.company_id.get_or_insert_with(|| CompanyId::stored(company.clone()));
            }
            _ => {}
        }
    }
    scope
}

/// Returns whether every row that matches a filter is named by a unique value, so that an index finds it.
pub(crate) fn finds_one<S: Listed>(filter: &Filter) -> bool {
    match filter {
        Filter::And(all) => all.iter().any(finds_one::<S>),
        Filter::Or(any) => any.iter().all(finds_one::<S>),
        // Any number of rows may have no value.
        Filter::Compare { op: Op::Eq, value: Value::Text(Pattern::Exact(text)), .. } if text.is_empty() => false,
        Filter::Compare { field, op: Op::Eq, value: Value::Id(_) | Value::Text(Pattern::Exact(_)) } => {
            stored::is_unique::<S>(field)
        }
        _ => false,
    }
}

/// The parts of a filter that must all match.
pub(crate) fn conjuncts(filter: &Filter) -> &[Filter] {
    match filter {
        Filter::And(all) => all,
        other => std::slice::from_ref(other),
    }
}

/// Returns whether a condition is about the column of an order, and so bounds the rows that are read in it.
pub(crate) fn bounds(filter: &Filter, by: OrderBy) -> bool {
    let Filter::Compare { field, op, .. } = filter else { return false };
    by == OrderBy::CreateTime && *field == by.as_str() && *op != Op::Ne
}

fn compare(field: Expr, op: Op, value: &Value, context: &FilterContext) -> Condition {
    let holds = match value {
        Value::Text(pattern) => compare_text(field, pattern, context),
        Value::Bool(value) => ordered(field, op, Expr::val(*value)),
        Value::Int(value) => ordered(field, op, Expr::val(*value)),
        Value::Time(value) => ordered(field, op, Expr::val(value.0)),
        Value::Id(value) => ordered(field, op, Expr::val(*value)),
        Value::Enum(value) => ordered(field, op, Expr::val(*value)),
    };
    if op == Op::Ne { holds.not() } else { holds }
}

/// The comparison of a field with a value; for `!=`, the comparison that it negates.
fn ordered(field: Expr, op: Op, value: Expr) -> Condition {
    let known = field.clone().is_not_null();
    let holds = match op {
        Op::Eq | Op::Ne | Op::Has => field.eq(value),
        Op::Lt => field.lt(value),
        Op::Le => field.lte(value),
        Op::Gt => field.gt(value),
        Op::Ge => field.gte(value),
    };
    Condition::all().add(known).add(holds)
}

fn compare_text(field: Expr, pattern: &Pattern, context: &FilterContext) -> Condition {
    match pattern {
        Pattern::Exact(text) if text.is_empty() => present(field).not(),
        _ => present(field.clone()).add(matches(field, pattern, context)),
    }
}

/// The value of a label, which may be empty and is never null.
fn label_value(value: &Value, context: &FilterContext) -> Condition {
    match value {
        Value::Text(pattern) => Condition::all().add(matches(qualified(label::Column::LabelValue), pattern, context)),
        _ => never(),
    }
}

/// The condition that a text, which is not null, matches a pattern.
fn matches(field: Expr, pattern: &Pattern, context: &FilterContext) -> Expr {
    let text = pattern.text();
    match pattern {
        Pattern::Exact(_) => field.eq(text),
        Pattern::Prefix(_) => prefix(field, text),
        Pattern::Suffix(_) => suffix(field, text, context),
        Pattern::Contains(_) => contains(field, text, context),
    }
}

// LIKE is not used for these, because that of SQLite ignores letter case.

fn prefix(field: Expr, text: &str) -> Expr {
    let part = Func::cust(Alias::new("substr")).arg(field).arg(1).arg(characters(text));
    Expr::expr(part).eq(text)
}

fn suffix(field: Expr, text: &str, context: &FilterContext) -> Expr {
    let part = match context.backend {
        DbBackend::Sqlite => Func::cust(Alias::new("substr")).arg(field).arg(-characters(text)),
        _ => Func::cust(Alias::new("right")).arg(field).arg(characters(text)),
    };
    Expr::expr(part).eq(text)
}

fn contains(field: Expr, text: &str, context: &FilterContext) -> Expr {
    let function = if context.backend == DbBackend::Sqlite { "instr" } else { "strpos" };
    Expr::expr(Func::cust(Alias::new(function)).arg(field).arg(text)).gt(0)
}

/// A folded text: as it was folded when it was written, if the database cannot fold it.
fn folded<S: Listed>(field: &str, column: Expr, context: &FilterContext) -> Expr {
    let stored = member(qualified(S::FOLDED), field, context.backend);
    Expr::expr(Func::coalesce([stored, Expr::expr(Func::lower(column))]))
}

/// A text that is a member of a JSON object of texts. In a damaged row the object may not be JSON, and that must not fail the
/// whole statement.
fn member(object: Expr, name: &str, backend: DbBackend) -> Expr {
    match backend {
        DbBackend::Sqlite => {
            let valid = Func::cust(Alias::new("json_valid")).arg(object.clone());
            let member = Func::cust(Alias::new("json_extract")).arg(object).arg(format!("$.{name}"));
            CaseStatement::new().case(Expr::expr(valid), Expr::expr(member)).into()
        }
        // PostgreSQL can test whether a text is JSON only since version 16. So the member is found as text: between quotation
        // marks, which are escaped within a text, and with only the characters that a JSON text may hold.
        _ => {
            let within = r#"[^"\\\x01-\x1f]|\\["\\bfnrt]|\\u00(?:0[1-9a-f]|1[0-9a-f])"#;
            let written = Func::cust(Alias::new("substring")).arg(object).arg(format!(r#""{name}":"((?:{within})*)""#));
            let list = Expr::val("[\"").concat(Expr::expr(written)).concat("\"]");
            Expr::expr(Func::cust(Alias::new("json_extract_path_text")).arg(list.cast_as(Alias::new("json"))).arg("0"))
        }
    }
}

/// The condition that a field has a value. An empty text does not count as a value.
fn present(field: Expr) -> Condition {
    // The field is compared as text, so that one condition works for columns of any type.
    let text = Expr::expr(field.clone().cast_as(Alias::new("text")));
    Condition::all().add(field.is_not_null()).add(text.ne(""))
}

fn labelled(
    owner: Resource,
    owner_id: Expr,
    key: Option<&String>,
    value: Condition,
    context: &FilterContext,
) -> Condition {
    let mut select = Query::select();
    select
        .expr(Expr::val(1))
        .from(label::Entity)
        .and_where(qualified(label::Column::TenantId).eq(context.tenant.0))
        .and_where(qualified(label::Column::Owner).eq(owner.as_str()))
        .and_where(qualified(label::Column::OwnerId).eq(owner_id))
        .cond_where(value);
    if let Some(key) = key {
        select.and_where(qualified(label::Column::LabelKey).eq(key.as_str()));
    }
    let exists = Expr::exists(select.to_owned());
    Condition::all().add(match context.backend {
        DbBackend::Sqlite => exists,
        // PostgreSQL would make a join of it, and the time in which it plans joins grows with the square of their number:
        // 2.3 s for a hundred labels.
        _ => exists.is(Expr::Constant(true.into())),
    })
}

/// A condition that never holds, for a comparison that the parser does not produce.
fn never() -> Condition {
    Condition::all().add(Expr::val(1).eq(0))
}

fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

fn characters(text: &str) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(i32::MAX)
}
