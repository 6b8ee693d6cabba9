//! The tables, one file each: the columns, and for some the finder of the rows of a tenant. There is no logic here.

#![expect(unreachable_pub, reason = "the derive macro makes public items")]

/// The items of a table that sea-orm needs. Relations are not used: queries join by columns.
macro_rules! no_relations {
    () => {
        #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
        pub enum Relation {}

        impl ActiveModelBehavior for ActiveModel {}
    };
}
use no_relations;

pub(crate) mod application;
pub(crate) mod audit_event;
pub(crate) mod authorization_session;
pub(crate) mod configuration;
pub mod connection;
pub mod connector;
pub(crate) mod connector_event;
pub mod credential;
pub(crate) mod credential_source;
pub(crate) mod data_key;
pub(crate) mod idempotency;
pub(crate) mod key;
pub mod label;
pub(crate) mod login_attempt;
pub(crate) mod permission_grant;
pub(crate) mod refresh_attempt;
pub(crate) mod refresh_lease;
pub(crate) mod rewrap;
pub(crate) mod routing_policy;
pub(crate) mod routing_target;
pub mod secret;
pub(crate) mod session;
pub(crate) mod tenant;
pub(crate) mod user;
pub(crate) mod user_connector;
pub(crate) mod user_pin;
