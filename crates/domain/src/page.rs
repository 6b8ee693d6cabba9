//! Paging: what a list asks for, in which order, and where it goes on.
//!
//! Lists are read by keyset: a page begins behind the key of the last row of the page before, so rows that come and go
//! in between neither shift nor hide others.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Violation;
use crate::filter::Expr;

/// What a list request asks for, checked.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// Items per page, 1 to 1,000.
    pub page_size: u32,
    /// Items in the whole stream; `None` = to the end.
    pub limit: Option<u64>,
    /// Where to go on, as the caller sent it; empty = at the beginning.
    pub page_token: String,
    /// Which items.
    pub filter: Option<Expr>,
    /// In which order.
    pub order: Order,
}

/// An order of a list. The id breaks ties where there can be any, in the same direction, so every order is total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What to order by.
    pub by: OrderBy,
    /// Whether the greatest comes first.
    pub descending: bool,
}

/// What a list can be ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderBy {
    CreateTime,
    Id,
    Name,
    UserId,
}

/// The place of a row in an order: the value of the ordering column and the id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowKey {
    /// Value of the ordering column as the database compares it; `Id` orders have none.
    pub value: Option<OrderValue>,
    /// Id of the row.
    pub id: Uuid,
}

/// A value of an ordering column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderValue {
    Text(String),
    Time(i64),
}

/// Items per page when the caller does not say.
pub const DEFAULT_PAGE_SIZE: u32 = 100;
/// Items per page at most; more is cut to this (AIP-158).
pub const MAX_PAGE_SIZE: u32 = 1_000;
/// A page is cut before its items exceed this many bytes, so that a message fits gRPC's default limit of 4 MiB.
pub const MAX_PAGE_BYTES: usize = 3 * 1024 * 1024;

// === impl Order ===

impl Order {
    /// Parses `order_by` (AIP-132): one of the allowed fields, optionally followed by "asc" or "desc"; empty = by id.
    pub fn parse(text: &str, allowed: &[OrderBy]) -> Result<Self, Violation> {
        let mut words = text.split_ascii_whitespace();
        let Some(field) = words.next() else {
            return Ok(Order { by: OrderBy::Id, descending: false });
        };
        let by = allowed.iter().copied().find(|by| by.as_str() == field);
        let descending = match words.next() {
            None | Some("asc") => Some(false),
            Some("desc") => Some(true),
            Some(_) => None,
        };
        match (by, descending, words.next()) {
            (Some(by), Some(descending), None) => Ok(Order { by, descending }),
            _ => {
                let fields: Vec<_> = allowed.iter().map(|by| format!("\"{}\"", by.as_str())).collect();
                let description = format!("must be one of {}, optionally followed by \" desc\"", fields.join(", "));
                Err(Violation::field("order_by", description))
            }
        }
    }
}

// === impl OrderBy ===

impl OrderBy {
    /// The name of the field in `order_by`.
    pub const fn as_str(self) -> &'static str {
        match self {
            OrderBy::CreateTime => "create_time",
            OrderBy::Id => "id",
            OrderBy::Name => "name",
            OrderBy::UserId => "user_id",
        }
    }

    /// Whether no two rows of a list have the same value, so that the id has no ties to break.
    pub const fn is_unique(self) -> bool {
        match self {
            OrderBy::Id | OrderBy::Name => true,
            OrderBy::CreateTime | OrderBy::UserId => false,
        }
    }
}

/// Checks `page_size` and `limit` (AIP-158): 0 = default, too many = the most, negative is invalid.
pub fn parse_sizes(page_size: i32, limit: i32) -> (Result<u32, Violation>, Result<Option<u64>, Violation>) {
    let page_size = match u32::try_from(page_size) {
        Ok(0) => Ok(DEFAULT_PAGE_SIZE),
        Ok(size) => Ok(size.min(MAX_PAGE_SIZE)),
        Err(_) => Err(Violation::field("page_size", "must not be negative")),
    };
    let limit = match u64::try_from(limit) {
        Ok(0) => Ok(None),
        Ok(limit) => Ok(Some(limit)),
        Err(_) => Err(Violation::field("limit", "must not be negative")),
    };
    (page_size, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_parse_with_direction_and_extra_blanks() {
        let allowed = [OrderBy::Id, OrderBy::Name];
        let by_name = |descending| Ok(Order { by: OrderBy::Name, descending });
        assert_eq!(Order::parse("", &allowed), Ok(Order { by: OrderBy::Id, descending: false }));
        assert_eq!(Order::parse("  name   desc ", &allowed), by_name(true));
        assert_eq!(Order::parse("name asc", &allowed), by_name(false));
        for wrong in ["create_time", "name up", "name desc desc", "name, id", "Name"] {
            assert!(Order::parse(wrong, &allowed).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_follow_aip_158() {
        assert_eq!(parse_sizes(0, 0), (Ok(100), Ok(None)));
        assert_eq!(parse_sizes(5_000, 7), (Ok(1_000), Ok(Some(7))));
        assert!(parse_sizes(-1, 0).0.is_err() && parse_sizes(1, -1).1.is_err());
    }
}
