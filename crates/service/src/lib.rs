//! The use cases. Here, and only here, a row and a key meet: store and vault never see each other. No wire types come in;
//! requests arrive parsed and answers leave as domain types.

mod caller;
mod configurations;
mod connections;
mod connectors;
mod credentials;
mod data_keys;
mod gauges;
mod keys;
mod links;
mod material;
mod mutation;
mod open;
mod pager;
mod rewrap;
mod secrets;
mod tenant_names;
mod tenants;
mod token_cache;
mod tokens;
mod verify;
mod x509;

pub use caller::Caller;
pub use configurations::ConfigurationRef;
pub use connections::ConnectionDeleted;
pub use connectors::ConnectorDeleted;
pub use credentials::CredentialDeleted;
pub use gauges::{Gauges, RewrapProgress};
pub use mutation::{Deletion, Expected, Mutation, RequestId};
pub use open::{OpenError, ServerInfo, Services, Settings};
pub use pager::{FoundPage, Listable, ListedPage, Pager, Place};
pub use token_cache::TokenCacheSettings;
pub use tokens::Revealed;
pub use verify::{Verified, VerifyError};

/// What the configuration of the store looks like, and what it tells of itself.
pub use jackfield_store::{Database, Pool, PoolSettings, RewrapRow, RewrapState, Scope, StoreError, postgres_url};
/// Keyrings, for the commands that manage them.
pub use jackfield_vault::{KeyInfo, KeyState, Keyring, KeyringError, Vault, provider as keyring_provider, sha256_of};
