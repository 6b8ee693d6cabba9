//! Persistence: one sea-orm code path over embedded SQLite and PostgreSQL. sea-orm is used in this crate only.
//!
//! Reads go through [`Store::read`], writes through [`Store::write`]. Only a [`Writer`] has methods that change rows, so a
//! change outside a transaction does not compile. Methods that all resources share are generic (`find::<Connector>`,
//! `insert`, `page`); others begin with the resource (`connector_delete`). Methods take the tenant, or the
//! address of a secret, first; those of the deployment (tenants, data keys, re-wraps) have none. A method with `_for_update` locks the
//! row until the transaction ends.
//!
//! Facts that queries need are columns; the whole of a resource is one document in `doc` (see `document.rs`). Secrets are in a
//! table of their own and are sealed before they come here.

mod backup;
mod check;
mod crud;
mod database;
mod document;
mod entity;
mod error;
mod generations;
mod list;
mod migration;
mod record;
mod resource;
mod row;
mod session;
mod store;
mod stored;
#[cfg(feature = "test-support")]
pub mod test_support;
mod transaction;

pub use database::connect::Database;
pub use database::error::is_locked;
pub use database::postgres::url as postgres_url;
pub use database::{Pool, PoolSettings, Pooled};
pub use document::damaged_rows;
pub use error::StoreError;
pub use generations::{Dependencies, Generations, Snapshot};
#[cfg(feature = "test-support")]
pub use list::plan::PageStep;
pub use list::{Hints, Listed, Page, PageQuery, Rows, Scope};
pub use record::audit::AuditEvent;
pub use record::data_key::DataKeyRow;
pub use record::device_poll::{DueAuthorization, PollLease};
pub use record::idempotency::{IdempotencyClaim, IdempotencyKey};
pub use record::login_attempt::AttemptKey;
pub use record::refresh::{DueCredential, LeftAttempt, RefreshLease};
pub use record::secret::SecretRow;
pub use resource::cascade::CascadeIds;
pub use resource::identity::{IdenticalCredential, IdentityMark};
pub use resource::issuable::IssuableCredential;
pub use session::{Reader, Session, Writer};
pub use store::Store;
pub use stored::Stored;
#[cfg(feature = "test-support")]
pub use test_support::Planned;
pub use transaction::Transaction;
