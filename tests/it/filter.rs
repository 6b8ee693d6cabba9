//! Filters, on both databases.
