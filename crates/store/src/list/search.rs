//! The index of words: trigrams of the texts that bare words are looked up in. It finds rows that may have a word; the
//! condition of the filter decides whether they do.
//!
//! PostgreSQL has a GIN index for each table. SQLite has one FTS5 table for all, in which a row has its `search_number`: the
//! number of the tenant, of the resource, and of the row among these. So a lookup stays within bounds in which no other
//! tenant has rows, and rows of other tenants cost nothing.

use jackfield_domain::request::filter::Expr as Filter;
use jackfield_domain::{Resource, Result};
use sea_orm::sea_query::extension::sqlite::SqliteExpr;
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Query, SelectStatement};
use sea_orm::{ConnectionTrait, DbBackend};

use super::field::FilterContext;
use super::listed::Listed;
use crate::database::postgres::transaction::Mode;
use crate::database::{Pooled, error};
use crate::entity::tenant;
use crate::transaction::Transaction;

/// The words that a row must have to match a filter, as far as the index can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Terms {
    All(Vec<Terms>),
    Any(Vec<Terms>),
    Word(String),
}

/// The number of letters that are indexed together.
const GRAM: usize = 3;
/// The most trigrams of a word that are looked up in SQLite: rows that have all of these hardly ever lack the word.
const MAX_GRAMS: usize = 32;
/// The most rows that may have the words: more rows are found sooner by their keys, page by page.
const MANY_ROWS: u64 = 5_000;
/// The longest time that PostgreSQL may look for rows by words, in milliseconds. Words that take longer are in so many rows
/// that these are found sooner by their keys.
const TIMEOUT: u64 = 500;

const INDEX: &str = "search_index";
const NUMBER: &str = "search_number";
/// The bits of the number of a row within its tenant and resource.
const ROW_BITS: u32 = 36;
/// The bits of the number of a row and of its resource within its tenant.
const TENANT_BITS: u32 = 40;

/// The terms of a filter that the index can look up; `None` if there are none.
pub(crate) fn terms(filter: &Filter, backend: DbBackend) -> Option<Terms> {
    let terms = |filter| terms(filter, backend);
    match filter {
        Filter::Word(word) => knows(word, backend).then(|| Terms::Word(word.clone())),
        Filter::And(all) => {
            let known: Vec<Terms> = all.iter().filter_map(terms).collect();
            (!known.is_empty()).then_some(Terms::All(known))
        }
        Filter::Or(any) => any.iter().map(terms).collect::<Option<_>>().map(Terms::Any),
        Filter::Not(_) | Filter::Compare { .. } | Filter::MapCompare { .. } | Filter::Present { .. } => None,
    }
}

/// Returns whether the index can look a word up. PostgreSQL leaves out characters that are neither letters nor digits.
pub(crate) fn knows(word: &str, backend: DbBackend) -> bool {
    match backend {
        DbBackend::Sqlite => word.chars().count() >= GRAM,
        _ => word.split(|c: char| !c.is_alphanumeric()).any(|run| run.chars().count() >= GRAM),
    }
}

/// The condition that a row is among those that the index of SQLite finds.
pub(crate) fn condition<S: Listed>(terms: &Terms, context: &FilterContext) -> Expr {
    Expr::col((S::Table::default(), Alias::new(NUMBER))).in_subquery(numbers::<S>(terms, context))
}

/// Returns whether the index of SQLite finds so many rows that they are found sooner by their keys.
pub(crate) async fn are_many<S: Listed>(conn: &Pooled, terms: &Terms, context: &FilterContext) -> Result<bool> {
    let mut some = numbers::<S>(terms, context);
    some.limit(MANY_ROWS + 1);
    let count = Query::select()
        .expr_as(Expr::col(Alias::new("rowid")).count(), Alias::new("count"))
        .from_subquery(some, Alias::new("some"))
        .to_owned();
    let row = conn.query_one(&count).await.map_err(error::from_db)?;
    let count = row.map(|row| row.try_get::<i64>("", "count")).transpose().map_err(error::from_db)?;
    Ok(count.and_then(|count| u64::try_from(count).ok()).is_some_and(|count| count > MANY_ROWS))
}

/// A transaction in which PostgreSQL uses the index of words or gives up. Otherwise it estimates how many rows have a word,
/// and reads all rows where the estimate is wrong.
pub(crate) async fn begin(conn: &Pooled) -> Result<Transaction> {
    let txn = Transaction::begin(conn, Mode::Read).await.map_err(error::from_db)?;
    txn.execute_unprepared(&settings()).await.map_err(error::from_db)?;
    Ok(txn)
}

pub(crate) fn settings() -> String {
    format!(
        "SET LOCAL statement_timeout = {TIMEOUT}; SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off; \
         SET LOCAL enable_indexonlyscan = off; SET LOCAL plan_cache_mode = force_custom_plan"
    )
}

