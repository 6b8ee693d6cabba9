//! Two tenants never notice each other.
