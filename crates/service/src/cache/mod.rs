//! Copies in memory of what the database holds.

pub(crate) mod connectors;
pub(crate) mod freshness;
pub(crate) mod tenant_names;
pub(crate) mod tokens;