/// The search numbers of rows of a list that have trigrams.
fn numbers<S: Listed>(terms: &Terms, context: &FilterContext) -> SelectStatement {
    let number = || Expr::col(Alias::new("rowid"));
    let first = || {
        if S::ACROSS_TENANTS {
            return Expr::val(0_i64);
        }
        let of_tenant = Expr::col((tenant::Entity, Alias::new(NUMBER))).mul(1_i64 << TENANT_BITS);
        let select = Query::select()
            .expr(of_tenant.add(i64::from(kind(S::RESOURCE)) << ROW_BITS))
            .from(tenant::Entity)
            .and_where(Expr::col((tenant::Entity, tenant::Column::Id)).eq(context.tenant.0))
            .to_owned();
        Expr::from(select)
    };
    Query::select()
        .expr(number())
        .from(Alias::new(INDEX))
        .and_where(Expr::col(Alias::new(INDEX)).matches(expression(terms)))
        .and_where(number().gt(first()))
        .and_where(number().lt(first().add(1_i64 << ROW_BITS)))
        .to_owned()
}

/// The number of a resource in search numbers. The migration that makes its index has the same.
const fn kind(resource: Resource) -> u8 {
    match resource {
        Resource::Key => 1,
        Resource::Connector => 2,
        Resource::Connection => 3,
        Resource::UserConnector => 4,
        Resource::Credential => 5,
        Resource::Configuration => 6,
        Resource::User => 7,
        Resource::Application => 8,
        Resource::PermissionGrant => 9,
        Resource::Session => 10,
        Resource::ConnectorEvent => 11,
        // Tenants come before all rows within a tenant. The others are not listed.
        Resource::AuthorizationSession
        | Resource::CredentialSource
        | Resource::Tenant
        | Resource::Rewrap
        | Resource::RoutingPolicy
        | Resource::RoutingRule => 0,
    }
}

/// The terms in the language of FTS5: trigrams, quoted, so that no character in them has a meaning.
fn expression(terms: &Terms) -> String {
    let join = |parts: &[Terms], word: &str| parts.iter().map(expression).collect::<Vec<_>>().join(word);
    match terms {
        Terms::All(all) => format!("({})", join(all, " AND ")),
        Terms::Any(any) => format!("({})", join(any, " OR ")),
        Terms::Word(word) => {
            let quoted: Vec<_> = grams(word).iter().map(|gram| format!("\"{}\"", gram.replace('"', "\"\""))).collect();
            format!("({})", quoted.join(" AND "))
        }
    }
}

/// The trigrams of a word, each once; of a long word, some trigrams that are spread over it.
fn grams(word: &str) -> Vec<String> {
    let chars: Vec<char> = word.chars().collect();
    let mut grams: Vec<String> = Vec::new();
    let count = chars.len().saturating_sub(GRAM - 1);
    for gram in chars.windows(GRAM).step_by(count.div_ceil(MAX_GRAMS)) {
        let gram = gram.iter().collect();
        if !grams.contains(&gram) {
            grams.push(gram);
        }
    }
    grams
}

#[cfg(test)]
mod tests {
    use jackfield_domain::request::filter::parse;
    use jackfield_domain::request::schema::{Field, FieldKind, Schema};

    use super::*;

    const SCHEMA: Schema = Schema {
        resource: Resource::Connector,
        fields: &[Field { name: "name", kind: FieldKind::NameText }],
        orders: &[],
    };

    fn asked(filter: &str) -> Option<String> {
        terms(&parse(filter, &SCHEMA).unwrap().unwrap(), DbBackend::Sqlite).as_ref().map(expression)
    }

    #[test]
    fn the_terms_of_a_filter_are_looked_up() {
        for (filter, expected) in [
            ("Mail", Some(r#"("mai" AND "ail")"#)),
            ("aaaaa", Some(r#"("aaa")"#)),
            (r#"'a"b'"#, Some(r#"("a""b")"#)),
            ("gröss", Some(r#"("grö" AND "rös" AND "öss")"#)),
            ("ab", None),
            ("abc ab", Some(r#"(("abc"))"#)),
            ("abc def", Some(r#"(("abc") AND ("def"))"#)),
            ("abc OR def", Some(r#"(("abc") OR ("def"))"#)),
            ("abc OR ab", None),
            ("abc OR name:x", None),
            ("abc name:x", Some(r#"(("abc"))"#)),
            ("(abc OR ab) def", Some(r#"(("def"))"#)),
            ("NOT abc", None),
            ("-abc def", Some(r#"(("def"))"#)),
            ("name = abc", None),
        ] {
            assert_eq!(asked(filter).as_deref(), expected, "{filter}");
        }
    }

    #[test]
    fn a_part_of_a_long_word_is_looked_up() {
        let word: String = (0..2_000_u32).filter_map(|i| char::from_u32(0x4e00 + i)).collect();
        let grams = grams(&word);
        assert!(grams.len() <= MAX_GRAMS && grams.len() > MAX_GRAMS / 2, "{}", grams.len());
        assert!(grams.iter().all(|gram| word.contains(gram.as_str())));
    }

    #[test]
    fn postgres_knows_letters_and_digits_only() {
        for (word, known) in
            [("abc", true), ("a-b", false), ("ab-cd", false), ("-123-", true), ("...", false), ("große", true)]
        {
            assert_eq!(knows(word, DbBackend::Postgres), known, "{word}");
        }
    }
}
