//! Orders of lists (AIP-132).

use crate::error::Violation;

/// An order of a list. The id breaks ties where there can be any, in the same direction, so every order is total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The field to order by.
    pub by: OrderBy,
    /// True if the greatest comes first.
    pub descending: bool,
}

/// A field that a list can be ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderBy {
    CreateTime,
    Id,
    Name,
    UserId,
}

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

    /// Returns true if no two rows of a list have the same value, so that the id has no ties to break.
    pub const fn is_unique(self) -> bool {
        match self {
            OrderBy::Id | OrderBy::Name => true,
            OrderBy::CreateTime | OrderBy::UserId => false,
        }
    }
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
}
