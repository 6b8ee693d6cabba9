//! Persistence: one sea-orm code path over embedded SQLite and PostgreSQL. sea-orm is used in this crate only.
//!
//! Reads go through [`Store::read`], writes through [`Store::write`]; only a [`Writer`] has methods that change rows, so
//! a change outside a transaction does not compile. Methods are named noun first (`connector_fetch`, `connector_page`),
//! every one takes the tenant first, and `_for_update` locks the row until the transaction ends.
//!
//! Facts that queries need are columns; the rest of a resource is one JSON document in `doc`. Secrets are in a table of
//! their own and come here sealed.

mod audit;
mod backend;
mod check;
mod configuration;
mod connection;
mod connector;
mod credential;
mod data_key;
mod derived;
mod entity;
mod error;
mod file;
mod filter;
mod group;
mod idempotency;
mod key;
mod label;
mod migration;
mod page;
mod pool;
mod pooled;
mod postgres_pool;
mod postgres_session;
mod postgres_txn;
pub mod postgres_url;
mod rewrap;
mod row;
mod search;
mod secret;
mod session;
mod stamps;
mod tenant;
#[cfg(feature = "test-support")]
pub mod test_support;
mod traced;
mod transaction;
mod usable;
mod user_connector;
mod wal;

pub use audit::AuditEvent;
pub use backend::{Database, PoolSettings};
pub use connector::Cascade;
pub use data_key::DataKeyRow;
pub use idempotency::{Claim, RequestKey};
pub use page::{Hints, Page, PageQuery, Rows, Scope};
pub use pool::Pool;
pub use pooled::Pooled;
pub use rewrap::{RewrapRow, RewrapState};
pub use row::damaged_rows;
pub use secret::SecretRow;
pub use session::{Reader, Session, Store, StoreError, Writer};
pub use stamps::{Basis, Moment, Stamps};
#[cfg(feature = "test-support")]
pub use test_support::{PageStep, Planned};
pub use transaction::Transaction;
pub use usable::UsableCredential;
