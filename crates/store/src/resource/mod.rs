//! Resources as rows: one file each, with its columns and the queries that only it has.

mod application;
pub(crate) mod cascade;
mod configuration;
mod connection;
mod connector;
mod connector_event;
mod credential;
pub(crate) mod identity;
pub(crate) mod issuable;
mod key;
mod permission_grant;
mod session;
mod tenant;
mod user;
mod user_connector;
