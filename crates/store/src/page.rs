//! Pages by keyset: a row value comparison behind the last key, so that deep pages cost what the first one costs.

use jackfield_domain::filter::Expr as Filter;
use jackfield_domain::id::{ConnectionId, ConnectorId, CredentialId};
use jackfield_domain::page::{MAX_PAGE_BYTES, Order, OrderBy, OrderValue, RowKey};
use jackfield_domain::text::UserId;
use jackfield_domain::{Result, TenantId, Timestamp};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ConnectionTrait, DbBackend, QueryFilter, QueryOrder, QuerySelect, Select};

use crate::error;
use crate::filter::{self, FilterContext};
use crate::row::{self, Stored};

/// Which page of which list.
#[derive(Clone, Debug)]
pub struct PageQuery<'a> {
    pub tenant: TenantId,
    pub filter: Option<&'a Filter>,
    pub scope: &'a Scope,
    pub order: Order,
    /// The last row of the page before; `None` = at the beginning.
    pub after: Option<RowKey>,
    /// Rows at most, more than 0.
    pub size: u32,
    /// The time at which statuses are worked out.
    pub now: Timestamp,
}

/// What a list is narrowed to beside its filter. Each list knows some of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub user_id: Option<UserId>,
    pub connector: Option<ConnectorId>,
    pub connection: Option<ConnectionId>,
    pub credential: Option<CredentialId>,
}

/// One page.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The key of the last item, if more may follow.
    pub next: Option<RowKey>,
}

/// Rows that are read before their size is known. What the first read shows decides how many the next may take.
const FIRST_READ: u32 = 16;

/// What a JSON value takes on the wire beyond its text: tags and lengths of its own, of its key and of their entry, and a
/// number of eight bytes.
const VALUE_BYTES: usize = 12;

/// Reads one page: at most `size` rows and about [`MAX_PAGE_BYTES`], at least one row if there is any.
pub(crate) async fn page<S: Stored>(conn: &impl ConnectionTrait, query: &PageQuery<'_>) -> Result<Page<S>> {
    let mut items: Vec<S> = Vec::new();
    let mut bytes = 0;
    let mut after = query.after.clone();
    let mut read = Ord::min(query.size, FIRST_READ);
    loop {
        // One row more than wanted tells whether there is a next page, without a count.
        let docs = select::<S>(conn.get_database_backend(), query, after.as_ref(), read + 1)
            .into_tuple::<String>()
            .all(conn)
            .await
            .map_err(error::from_db)?;
        let more = docs.len() > read as usize;
        for doc in docs.into_iter().take(read as usize) {
            let weight = weight(&doc);
            if !items.is_empty() && bytes + weight > MAX_PAGE_BYTES {
                return Ok(cut(items, query.order));
            }
            bytes += weight;
            items.push(row::from_doc(&doc)?);
        }
        let wanted = query.size.saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX));
        if !more {
            return Ok(Page { items, next: None });
        }
        if wanted == 0 {
            return Ok(cut(items, query.order));
        }
        after = items.last().map(|item| key(item, query.order));
        let average = Ord::max(bytes / items.len(), 1);
        let fitting = u32::try_from(MAX_PAGE_BYTES.saturating_sub(bytes) / average).unwrap_or(u32::MAX);
        read = Ord::min(wanted, Ord::max(fitting, 1));
    }
}

/// The statement of a page, for the test that reads its plan.
#[cfg(feature = "test-support")]
pub(crate) fn sql<S: Stored>(backend: DbBackend, query: &PageQuery<'_>) -> String {
    use sea_orm::QueryTrait as _;

    select::<S>(backend, query, query.after.as_ref(), query.size + 1).build(backend).to_string()
}

fn select<S: Stored>(
    backend: DbBackend,
    query: &PageQuery<'_>,
    after: Option<&RowKey>,
    limit: u32,
) -> Select<S::Table> {
    let context = FilterContext { backend, tenant: query.tenant, now: query.now };
    let Order { by, descending } = query.order;
    // What the scope fixes orders nothing, and SQLite would not use a bound that begins with it.
    let by = if by == OrderBy::UserId && query.scope.user_id.is_some() { OrderBy::Id } else { by };
    let order = if descending { sea_orm::Order::Desc } else { sea_orm::Order::Asc };
    let table = S::Table::default();
    let column = |column: crate::row::ColumnOf<S>| Expr::col((table, column));

    let mut select = row::listed::<S>(query.tenant).filter(S::scope(query.scope));
    if let Some(filter) = query.filter {
        select = select.filter(filter::condition::<S>(filter, &context));
    }
    let order_column = S::order_column(by);
    if let Some(after) = after {
        // Row values compare column by column; both databases use the index of exactly these columns for them.
        let (place, value) = match (order_column, &after.value) {
            (Some(order_column), Some(value)) if by.is_unique() => (column(order_column), order_value(value)),
            (Some(order_column), Some(value)) => (
                Expr::tuple([column(order_column), column(S::ID)]),
                Expr::tuple([order_value(value), Expr::val(after.id)]),
            ),
            _ => (column(S::ID), Expr::val(after.id)),
        };
        select = select.filter(if descending { place.lt(value) } else { place.gt(value) });
    }
    if let Some(order_column) = order_column {
        select = select.order_by(order_column, order.clone());
    }
    // PostgreSQL sorts again for a second column, even if the first leaves it nothing to do.
    if order_column.is_none() || !by.is_unique() {
        select = select.order_by(S::ID, order);
    }
    select.limit(u64::from(limit)).select_only().column(S::DOC)
}

fn order_value(value: &OrderValue) -> Expr {
    match value {
        OrderValue::Text(text) => Expr::val(text.clone()),
        OrderValue::Time(time) => Expr::val(*time),
    }
}

/// The most that a row takes in a message. Its document is shorter than that where it holds free JSON: a number in a list is
/// two bytes there, and a message of two fields on the wire.
fn weight(doc: &str) -> usize {
    let mut values = 0;
    let (mut quoted, mut escaped) = (false, false);
    for byte in doc.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            // Every value but the outermost follows one of these.
            b',' | b'[' | b'{' if !quoted => values += 1,
            _ => {}
        }
    }
    doc.len() + values * VALUE_BYTES
}

fn cut<S: Stored>(items: Vec<S>, order: Order) -> Page<S> {
    let next = items.last().map(|item| key(item, order));
    Page { items, next }
}

fn key<S: Stored>(item: &S, order: Order) -> RowKey {
    let value = if order.by == OrderBy::Id { None } else { item.order_value(order.by) };
    RowKey { value, id: item.id() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_weighs_its_text_and_its_values() {
        for (doc, values) in [
            ("{}", 1),
            (r#"{"a":1}"#, 1),
            (r#"{"a":[1,2,3]}"#, 4),
            (r#"{"a":"[{,","b":"\"{\\"}"#, 2),
            (r#"{"ä":["\\","\"",","]}"#, 4),
        ] {
            assert_eq!(weight(doc), doc.len() + values * VALUE_BYTES, "{doc}");
        }
    }
}
