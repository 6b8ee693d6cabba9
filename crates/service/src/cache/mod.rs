//! Copies in memory of what the database holds.

pub(crate) mod tenant_names;
pub(crate) mod tokens;
