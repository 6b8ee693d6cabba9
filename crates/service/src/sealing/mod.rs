//! Secrets of resources: sealed with a data key of their tenant on the way into the database, opened on the way out.

pub(crate) mod data_keys;
pub(crate) mod material;
pub(crate) mod passwords;
pub(crate) mod secrets;
