//! Paging: requests for lists, and the keys at which pages begin.
//!
//! Lists are read by keyset: a page begins after the key of the last row of the page before, so rows that come and go in
//! between neither shift nor hide others.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::filter::Expr;
use super::order::Order;
use crate::error::Violation;

/// A checked request for a list of `T`.
#[derive(Debug)]
pub struct ListRequest<T> {
    /// Items per page, 1 to 1,000.
    pub page_size: u32,
    /// Items in the whole stream; `None` = to the end.
    pub limit: Option<u64>,
    /// The page token as the caller sent it; empty = from the beginning.
    pub page_token: String,
    /// The filter.
    pub filter: Option<Expr>,
    /// The order.
    pub order: Order,
    /// The items of the list.
    pub listed: PhantomData<fn() -> T>,
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

/// Items per page if the caller does not say how many.
pub const DEFAULT_PAGE_SIZE: u32 = 100;
/// The most items per page; a larger number is reduced to this (AIP-158).
pub const MAX_PAGE_SIZE: u32 = 1_000;
/// A page is cut before its items exceed this many bytes, so that a message fits gRPC's default limit of 4 MiB.
pub const MAX_PAGE_BYTES: usize = 3 * 1024 * 1024;

/// Checks `page_size` and `limit` (AIP-158): 0 = default, too many = the most; negative is invalid.
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
    fn sizes_follow_aip_158() {
        assert_eq!(parse_sizes(0, 0), (Ok(100), Ok(None)));
        assert_eq!(parse_sizes(5_000, 7), (Ok(1_000), Ok(Some(7))));
        assert!(parse_sizes(-1, 0).0.is_err() && parse_sizes(1, -1).1.is_err());
    }
}
